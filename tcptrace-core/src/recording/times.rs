//! The times of a block: each as its difference to the one before it, in as few bits as it needs.

use super::varint::Bad;

/// Bits of the length that stands before each difference.
const LENGTH: u32 = 4;
/// Up to so many bits a difference has one length.
const SHORT: u32 = 8;
/// The least of longer ones.
const LONGER: u32 = SHORT + 1;
/// Lengths of longer ones count from here, one for each bit; the top bit is not written.
const EXACT: u32 = 2;
/// The longest of these.
const LONGEST: u32 = 20;
/// 32 bits follow.
const LONG: u64 = 14;
/// 64 bits follow: the difference is large, or below 0.
const WHOLE: u64 = 15;

/// The writer's side.
#[derive(Debug, Default)]
pub(super) struct Writer {
    before: u64,
    /// Bits that fill no byte yet, the lowest first.
    bits: u64,
    count: u32,
}

impl Writer {
    /// Appends a time.
    pub(super) fn put(&mut self, at: u64, out: &mut Vec<u8>) {
        let step = at.wrapping_sub(self.before);
        self.before = at;
        let width = u64::BITS - step.leading_zeros();
        match width {
            0 => self.bits(0, LENGTH, out),
            1..=SHORT => self.bits(1 | step << LENGTH, LENGTH + SHORT, out),
            LONGER..=LONGEST => {
                let length = u64::from(width - LONGER + EXACT);
                let rest = step & !(1 << (width - 1));
                self.bits(length | rest << LENGTH, LENGTH + width - 1, out);
            }
            _ if width <= 32 => self.bits(LONG | step << LENGTH, LENGTH + 32, out),
            _ => {
                self.bits(WHOLE | (step & 0xffff_ffff) << LENGTH, LENGTH + 32, out);
                self.bits(step >> 32, 32, out);
            }
        }
    }

    /// Fills the last byte with zeros, and begins anew.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        if self.count > 0 {
            out.push(self.bits as u8);
        }
        *self = Writer::default();
    }

    fn bits(&mut self, value: u64, width: u32, out: &mut Vec<u8>) {
        self.bits |= value << self.count;
        self.count += width;
        while self.count >= u8::BITS {
            out.push(self.bits as u8);
            self.bits >>= u8::BITS;
            self.count -= u8::BITS;
        }
    }
}

/// The reader's side.
#[derive(Debug, Default)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    /// How many bits were read.
    place: usize,
    before: u64,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader {
            bytes,
            place: 0,
            before: 0,
        }
    }

    /// The next time.
    ///
    /// # Errors
    /// If there are not so many bits.
    pub(super) fn next(&mut self) -> Result<u64, Bad> {
        let next = self.peek();
        let length = next & ((1 << LENGTH) - 1);
        let next = next >> LENGTH;
        let low = |width: u32| next & ((1 << width) - 1);
        let (step, width) = match length {
            0 => (0, 0),
            1 => (low(SHORT), SHORT),
            LONG => (low(32), 32),
            WHOLE => {
                self.skip(LENGTH + 32)?;
                let high = self.peek() & 0xffff_ffff;
                self.skip(32)?;
                let step = high << 32 | low(32);
                self.before = self.before.wrapping_add(step);
                return Ok(self.before);
            }
            length => {
                let width = length as u32 - EXACT + SHORT;
                (1 << width | low(width), width)
            }
        };
        self.skip(LENGTH + width)?;
        self.before = self.before.wrapping_add(step);
        Ok(self.before)
    }

    /// The next bits, 57 of them at least, zeros behind the end.
    fn peek(&self) -> u64 {
        let rest = self.bytes.get(self.place / 8..).unwrap_or_default();
        let word = match rest.first_chunk() {
            Some(word) => u64::from_le_bytes(*word),
            None => {
                let mut word = [0; 8];
                word[..rest.len()].copy_from_slice(rest);
                u64::from_le_bytes(word)
            }
        };
        word >> (self.place % 8)
    }

    fn skip(&mut self, bits: u32) -> Result<(), Bad> {
        self.place += bits as usize;
        match self.place <= 8 * self.bytes.len() {
            true => Ok(()),
            false => Err(Bad::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(times: &[u64]) -> Vec<u8> {
        let (mut writer, mut out) = (Writer::default(), Vec::new());
        times.iter().for_each(|at| writer.put(*at, &mut out));
        writer.finish(&mut out);
        out
    }

    proptest! {
        #[test]
        fn times_come_back(steps in prop::collection::vec((0u32..=64, any::<u64>()), 0..50)) {
            let step = |(width, any): &(u32, u64)| any.checked_shr(64 - width).unwrap_or(0);
            let times: Vec<u64> = steps
                .iter()
                .map(step)
                .scan(0u64, |at, step| {
                    *at = at.wrapping_add(step);
                    Some(*at)
                })
                .collect();
            let bytes = written(&times);
            let mut reader = Reader::new(&bytes);
            for at in times {
                prop_assert_eq!(reader.next(), Ok(at));
            }
        }
    }

    /// As docs/format.md has it.
    #[test]
    fn each_length_has_its_bits() {
        for (step, bytes) in [
            (0, &[0x00][..]),
            (1, &[0x11, 0x00]),
            (0xff, &[0xf1, 0x0f]),
            (0x100, &[0x02, 0x00]),
            (0x1ff, &[0xf2, 0x0f]),
            (0xf_ffff, &[0xfd, 0xff, 0x7f]),
            (0x10_0000, &[0x0e, 0x00, 0x00, 0x01, 0x00]),
            (1 << 32, &[0x0f, 0, 0, 0, 0x10, 0, 0, 0, 0]),
            (
                u64::MAX,
                &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f],
            ),
        ] {
            assert_eq!(written(&[step]), bytes, "{step:x}");
        }
    }

    #[test]
    fn a_time_that_is_cut_is_refused() {
        assert_eq!(Reader::new(&[]).next(), Err(Bad::Malformed));
        assert_eq!(Reader::new(&[0x01]).next(), Err(Bad::Malformed));
        let mut reader = Reader::new(&[0x0f; 8]);
        assert_eq!(reader.next(), Err(Bad::Malformed));
    }
}

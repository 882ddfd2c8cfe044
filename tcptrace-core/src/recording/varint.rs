//! Numbers in as few bytes as they need, and a cursor that never reads past its end.

/// Why bytes cannot be read as what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Bad {
    /// They break the format: nothing that follows in the block can be trusted.
    #[error("malformed")]
    Malformed,
    /// They are whole, but of a kind or with a value that this version does not know.
    #[error("unknown to this version")]
    Unknown,
}

/// Appends an unsigned number: seven bits per byte, the lowest first.
pub(super) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends the difference of two numbers, modulo 2^64: small in both directions is short.
pub(super) fn put_delta(out: &mut Vec<u8>, value: u64, before: u64) {
    let delta = value.wrapping_sub(before) as i64;
    put(out, ((delta << 1) ^ (delta >> 63)) as u64);
}

/// Appends a number that may be unknown: 0, or the number plus one.
pub(super) fn put_option(out: &mut Vec<u8>, value: Option<u32>) {
    put(out, value.map_or(0, |v| u64::from(v) + 1));
}

/// Appends a length and as many bytes.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// What is left to be read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor(bytes)
    }

    /// How many bytes are left.
    pub(super) fn left(&self) -> usize {
        self.0.len()
    }

    /// All that is left.
    pub(super) fn all(&self) -> &'a [u8] {
        self.0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], Bad> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Bad::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Bad> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Bad::Malformed)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Bad> {
        let (first, rest) = self.0.split_first().ok_or(Bad::Malformed)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(super) fn number(&mut self) -> Result<u64, Bad> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(Bad::Malformed);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Bad::Malformed)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Bad> {
        u32::try_from(self.number()?).map_err(|_| Bad::Malformed)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Bad> {
        u16::try_from(self.number()?).map_err(|_| Bad::Malformed)
    }

    pub(super) fn delta(&mut self, before: u64) -> Result<u64, Bad> {
        let zigzag = self.number()?;
        let delta = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
        Ok(before.wrapping_add(delta as u64))
    }

    pub(super) fn option(&mut self) -> Result<Option<u32>, Bad> {
        match self.number()? {
            0 => Ok(None),
            n => u32::try_from(n - 1).map(Some).map_err(|_| Bad::Malformed),
        }
    }

    /// How many things follow that take at least `least` bytes each.
    pub(super) fn count(&mut self, least: usize) -> Result<usize, Bad> {
        let count = usize::try_from(self.number()?).map_err(|_| Bad::Malformed)?;
        match count <= self.left() / least {
            true => Ok(count),
            false => Err(Bad::Malformed),
        }
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Bad> {
        let len = self.count(1)?;
        self.take(len)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_come_back(value: u64, before: u64, option: Option<u32>) {
            let mut out = Vec::new();
            put(&mut out, value);
            put_delta(&mut out, value, before);
            put_option(&mut out, option);
            let mut cursor = Cursor::new(&out);
            prop_assert_eq!(cursor.number(), Ok(value));
            prop_assert_eq!(cursor.delta(before), Ok(value));
            prop_assert_eq!(cursor.option(), Ok(option));
            prop_assert!(cursor.is_empty());
        }
    }

    #[test]
    fn what_is_near_is_short() {
        for (value, before, len) in [
            (5, 5, 1),
            (4, 5, 1),
            (68, 5, 1),
            (69, 5, 2),
            (0, u64::MAX, 1),
        ] {
            let mut out = Vec::new();
            put_delta(&mut out, value, before);
            assert_eq!(out.len(), len, "{value} after {before}");
        }
    }

    #[test]
    fn a_number_that_is_too_long_or_cut_is_refused() {
        let too_long = [0xff; 9].iter().copied().chain([2]).collect::<Vec<u8>>();
        for bytes in [&too_long[..], &[0xff; 11], &[0x80], &[]] {
            assert_eq!(
                Cursor::new(bytes).number(),
                Err(Bad::Malformed),
                "{bytes:?}"
            );
        }
        assert_eq!(Cursor::new(&[200, 1, 0]).bytes(), Err(Bad::Malformed));
    }
}

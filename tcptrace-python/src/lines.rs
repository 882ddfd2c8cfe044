//! From the place in the byte code to the line: the three tables that CPython has had.

/// Which table a code object has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineTable {
    /// `co_lnotab`, to 3.9: pairs of how far the byte code and the line go.
    Pairs,
    /// `co_linetable` of 3.10 (PEP 626): pairs of a range's length and its line's difference.
    Ranges,
    /// `co_linetable` from 3.11 (PEP 657): entries of several forms, with columns.
    Locations,
}

impl LineTable {
    /// The line of the instruction at byte `at`. Before the first instruction it is the line of the
    /// definition. There is none where the compiler gave none.
    pub(crate) fn line(self, table: &[u8], first: i32, at: i64) -> Option<u32> {
        let line = if at < 0 {
            Some(i64::from(first))
        } else {
            match self {
                LineTable::Pairs => Some(pairs(table, i64::from(first), at)),
                LineTable::Ranges => ranges(table, i64::from(first), at),
                LineTable::Locations => locations(table, i64::from(first), at),
            }
        };
        line.and_then(|line| u32::try_from(line).ok())
            .filter(|line| *line != 0)
    }
}

fn pairs(table: &[u8], first: i64, at: i64) -> i64 {
    let mut line = first;
    let mut end = 0;
    for pair in table.chunks_exact(2) {
        end += i64::from(pair[0]);
        if end > at {
            break;
        }
        line += i64::from(pair[1].cast_signed());
    }
    line
}

fn ranges(table: &[u8], first: i64, at: i64) -> Option<i64> {
    const NO_LINE: i8 = -128;
    let mut line = first;
    let mut end = 0;
    for pair in table.chunks_exact(2) {
        end += i64::from(pair[0]);
        let difference = pair[1].cast_signed();
        if difference != NO_LINE {
            line += i64::from(difference);
        }
        if end > at {
            return (difference != NO_LINE).then_some(line);
        }
    }
    None
}

fn locations(table: &[u8], first: i64, at: i64) -> Option<i64> {
    const NO_LOCATION: u8 = 15;
    const LONG: u8 = 14;
    const NO_COLUMNS: u8 = 13;
    const ONE_LINE: std::ops::RangeInclusive<u8> = 10..=12;

    let mut line = first;
    let mut end = 0;
    let mut rest = table;
    while let Some((&head, tail)) = rest.split_first() {
        rest = tail;
        let form = head >> 3 & 15;
        end += 2 * (i64::from(head & 7) + 1);
        line = line.wrapping_add(match form {
            LONG | NO_COLUMNS => signed(&mut rest),
            form if ONE_LINE.contains(&form) => i64::from(form - 10),
            _ => 0,
        });
        if end > at {
            return (form != NO_LOCATION).then_some(line);
        }
        // An entry starts with the byte that has the highest bit, and no other byte has it.
        let next = rest.iter().position(|byte| byte & 0x80 != 0)?;
        rest = &rest[next..];
    }
    None
}

/// A number of six bits a byte, lowest first, whose lowest bit is the sign.
fn signed(rest: &mut &[u8]) -> i64 {
    let mut number = 0u64;
    let mut shift = 0;
    while let Some((&byte, tail)) = rest.split_first() {
        *rest = tail;
        number |= u64::from(byte & 63).checked_shl(shift).unwrap_or(0);
        shift += 6;
        if byte & 64 == 0 {
            break;
        }
    }
    let size = (number >> 1 & 0xffff_ffff) as i64;
    if number & 1 == 0 { size } else { -size }
}

#[cfg(test)]
mod tests {
    use super::LineTable::{Locations, Pairs, Ranges};
    use proptest::prelude::*;

    #[test]
    fn pairs_go_forward_and_back() {
        let table = [0, 1, 8, 3, 6, 254];
        assert_eq!(Pairs.line(&table, 10, -1), Some(10));
        assert_eq!(Pairs.line(&table, 10, 0), Some(11));
        assert_eq!(Pairs.line(&table, 10, 7), Some(11));
        assert_eq!(Pairs.line(&table, 10, 8), Some(14));
        assert_eq!(Pairs.line(&table, 10, 99), Some(12));
    }

    #[test]
    fn ranges_may_have_no_line() {
        let table = [4, 1, 2, 128, 6, 2];
        assert_eq!(Ranges.line(&table, 10, 2), Some(11));
        assert_eq!(Ranges.line(&table, 10, 4), None);
        assert_eq!(Ranges.line(&table, 10, 6), Some(13));
        assert_eq!(Ranges.line(&table, 10, 12), None);
    }

    #[test]
    fn locations_have_many_forms() {
        // Two units one line on, one unit of the same line (short), none, a long one 70 lines on.
        let table = [
            0x80 | 11 << 3 | 1,
            4,
            9,
            0x80 | 1,
            0x22,
            0x80 | 15 << 3,
            0x80 | 14 << 3,
            64 | 12,
            2,
            0,
            1,
            1,
            0x80 | 13 << 3,
            3,
        ];
        assert_eq!(Locations.line(&table, 10, 0), Some(11));
        assert_eq!(Locations.line(&table, 10, 2), Some(11));
        assert_eq!(Locations.line(&table, 10, 4), Some(11));
        assert_eq!(Locations.line(&table, 10, 8), None);
        assert_eq!(Locations.line(&table, 10, 10), Some(81));
        assert_eq!(Locations.line(&table, 10, 12), Some(80));
        assert_eq!(Locations.line(&table, 10, 14), None);
    }

    proptest! {
        #[test]
        fn no_table_is_too_odd(
            table in prop::collection::vec(any::<u8>(), 0..300),
            first in any::<i32>(),
            at in any::<i64>(),
        ) {
            for form in [Pairs, Ranges, Locations] {
                form.line(&table, first, at);
            }
        }
    }
}

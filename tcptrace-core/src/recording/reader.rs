//! Any bytes to what is left of a recording in them.

use super::block::{HEADER_BYTES, Header, SYNC, kind};
use super::decode::{decode_columns, decode_rows};
use super::session::Session;
use super::varint::{Bad, Cursor};
use super::{Ending, MAGIC, MAJOR, PREAMBLE_BYTES};
use crate::input::Input;

/// Reads recordings, one after the other, as their bytes come.
#[derive(Debug, Default)]
pub struct Reader {
    /// Bytes that were not read yet, from `start` on.
    bytes: Vec<u8>,
    start: usize,
    /// No more bytes will come.
    whole: bool,
    /// A preamble was read, so that these are bytes of a recording.
    begun: bool,
    /// In the midst of damage, which was counted when it began.
    lost: bool,
    /// What began last was not whole when the bytes ended.
    cut: bool,
    /// The number that the next block should have.
    next_number: u32,
    room: Vec<u8>,
    tally: Tally,
}

/// What was read, and what was not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Inputs.
    pub inputs: u64,
    /// Whole blocks.
    pub blocks: u64,
    /// Bytes that are no part of a whole block.
    pub lost_bytes: u64,
    /// Places at which something is missing.
    pub gaps: u64,
    /// Records and blocks of kinds that a later version has added.
    pub unknown: u64,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub enum Item {
    /// More bytes are needed.
    More,
    /// A file begins.
    Session(Box<Session>),
    /// Inputs were appended.
    Inputs,
    /// Something is missing here.
    Gap,
    /// A file ends as its writer meant it to.
    End(Ending),
    /// All bytes were read.
    Done,
}

/// Why bytes are not read at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// They do not begin as a recording does.
    #[error("not a recording of tcptrace")]
    NoRecording,
    /// A later version of the program wrote them.
    #[error("a recording of format {0}, and this tcptrace reads up to format {MAJOR}")]
    Newer(u16),
}

impl Reader {
    /// A reader of nothing yet.
    pub fn new() -> Reader {
        Reader::default()
    }

    /// Takes bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        // What was read makes room.
        self.bytes.drain(..self.start);
        self.start = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// No more bytes will come.
    pub fn finish(&mut self) {
        self.whole = true;
    }

    /// What was read so far, and what was not.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Whether the bytes end in the midst of a block, or before the first one of a file.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// What comes next. Inputs are appended to `inputs`.
    ///
    /// # Errors
    /// If this is no recording, or not one that can be read.
    pub fn next(&mut self, inputs: &mut Vec<Input>) -> Result<Item, Refusal> {
        loop {
            let left = &self.bytes[self.start..];
            if left.is_empty() {
                return Ok(if self.whole { Item::Done } else { Item::More });
            }
            // Enough to tell what follows, unless there is no more.
            if left.len() < HEADER_BYTES && !self.whole {
                return Ok(Item::More);
            }
            let begins = left.starts_with(&MAGIC) || (self.whole && MAGIC.starts_with(left));
            let found = match begins {
                true => self.preamble()?,
                false if self.begun => self.block(inputs),
                false if left.len() < PREAMBLE_BYTES + HEADER_BYTES && !self.whole => {
                    return Ok(Item::More);
                }
                // Its first bytes are damaged, and the first block is not.
                false if block_at(left, PREAMBLE_BYTES) => Found::Damage,
                false => return Err(Refusal::NoRecording),
            };
            self.begun = true;
            match found {
                Found::Item(item) => {
                    self.lost = false;
                    return Ok(item);
                }
                Found::Nothing => self.lost = false,
                Found::More => return Ok(Item::More),
                Found::Damage => {
                    self.skip();
                    if !self.lost {
                        self.lost = true;
                        self.tally.gaps += 1;
                        return Ok(Item::Gap);
                    }
                }
            }
        }
    }

    fn preamble(&mut self) -> Result<Found, Refusal> {
        self.cut = true;
        let left = &self.bytes[self.start..];
        let Some((preamble, _)) = left.split_first_chunk::<PREAMBLE_BYTES>() else {
            return Ok(Found::Damage);
        };
        let crc = u32::from_le_bytes([preamble[12], preamble[13], preamble[14], preamble[15]]);
        let major = u16::from_le_bytes([preamble[8], preamble[9]]);
        if crc32fast::hash(&preamble[..12]) != crc {
            return Ok(Found::Damage);
        }
        if major > MAJOR || major == 0 {
            return Err(Refusal::Newer(major));
        }
        self.start += PREAMBLE_BYTES;
        self.next_number = 0;
        Ok(Found::Nothing)
    }

    fn block(&mut self, inputs: &mut Vec<Input>) -> Found {
        let left = &self.bytes[self.start..];
        self.cut = self.whole;
        let Some((header, rest)) = left.split_first_chunk::<HEADER_BYTES>() else {
            return Found::Damage;
        };
        let Some(header) = Header::read(header) else {
            self.cut = false;
            return Found::Damage;
        };
        let stored = header.stored as usize;
        let Some(stored) = rest.get(..stored) else {
            return match self.whole {
                true => Found::Damage,
                false => Found::More,
            };
        };
        self.cut = false;
        let Some(payload) = header.payload(stored, &mut self.room) else {
            return Found::Damage;
        };
        // Whole blocks are missing before this one: they cannot be counted in bytes.
        if header.number > self.next_number && !self.lost {
            self.next_number = header.number;
            self.tally.gaps += 1;
            return Found::Item(Item::Gap);
        }
        let item = match header.kind {
            kind::SESSION => match Session::decode(payload) {
                Ok(session) => Found::Item(Item::Session(Box::new(session))),
                Err(_) => return Found::Damage,
            },
            kind::ROWS | kind::COLUMNS => {
                let before = inputs.len();
                let decoded = match header.kind {
                    kind::ROWS => decode_rows(payload, inputs),
                    _ => decode_columns(payload, inputs),
                };
                let known = (inputs.len() - before) as u64;
                match decoded {
                    Ok(unknown) if known + unknown == u64::from(header.records) => {
                        self.tally.unknown += unknown;
                        self.tally.inputs += known;
                    }
                    _ => {
                        // Its writer was wrong: no part of it is believed.
                        inputs.truncate(before);
                        return Found::Damage;
                    }
                }
                Found::Item(Item::Inputs)
            }
            kind::END => match ending(payload) {
                Ok(ending) => Found::Item(Item::End(ending)),
                Err(_) => return Found::Damage,
            },
            _ => {
                self.tally.unknown += 1;
                Found::Nothing
            }
        };
        self.start += HEADER_BYTES + header.stored as usize;
        self.next_number = header.number.wrapping_add(1);
        self.tally.blocks += 1;
        item
    }

    /// Passes what is damaged: up to where a block or a file may begin.
    fn skip(&mut self) {
        let left = &self.bytes[self.start..];
        let begins = |at: &usize| {
            let rest = &left[*at..];
            rest.starts_with(&SYNC) || rest.starts_with(&MAGIC)
        };
        let longest = SYNC.len().max(MAGIC.len());
        let to = (1..left.len())
            .find(begins)
            .unwrap_or_else(|| match self.whole {
                true => left.len(),
                // A mark may be cut here.
                false => left.len().saturating_sub(longest - 1).max(1),
            });
        self.start += to;
        self.tally.lost_bytes += to as u64;
    }
}

/// Whether a block begins there.
fn block_at(bytes: &[u8], at: usize) -> bool {
    let header = bytes.get(at..).and_then(|b| b.split_first_chunk());
    header.is_some_and(|(header, _)| Header::read(header).is_some())
}

/// What stands at a place.
enum Found {
    Item(Item),
    /// Something that is passed in silence.
    Nothing,
    /// More bytes are needed to tell.
    More,
    /// Nothing that can be read.
    Damage,
}

fn ending(payload: &[u8]) -> Result<Ending, Bad> {
    Ok(match Cursor::new(payload).number()? {
        0 => Ending::Ended,
        _ => Ending::Continued,
    })
}

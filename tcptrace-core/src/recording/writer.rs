//! Inputs to bytes. Nothing here writes a file: blocks are appended to a buffer, and the owner of
//! the file decides when.

use super::block::{self, kind};
use super::context::Known;
use super::encode::encode;
use super::session::Session;
use super::varint::put;
use super::{Ending, FULL_BLOCK_BYTES, preamble};
use crate::input::Input;

/// Writes one file of a recording.
#[derive(Debug)]
pub struct Writer {
    /// The open block.
    known: Known,
    open_records: u32,
    /// The number of the next block.
    number: u32,
    records: u64,
}

/// An input that no block has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an input of {0} bytes is too long for a recording")]
pub struct TooLong(pub(super) usize);

impl Writer {
    /// Begins a file: what stands before its first input is appended to `out`.
    pub fn begin(session: &Session, out: &mut Vec<u8>) -> Writer {
        out.extend_from_slice(&preamble());
        // Twice: without it nothing that follows is of use.
        let payload = session.encode();
        for number in 0..2 {
            block::put(kind::SESSION, number, 0, &payload, out);
        }
        Writer {
            known: Known::default(),
            open_records: 0,
            number: 2,
            records: 0,
        }
    }

    /// Takes an input into the open block, which the caller closes when it is full.
    ///
    /// # Errors
    /// If it is longer than half of what a block may be; then it is not in the block.
    pub fn append(&mut self, input: &Input) -> Result<(), TooLong> {
        encode(input, &mut self.known)?;
        self.open_records += 1;
        self.records += 1;
        Ok(())
    }

    /// Bytes in the open block: what is lost if the program ends here.
    pub fn pending(&self) -> usize {
        self.known.columns.bytes()
    }

    /// Whether the open block is long enough to be closed.
    pub fn is_full(&self) -> bool {
        self.pending() >= FULL_BLOCK_BYTES
    }

    /// How many inputs were taken.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Closes the open block, if there is anything in it, and appends it to `out`.
    pub fn flush(&mut self, out: &mut Vec<u8>) {
        if self.open_records == 0 {
            return;
        }
        let payload = self.known.finish();
        block::put(kind::COLUMNS, self.number, self.open_records, &payload, out);
        self.number += 1;
        self.open_records = 0;
    }

    /// Ends the file: what is left is appended to `out`.
    pub fn end(mut self, ending: Ending, out: &mut Vec<u8>) {
        self.flush(out);
        let mut payload = Vec::new();
        put(
            &mut payload,
            match ending {
                Ending::Ended => 0,
                Ending::Continued => 1,
            },
        );
        put(&mut payload, self.records);
        block::put(kind::END, self.number, 0, &payload, out);
    }
}

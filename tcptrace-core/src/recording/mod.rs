//! Recordings: the inputs of the tracker as bytes, and back. `docs/format.md` is the norm, and says
//! what each byte is; here it is done, without files and without a clock.
//!
//! [`Writer`] turns inputs into blocks, [`Reader`] turns any bytes into what is left of them. A
//! block can be read by itself: what is torn or damaged loses its own block, and no other.

mod block;
mod columns;
mod context;
mod decode;
mod encode;
mod numbers;
mod ports;
mod reader;
mod session;
mod times;
mod varint;
mod within;
mod writer;

pub use reader::{Item, Reader, Refusal, Tally};
pub use session::{Capture, Session};
pub use writer::{TooLong, Writer};

/// The first bytes of a file.
pub const MAGIC: [u8; 8] = *b"\x89TCPT\r\n\x1a";
/// A reader of another major version cannot read it.
pub const MAJOR: u16 = 1;
/// What was added since the major version; a reader of a lower one skips it.
pub const MINOR: u16 = 3;
/// Length of what stands before the first block.
pub const PREAMBLE_BYTES: usize = 16;

/// No block has a longer payload, compressed or not.
pub const MAX_BLOCK_BYTES: usize = 4 << 20;
/// A block is closed when its records have so many bytes.
pub const FULL_BLOCK_BYTES: usize = 64 << 10;

/// How a file ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The recording ends with it.
    Ended,
    /// Another file goes on.
    Continued,
}

/// The preamble of this version.
fn preamble() -> [u8; PREAMBLE_BYTES] {
    let mut bytes = [0; PREAMBLE_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..10].copy_from_slice(&MAJOR.to_le_bytes());
    bytes[10..12].copy_from_slice(&MINOR.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..12]);
    bytes[12..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

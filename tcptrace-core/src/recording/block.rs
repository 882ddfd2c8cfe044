//! A block: a header of fixed length with a checksum of its own, and a payload with another.

use super::MAX_BLOCK_BYTES;

/// What a block begins with: where to look for the next one after damage.
pub(super) const SYNC: [u8; 4] = *b"\xb1TCB";
/// Length of a block's header.
pub(super) const HEADER_BYTES: usize = 32;

/// The payload as it is.
const STORED: u8 = 0;
/// The payload in LZ4's block format.
const LZ4: u8 = 1;

/// What a block holds.
pub(super) mod kind {
    /// How the recording was taken.
    pub(in super::super) const SESSION: u8 = 1;
    /// Inputs, one behind the other.
    pub(in super::super) const ROWS: u8 = 2;
    /// Nothing follows in this file.
    pub(in super::super) const END: u8 = 3;
    /// Inputs, in columns.
    pub(in super::super) const COLUMNS: u8 = 4;
}

/// The header of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: u8,
    codec: u8,
    /// Its number in the file, from 0.
    pub(super) number: u32,
    /// How many records it holds.
    pub(super) records: u32,
    /// Length of the payload once decompressed.
    raw: u32,
    /// Length of the payload as it stands.
    pub(super) stored: u32,
    payload_crc: u32,
}

/// Appends a block.
pub(super) fn put(kind: u8, number: u32, records: u32, payload: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + HEADER_BYTES, 0);
    let codec = compress(payload, out);
    let stored = &out[start + HEADER_BYTES..];
    let numbers = [
        number,
        records,
        payload.len() as u32,
        stored.len() as u32,
        crc32fast::hash(stored),
    ];
    let header = &mut out[start..start + HEADER_BYTES];
    header[..4].copy_from_slice(&SYNC);
    header[4] = kind;
    header[5] = codec;
    for (field, number) in header[8..28].chunks_exact_mut(4).zip(numbers) {
        field.copy_from_slice(&number.to_le_bytes());
    }
    let crc = crc32fast::hash(&header[..28]);
    header[28..].copy_from_slice(&crc.to_le_bytes());
}

/// Appends the payload, compressed if that makes it shorter; gives how.
fn compress(payload: &[u8], out: &mut Vec<u8>) -> u8 {
    let start = out.len();
    out.resize(
        start + lz4_flex::block::get_maximum_output_size(payload.len()),
        0,
    );
    match lz4_flex::block::compress_into(payload, &mut out[start..]) {
        Ok(length) if length < payload.len() => {
            out.truncate(start + length);
            LZ4
        }
        _ => {
            out.truncate(start);
            out.extend_from_slice(payload);
            STORED
        }
    }
}

impl Header {
    /// Reads a header; `None`: these bytes are none, or a damaged one.
    pub(super) fn read(bytes: &[u8; HEADER_BYTES]) -> Option<Header> {
        let number = |at: usize| {
            let field = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
            u32::from_le_bytes(field)
        };
        if bytes[..4] != SYNC || crc32fast::hash(&bytes[..28]) != number(28) {
            return None;
        }
        let header = Header {
            kind: bytes[4],
            codec: bytes[5],
            number: number(8),
            records: number(12),
            raw: number(16),
            stored: number(20),
            payload_crc: number(24),
        };
        let most = MAX_BLOCK_BYTES as u32;
        (header.raw <= most && header.stored <= most).then_some(header)
    }

    /// The payload, decompressed into `room`; `None`: it is damaged.
    pub(super) fn payload<'a>(&self, stored: &'a [u8], room: &'a mut Vec<u8>) -> Option<&'a [u8]> {
        if crc32fast::hash(stored) != self.payload_crc {
            return None;
        }
        let raw = self.raw as usize;
        match self.codec {
            STORED => (stored.len() == raw).then_some(stored),
            LZ4 => {
                // No more than LZ4 can make of so much: a header that lies costs no memory.
                if raw / 255 > stored.len() {
                    return None;
                }
                room.resize(raw, 0);
                let length = lz4_flex::block::decompress_into(stored, room).ok()?;
                (length == raw).then_some(&room[..])
            }
            _ => None,
        }
    }
}

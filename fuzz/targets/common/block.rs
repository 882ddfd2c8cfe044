//! A file with one block, whatever is in it: its checksums are right.

use tcptrace_core::recording::MAGIC;

/// How many columns a block has.
const COLUMNS: usize = 13;
/// What stands between columns: a byte inserted in one moves no other.
const BETWEEN: u8 = 0xff;

/// A file with one block. The first byte is how many records it claims, and the rest its payload.
/// `choice` tells its kind (bits 4 and 5: in columns, session, end, rows), whether it is compressed
/// (bit 6: two bytes before the payload are its length when decompressed), and, where it is not,
/// whether the columns are to be given their lengths (bit 7).
pub fn framed(choice: u8, bytes: &[u8]) -> Vec<u8> {
    let (records, payload) = bytes.split_first().unwrap_or((&0, &[]));
    let kind = [4, 1, 3, 2][usize::from(choice >> 4 & 3)];
    let records = u32::from(*records);
    match (choice & 0x40 != 0, payload.split_first_chunk()) {
        (true, Some((raw, stored))) => block(kind, 1, records, u16::from_le_bytes(*raw), stored),
        _ if choice & 0x80 != 0 => {
            let payload = columns(payload);
            block(kind, 0, records, payload.len() as u16, &payload)
        }
        _ => block(kind, 0, records, payload.len() as u16, payload),
    }
}

/// Columns with their lengths before them.
fn columns(bytes: &[u8]) -> Vec<u8> {
    let mut payload = vec![COLUMNS as u8];
    let mut parts = bytes.splitn(COLUMNS, |byte| *byte == BETWEEN);
    for _ in 0..COLUMNS {
        let part = parts.next().unwrap_or_default();
        let part = &part[..part.len().min(0x3fff)];
        payload.extend([part.len() as u8 | 0x80, (part.len() >> 7) as u8]);
        payload.extend(part);
    }
    payload
}

fn block(kind: u8, codec: u8, records: u32, raw: u16, stored: &[u8]) -> Vec<u8> {
    let mut file = MAGIC.to_vec();
    file.extend([1, 0, 0, 0]);
    file.extend(crc32fast::hash(&file).to_le_bytes());
    let mut header = b"\xb1TCB".to_vec();
    header.extend([kind, codec, 0, 0]);
    let (length, crc) = (stored.len() as u32, crc32fast::hash(stored));
    for field in [0, records, u32::from(raw), length, crc] {
        header.extend(field.to_le_bytes());
    }
    header.extend(crc32fast::hash(&header).to_le_bytes());
    file.extend(header);
    file.extend(stored);
    file
}

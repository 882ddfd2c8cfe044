//! Blocks of a pcapng file (draft-ietf-opsawg-pcapng), little-endian.

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const ENHANCED_PACKET: u32 = 6;

const BYTE_ORDER: u32 = 0x1a2b_3c4d;
/// `LINKTYPE_RAW`: a packet begins with its IPv4 or IPv6 header.
const RAW: u16 = 101;
/// Timestamps are in 10^-9 s.
const NANOSECONDS: u8 = 9;

const OPT_COMMENT: u16 = 1;
const SHB_OS: u16 = 3;
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;

/// What the file begins with.
pub(super) fn section(comment: &str, os: &str, program: &str, out: &mut Vec<u8>) {
    let mut body = Vec::new();
    body.extend(BYTE_ORDER.to_le_bytes());
    body.extend([1, 0, 0, 0]);
    // Its length is not known.
    body.extend(u64::MAX.to_le_bytes());
    option(OPT_COMMENT, comment.as_bytes(), &mut body);
    option(SHB_OS, os.as_bytes(), &mut body);
    option(SHB_USERAPPL, program.as_bytes(), &mut body);
    block(SECTION_HEADER, body, out);
}

/// An interface; the first is 0.
pub(super) fn interface(name: &str, out: &mut Vec<u8>) {
    let mut body = Vec::new();
    body.extend(RAW.to_le_bytes());
    body.extend([0; 2]);
    // No packet was cut.
    body.extend(0u32.to_le_bytes());
    option(IF_NAME, name.as_bytes(), &mut body);
    option(IF_TSRESOL, &[NANOSECONDS], &mut body);
    block(INTERFACE, body, out);
}

/// A packet, with its time in ns since 1970.
pub(super) fn packet(interface: u32, ns: u64, data: &[u8], comment: &str, out: &mut Vec<u8>) {
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut body = Vec::new();
    body.extend(interface.to_le_bytes());
    body.extend(((ns >> 32) as u32).to_le_bytes());
    body.extend((ns as u32).to_le_bytes());
    body.extend(length.to_le_bytes());
    body.extend(length.to_le_bytes());
    body.extend(data);
    pad(&mut body);
    option(OPT_COMMENT, comment.as_bytes(), &mut body);
    block(ENHANCED_PACKET, body, out);
}

fn option(code: u16, value: &[u8], body: &mut Vec<u8>) {
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    body.extend(code.to_le_bytes());
    body.extend(length.to_le_bytes());
    body.extend(&value[..usize::from(length)]);
    pad(body);
}

/// Ends the options, and puts the body between its two lengths.
fn block(kind: u32, mut body: Vec<u8>, out: &mut Vec<u8>) {
    body.extend([0; 4]);
    let length = u32::try_from(body.len() + 12).unwrap_or(u32::MAX);
    out.extend(kind.to_le_bytes());
    out.extend(length.to_le_bytes());
    out.extend(body);
    out.extend(length.to_le_bytes());
}

fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

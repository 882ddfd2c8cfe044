//! Files of later versions, made byte by byte as docs/format.md has it, without the encoder.

use tcptrace_core::input::{Input, Loss, Sweep};
use tcptrace_core::recording::{Ending, Refusal};
use tcptrace_core::time::Mono;

use crate::{Read, read};

fn preamble(major: u16, minor: u16) -> Vec<u8> {
    let mut bytes = b"\x89TCPT\r\n\x1a".to_vec();
    bytes.extend(major.to_le_bytes());
    bytes.extend(minor.to_le_bytes());
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

/// A block whose payload is not compressed.
pub(crate) fn block(kind: u8, number: u32, records: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = b"\xb1TCB".to_vec();
    bytes.extend([kind, 0, 0, 0]);
    let length = payload.len() as u32;
    for field in [number, records, length, length, crc32fast::hash(payload)] {
        bytes.extend(field.to_le_bytes());
    }
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes.extend(payload);
    bytes
}

/// A number, a length below 128, and as many bytes.
fn item(number: u8, value: &[u8]) -> Vec<u8> {
    [&[number, value.len() as u8], value].concat()
}

fn session() -> Vec<u8> {
    [
        item(1, b"0123456789abcdef"),
        item(2, &[1]),
        item(4, b"full"),
        item(5, &[1]),
        // The kernel had something that we do not know of, and a longer anchor.
        item(99, b"?"),
        item(3, &[[7; 16], [0; 16]].concat()),
    ]
    .concat()
}

#[test]
fn what_a_later_minor_version_adds_is_passed() {
    // The times of the records of known kinds: 5, 5 and 9.
    let times = [3, 10, 0, 8];
    let records = [
        // A tick with a field of a later version.
        item(17, &[42, 42]),
        // A kind that is not known.
        item(77, &[1, 2, 3]),
        // Losses with a seventh total.
        item(16, &[1, 2, 3, 4, 5, 6, 7]),
        // A socket in a state that is not known, its ends told in full: 1.2.3.4:1 -> 1.2.3.4:2.
        item(
            18,
            &[
                0, 18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 4, 1, 2, 3, 4, 1, 0, 1, 2, 0, 0, 0, 30, 0,
                0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            ],
        ),
        item(19, &[]),
    ];
    let bytes = [
        preamble(1, 7),
        block(1, 0, 0, &session()),
        block(9, 1, 3, b"a kind of block that is not known"),
        block(
            2,
            2,
            records.len() as u32,
            &[&times[..], &records.concat()].concat(),
        ),
        block(3, 3, 0, &[0, 5, 1, 1, 1]),
    ]
    .concat();
    let read = read(&bytes, 50).expect("it is read");
    let loss = Loss {
        ring_full: 1,
        recursion_missed: 2,
        map_full: 3,
        read_faults: 4,
        undecodable: 5,
        mptcp: 6,
    };
    assert_eq!(
        read.inputs,
        [
            Input::Tick(Mono(5)),
            Input::Lost(loss),
            Input::Sweep(Sweep::Begin { at: Mono(9) }),
        ]
    );
    assert_eq!(read.tally.unknown, 3);
    assert_eq!((read.gaps, read.tally.lost_bytes), (0, 0));
    assert_eq!(read.ended, Some(Ending::Ended));
    assert_eq!(read.sessions.len(), 1);
    assert_eq!(read.sessions[0].anchor.mono, Mono(0x0707_0707_0707_0707));
}

#[test]
fn a_later_major_version_is_refused_in_a_line() {
    let refusal = read(&preamble(2, 0), 50);
    assert_eq!(refusal, Err::<Read, _>(Refusal::Newer(2)));
    assert_eq!(
        Refusal::Newer(2).to_string(),
        "a recording of format 2, and this tcptrace reads up to format 1"
    );
}

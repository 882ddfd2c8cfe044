//! Recordings: whatever the bytes are, they are read to their end, and what is in them can be applied.
//!
//! Half of the inputs are taken as the records of a block whose checksums are right: nothing else
//! would ever get past those.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tcptrace_core::filter::Filter;
use tcptrace_core::input::Input;
use tcptrace_core::recording::{Item, MAGIC, Reader};
use tcptrace_core::report::summary_text;
use tcptrace_core::state::StateSet;
use tcptrace_core::tracker::{Minisockets, Options, Tracker};

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else {
        return;
    };
    let inputs = match choice & 1 {
        0 => read(bytes, usize::from(*choice) * 8 + 1),
        _ => read(&framed(bytes), 4_096),
    };
    let mut tracker = Tracker::new(Options {
        filter: Filter {
            states: StateSet::all(),
            ..Filter::default()
        },
        transitions: StateSet::all(),
        by: Vec::new(),
        minisockets: match choice & 2 {
            0 => Minisockets::Seen,
            _ => Minisockets::Sampled,
        },
        overflows_seen: choice & 2 == 0,
        selective: false,
        polled_ns: (choice & 4 != 0).then_some(250_000_000),
        mode: String::new(),
    });
    let mut changes = Vec::new();
    for input in &inputs {
        tracker.apply(input, &mut changes);
    }
    summary_text::to_text(&tracker.summary(), Some(80), true);
});

fn read(bytes: &[u8], piece: usize) -> Vec<Input> {
    let mut reader = Reader::new();
    let mut pieces = bytes.chunks(piece);
    let mut inputs = Vec::new();
    loop {
        match reader.next(&mut inputs) {
            Ok(Item::More) => match pieces.next() {
                Some(piece) => reader.push(piece),
                None => reader.finish(),
            },
            Ok(Item::Done) => break,
            Ok(_) => {}
            Err(_) => return inputs,
        }
    }
    let tally = reader.tally();
    assert!(tally.lost_bytes <= bytes.len() as u64);
    assert_eq!(tally.inputs, inputs.len() as u64);
    inputs
}

/// A file with one block of these records: their number first, then what the block holds.
fn framed(bytes: &[u8]) -> Vec<u8> {
    let (records, payload) = bytes.split_first().unwrap_or((&0, &[]));
    let mut file = MAGIC.to_vec();
    file.extend([1, 0, 0, 0]);
    file.extend(crc32fast::hash(&file).to_le_bytes());
    let mut header = b"\xb1TCB\x02\0\0\0".to_vec();
    let length = payload.len() as u32;
    let crc = crc32fast::hash(payload);
    for field in [0, u32::from(*records), length, length, crc] {
        header.extend(field.to_le_bytes());
    }
    header.extend(crc32fast::hash(&header).to_le_bytes());
    file.extend(header);
    file.extend(payload);
    file
}

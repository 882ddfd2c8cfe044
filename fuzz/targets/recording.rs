//! Recordings: whatever the bytes are, they are read to their end, and all of them are accounted for.
//!
//! The first byte of an input chooses: nothing but whole files would ever get past the checksums, so
//! most inputs are taken as the payload of a block whose checksums are right.
#![no_main]

#[path = "common/block.rs"]
mod block;

use libfuzzer_sys::fuzz_target;
use tcptrace_core::input::Input;
use tcptrace_core::recording::{Item, Reader};

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else {
        return;
    };
    let mut inputs = Vec::new();
    match choice & 1 {
        0 => read(bytes, usize::from(*choice) * 8 + 1, &mut inputs),
        _ => read(&block::framed(*choice, bytes), 4_096, &mut inputs),
    }
});

fn read(bytes: &[u8], piece: usize, inputs: &mut Vec<Input>) {
    let mut reader = Reader::new();
    let mut pieces = bytes.chunks(piece);
    loop {
        match reader.next(inputs) {
            Ok(Item::More) => match pieces.next() {
                Some(piece) => reader.push(piece),
                None => reader.finish(),
            },
            Ok(Item::Done) => break,
            Ok(_) => {}
            Err(_) => return,
        }
    }
    let tally = reader.tally();
    assert!(tally.lost_bytes <= bytes.len() as u64);
    assert_eq!(tally.inputs, inputs.len() as u64);
}

//! What a recording may hold, whatever it is: the tracker applies it, with every transition told.
#![no_main]

#[path = "common/block.rs"]
mod block;

use libfuzzer_sys::fuzz_target;
use tcptrace_core::filter::Filter;
use tcptrace_core::recording::{Item, Reader};
use tcptrace_core::report::summary_text;
use tcptrace_core::state::StateSet;
use tcptrace_core::tracker::{Minisockets, Options, Tracker};

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else {
        return;
    };
    let mut inputs = Vec::new();
    let mut reader = Reader::new();
    reader.push(&block::framed(choice & 0xb0, bytes));
    reader.finish();
    while let Ok(Item::Session(_) | Item::Inputs | Item::Gap | Item::End(_)) =
        reader.next(&mut inputs)
    {}
    if inputs.is_empty() {
        return;
    }
    let mut tracker = Tracker::new(Options {
        filter: Filter {
            states: StateSet::all(),
            ..Filter::default()
        },
        transitions: StateSet::all(),
        by: Vec::new(),
        minisockets: match choice & 1 {
            0 => Minisockets::Seen,
            _ => Minisockets::Sampled,
        },
        overflows_seen: choice & 1 == 0,
        stacks: choice & 4 != 0,
        ledgers: true,
        selective: false,
        polled_ns: (choice & 2 != 0).then_some(250_000_000),
        mode: String::new(),
    });
    let mut changes = Vec::new();
    for input in &inputs {
        tracker.apply(input, &mut changes);
    }
    // Costs more than all before it.
    if choice & 0x4c == 0x4c {
        summary_text::to_text(&tracker.summary(), Some(80), true);
    }
});

//! Does one piece of work once, inside a function whose instructions callgrind can count apart:
//! `valgrind --tool=callgrind --toggle-collect='*measured*' counted encode 4000`. Prints
//! `{"records", "bytes"}` of the load.
#![expect(clippy::print_stdout, reason = "its output")]

use std::hint::black_box;

use tcptrace_bench::{Load, Work};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (work, connections) = match &args[..] {
        [work, connections] => (Work::named(work), connections.parse().ok()),
        _ => (None, None),
    };
    let (Some(work), Some(connections)) = (work, connections) else {
        let names = Work::ALL.map(Work::name).join(" | ");
        eprintln!("usage: counted {names} CONNECTIONS");
        std::process::exit(2);
    };
    let load = Load::new(connections);
    measured(&load, work);
    let (records, bytes) = (load.records(), load.bytes());
    println!(r#"{{"records":{records},"bytes":{bytes}}}"#);
}

#[inline(never)]
fn measured(load: &Load, work: Work) {
    black_box(black_box(load).run(black_box(work)));
}

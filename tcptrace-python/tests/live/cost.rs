//! What a stack costs.

use std::time::Instant;

use tcptrace_python::Interpreters;

use crate::python::{Program, asleep, pythons};

#[test]
fn a_stack_costs_a_bounded_number_of_reads() {
    for python in pythons() {
        for function in ["connect", "run_asyncio", "recursion", "threads"] {
            let mut program = Program::start(&python, "truth.py", &[function]);
            let truth = program.truth();
            let mut interpreters = Interpreters::new();
            let stack = asleep(&mut interpreters, truth.pid, truth.tid);
            let start = Instant::now();
            let found = Interpreters::new().find(truth.pid).unwrap();
            let first = start.elapsed();
            let start = Instant::now();
            interpreters.find(truth.pid).unwrap();
            let again = start.elapsed();
            let mut rounds: Vec<_> = (0..201)
                .map(|_| {
                    let start = Instant::now();
                    found.frames(truth.tid).unwrap();
                    start.elapsed()
                })
                .collect();
            rounds.sort();
            let (least, median) = (rounds[0], rounds[100]);
            eprintln!(
                "{} {function}: {} frames, {} reads, {median:?} ({least:?}) a stack; found in {first:?}, again in {again:?}",
                found.version(),
                stack.frames.len(),
                stack.reads,
            );
            assert!(stack.reads as usize <= 40 + 20 * stack.frames.len());
        }
    }
}

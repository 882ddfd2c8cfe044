//! A thread that runs on while it is read: what is said to be consistent is.

use std::time::{Duration, Instant};

use tcptrace_python::{Interpreters, Stack};

use crate::python::{Program, pythons};

/// The family and depth of a function `f<family>_<depth>` of `churn.py`.
fn place(function: &str) -> Option<(u32, u32)> {
    let (family, depth) = function.strip_prefix('f')?.split_once('_')?;
    Some((family.parse().ok()?, depth.parse().ok()?))
}

/// Each function has its own line, and a comprehension that of the function it is in.
fn lines_are_right(stack: &Stack) -> bool {
    let mut outer = None;
    let functions = stack
        .frames
        .iter()
        .filter(|frame| frame.file == "churn" && frame.function != "run");
    functions.rev().all(|frame| {
        outer = place(&frame.function).or(outer);
        outer.is_some_and(|(family, depth)| frame.line == Some(1000 * (family + 1) + 10 * depth))
    })
}

/// Each function is called by one other, and each family from its own line of `run`.
fn calls_are_right(stack: &Stack) -> bool {
    let places: Vec<_> = stack
        .frames
        .iter()
        .filter_map(|frame| place(&frame.function))
        .collect();
    let run = stack.frames.iter().find(|frame| frame.function == "run");
    places
        .windows(2)
        .all(|pair| pair[0].0 == pair[1].0 && pair[0].1 == pair[1].1 + 1)
        && places.last().is_none_or(|(family, depth)| {
            *depth == 0 && run.is_some_and(|run| run.line == Some(100 + family))
        })
}

#[derive(Debug, Default)]
struct Counts {
    answers: u32,
    errors: u32,
    consistent: u32,
    slept: u32,
    torn: u32,
    wrong_calls: u32,
}

impl Counts {
    /// To judge what happens once in a thousand, and of a thread that sleeps.
    fn are_enough(&self, nap: &str) -> bool {
        self.consistent >= 2_000 && (nap == "0" || self.slept > 0)
    }
}

fn churn(nap: &str, depth: &str) {
    for python in pythons() {
        let mut program = Program::start(&python, "churn.py", &[nap, depth]);
        let truth = program.truth();
        let interpreter = Interpreters::new().find(truth.pid).expect("a Python");
        let mut counts = Counts::default();
        let start = Instant::now();
        let (some_time, no_more) = (Duration::from_millis(500), Duration::from_secs(60));
        // However little time a busy machine gives to either of both.
        while start.elapsed() < some_time || !counts.are_enough(nap) {
            assert!(start.elapsed() < no_more, "{counts:?}");
            counts.answers += 1;
            let Ok(stack) = interpreter.frames(truth.tid) else {
                counts.errors += 1;
                continue;
            };
            counts.consistent += u32::from(stack.consistent);
            counts.slept += u32::from(stack.slept);
            counts.torn += u32::from(!calls_are_right(&stack));
            if stack.slept {
                assert!(
                    lines_are_right(&stack) && calls_are_right(&stack),
                    "{stack:#?}"
                );
            }
            if stack.consistent {
                assert!(lines_are_right(&stack), "{}: {stack:#?}", python.display());
                if !calls_are_right(&stack) {
                    counts.wrong_calls += 1;
                    let calls = stack
                        .frames
                        .iter()
                        .map(|frame| (&frame.function, frame.line));
                    eprintln!("deceived: {:?}", calls.collect::<Vec<_>>());
                }
            }
        }
        eprintln!(
            "{} nap {nap} depth {depth}: {counts:?}",
            interpreter.version()
        );
        assert!(counts.answers > counts.errors);
        // A thread that never sleeps can be deceiving about a caller, but hardly ever is.
        assert!(counts.wrong_calls * 1000 <= counts.consistent, "{counts:?}");
    }
}

#[test]
fn a_thread_that_never_sleeps() {
    churn("0", "8");
}

#[test]
fn a_thread_that_never_sleeps_and_returns_at_once() {
    churn("0", "1");
}

#[test]
fn a_thread_that_naps() {
    churn("0.002", "8");
}

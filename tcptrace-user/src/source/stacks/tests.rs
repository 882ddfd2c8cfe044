//! Recordings of programs that have no end of stacks.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use tcptrace_core::change::Change;
use tcptrace_core::input::{Event, EventBody, StateChange};
use tcptrace_core::recording::{Item, Reader};
use tcptrace_core::stack::{Frame, Point};
use tcptrace_core::state::TcpState;
use tcptrace_core::time::Mono;
use tcptrace_core::tracker::{Options, Tracker};
use tcptrace_core::tuple::Tuple;

use super::*;
use crate::recorder::{Progress, Recorder};

/// An hour of 50 connections a second, each with a stack of its own.
const CONNECTIONS: u64 = 180_000;
const EVERY_NS: u64 = 20_000_000;

/// So many of them are open at a time, and the first for ever.
const OPEN: u64 = 500;

/// Whoever names stacks forgets them after so many.
const NAMED: u64 = 50_000;

const PART: u64 = 1 << 20;

struct Nowhere;

impl Sink for Nowhere {
    fn change(&mut self, _: &Change) -> io::Result<()> {
        Ok(())
    }

    fn pause(&mut self, _: &Tracker, _: Option<Progress>) -> io::Result<bool> {
        Ok(true)
    }
}

fn stack(number: u64) -> Stack {
    let frame = |depth| Frame {
        function: Some(Arc::from(format!("handler_{number}"))),
        line: Some(depth),
        module: Some(Arc::from("/srv/app")),
        ..Frame::default()
    };
    Stack {
        id: StackId(number as u32),
        frames: (0..8).map(frame).collect(),
        cut: None,
    }
}

fn moves(cookie: u64, at: Mono, old: TcpState, new: TcpState) -> Input {
    let port = 1_024 + (cookie % 60_000) as u16;
    let ends = ([10, 0, 0, 1], port).into();
    let tuple = Tuple::new(ends, ([10, 0, 0, 2], 443).into(), Some(1));
    let change = StateChange::new(tuple, old, new);
    Input::Kernel(Event::new(at, cookie, EventBody::State(change)))
}

/// What a part says of stacks: how many it defines, and how many threads it tells of.
fn read(file: &Path) -> (usize, usize) {
    let mut reader = Reader::new();
    reader.push(&fs::read(file).expect("reads"));
    reader.finish();
    let mut inputs = Vec::new();
    while reader.next(&mut inputs).expect("a recording") != Item::Done {}
    let (mut defined, mut seen) = (HashSet::new(), 0);
    for input in inputs {
        match input {
            Input::Define(Definition::Stack(stack)) => {
                assert!(defined.insert(stack.id), "defined twice: {:?}", stack.id);
            }
            Input::Stack(thread) => {
                assert!(defined.contains(&thread.stack), "{thread:?} in {file:?}");
                seen += 1;
            }
            _ => {}
        }
    }
    (defined.len(), seen)
}

#[test]
fn a_part_defines_what_it_needs_and_no_more() {
    let directory = tempfile::tempdir().expect("a directory");
    let recorder = Recorder::rotating(directory.path(), PART);
    let tracker = Tracker::new(Options {
        stacks: true,
        ..Options::default()
    });
    let mut pipeline = Pipeline::new(Some(recorder), tracker, Nowhere);
    let mut defined = Defined::default();
    for number in 0..CONNECTIONS {
        let at = Mono(1 + number * EVERY_NS);
        if number % NAMED == NAMED - 1 {
            defined.forget();
        }
        defined.define(stack(number));
        let (cookie, gone) = (number + 1, (number + 1).saturating_sub(OPEN));
        pipeline.feed(&moves(cookie, at, TcpState::Close, TcpState::SynSent));
        let seen = Seen {
            at,
            cookie,
            point: Point::Connect,
            pid: 7,
            tid: 7,
            stack: StackId(number as u32),
        };
        defined.see(seen, &mut pipeline);
        if gone > 1 {
            pipeline.feed(&moves(gone, at, TcpState::SynSent, TcpState::Close));
        }
        let recorder = pipeline.recorder().expect("it records");
        if recorder.is_due() {
            recorder.rotate();
            defined.introduce(&mut pipeline);
            pipeline.recorder().expect("it records").introduced();
        }
        assert!(defined.stacks.len() as u64 <= NAMED);
        assert!(defined.told.len() as u64 <= NAMED + OPEN);
    }
    let (tracker, _, recorded) = pipeline.into_parts();
    recorded.expect("it records").expect("it was written");
    assert_eq!(tracker.stacks_refused(), 0);
    let (mut parts, mut all) = (0, 0);
    for entry in fs::read_dir(directory.path()).expect("reads") {
        let entry = entry.expect("an entry");
        let bytes = entry.metadata().expect("a file").len();
        assert!(bytes < PART * 5 / 4, "{bytes}");
        let (defined, seen) = read(&entry.path());
        assert_eq!(defined, seen, "no stack is of two threads");
        parts += 1;
        all += seen as u64;
    }
    assert!(parts > 5, "{parts}");
    // Those that were open are told again, and have ended within the time in which a thread may be late.
    let open = parts * (OPEN + 1);
    assert!((CONNECTIONS..CONNECTIONS + open).contains(&all), "{all}");
}

//! What the caches know.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod common;

use std::process::Command;

use common::programs::{C, Program};
use common::{ACCEPT, Running, Taken, have};
use tcptrace_stacks::{Chain, DebugInfo, End, Limits, Stacks};

fn waiting() -> Option<(Program, Running, Taken)> {
    have("gcc").then_some(())?;
    let program = Program::compile("waits.c", C, &["gcc", "-O2", "-g"]);
    let running = Running::start(&mut Command::new(&program.path));
    let taken = running.sample(ACCEPT);
    Some((program, running, taken))
}

#[test]
fn a_stack_is_unwound_once() {
    let Some((_program, _running, taken)) = waiting() else {
        return;
    };
    let mut stacks = Stacks::new(Limits::default());
    assert_eq!(stacks.known(&taken.sample()), None);
    let trace = stacks.trace(&taken.sample());
    assert_eq!(trace.end, End::Root);
    assert_eq!(stacks.known(&taken.sample()), Some(trace.id));
    assert_eq!(stacks.get(trace.id), Some(trace.clone()));
    assert_eq!(
        (stacks.counters().path_hits, stacks.counters().path_misses),
        (0, 1)
    );

    // The same calls on another stack, with other things in what is no address: the same path.
    let mut moved = taken.clone();
    let by = 0x10_0000_u64;
    let place = |word: u64| word.wrapping_sub(taken.regs.sp) < taken.stack.len() as u64;
    let shift = |word: u64| if place(word) { word + by } else { word };
    moved.regs.sp = shift(taken.regs.sp);
    moved.regs.bp = shift(taken.regs.bp);
    for word in moved.stack.chunks_exact_mut(8) {
        let value = u64::from_le_bytes(word.try_into().unwrap());
        word.copy_from_slice(&shift(value).to_le_bytes());
    }
    assert_eq!(stacks.known(&moved.sample()), Some(trace.id));
    assert_eq!(stacks.trace(&moved.sample()), trace);
    assert_eq!(
        (stacks.counters().path_hits, stacks.counters().path_misses),
        (1, 1)
    );

    // A shorter copy has another trace, and is as well known afterwards.
    for bytes in (0..2000).step_by(100) {
        let short = taken.short(bytes);
        let fresh = Stacks::new(Limits::default()).trace(&short);
        let ours = stacks.trace(&short);
        assert_eq!((&ours.frames, &ours.end), (&fresh.frames, &fresh.end));
        assert_eq!(stacks.known(&short), Some(ours.id));
    }

    stacks.forget(taken.process);
    assert_eq!(stacks.known(&taken.sample()), None);
    assert_eq!(stacks.trace(&taken.sample()), trace);
    assert_eq!(stacks.counters().trace_hits, 1);
    assert!(stacks.memory().paths > 0);
}

/// With any word changed, the cache says what a walk says.
#[test]
fn the_cache_finds_what_a_walk_finds() {
    let Some((_program, _running, taken)) = waiting() else {
        return;
    };
    let mut warm = Stacks::new(Limits::default());
    warm.trace(&taken.sample());
    let mut changed = 0;
    for at in (0..taken.stack.len().min(3000)).step_by(56) {
        for value in [0, taken.regs.ip, taken.regs.sp + 800, 1 << 63] {
            let mut other = taken.clone();
            other.stack[at..at + 8].copy_from_slice(&value.to_le_bytes());
            let ours = warm.trace(&other.sample());
            let mut cold = Stacks::with_debug_info(Limits::default(), DebugInfo::none());
            let fresh = cold.trace(&other.sample());
            let ips = |t: &tcptrace_stacks::Trace| {
                let outer = t.frames.iter().filter(|f| !f.inlined);
                (outer.map(|f| f.ip).collect::<Vec<_>>(), t.end.clone())
            };
            assert_eq!(ips(&ours), ips(&fresh), "{at}: {value:#x}");
            changed += usize::from(ours.end != End::Root);
        }
    }
    assert!(changed > 0);
}

#[test]
fn modules_have_a_bound() {
    let Some((_program, _running, taken)) = waiting() else {
        return;
    };
    let limits = Limits {
        module_bytes: 1,
        ..Limits::default()
    };
    let mut stacks = Stacks::new(limits);
    let trace = stacks.trace(&taken.sample());
    assert_eq!(trace.end, End::Root);
    assert!(stacks.counters().modules_evicted > 0);
}

#[test]
fn a_chain_of_addresses_has_the_same_names() {
    let Some((_program, _running, taken)) = waiting() else {
        return;
    };
    let mut stacks = Stacks::new(Limits::default());
    let trace = stacks.trace(&taken.sample());
    let outer = trace.frames.iter().filter(|f| !f.inlined);
    let addresses = outer.map(|f| f.ip).collect::<Vec<_>>();
    let chain = Chain {
        process: taken.process,
        addresses: &addresses,
    };
    let chained = stacks.chain(&chain);
    assert_eq!(chained.end, End::Chain);
    let names = |t: &tcptrace_stacks::Trace| {
        let frames = t.frames.iter();
        frames
            .map(|f| (f.function.clone(), f.line))
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&chained), names(&trace));
    assert_eq!(stacks.chain(&chain).id, chained.id);
}

//! What unwinding costs, and how much of a stack it needs.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod common;

use std::hint::black_box;
use std::process::Command;
use std::time::{Duration, Instant};

use common::programs::{C, CPP, GO, Program, RUST};
use common::runtimes::{self, Needed};
use common::{ACCEPT, ACCEPT4, CONNECT, EPOLL_WAIT, RECVFROM, Running, Taken, have, take};
use tcptrace_stacks::{By, DebugInfo, Limits, Regs, Stacks, Trace};

#[test]
#[ignore = "a measurement of a minute, which asserts nothing: prints the table of docs/stacks.md"]
fn table() {
    eprintln!(
        "| program | frames | named | end | bytes | registers | cold, no debug files, ms | cold ms | walk ns | known ns | modules KiB |"
    );
    eprintln!("|---|---|---|---|---|---|---|---|---|---|---|");
    let native = [
        (
            "C, dynamic, no frame pointers",
            C,
            &["gcc", "-O2", "-fomit-frame-pointer"][..],
            ACCEPT,
        ),
        ("C, static-pie", C, &["gcc", "-O2", "-static-pie"], ACCEPT),
        (
            "C, musl, static",
            C,
            &["musl-gcc", "-O2", "-static"],
            ACCEPT,
        ),
        ("C++, lines", CPP, &["g++", "-O2", "-g"], ACCEPT),
        ("Rust", RUST, &["rustc", "-Copt-level=2"], ACCEPT4),
        (
            "Go, stripped",
            GO,
            &["go", "build", "-ldflags=-s -w"],
            ACCEPT4,
        ),
    ];
    for (name, source, compiler, call) in native {
        if have(compiler[0]) {
            let suffix = ["waits.go", "waits.rs", "waits.cc", "waits.c"];
            let file = suffix[[GO, RUST, CPP, C]
                .iter()
                .position(|s| *s == source)
                .unwrap()];
            let program = Program::compile(file, source, compiler);
            let running = Running::start(&mut Command::new(&program.path));
            line(name, &running.sample(call));
        }
    }
    for (name, option) in [
        ("Java", "-XX:-PreserveFramePointer"),
        ("Java, frame pointers", "-XX:+PreserveFramePointer"),
    ] {
        if let Some((running, _needed)) = runtimes::java(option) {
            line(name, &running.sample(ACCEPT));
        }
    }
    type Start = fn() -> Option<(Running, Needed)>;
    let runtimes: [(&str, Start, u64); 3] = [
        ("python3, recv", runtimes::python_in_recv, RECVFROM),
        ("python3, connect", runtimes::python_in_connect, CONNECT),
        ("nginx", runtimes::nginx, EPOLL_WAIT),
    ];
    for (name, start, call) in runtimes {
        if let Some((running, _needed)) = start() {
            line(name, &running.sample(call));
        }
    }
    if let Some((running, _needed)) = runtimes::node() {
        line("node", &take(running.pid(), running.pid(), 64 * 1024));
        let _ = std::fs::remove_file(format!("/tmp/perf-{}.map", running.pid()));
    }
}

fn line(name: &str, taken: &Taken) {
    let began = Instant::now();
    Stacks::with_debug_info(Limits::default(), DebugInfo::none()).trace(&taken.sample());
    let bare = began.elapsed();
    let mut stacks = Stacks::new(Limits::default());
    let began = Instant::now();
    let trace = stacks.trace(&taken.sample());
    let cold = began.elapsed();
    let known = each(|| stacks.trace(&taken.sample()));
    let memory = stacks.memory().modules / 1024;
    let limits = Limits {
        path_words: 0,
        ..Limits::default()
    };
    let mut walking = Stacks::new(limits);
    walking.trace(&taken.sample());
    let walk = each(|| walking.trace(&taken.sample()));
    let named = trace.frames.iter().filter(|f| f.function.is_some()).count();
    let bytes = (0..).map(|i| i * 256).find(|bytes| {
        let short = walking.trace(&taken.short(*bytes));
        short.frames.len() == trace.frames.len() || *bytes > taken.stack.len()
    });
    eprintln!(
        "| {name} | {} | {named} | {} | {} | {} | {:.1} | {:.1} | {} | {} | {memory} |",
        trace.frames.len(),
        trace.end,
        bytes.unwrap_or_default(),
        registers(taken, &trace),
        bare.as_secs_f64() * 1e3,
        cold.as_secs_f64() * 1e3,
        walk.as_nanos(),
        known.as_nanos(),
    );
    let kept = taken.short(16 * 1024);
    let kept = walking.trace(&kept).frames.len();
    let pointers = trace
        .frames
        .iter()
        .filter(|f| f.by == By::FramePointer)
        .count();
    eprintln!("<!-- by frame pointers: {pointers}; of 16 KiB: {kept} -->");
}

/// The registers without which the trace is another.
fn registers(taken: &Taken, trace: &Trace) -> String {
    type Clear = fn(&mut Regs);
    let all: [(&str, Clear); 6] = [
        ("bp", |r| r.bp = 1),
        ("bx", |r| r.bx = 1),
        ("r12", |r| r.r12 = 1),
        ("r13", |r| r.r13 = 1),
        ("r14", |r| r.r14 = 1),
        ("r15", |r| r.r15 = 1),
    ];
    let mut needed = vec!["ip", "sp"];
    for (name, clear) in all {
        let mut other = taken.clone();
        clear(&mut other.regs);
        let mut stacks = Stacks::with_debug_info(Limits::default(), DebugInfo::none());
        let walked = stacks.trace(&other.sample());
        let outer = |t: &Trace| {
            let frames = t.frames.iter().filter(|f| !f.inlined);
            frames.map(|f| f.ip).collect::<Vec<_>>()
        };
        if outer(&walked) != outer(trace) {
            needed.push(name);
        }
    }
    needed.join(" ")
}

/// The best of several rounds: others use the machine too.
fn each<T>(mut work: impl FnMut() -> T) -> Duration {
    const TIMES: u32 = 200;
    let rounds = (0..20).map(|_| {
        let began = Instant::now();
        for _ in 0..TIMES {
            black_box(work());
        }
        began.elapsed() / TIMES
    });
    rounds.min().unwrap()
}

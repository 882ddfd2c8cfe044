//! Stacks of compiled programs, compared with what a debugger says of them.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod common;

use std::process::Command;

use common::programs::{C, CPP, GO, Program, RUST};
use common::{ACCEPT, ACCEPT4, Running, have, identity, names};
use tcptrace_stacks::{By, Chain, End, Limits, Stacks, Trace};

/// A debugger shows tail calls as frames where the debug information lets it guess them.
const PHYSICAL: &str = "-fno-optimize-sibling-calls";

/// Runs a program into accept(), and compares its stack with the debugger's.
fn same_as_debugger(program: &Program, call: u64) -> (Trace, Vec<String>) {
    let running = Running::start(&mut Command::new(&program.path));
    let taken = running.sample(call);
    let mut stacks = Stacks::new(Limits::default());
    let trace = stacks.trace(&taken.sample());
    let ours = names(&trace);
    let theirs = running.debugger(call);
    assert_eq!(ours, theirs, "{trace:#?}");
    assert_eq!(trace.end, End::Root, "{trace:#?}");
    // The same stack again is not unwound.
    assert_eq!(stacks.trace(&taken.sample()).id, trace.id);
    (Trace::clone(&trace), ours)
}

#[test]
fn c_without_frame_pointers() {
    if !have("gcc") {
        return;
    }
    let options = [
        "gcc",
        "-O2",
        PHYSICAL,
        "-fomit-frame-pointer",
        "-mstackrealign",
        "-mavx",
    ];
    let (trace, names) = same_as_debugger(&Program::compile("waits.c", C, &options), ACCEPT);
    assert_eq!(names.iter().filter(|n| *n == "recurse").count(), 41);
    assert!(trace.frames.iter().skip(1).all(|f| f.by == By::Cfi));
    assert!(
        trace
            .frames
            .iter()
            .all(|f| f.module.is_some() && f.address.is_some())
    );
}

#[test]
fn c_with_lines() {
    if !have("gcc") {
        return;
    }
    let (trace, _) = same_as_debugger(
        &Program::compile("waits.c", C, &["gcc", "-O2", PHYSICAL, "-g"]),
        ACCEPT,
    );
    let wait = trace
        .frames
        .iter()
        .find(|f| f.function.as_deref() == Some("wait_here"));
    let wait = wait.unwrap();
    assert!(wait.file.as_deref().unwrap().ends_with("waits.c"));
    assert_eq!(wait.line, Some(8));
}

#[test]
fn c_static_and_position_independent() {
    if !have("gcc") {
        return;
    }
    let options = [
        "gcc",
        "-O2",
        PHYSICAL,
        "-fomit-frame-pointer",
        "-static-pie",
    ];
    same_as_debugger(&Program::compile("waits.c", C, &options), ACCEPT);
    let options = ["gcc", "-O2", PHYSICAL, "-fomit-frame-pointer", "-static"];
    same_as_debugger(&Program::compile("waits.c", C, &options), ACCEPT);
    let options = ["gcc", "-O2", PHYSICAL, "-fomit-frame-pointer", "-no-pie"];
    same_as_debugger(&Program::compile("waits.c", C, &options), ACCEPT);
}

/// A handler was called in the middle of a function: what it will return to is no return address, and all
/// registers are told by expressions.
#[test]
fn c_in_a_signal_handler() {
    if !have("gcc") {
        return;
    }
    let source = C.replace(
        "#include <stdlib.h>",
        "#include <stdlib.h>\n#include <signal.h>\nstatic int handed;",
    );
    let source = source.replace(
        "int main(",
        "static void handler(int number)\n{\n\tsink = wait_here(handed) + number;\n}\n\nint main(",
    );
    let source = source.replace(
        "return recurse(fd, argc",
        "handed = fd;\n\tsignal(SIGUSR1, handler);\n\traise(SIGUSR1);\n\treturn recurse(fd, argc",
    );
    let program = Program::compile("waits.c", &source, &["gcc", "-O2", "-fomit-frame-pointer"]);
    let running = Running::start(&mut Command::new(&program.path));
    let trace = Stacks::new(Limits::default()).trace(&running.sample(ACCEPT).sample());
    assert_eq!(trace.end, End::Root, "{trace:#?}");
    // The debugger has no name for what calls handlers, we have one with libc's debug file only; and it
    // guesses a tail call.
    let same = |names: Vec<String>| {
        let left_out = ["", "??", "restore_rt", "pthread_kill_internal"];
        let names = names
            .into_iter()
            .filter(|n| !left_out.contains(&n.as_str()));
        names.collect::<Vec<_>>()
    };
    let ours = same(names(&trace));
    assert_eq!(ours, same(running.debugger(ACCEPT)), "{trace:#?}");
    assert!(ours.contains(&"handler".to_owned()) && ours.contains(&"main".to_owned()));
}

#[test]
fn the_kernels_own_code_in_a_process() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|l| l.ends_with("[vdso]")).unwrap();
    let start = u64::from_str_radix(line.split_once('-').unwrap().0, 16).unwrap();
    let chain = Chain {
        process: identity(std::process::id()),
        addresses: &(start..start + 0x1000).collect::<Vec<_>>(),
    };
    let limits = Limits {
        frames: 0x1000,
        ..Limits::default()
    };
    let trace = Stacks::new(limits).chain(&chain);
    assert!(
        trace
            .frames
            .iter()
            .all(|f| f.module.as_deref() == Some("[vdso]"))
    );
    let named = |name: &str| {
        trace
            .frames
            .iter()
            .any(|f| f.function.as_deref() == Some(name))
    };
    assert!(named("clock_gettime") || named("__vdso_clock_gettime"));
    assert!(trace.frames[0].build_id.is_some() && trace.frames[0].address.is_some());
}

#[test]
fn stripped_programs_have_offsets_and_no_guesses() {
    if !have("gcc") {
        return;
    }
    let options = ["gcc", "-O2", PHYSICAL, "-fomit-frame-pointer"];
    let program = Program::compile("waits.c", C, &options);
    let running = Running::start(&mut Command::new(&program.path));
    let named = Stacks::new(Limits::default()).trace(&running.sample(ACCEPT).sample());
    drop(running);
    let stripped = program.strip();
    let running = Running::start(&mut Command::new(&stripped.path));
    let trace = Stacks::new(Limits::default()).trace(&running.sample(ACCEPT).sample());
    assert_eq!(trace.end, End::Root);
    let own = |trace: &Trace| {
        let frames = trace.frames.iter();
        let own = frames.filter(|f| f.module.as_deref().is_some_and(|m| m.ends_with("/program")));
        own.map(|f| (f.address, f.offset, f.build_id.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(own(&trace), own(&named));
    for frame in &trace.frames {
        if frame
            .module
            .as_deref()
            .is_some_and(|m| m.ends_with("/program"))
        {
            assert_eq!(frame.function, None, "{frame:?}");
        }
    }
    assert!(named.frames.iter().all(|f| f.function.is_some()));
}

#[test]
fn cpp_with_exceptions_and_inlining() {
    if !have("g++") {
        return;
    }
    let (trace, names) = same_as_debugger(
        &Program::compile("waits.cc", CPP, &["g++", "-O2", "-g"]),
        ACCEPT,
    );
    assert!(names.iter().any(|n| n == "take"), "{names:?}");
    assert!(trace.frames.iter().any(|f| f.inlined));
    same_as_debugger(&Program::compile("waits.cc", CPP, &["g++", "-O0"]), ACCEPT);
}

#[test]
fn rust() {
    if !have("rustc") {
        return;
    }
    let options = ["rustc", "-Copt-level=2", "-Cdebuginfo=0", "--edition=2021"];
    let (_, names) = same_as_debugger(&Program::compile("waits.rs", RUST, &options), ACCEPT4);
    assert!(names.iter().any(|n| n == "by_closure"), "{names:?}");
}

#[test]
fn go() {
    if !have("go") {
        return;
    }
    let (trace, names) =
        same_as_debugger(&Program::compile("waits.go", GO, &["go", "build"]), ACCEPT4);
    assert!(names.iter().filter(|n| *n == "main.recurse").count() >= 10);
    assert_eq!(names.last().map(String::as_str), Some("runtime.goexit"));
    assert!(
        trace
            .frames
            .iter()
            .skip(1)
            .all(|f| f.by == By::Go && f.line.is_some())
    );

    let stripped = Program::compile("waits.go", GO, &["go", "build", "-ldflags=-s -w"]);
    let running = Running::start(&mut Command::new(&stripped.path));
    let trace = Stacks::new(Limits::default()).trace(&running.sample(ACCEPT4).sample());
    assert_eq!(trace.end, End::Root);
    let outer = |trace: &Trace| {
        let frames = trace.frames.iter().filter(|f| !f.inlined);
        frames.map(|f| f.function.clone()).collect::<Vec<_>>()
    };
    let pie = ["go", "build", "-buildmode=pie", "-ldflags=-s -w"];
    let running = Program::compile("waits.go", GO, &pie);
    let running = Running::start(&mut Command::new(&running.path));
    let position_independent =
        Stacks::new(Limits::default()).trace(&running.sample(ACCEPT4).sample());
    assert_eq!(outer(&position_independent), outer(&trace));
}

//! Stacks of interpreters and servers as Debian ships them, compared with what a debugger says of them.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;

use common::{CONNECT, EPOLL_WAIT, RECVFROM, Running, names, runtimes, take};
use tcptrace_stacks::{By, End, Limits, Stacks};

/// The names of a stack that is complete. The debugger may have no names for what is stripped, and we may
/// have none, but it goes the same way.
fn same_as_debugger(running: &Running, call: u64) -> Vec<String> {
    let taken = running.sample(call);
    let trace = Stacks::new(Limits::default()).trace(&taken.sample());
    assert_eq!(trace.end, End::Root, "{trace:#?}");
    let (ours, theirs) = (names(&trace), running.debugger(call));
    assert_eq!(ours.len(), theirs.len(), "{ours:?}\n{theirs:?}");
    for (our, their) in ours.iter().zip(&theirs) {
        let unknown = our == "??" || their == "??";
        assert!(unknown || our == their, "{ours:?}\n{theirs:?}");
    }
    ours
}

#[test]
fn python_in_recv() {
    let Some((running, _needed)) = runtimes::python_in_recv() else {
        return;
    };
    let ours = same_as_debugger(&running, RECVFROM);
    assert!(ours.iter().any(|n| n == "PyEval_EvalCode"), "{ours:?}");
}

#[test]
fn python_in_connect() {
    let Some((running, _needed)) = runtimes::python_in_connect() else {
        return;
    };
    let ours = same_as_debugger(&running, CONNECT);
    assert_eq!(ours[0], "connect");
}

#[test]
fn nginx() {
    let Some((running, _needed)) = runtimes::nginx() else {
        return;
    };
    let ours = same_as_debugger(&running, EPOLL_WAIT);
    assert!(
        ours.iter().any(|n| n == "ngx_process_events_and_timers"),
        "{ours:?}"
    );
}

/// Generated code has frame pointers, and names only if node is asked to write them.
#[test]
fn node() {
    let Some((running, _needed)) = runtimes::node() else {
        return;
    };
    let taken = take(running.pid(), running.pid(), 64 * 1024);
    let trace = Stacks::new(Limits::default()).trace(&taken.sample());
    let ours = names(&trace);
    let _ = fs::remove_file(format!("/tmp/perf-{}.map", running.pid()));
    assert_eq!(trace.end, End::Root, "{trace:#?}");
    assert_eq!(ours.last().map(String::as_str), Some("start"), "{ours:?}");
    for part in ["inner", "outer"] {
        let has = |name: &str| name.contains(part);
        let found = trace
            .frames
            .iter()
            .find(|f| f.function.as_deref().is_some_and(has));
        assert_eq!(found.map(|f| f.by), Some(By::FramePointer), "{trace:#?}");
    }
}

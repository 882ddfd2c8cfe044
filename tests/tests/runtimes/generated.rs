//! Programs whose code is made while they run: named by a map that they write, if they are asked to.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tcptrace_tests::child::Process;
use tcptrace_tests::export::{directory, output};
use tcptrace_tests::leaks::{assert_calls, functions};
use tcptrace_tests::peer::Peer;
use tcptrace_tests::require;
use tcptrace_tests::tcptrace::doctor;

use super::acquired_by;

/// What `doctor` says of a process.
#[track_caller]
fn runtime(pid: u32) -> Value {
    let doctor = doctor();
    let processes = doctor["runtimes"]["processes"].as_array();
    let found = processes.into_iter().flatten().find(|p| p["pid"] == pid);
    found
        .unwrap_or_else(|| panic!("no {pid} in {doctor}"))
        .clone()
}

/// Removes the map of a process that is gone.
struct Map(String);

impl Map {
    fn of(program: &Process) -> Map {
        Map(format!("/tmp/perf-{}.map", program.pid()))
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // It was not asked for, or is gone.
        let _ = fs::remove_file(&self.0);
    }
}

/// Where Node connected.
#[track_caller]
fn node(options: &[&str]) -> Value {
    let place = tempfile::tempdir().expect("a directory");
    let mut command = Command::new("node");
    command.args(options).current_dir(place.path());
    command.arg(directory("programs").join("leak.js"));
    let mut map = None;
    let acquired = acquired_by(command, true, |program, _| map = Some(Map::of(program)));
    drop(map);
    acquired
}

#[test]
fn node_without_a_map() {
    require!(root, tracer, node);
    let acquired = node(&[]);
    assert_calls(&acquired, &["connect", "uv__tcp_connect", "uv_run"]);
    let script = |name: &&str| name.contains("JS:") || name.contains("dial");
    assert!(!functions(&acquired).iter().any(script), "{acquired}");
}

#[test]
fn node_with_a_map() {
    require!(root, tracer, node);
    let options = ["--perf-basic-prof", "--interpreted-frames-native-stack"];
    let acquired = node(&options);
    assert_calls(
        &acquired,
        &[
            "connect",
            "uv__tcp_connect",
            "internalConnect",
            "processTicksAndRejections",
            // Behind 12 KiB of libuv's own.
            "uv__io_poll",
            "uv_run",
        ],
    );
}

/// Where Java connected, all of it compiled.
#[track_caller]
fn java(place: &Path, before: impl FnOnce(&Process)) -> Value {
    let mut command = Command::new("java");
    let options = [
        "-Xcomp",
        "-XX:TieredStopAtLevel=1",
        "-XX:-Inline",
        "-XX:+PreserveFramePointer",
    ];
    command.args(options).arg("-cp").arg(place).arg("Leak");
    let mut map = None;
    let acquired = acquired_by(command, true, |program, server: &mut Peer| {
        map = Some(Map::of(program));
        server.act("accept W L");
        server.act("close W");
        before(program);
    });
    drop(map);
    acquired
}

#[test]
fn java_with_a_map_and_without() {
    require!(root, tracer, java);
    let place = tempfile::tempdir().expect("a directory");
    let mut compiler = Command::new("javac");
    compiler.arg("-d").arg(place.path());
    output(compiler.arg(directory("programs").join("Leak.java")));
    let without = java(place.path(), |_| ());
    assert_calls(&without, &["connect"]);
    let named = |place: &Value| functions(place).iter().any(|name| name.contains("Leak"));
    assert!(!named(&without), "{without}");
    let with = java(place.path(), |program| {
        let pid = program.pid().to_string();
        output(Command::new("jcmd").args([&pid, "Compiler.perfmap"]));
    });
    assert_calls(&with, &["connect", "Leak.dial", "Leak.main"]);
}

#[test]
fn doctor_tells_what_stacks_of_each_would_tell() {
    require!(root, tracer, node);
    let mut python = Command::new("/usr/bin/python3");
    python.arg(directory("programs").join("leak.py"));
    // It holds a socket when it is asked about.
    let of_python = super::asked(python, runtime);
    assert_eq!(of_python["runtime"], "python", "{of_python}");
    assert_eq!(of_python["exact"], true, "{of_python}");
    assert_eq!(of_python["advice"], Value::Null, "{of_python}");
    let mut node = Command::new("node");
    node.arg(directory("programs").join("leak.js"));
    let of_node = super::asked(node, runtime);
    assert_eq!(of_node["runtime"], "node", "{of_node}");
    assert_eq!(of_node["perf_map"], false, "{of_node}");
    let advice = of_node["advice"].as_str().expect("advice");
    assert!(advice.contains("--perf-basic-prof"), "{of_node}");
}

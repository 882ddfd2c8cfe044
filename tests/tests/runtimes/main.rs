//! Who never closed it, in which code: programs of other languages.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tcptrace_tests::child::{LIMIT, Line, Process};
use tcptrace_tests::export::{directory, output, python_path};
use tcptrace_tests::lab::Lab;
use tcptrace_tests::leaks::{assert_calls, leaks, stop};
use tcptrace_tests::peer::Peer;
use tcptrace_tests::require;

mod generated;
mod processes;
mod servers;

#[test]
fn a_python_service_that_forgets_its_responses() {
    require!(root, tracer, python_tools);
    let lab = Lab::new();
    let mut command = lab.ns.command(python_path());
    let program = directory("programs").join("service.py");
    command.arg(&program);
    command.args([&lab.ip.to_string(), "7", "13"]);
    let mut service = Process::spawn(&mut command);
    says(&service, "");
    let run = leaks(&lab, &[]);
    std::thread::sleep(Duration::from_secs(1));
    writeln!(service.stdin(), "go").expect("the pipe to it");
    says(&service, "done");
    std::thread::sleep(Duration::from_millis(500));
    let told = stop(run);
    let group = &told["groups"][0];
    assert_eq!(group["count"], 7, "{told}");
    assert_eq!(group["owners"][0]["pid"], service.pid(), "{told}");
    let acquired = &group["acquired_at"][0];
    assert_eq!(acquired["all"]["acquired"], 7, "{told}");
    assert_eq!(acquired["all"]["closed"], 0, "{told}");
    let calls = ["connect", "create_connection", "ask", "fetch_item", "main"];
    assert_calls(acquired, &calls);
    let line = frame(acquired, "fetch_item");
    assert_eq!(line["kind"], "python", "{told}");
    let number = line["line"].as_u64().expect("a line") as usize;
    let source = std::fs::read_to_string(&program).expect("the program");
    assert_eq!(
        source.lines().nth(number - 1),
        Some("    FORGOTTEN.append((session, ask(session, url)))")
    );
    assert!(
        line["file"]
            .as_str()
            .is_some_and(|f| f.ends_with("service.py"))
    );
    // The same code closed what it acquired for another.
    let kin = &acquired["kin"];
    assert_eq!(kin["shared"]["function"], "ask", "{told}");
    assert_eq!(kin["all"]["acquired"], 13, "{told}");
    assert_eq!(kin["all"]["closed"], 13, "{told}");
    assert_eq!(kin["all"]["closed_at"][0]["count"], 13, "{told}");
    let calls = ["close", "release", "fetch_page", "main"];
    assert_calls(&kin["all"]["closed_at"][0], &calls);
}

fn frame<'a>(place: &'a Value, function: &str) -> &'a Value {
    let frames = place["frames"].as_array().expect("frames");
    let is_it = |frame: &&Value| {
        frame["function"]
            .as_str()
            .is_some_and(|f| f.contains(function))
    };
    let found = frames.iter().find(is_it);
    found.unwrap_or_else(|| panic!("no {function} in {frames:?}"))
}

/// Where `leaks` says that a program connected, which is given the address of a peer that closes at once.
/// `told`: it was there before, says when it is, and waits to be told.
#[track_caller]
fn acquired(command: &[&str], told: bool) -> Value {
    let mut program = Command::new(command[0]);
    program.args(&command[1..]);
    acquired_by(program, told, |_, _| ())
}

/// The same; `before` sees the program when it waits to be told, and who it has connected to.
#[track_caller]
fn acquired_by(command: Command, told: bool, before: impl FnOnce(&Process, &mut Peer)) -> Value {
    let (lab, mut server, mut command) = with_server(command);
    let (run, program) = match told {
        false => (leaks(&lab, &[]), Process::spawn(&mut command)),
        true => {
            let mut program = Process::spawn(&mut command);
            says(&program, "");
            before(&program, &mut server);
            let run = leaks(&lab, &[]);
            // Until the kernel knows that it is a Python.
            std::thread::sleep(Duration::from_secs(1));
            writeln!(program.stdin(), "go").expect("the pipe to it");
            (run, program)
        }
    };
    server.act("accept S L");
    server.act("close S");
    says(&program, "connected");
    std::thread::sleep(Duration::from_millis(300));
    let told = stop(run);
    assert_eq!(told["total"], 1, "{command:?}: {told}");
    let acquired = told["groups"][0]["acquired_at"][0].clone();
    assert_eq!(acquired["count"], 1, "{command:?}: {told}");
    acquired
}

/// What is found out about a program that waits to be told and has connected then.
#[track_caller]
fn asked<T>(command: Command, ask: impl FnOnce(u32) -> T) -> T {
    let (_lab, _server, mut command) = with_server(command);
    let mut program = Process::spawn(&mut command);
    says(&program, "");
    writeln!(program.stdin(), "go").expect("the pipe to it");
    says(&program, "connected");
    ask(program.pid())
}

/// A lab with a listener, and the command with its address.
#[track_caller]
fn with_server(command: Command) -> (Lab, Peer, Command) {
    let lab = Lab::new();
    let mut server = lab.peer();
    let listener = server.act(&format!("listen L {}:0", lab.ip));
    let at = listener.local.expect("bound");
    let mut command = lab.ns.within(command);
    command.args([at.ip().to_string(), at.port().to_string()]);
    (lab, server, command)
}

/// Waits for a line of a program.
#[track_caller]
fn says(program: &Process, what: &str) {
    let said = |line: &Line| line.text.contains(what).then_some(());
    let found = program.out.find(0, LIMIT, said);
    assert!(found.is_some(), "no '{what}': {}", program.err.text());
}

/// Compiles a program of `programs/`; the command ends before its name and that of what it makes.
#[track_caller]
fn compile(source: &str, command: &[&str], to: &Path) -> String {
    let mut compiler = Command::new(command[0]);
    compiler.args(&command[1..]).arg(to);
    compiler.arg(directory("programs").join(source));
    compiler.env("GOCACHE", to.with_extension("cache"));
    output(&mut compiler);
    to.to_str().expect("UTF-8").to_owned()
}

#[test]
fn a_c_program_without_frame_pointers() {
    require!(root, tracer, gcc);
    let place = tempfile::tempdir().expect("a directory");
    let plain = ["gcc", "-O2", "-fomit-frame-pointer"];
    for (name, more) in [
        ("dynamic", &["-o"][..]),
        ("static-pie", &["-static-pie", "-o"]),
        ("stripped", &["-s", "-o"]),
    ] {
        let command = [&plain[..], more].concat();
        let program = compile("leak.c", &command, &place.path().join(name));
        let acquired = acquired(&[&program], false);
        let frames = acquired["frames"].as_array().expect("frames");
        let of_it = |frame: &&Value| frame["module"] == program.as_str();
        if name == "stripped" {
            let unnamed = frames.iter().filter(of_it);
            let unnamed = unnamed.filter(|frame| frame["function"].is_null());
            // dial, 40 times down, main, _start.
            assert_eq!(unnamed.count(), 43, "{name}: {acquired}");
            continue;
        }
        assert_calls(&acquired, &["connect", "dial", "down", "main"]);
        let down = frames.iter().filter(|frame| frame["function"] == "down");
        assert_eq!(down.count(), 40, "{name}: {acquired}");
    }
}

#[test]
fn a_cxx_program_that_handles_an_exception() {
    require!(root, tracer, gxx);
    let place = tempfile::tempdir().expect("a directory");
    let command = ["g++", "-O2", "-g", "-fomit-frame-pointer", "-o"];
    let program = compile("leak.cc", &command, &place.path().join("leak"));
    let acquired = acquired(&[&program], false);
    assert_calls(&acquired, &["connect", "fresh", "take", "main"]);
    let inlined = frame(&acquired, "Socket");
    assert_eq!(inlined["kind"], "inlined", "{acquired}");
}

#[test]
fn a_go_program() {
    require!(root, tracer, go);
    let place = tempfile::tempdir().expect("a directory");
    for (name, flags) in [("plain", ""), ("stripped", "-s -w")] {
        let command = ["go", "build", "-ldflags", flags, "-o"];
        let program = compile("leak.go", &command, &place.path().join(name));
        let acquired = acquired(&[&program], false);
        let calls = ["connect", "net.Dial", "main.dial", "main.fetch"];
        assert_calls(&acquired, &calls);
    }
}

#[test]
fn each_python_that_is_here() {
    require!(root, tracer);
    let program = directory("programs").join("leak.py");
    for python in pythons() {
        let python = python.to_str().expect("UTF-8");
        let acquired = acquired(&[python, program.to_str().expect("UTF-8")], true);
        let calls = ["connect", "create_connection", "fresh", "main", "<module>"];
        assert_calls(&acquired, &calls);
        let frames = acquired["frames"].as_array().expect("frames");
        let here = frames.iter().filter(|frame| {
            let file = frame["file"].as_str().unwrap_or_default();
            file.ends_with("leak.py")
        });
        // Of the moment of the call, each line of them.
        let lines: Vec<_> = here
            .map(|frame| (frame["kind"].as_str(), frame["line"].as_u64()))
            .collect();
        let line = |n| (Some("python"), Some(n));
        let (first, last) = (lines.first(), lines.last());
        assert_eq!(
            (first, last),
            (Some(&line(9)), Some(&line(21))),
            "{python}: {acquired}"
        );
        assert!(lines.contains(&line(16)), "{python}: {acquired}");
    }
}

/// That of the system, those of pyenv that can be read, and the one that `TCPTRACE_CPYTHON` names.
fn pythons() -> Vec<PathBuf> {
    let versions = std::env::home_dir()
        .expect("a home")
        .join(".pyenv/versions");
    let of = |minor| format!("3.{minor}.");
    let known = |name: &str| (8..=13).any(|minor| name.starts_with(&of(minor)));
    let found = std::fs::read_dir(versions).into_iter().flatten().flatten();
    let found = found.filter(|entry| entry.file_name().to_str().is_some_and(known));
    let mut pythons: Vec<_> = found
        .map(|entry| entry.path().join("bin/python3"))
        .collect();
    pythons.push(PathBuf::from("/usr/bin/python3"));
    pythons.extend(std::env::var_os("TCPTRACE_CPYTHON").map(PathBuf::from));
    pythons
}

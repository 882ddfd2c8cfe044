//! Processes that run no Python, or end.

use std::process::{Command, Stdio};

use tcptrace_python::{FindError, Interpreters, Unreadable};

use crate::python::{Program, asleep, pythons};

#[test]
fn a_program_that_is_no_python_is_told() {
    let mut sleep = Command::new("sleep").arg("60").spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(50));
    let mut interpreters = Interpreters::new();
    assert_eq!(
        interpreters.find(sleep.id()).unwrap_err(),
        FindError::NotPython
    );
    assert_eq!(
        interpreters.find(sleep.id()).unwrap_err(),
        FindError::NotPython
    );
    assert_eq!(
        interpreters.find(std::process::id()).unwrap_err(),
        FindError::NotPython
    );
    sleep.kill().unwrap();
    sleep.wait().unwrap();
    assert_eq!(interpreters.find(sleep.id()).unwrap_err(), FindError::Gone);
}

#[test]
fn a_kernel_thread_is_no_python() {
    // Number 2 is kthreadd, but in a namespace of its own it may be anything.
    if std::fs::read_to_string("/proc/2/comm").is_ok_and(|name| name.trim() == "kthreadd") {
        assert_eq!(
            Interpreters::new().find(2).unwrap_err(),
            FindError::NotPython
        );
    }
}

#[test]
fn a_process_that_ended_is_told() {
    let mut program = Program::start(&pythons()[0], "truth.py", &["nested"]);
    let truth = program.truth();
    let mut interpreters = Interpreters::new();
    let interpreter = interpreters.find(truth.pid).unwrap();
    program.child.kill().unwrap();
    program.child.wait().unwrap();
    assert_eq!(interpreter.frames(truth.tid), Err(Unreadable::Gone));
    assert_eq!(interpreters.find(truth.pid).unwrap_err(), FindError::Gone);
}

#[test]
fn a_process_that_executes_another_program_is_looked_at_again() {
    for python in pythons() {
        let source = "import os, sys; sys.stdin.read(1); os.execv(sys.executable, [sys.executable, '-c', \
             'import sys; sys.stdin.read(1)\\n'])";
        let mut child = Command::new(&python)
            .args(["-c", source])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut interpreters = Interpreters::new();
        // Until it has loaded, it is no Python.
        while interpreters.find(child.id()).is_err() {
            interpreters = Interpreters::new();
        }
        let before = asleep(&mut interpreters, child.id(), child.id());
        assert_eq!(before.frames[0].function, "<module>");
        let old = interpreters.find(child.id()).unwrap();
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"1").unwrap();
        while old.frames(child.id()) != Err(Unreadable::Gone) {
            std::thread::yield_now();
        }
        while interpreters.find(child.id()).is_err() {
            interpreters = Interpreters::new();
        }
        let after = asleep(&mut interpreters, child.id(), child.id());
        assert_eq!(after.frames.len(), 1);
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}

#[test]
fn a_process_of_another_pid_namespace_is_read() {
    for python in pythons() {
        let mut program = Program::start_by(
            &["unshare", "--pid", "--fork", "--kill-child"],
            &python,
            "truth.py",
            &["threads"],
        );
        let Some(truth) = program.try_truth() else {
            eprintln!("no right to make a PID namespace");
            return;
        };
        assert_eq!(truth.pid, 1);
        let children = format!("/proc/{0}/task/{0}/children", program.child.id());
        let pid: u32 = std::fs::read_to_string(children)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        let interpreter = Interpreters::new().find(pid).unwrap();
        // Which of its threads it is can be seen in the numbers of its own namespace only.
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let threads = threads.map(|entry| {
            entry
                .unwrap()
                .file_name()
                .to_str()
                .unwrap()
                .parse()
                .unwrap()
        });
        let own = |tid: &u32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/status")).unwrap();
            let numbers = status
                .lines()
                .find(|line| line.starts_with("NSpid:"))
                .unwrap();
            numbers.ends_with(&format!("\t{}", truth.tid))
        };
        let tid = threads.into_iter().find(own).unwrap();
        assert_ne!(tid, truth.tid);
        let stack = asleep(&mut Interpreters::new(), pid, tid);
        assert_eq!(stack.frames, truth.frames, "{}", interpreter.version());
    }
}

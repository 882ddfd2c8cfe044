//! Threads that wait in a system call: their stack is what they said themselves.

use tcptrace_python::{End, Interpreters};

use crate::python::{Program, asleep, pythons};

/// Asserts that on every Python the function of `truth.py` has the stack that it says.
fn as_said(function: &str) {
    for python in pythons() {
        let mut program = Program::start(&python, "truth.py", &[function]);
        let truth = program.truth();
        let stack = asleep(&mut Interpreters::new(), truth.pid, truth.tid);
        assert_eq!(stack.frames, truth.frames, "{}", python.display());
        assert_eq!(stack.end, End::Complete, "{}", python.display());
        assert!(stack.consistent, "{}", python.display());
    }
}

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        $(#[test] fn $name() { as_said(stringify!($name)); })*
    };
}

cases! {
    nested, connect, receive, a_property, a_lambda, generator, decorated, through_c, run_asyncio,
    threads, forked, many_lines, odd_names, recursion, subinterpreter,
}

#[test]
fn accept() {
    for python in pythons() {
        let mut program = Program::start(&python, "truth.py", &["accept"]);
        let truth = program.truth();
        let stack = asleep(&mut Interpreters::new(), truth.pid, truth.tid);
        // The method is one of Python, in socket.py, which calls one of C.
        assert!(stack.frames[0].function.ends_with("accept"), "{stack:?}");
        assert!(stack.frames[0].file.ends_with("socket.py"), "{stack:?}");
        assert_eq!(stack.frames[1..], truth.frames, "{}", python.display());
    }
}

#[test]
fn what_says_its_version_says_the_right_one() {
    for python in pythons() {
        let mut program = Program::start(&python, "truth.py", &["nested"]);
        let truth = program.truth();
        let version = Interpreters::new()
            .find(truth.pid)
            .unwrap()
            .version()
            .to_string();
        let real = std::process::Command::new(&python)
            .arg("--version")
            .output()
            .unwrap()
            .stdout;
        let real = String::from_utf8(real).unwrap();
        assert!(
            real.starts_with(&format!("Python {version}")),
            "{real} is not {version}"
        );
    }
}

#[test]
fn a_thread_without_python_has_no_frames() {
    let python = &pythons()[0];
    let mut program = Program::start(python, "truth.py", &["nested"]);
    let truth = program.truth();
    let interpreter = Interpreters::new().find(truth.pid).unwrap();
    assert_eq!(
        interpreter.frames(1),
        Err(tcptrace_python::Unreadable::Gone)
    );
}

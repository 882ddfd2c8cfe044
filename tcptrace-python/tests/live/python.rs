//! The Pythons of this machine, and programs that they run.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use tcptrace_python::{Frame, Interpreters, Stack};

/// The Pythons of this machine that are supported: that of the system, those of pyenv, and the one that
/// `TCPTRACE_CPYTHON` names.
pub(crate) fn pythons() -> Vec<PathBuf> {
    let mut pythons = vec![PathBuf::from("/usr/bin/python3")];
    let versions = env::home_dir().expect("a home").join(".pyenv/versions");
    for version in fs::read_dir(versions).into_iter().flatten() {
        pythons.push(version.expect("a directory").path().join("bin/python3"));
    }
    pythons.retain(|python| is_supported(python));
    if let Some(python) = env::var_os("TCPTRACE_CPYTHON") {
        let python = PathBuf::from(python);
        assert!(is_supported(&python), "{} does not run", python.display());
        pythons.push(python);
    }
    pythons.sort();
    assert!(!pythons.is_empty(), "there is no Python to test with");
    pythons
}

fn is_supported(python: &Path) -> bool {
    let supported = "import sys; sys.exit(not (3, 8) <= sys.version_info[:2] <= (3, 14))";
    Command::new(python)
        .args(["-c", supported])
        .status()
        .is_ok_and(|status| status.success())
}

/// A program that runs, and ends with the test.
pub(crate) struct Program {
    pub(crate) child: Child,
    lines: BufReader<ChildStdout>,
}

/// What a program says of itself.
#[derive(Debug)]
pub(crate) struct Truth {
    pub(crate) pid: u32,
    pub(crate) tid: u32,
    pub(crate) frames: Vec<Frame>,
}

impl Program {
    /// Starts a program of `tests/programs`.
    pub(crate) fn start(python: &Path, program: &str, arguments: &[&str]) -> Program {
        Program::start_by(&["env"], python, program, arguments)
    }

    /// Starts a program of `tests/programs` by a command that executes the rest of its arguments.
    pub(crate) fn start_by(
        by: &[&str],
        python: &Path,
        program: &str,
        arguments: &[&str],
    ) -> Program {
        let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs");
        let mut child = Command::new(by[0])
            .args(&by[1..])
            .args([python, &programs.join(program)])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe"));
        Program { child, lines }
    }

    /// The next stack that it says.
    pub(crate) fn truth(&mut self) -> Truth {
        self.try_truth().expect("a line")
    }

    /// The next stack that it says, if it runs.
    pub(crate) fn try_truth(&mut self) -> Option<Truth> {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("text");
        let said: serde_json::Value = serde_json::from_str(&line).ok()?;
        let number = |name: &str| Some(said[name].as_u64()? as u32);
        let frame = |frame: &serde_json::Value| {
            Some(Frame {
                file: frame[0].as_str()?.to_owned(),
                function: frame[1].as_str()?.to_owned(),
                line: frame[2].as_u64().map(|line| line as u32),
            })
        };
        let frames = said["frames"]
            .as_array()?
            .iter()
            .map(frame)
            .collect::<Option<_>>()?;
        Some(Truth {
            pid: number("pid")?,
            tid: number("tid")?,
            frames,
        })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it ended");
    }
}

/// The stack of a thread once it sleeps elsewhere than where it says its stack.
pub(crate) fn asleep(interpreters: &mut Interpreters, pid: u32, tid: u32) -> Stack {
    let start = Instant::now();
    loop {
        let stack = interpreters.find(pid).expect("a Python").frames(tid);
        match stack {
            Ok(stack) if stack.slept && !["tell", "say"].contains(&&*stack.frames[0].function) => {
                return stack;
            }
            other if start.elapsed() > Duration::from_secs(20) => panic!("not asleep: {other:?}"),
            _ => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

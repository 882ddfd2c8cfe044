//! Handles on the workloads.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::child::{LIMIT, Process};
use crate::netns::Netns;
use crate::truth::{Act, now_ns};

/// A process that does to its sockets what it is told. The commands are those of
/// `workload peer`.
#[derive(Debug)]
pub struct Peer {
    process: Process,
    answered: usize,
}

impl Peer {
    /// Starts one in `ns`.
    pub fn start(ns: &Netns) -> Peer {
        Peer {
            process: Process::spawn(workload(ns).arg("peer")),
            answered: 0,
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Does one command; the test fails if the command does.
    #[track_caller]
    pub fn act(&mut self, command: &str) -> Act {
        let act = self.attempt(command);
        if let Some(error) = &act.error {
            panic!("{command}: {error}");
        }
        act
    }

    /// Does one command, which may fail.
    #[track_caller]
    pub fn attempt(&mut self, command: &str) -> Act {
        writeln!(self.process.stdin(), "{command}").expect("the pipe to the peer");
        let answer = self
            .process
            .out
            .find(self.answered, LIMIT, |line| Some(line.text.clone()))
            .unwrap_or_else(|| panic!("no answer to {command}: {}", self.process.err.text()));
        self.answered += 1;
        Act::from_json(&answer)
    }

    /// Lets it exit with whatever it has open.
    #[track_caller]
    pub fn exit(&mut self) -> Act {
        let before = now_ns();
        self.process.close_stdin();
        let status = self.process.wait(LIMIT);
        assert!(status.success(), "{}", self.process.err.text());
        Act {
            verb: "exit".to_owned(),
            before,
            after: now_ns(),
            pid: self.pid(),
            ..Act::default()
        }
    }

    /// Kills it: its sockets are closed by the kernel.
    #[track_caller]
    pub fn kill(mut self) {
        self.process.signal(Signal::KILL);
        self.process.wait(LIMIT);
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.process.close_stdin();
        self.process.reap(LIMIT);
    }
}

/// A crowd: `workload burst`, `leak` or `busy`.
#[derive(Debug)]
pub struct Crowd(Process);

impl Crowd {
    /// Starts it in `ns`.
    pub fn start(ns: &Netns, args: &[&str]) -> Crowd {
        Crowd(Process::spawn(workload(ns).args(args)))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// Waits for the line `text`.
    #[track_caller]
    pub fn wait_for(&self, text: &str, limit: std::time::Duration) {
        let said = self
            .0
            .out
            .find(0, limit, |line| (line.text == text).then_some(()));
        assert!(said.is_some(), "no '{text}': {}", self.0.err.text());
    }

    /// Waits for the first truth line.
    #[track_caller]
    pub fn truth(&self, limit: std::time::Duration) -> Value {
        self.0
            .out
            .find(0, limit, |line| serde_json::from_str(&line.text).ok())
            .unwrap_or_else(|| panic!("no truth: {}", self.0.err.text()))
    }

    /// All truth lines so far.
    pub fn truths(&self) -> Vec<Value> {
        let lines = self.0.out.all();
        lines
            .iter()
            .filter_map(|line| serde_json::from_str(&line.text).ok())
            .collect()
    }

    /// Lets it exit.
    #[track_caller]
    pub fn exit(&mut self) {
        self.0.close_stdin();
        self.0.wait(LIMIT);
    }
}

fn workload(ns: &Netns) -> Command {
    ns.command(workload_path())
}

/// `TCPTRACE_WORKLOAD`, else where cargo puts it: beside the directory of the test binaries.
pub fn workload_path() -> PathBuf {
    match std::env::var_os("TCPTRACE_WORKLOAD") {
        Some(path) => path.into(),
        None => {
            let test = std::env::current_exe().expect("the path of this test");
            let profile = test.parent().and_then(|deps| deps.parent());
            profile.expect("target/PROFILE/deps").join("workload")
        }
    }
}

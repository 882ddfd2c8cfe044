//! Recordings and runs of the tracer that are compared as text.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::child::{LIMIT, Process};
use crate::lab::{Conn, Lab};
use crate::tcptrace::{command, wait_until_watching};

/// A run that ends when it is told to.
#[derive(Debug)]
pub struct Run {
    /// The process.
    pub process: Process,
}

impl Run {
    /// Starts it and waits until it has listed what was there.
    #[track_caller]
    pub fn start(command: &mut Command) -> Run {
        let process = Process::spawn(command);
        wait_until_watching(&process);
        Run { process }
    }

    /// Records what happens in the lab.
    #[track_caller]
    pub fn record(lab: &Lab, file: &Path) -> Run {
        let netns = lab.ns.inode().to_string();
        Run::start(&mut command(&[
            "record",
            "-O",
            text(file),
            "--netns",
            &netns,
        ]))
    }

    /// Its whole output.
    #[track_caller]
    pub fn stop(&mut self) -> Vec<u8> {
        self.process.signal(Signal::INT);
        let status = self.process.wait(LIMIT);
        assert!(status.success(), "{status}: {}", self.process.err.text());
        self.process.out.text().into_bytes()
    }
}

/// Standard output of a run that succeeds.
#[track_caller]
pub fn run(args: &[&str]) -> Vec<u8> {
    let output: Output = command(args).output().expect("tcptrace");
    assert_eq!(
        output.status.code(),
        Some(0),
        "{args:?}: {}{}",
        text_of(&output.stderr),
        text_of(&output.stdout)
    );
    output.stdout
}

/// The exit code of a run.
#[track_caller]
pub fn status(mut command: Command) -> Option<i32> {
    command.output().expect("tcptrace").status.code()
}

/// Its JSON lines.
#[track_caller]
pub fn lines(output: &[u8]) -> Vec<Value> {
    let text = text_of(output);
    let object = |line| serde_json::from_str(line).expect("JSON");
    text.lines().map(object).collect()
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// What was printed.
pub fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Connections that go every way, and two that stay.
#[track_caller]
pub fn bustle(lab: &Lab) -> Vec<Conn> {
    let mut leaked = lab.connect();
    leaked.client.act("close C");
    leaked.server.act("wait S 8");
    let mut half = lab.connect();
    half.client.act("shutdown C wr");
    half.server.act("wait S 8");
    let mut whole = lab.connect();
    whole.client.act("close C");
    whole.server.act("wait S 8");
    assert_eq!(whole.server.act("recv S 10").value, Some(0));
    std::thread::sleep(Duration::from_millis(300));
    whole.server.act("close S");
    let mut reset = lab.connect();
    reset.client.act("linger C 0");
    reset.client.act("close C");
    half.server.act("close S");
    std::thread::sleep(Duration::from_millis(200));
    vec![leaked, half, whole, reset]
}

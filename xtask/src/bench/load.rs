//! The loads: `workload` of the live tests, optimized, in network namespaces.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// What is left of a namespace is taken down after its last process has ended.
const AFTERMATH: Duration = Duration::from_millis(400);

/// A child process. Dropped, it is killed and reaped.
pub(crate) struct Guarded(pub(crate) Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        // Both fail only when it has been reaped already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where a load, or a command beside it, runs.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    /// In a network namespace of its own.
    Own,
    /// The same, in which no closed socket is kept: half a connection is all there is of it.
    OwnWithoutMinisockets,
    /// In that of this process.
    With(u32),
}

impl Place {
    /// A command that runs there; it is the program from its start on, not a shell.
    pub(crate) fn command(self, program: impl AsRef<OsStr>) -> Command {
        const WITHOUT_MINISOCKETS: &str =
            "echo 0 > /proc/sys/net/ipv4/tcp_max_tw_buckets && exec \"$0\" \"$@\"";
        let mut command;
        match self {
            Place::Own => {
                command = Command::new("unshare");
                command.args(["--net", "--"]);
            }
            Place::OwnWithoutMinisockets => {
                command = Command::new("unshare");
                command.args(["--net", "--", "sh", "-c", WITHOUT_MINISOCKETS]);
            }
            Place::With(pid) => {
                command = Command::new("nsenter");
                command.args([&format!("--net=/proc/{pid}/ns/net"), "--"]);
            }
        }
        command.arg(program.as_ref());
        command
    }
}

/// A load that stays until it is ended.
pub(crate) struct Load {
    child: Guarded,
    out: BufReader<ChildStdout>,
}

impl Load {
    /// Starts `workload` with these words.
    pub(crate) fn start(workload: &Path, place: Place, words: &[String]) -> Result<Load> {
        let mut command = place.command(workload);
        command.args(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start the workload")?;
        let out = child.stdout.take().context("stdout is piped")?;
        Ok(Load {
            child: Guarded(child),
            out: BufReader::new(out),
        })
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// What it says when it has done its work.
    pub(crate) fn answer(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.out.read_line(&mut line)?;
        ensure!(!line.is_empty(), "the workload ended without an answer");
        serde_json::from_str(&line).with_context(|| format!("of the workload: {line}"))
    }

    /// Lets it close what it has open.
    pub(crate) fn release(&mut self) {
        drop(self.child.0.stdin.take());
    }

    /// The same, and waits until nothing is left of it.
    pub(crate) fn end(mut self) -> Result<()> {
        self.release();
        self.child.0.wait()?;
        thread::sleep(AFTERMATH);
        Ok(())
    }
}

/// How connections come and go.
#[derive(Clone, Debug)]
pub(crate) struct Churn {
    workload: PathBuf,
    words: Vec<String>,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Churned {
    pub(crate) connections: f64,
    pub(crate) seconds: f64,
    /// Of the load itself.
    pub(crate) cpu_ns: f64,
    pub(crate) p50_ns: f64,
    pub(crate) p99_ns: f64,
}

impl Churn {
    /// For so long, in the shape that these words say.
    pub(crate) fn new(workload: &Path, seconds: f64, shape: &[&str]) -> Churn {
        let words = ["churn".to_owned(), format!("seconds={seconds}")];
        let shape = shape.iter().map(|word| (*word).to_owned());
        Churn {
            workload: workload.to_owned(),
            words: words.into_iter().chain(shape).collect(),
        }
    }

    /// Starts it in a namespace of its own, does it, and looks at what it did before its sockets
    /// are gone.
    pub(crate) fn run<T>(&self, look: impl FnOnce(Churned) -> Result<T>) -> Result<T> {
        let mut load = Load::start(&self.workload, Place::Own, &self.words)?;
        let answer = load.answer()?;
        let number = |key: &str| answer[key].as_f64().with_context(|| format!("no {key}"));
        let looked = look(Churned {
            connections: number("connections")?,
            seconds: number("seconds")?,
            cpu_ns: number("cpu_ns")?,
            p50_ns: number("p50_ns")?,
            p99_ns: number("p99_ns")?,
        })?;
        load.end()?;
        Ok(looked)
    }
}

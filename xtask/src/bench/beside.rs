//! What runs beside a load: our tracer, and those it is compared with.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{ChildStderr, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::kernel::Bpf;
use super::load::Guarded;
use crate::process;

/// Nothing takes longer to be attached, or to end.
const LIMIT: Duration = Duration::from_secs(180);
/// From a program that is loaded to one that is attached.
const ATTACHING: Duration = Duration::from_millis(700);

/// A tool.
#[derive(Clone, Debug)]
pub(crate) struct Tool {
    /// As it stands in the table.
    pub(crate) name: String,
    words: Vec<OsString>,
    ready: Ready,
}

/// How it shows that it is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ready {
    /// It says so.
    Says,
    /// It does not; some time after its programs are loaded.
    Loaded,
    /// It has no programs; some time after its start.
    Started,
}

impl Tool {
    /// Ours with these arguments.
    pub(crate) fn ours(binary: &Path, arguments: &str) -> Tool {
        let words = arguments.split_whitespace().map(OsString::from);
        Tool {
            name: format!("`{arguments}`"),
            words: std::iter::once(binary.into()).chain(words).collect(),
            ready: Ready::Says,
        }
    }

    /// The same under another name.
    pub(crate) fn called(mut self, name: String) -> Tool {
        self.name = name;
        self
    }

    /// The same with `--output FILE`, which the table does not show.
    pub(crate) fn writing(mut self, file: &Path) -> Tool {
        self.words
            .extend(["--force".into(), "--output".into(), file.into()]);
        self
    }

    /// A peer of libbpf-tools, in a mount namespace that has a tracefs.
    pub(crate) fn peer(name: &str) -> Tool {
        let mount = "mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null; exec \"$0\"";
        let words = ["unshare", "--mount", "--", "sh", "-c", mount, name];
        Tool {
            name: format!("`{name}`"),
            words: words.map(OsString::from).into(),
            ready: Ready::Loaded,
        }
    }

    /// `perf record` of the same tracepoint.
    pub(crate) fn perf(file: &Path) -> Tool {
        let mount = "mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null; exec \"$0\" \"$@\"";
        let words = [
            "unshare", "--mount", "--", "sh", "-c", mount, "perf", "record",
        ];
        let rest = ["-q", "-a", "-e", "sock:inet_sock_set_state", "-o"];
        let words = words.iter().chain(&rest).map(OsString::from);
        Tool {
            name: "`perf record -e sock:inet_sock_set_state`".to_owned(),
            words: words.chain([file.into()]).collect(),
            ready: Ready::Started,
        }
    }

    /// Starts it and waits until it is attached.
    pub(crate) fn start(&self, out: impl Into<Stdio>) -> Result<Running> {
        let mut running = self.spawn(out)?;
        running.wait_ready(self.ready)?;
        Ok(running)
    }

    /// Starts it.
    pub(crate) fn spawn(&self, out: impl Into<Stdio>) -> Result<Running> {
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]);
        command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(Stdio::piped());
        let started = command.spawn();
        let mut child = started.with_context(|| format!("cannot start {}", self.name))?;
        let err = child.stderr.take().context("stderr is piped")?;
        Ok(Running {
            child: Guarded(child),
            name: self.name.clone(),
            said: Vec::new(),
            says: lines(err),
        })
    }
}

/// A tool that runs.
pub(crate) struct Running {
    pub(crate) child: Guarded,
    name: String,
    said: Vec<String>,
    says: Receiver<String>,
}

impl Running {
    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// Waits until ours says that it is attached and has listed what was there: so many sockets.
    pub(crate) fn wait_watching(&mut self) -> Result<u64> {
        self.wait_ready(Ready::Says)?;
        let last = self.said.last().and_then(|line| there(line));
        last.with_context(|| format!("{} does not say how many are there", self.name))
    }

    fn wait_ready(&mut self, ready: Ready) -> Result<()> {
        let start = Instant::now();
        match ready {
            Ready::Says => {
                while let Ok(line) = self.says.recv_timeout(LIMIT) {
                    let there = line.contains("already there");
                    self.said.push(line);
                    if there {
                        return Ok(());
                    }
                }
                bail!("{} is not attached: {}", self.name, self.said.join("\n"));
            }
            Ready::Loaded => {
                while Bpf::of(self.pid()).programs.is_empty() {
                    let over = start.elapsed() > LIMIT || self.child.0.try_wait()?.is_some();
                    if over {
                        self.said.extend(self.says.try_iter());
                        bail!("{} is not attached: {}", self.name, self.said.join("\n"));
                    }
                    thread::sleep(Duration::from_millis(20));
                }
                thread::sleep(ATTACHING);
            }
            Ready::Started => thread::sleep(2 * ATTACHING),
        }
        Ok(())
    }

    /// Lets it end; all that it said on stderr.
    pub(crate) fn stop(mut self) -> Result<Vec<String>> {
        let pid = Pid::from_child(&self.child.0);
        kill_process(pid, Signal::INT).with_context(|| format!("{} has ended", self.name))?;
        if process::wait(&mut self.child.0, LIMIT)?.is_none() {
            bail!("{} does not end", self.name);
        }
        self.said.extend(self.says.iter());
        Ok(self.said)
    }
}

/// Reads lines as they come, so that who writes them never waits.
fn lines(err: ChildStderr) -> Receiver<String> {
    let (send, receive) = channel();
    thread::spawn(move || {
        for line in BufReader::new(err).lines().map_while(Result::ok) {
            // Nobody may be there to read it any more.
            let _ = send.send(line);
        }
    });
    receive
}

/// Of `watching close_wait (mode full); 7 already there; …`.
fn there(line: &str) -> Option<u64> {
    let (before, _) = line.split_once(" already there")?;
    before.rsplit(' ').next()?.parse().ok()
}

/// What ours says that it lost, of its last words; `None`: it says nothing of it.
pub(crate) fn lost<'a>(lines: impl DoubleEndedIterator<Item = &'a str>) -> Option<u64> {
    let data = |line: &'a str| {
        let line = line.strip_prefix("tcptrace: ").unwrap_or(line);
        line.strip_prefix("data: ")
    };
    let data = lines.rev().find_map(data)?;
    let Some(missing) = data.strip_prefix("INCOMPLETE: ") else {
        return Some(0);
    };
    let parts = missing.split("; ").map_while(|part| {
        let (what, number) = part.rsplit_once(": ")?;
        let aside = ["estimated durations", "MPTCP", "stacks not taken"];
        let is_aside = aside.iter().any(|aside| what.starts_with(aside));
        (!is_aside).then(|| number.parse::<u64>().ok())?
    });
    Some(parts.sum())
}

/// A file for output that is looked at.
pub(crate) fn output(path: &Path) -> Result<File> {
    File::create(path).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_many_were_there_is_read_from_the_first_words() {
        let said = "tcptrace: watching (mode full); 100000 already there; ^C ends with a summary";
        assert_eq!(there(said), Some(100_000));
        assert_eq!(there("tcptrace: some already there"), None);
    }

    #[test]
    fn what_was_lost_is_read_from_the_last_words() {
        let of = |text: &str| lost(text.lines());
        assert_eq!(of("watching\n"), None);
        assert_eq!(of("STATE\ndata: complete; mode full\n"), Some(0));
        assert_eq!(of("tcptrace: data: complete; mode full\n"), Some(0));
        let estimated = "data: complete; estimated durations (~): 7; mode full";
        assert_eq!(of(estimated), Some(0));
        let text = "data: INCOMPLETE: events that found the ring buffer full: 120; ends not seen: 3; \
                    estimated durations (~): 9; mode full";
        assert_eq!(of(text), Some(123));
    }
}

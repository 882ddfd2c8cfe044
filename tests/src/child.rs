//! Child processes that are always reaped, and their output, line by line with arrival times.

use std::io::{self, BufRead as _, BufReader, Read};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::pace::patient;
use crate::truth::now_ns;

/// Everything here comes to an end within this time, or the test fails. Limits are multiplied
/// where they are waited for, by [`patient`].
pub const LIMIT: Duration = Duration::from_secs(20);

/// A child process. Dropped, it is killed by its id and reaped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// Its standard output.
    pub out: Lines,
    /// Its standard error.
    pub err: Lines,
}

fn heed_interrupts() -> io::Result<()> {
    // SAFETY: the default action is no function of ours.
    match unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) } {
        libc::SIG_ERR => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

impl Process {
    /// Starts it with stdin, stdout and stderr as pipes, and ^C ends it: what a shell has in the
    /// background ignores that, and so would all that these tests start.
    #[track_caller]
    pub fn spawn(command: &mut Command) -> Process {
        // SAFETY: one system call without memory, in the child.
        let command = unsafe { command.pre_exec(heed_interrupts) };
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let out = Lines::read(child.stdout.take().expect("piped"));
        let err = Lines::read(child.stderr.take().expect("piped"));
        Process { child, out, err }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its standard input.
    pub fn stdin(&mut self) -> &mut std::process::ChildStdin {
        self.child.stdin.as_mut().expect("stdin is still open")
    }

    /// Lets it read end of file.
    pub fn close_stdin(&mut self) {
        self.child.stdin = None;
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("kill");
    }

    /// Waits until it has exited and its output has been read.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let status = until(limit, "the process to exit", || {
            self.child.try_wait().expect("waitpid")
        });
        self.out.wait_end(limit);
        self.err.wait_end(limit);
        status
    }

    /// Waits for the end as long as `limit`, then kills it.
    pub fn reap(&mut self, limit: Duration) {
        let end = Instant::now() + patient(limit);
        while Instant::now() < end && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(1));
        }
        // Both fail only when it has been reaped already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.reap(Duration::ZERO);
    }
}

/// One line of output.
#[derive(Clone, Debug)]
pub struct Line {
    /// CLOCK_MONOTONIC ns when it was read.
    pub at: u64,
    /// Without the newline; what is no UTF-8 became U+FFFD.
    pub text: String,
}

/// A stream of lines that a thread reads.
#[derive(Clone, Debug)]
pub struct Lines(Arc<(Mutex<Stream>, Condvar)>);

#[derive(Debug, Default)]
struct Stream {
    lines: Vec<Line>,
    end: bool,
}

impl Lines {
    fn read(stream: impl Read + Send + 'static) -> Lines {
        let lines = Lines(Arc::default());
        let shared = lines.clone();
        std::thread::spawn(move || {
            let mut stream = BufReader::with_capacity(1 << 18, stream);
            let mut bytes = Vec::new();
            while stream.read_until(b'\n', &mut bytes).is_ok_and(|n| n > 0) {
                let text = String::from_utf8_lossy(bytes.strip_suffix(b"\n").unwrap_or(&bytes));
                let line = Line {
                    at: now_ns(),
                    text: text.into_owned(),
                };
                shared.change(|read| read.lines.push(line));
                bytes.clear();
            }
            shared.change(|read| read.end = true);
        });
        lines
    }

    fn change(&self, f: impl FnOnce(&mut Stream)) {
        f(&mut self.0.0.lock().expect("lines"));
        self.0.1.notify_all();
    }

    /// All lines so far.
    pub fn all(&self) -> Vec<Line> {
        self.0.0.lock().expect("lines").lines.clone()
    }

    /// All lines so far as one text.
    pub fn text(&self) -> String {
        let read = self.0.0.lock().expect("lines");
        read.lines.iter().map(|l| format!("{}\n", l.text)).collect()
    }

    /// The first answer that `f` gives for a line, from line number `from` on; `None` when the
    /// stream ends or the time is over.
    pub fn find<T>(
        &self,
        from: usize,
        limit: Duration,
        mut f: impl FnMut(&Line) -> Option<T>,
    ) -> Option<T> {
        let end = Instant::now() + patient(limit);
        let mut next = from;
        let mut stream = self.0.0.lock().expect("lines");
        loop {
            let fresh = stream.lines[next..].to_vec();
            if fresh.is_empty() {
                let left = end.checked_duration_since(Instant::now())?;
                if stream.end {
                    return None;
                }
                stream = self.0.1.wait_timeout(stream, left).expect("lines").0;
                continue;
            }
            // While the lines are looked at, more can come.
            drop(stream);
            next += fresh.len();
            if let Some(found) = fresh.iter().find_map(&mut f) {
                return Some(found);
            }
            stream = self.0.0.lock().expect("lines");
        }
    }

    /// How many lines there are.
    pub fn len(&self) -> usize {
        self.0.0.lock().expect("lines").lines.len()
    }

    /// Whether nothing was printed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[track_caller]
    fn wait_end(&self, limit: Duration) {
        let nothing = self.find(self.len(), limit, |_| None::<()>);
        assert!(nothing.is_none());
    }
}

/// Asks again and again until there is an answer; fails after `limit`.
#[track_caller]
pub fn until<T>(limit: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + patient(limit);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(
            Instant::now() < end,
            "waited {} s for {what}",
            patient(limit).as_secs()
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

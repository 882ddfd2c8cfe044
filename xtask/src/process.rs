//! Starting processes, watching them, and ending those that hang.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read, Write as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, getpid, kill_process, set_child_subreaper};

/// How long a step's stray processes may take to end by themselves.
const GRACE: Duration = Duration::from_secs(3);
/// How long ending them may take.
const KILLING: Duration = Duration::from_secs(10);

/// Runs a command to its end, with its output on stderr; anything but success is an error.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let name = describe(command);
    let status = command
        .stdin(Stdio::null())
        .stdout(io::stderr())
        .status()
        .with_context(|| format!("cannot start {name}"))?;
    ensure!(status.success(), "{name}: {status}");
    Ok(())
}

/// How a watched command ended.
pub(crate) enum Ended {
    /// By itself, with this status; and whether processes of its had to be ended after it.
    Itself { status: ExitStatus, strays: bool },
    /// It went over its limit and was killed.
    Killed,
}

/// Makes orphans of our children ours, so that none can hide from [`watch`].
pub(crate) fn adopt_orphans() -> Result<()> {
    set_child_subreaper(Some(getpid())).context("cannot become the reaper of orphans")
}

/// Runs a command for at most `limit`, passing its stdout on to ours and, in pieces, to `seen`.
///
/// When it returns, neither the command nor anything it started is alive.
pub(crate) fn watch(
    command: &mut Command,
    limit: Duration,
    seen: impl FnMut(&[u8]) + Send,
) -> Result<Ended> {
    let name = describe(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    let output = child.stdout.take().context("stdout is piped")?;
    thread::scope(|scope| {
        let reader = scope.spawn(move || pass_on(output, seen));
        let ended = wait(&mut child, limit)?;
        // A stray process may hold the pipe open; after this the reader comes to its end.
        let strays = end_descendants(if ended.is_some() {
            GRACE
        } else {
            Duration::ZERO
        });
        if ended.is_none() {
            child.wait()?;
        }
        match reader.join() {
            Ok(passed_on) => passed_on?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
        Ok(match ended {
            Some(status) => Ended::Itself { status, strays },
            None => Ended::Killed,
        })
    })
}

/// Waits for its end for at most `limit`; `None`: it goes on.
pub(crate) fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() >= limit {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn pass_on(mut output: impl Read, mut seen: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = [0; 8192];
    let mut stdout = io::stdout();
    loop {
        let length = match output.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        seen(&buffer[..length]);
        stdout.write_all(&buffer[..length])?;
        stdout.flush()?;
    }
}

/// Waits for our descendants to end, kills those left after `grace`, and says if there were any.
fn end_descendants(grace: Duration) -> bool {
    let start = Instant::now();
    let mut killed = false;
    loop {
        let alive = descendants();
        if alive.is_empty() || start.elapsed() >= grace + KILLING {
            return killed;
        }
        if start.elapsed() >= grace {
            killed = true;
            for pid in alive {
                // It may be gone by now, or be root's; both show in the next round.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// All living processes below this one, by the parents that /proc names.
fn descendants() -> Vec<Pid> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        if let Some(parent) = parent_of_living(&stat) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut unvisited = vec![getpid().as_raw_nonzero().get()];
    while let Some(pid) = unvisited.pop() {
        for child in children.remove(&pid).unwrap_or_default() {
            unvisited.push(child);
            found.extend(Pid::from_raw(child));
        }
    }
    found
}

/// The parent in a line of /proc/PID/stat, unless the process is a zombie.
fn parent_of_living(stat: &str) -> Option<i32> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    (state != "Z" && state != "X").then_some(parent)
}

fn describe(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy()];
    words.extend(command.get_args().map(|arg| arg.to_string_lossy()));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_read_past_a_name_with_parentheses() {
        assert_eq!(parent_of_living("7 (a) b) S 42 7 7"), Some(42));
        assert_eq!(parent_of_living("7 (gone) Z 42 7 7"), None);
        assert_eq!(parent_of_living("nonsense"), None);
    }

    /// One test for all of `watch`: it ends every process below this one, so two would disturb
    /// each other.
    #[test]
    fn a_hang_is_ended_and_strays_are_too() {
        adopt_orphans().expect("adopts");
        let mut seen = Vec::new();
        let mut shell = |script: &str, limit| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            watch(&mut command, limit, |piece| seen.extend_from_slice(piece)).expect("watches")
        };

        let long = Duration::from_secs(60);
        let fine = shell("echo fine; exit 3", long);
        assert!(
            matches!(fine, Ended::Itself { status, strays: false } if status.code() == Some(3))
        );

        let stray = shell("(setsid sleep 600 &) ; echo stray", long);
        assert!(matches!(stray, Ended::Itself { strays: true, .. }));

        let hung = shell(
            "echo hung; sleep 600 & sleep 600",
            Duration::from_millis(200),
        );
        assert!(matches!(hung, Ended::Killed));

        assert!(descendants().is_empty());
        assert_eq!(seen, b"fine\nstray\nhung\n");
    }
}

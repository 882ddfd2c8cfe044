//! A command that runs while it is recorded: started before privileges are given up, held back until
//! everything is attached, and put into a cgroup of its own, so that its children are known too.

use std::ffi::OsString;
use std::fs;
use std::io::{self, PipeWriter, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::thread::{self, JoinHandle};

use anyhow::Context as _;
use tcptrace_core::filter::Filter;

use crate::error::Usage;
use crate::resolve;

/// A command on its way.
pub(crate) struct Companion {
    name: String,
    pid: u32,
    /// Lets it go.
    go: PipeWriter,
    /// Returns when the command has begun, or could not.
    start: Option<JoinHandle<io::Result<Child>>>,
    child: Option<Child>,
    cgroup: Result<Own, String>,
}

/// A cgroup of our own; it goes with the last that is in it.
struct Own {
    directory: PathBuf,
    path: String,
    id: u64,
}

impl Drop for Own {
    fn drop(&mut self) {
        // Where processes are left in it, it stays with them.
        let _ = fs::remove_dir(&self.directory);
    }
}

impl Companion {
    /// Forks, and holds the child back.
    ///
    /// # Errors
    /// If there are no processes or descriptors left.
    pub(crate) fn hold(words: &[OsString]) -> anyhow::Result<Companion> {
        let (program, arguments) = words.split_first().context("no command")?;
        let (mut told, tell) = io::pipe()?;
        let (wait, go) = io::pipe()?;
        let mut command = Command::new(program);
        command.args(arguments);
        let ours = go.as_raw_fd();
        let held = move || {
            // SAFETY: the child's copy of our end; with it open the child would outlive us here.
            unsafe { libc::close(ours) };
            (&tell).write_all(&std::process::id().to_ne_bytes())?;
            (&wait).read_exact(&mut [0])
        };
        // SAFETY: between fork and exec it calls close, getpid, write and read only.
        unsafe { command.pre_exec(held) };
        let start = thread::spawn(move || command.spawn());
        let mut pid = [0; 4];
        told.read_exact(&mut pid)
            .context("cannot start a process")?;
        let pid = u32::from_ne_bytes(pid);
        Ok(Companion {
            name: program.to_string_lossy().into_owned(),
            pid,
            go,
            start: Some(start),
            child: None,
            cgroup: own_cgroup(pid),
        })
    }

    /// Narrows a filter to its sockets.
    pub(crate) fn narrow(&self, filter: &mut Filter) {
        match &self.cgroup {
            Ok(own) => {
                filter.cgroups = vec![own.path.clone()];
                filter.cgroup_ids = vec![own.id];
            }
            Err(_) => filter.pids = vec![self.pid],
        }
    }

    /// The id of its cgroup, if it has one of its own.
    pub(crate) fn cgroup(&self) -> Option<u64> {
        self.cgroup.as_ref().ok().map(|own| own.id)
    }

    /// Why its children are not followed.
    pub(crate) fn alone(&self) -> Option<String> {
        let why = self.cgroup.as_ref().err()?;
        let name = &self.name;
        Some(format!("the children of {name} are not followed: {why}"))
    }

    /// Lets it begin.
    ///
    /// # Errors
    /// [`Usage`] if there is no such command.
    pub(crate) fn go(&mut self) -> anyhow::Result<()> {
        self.go.write_all(&[1])?;
        let started = self.start.take().and_then(|start| start.join().ok());
        match started {
            Some(Ok(child)) => self.child = Some(child),
            Some(Err(error)) => {
                let what = format!("cannot run {}: {error}", self.name);
                return Err(Usage::new(what, "give a program and its arguments behind --").into());
            }
            None => {}
        }
        Ok(())
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().ok().flatten()
    }

    /// What a person should know at the end.
    pub(crate) fn farewell(&mut self) -> String {
        let (name, pid) = (&self.name, self.pid);
        match self.child.as_mut().map(Child::try_wait) {
            Some(Ok(Some(status))) => format!("{name}: {status}"),
            _ => format!("{name} still runs, as process {pid}"),
        }
    }
}

/// A new cgroup below our own, with that process in it.
fn own_cgroup(pid: u32) -> Result<Own, String> {
    let root = resolve::cgroup_root().ok_or("there is no cgroup v2")?;
    let text = fs::read_to_string("/proc/self/cgroup").map_err(|e| e.to_string())?;
    let ours = text.lines().find_map(|line| line.strip_prefix("0::/"));
    let below = Path::new(ours.ok_or("we are in no cgroup v2")?).join(format!("tcptrace-{pid}"));
    let directory = root.join(&below);
    let cannot = |e: io::Error| format!("{}: {e}", directory.display());
    fs::create_dir(&directory).map_err(cannot)?;
    let own = Own {
        id: fs::metadata(&directory).map_err(cannot)?.ino(),
        path: Path::new("/").join(below).display().to_string(),
        directory: directory.clone(),
    };
    fs::write(directory.join("cgroup.procs"), pid.to_string()).map_err(cannot)?;
    Ok(own)
}

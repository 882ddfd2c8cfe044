//! Private network namespaces.

use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use crate::sock;

/// A network namespace with its loopback up. It lives as long as this handle or a process in it.
#[derive(Debug)]
pub struct Netns {
    file: File,
}

impl Netns {
    /// A new one.
    #[expect(clippy::new_without_default, reason = "it makes a kernel object")]
    pub fn new() -> Netns {
        let file = std::thread::spawn(|| {
            // SAFETY: only this short-lived thread changes its namespace; no descriptor table
            // or file system context is unshared.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
                .expect("unshare(CLONE_NEWNET)");
            sock::loopback_up().expect("lo up");
            File::open("/proc/thread-self/ns/net").expect("/proc/thread-self/ns/net")
        })
        .join()
        .expect("the namespace thread");
        Netns { file }
    }

    /// Its inode number.
    pub fn inode(&self) -> u64 {
        self.file.metadata().expect("fstat of a namespace").ino()
    }

    /// A command that will run in it.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        self.within(Command::new(program.as_ref()))
    }

    /// The same command, which will run in it.
    pub fn within(&self, mut command: Command) -> Command {
        let fd = self.file.as_raw_fd();
        // SAFETY: setns is async-signal-safe, and the descriptor, which is close-on-exec, is
        // still open between fork and exec.
        unsafe {
            command.pre_exec(move || match libc::setns(fd, libc::CLONE_NEWNET) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            })
        };
        command
    }

    /// Runs `f` on a thread in it.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    rustix::thread::move_into_link_name_space(
                        self.file.as_fd(),
                        Some(LinkNameSpaceType::Network),
                    )
                    .expect("setns");
                    f()
                })
                .join()
                .expect("the thread in the namespace")
        })
    }

    /// Sets `net.ipv4.NAME`.
    #[track_caller]
    pub fn sysctl(&self, name: &str, value: &str) {
        let path = format!("/proc/sys/net/ipv4/{name}");
        self.enter(|| std::fs::write(&path, value))
            .unwrap_or_else(|e| panic!("{path} = {value}: {e}"));
    }
}

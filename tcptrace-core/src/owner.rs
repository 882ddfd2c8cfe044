//! Whose socket it is: actors seen by the kernel programs, holders of the file, process facts.

use std::fmt;
use std::sync::Arc;

/// A task's name as the kernel keeps it: at most 15 bytes of anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Comm([u8; 16]);

impl Comm {
    /// From the kernel's array: all behind the first NUL is dropped.
    pub fn from_kernel(bytes: [u8; 16]) -> Comm {
        let len = bytes.iter().position(|b| *b == 0).unwrap_or(16);
        let mut comm = [0; 16];
        comm[..len].copy_from_slice(&bytes[..len]);
        Comm(comm)
    }

    /// From text, as /proc/PID/comm has it: cut after 15 bytes, trailing newline dropped.
    pub fn from_bytes(text: &[u8]) -> Comm {
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        let mut comm = [0; 16];
        let len = text.len().min(15);
        comm[..len].copy_from_slice(&text[..len]);
        Comm::from_kernel(comm)
    }

    /// The name's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        let len = self.0.iter().position(|b| *b == 0).unwrap_or(16);
        &self.0[..len]
    }

    /// The zero-padded array of the kernel.
    pub fn padded(&self) -> [u8; 16] {
        self.0
    }

    /// The name as text; what is no UTF-8 becomes U+FFFD. Not safe for a terminal: see
    /// [`crate::text::escape`].
    pub fn to_text(&self) -> String {
        String::from_utf8_lossy(self.as_bytes()).into_owned()
    }
}

/// Safe for a terminal.
impl fmt::Display for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&crate::text::escape(&self.to_text()))
    }
}

/// A task that did something to a socket, as seen in process context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Actor {
    /// Process id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// Start time of the thread since boot, ns: tells a reused id apart.
    pub start_ns: u64,
    /// cgroup v2 id; 0 unknown.
    pub cgroup: u64,
    /// Name of the thread.
    pub comm: Comm,
}

impl Actor {
    /// Its cgroup v2 id, where there is one.
    pub fn cgroup_id(&self) -> Option<u64> {
        (self.cgroup != 0).then_some(self.cgroup)
    }
}

/// A process that has the socket open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holder {
    /// Process id.
    pub pid: u32,
    /// File descriptor.
    pub fd: u32,
    /// Name of the process.
    pub comm: Comm,
}

/// What /proc says of a process, read while it lived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Start time since boot, ns, to 10 ms: tells a reused id apart. 0: not known.
    pub start_ns: u64,
    /// Name of the process (of its first thread).
    pub comm: Comm,
    /// Its arguments, separated by blanks.
    pub cmdline: Option<Arc<str>>,
    /// Path of its cgroup (v2, else the first v1 hierarchy that says more than `/`).
    pub cgroup: Option<Arc<str>>,
    /// Container id (docker, containerd, cri-o, podman) or systemd unit's machine.
    pub container: Option<Arc<str>>,
}

impl Process {
    /// Whether a thread that started at `start_ns` can be one of this process: it is no older.
    pub fn may_have_thread(&self, start_ns: u64) -> bool {
        const STAT_GRAIN_NS: u64 = 10_000_000;
        self.start_ns <= start_ns.saturating_add(STAT_GRAIN_NS)
    }
}

/// The owner as it is shown: who to talk to about this socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// The process; `None`: not known, never "nobody".
    pub pid: Option<u32>,
    /// The thread that connected or accepted, where that was seen.
    pub tid: Option<u32>,
    /// The process' name.
    pub comm: Option<Comm>,
    /// A file descriptor of that process.
    pub fd: Option<u32>,
    /// Every process that has it open now.
    pub holders: Vec<Holder>,
    /// Arguments of the process.
    pub cmdline: Option<Arc<str>>,
    /// cgroup path.
    pub cgroup: Option<Arc<str>>,
    /// cgroup v2 id, as the acting thread had it; known even of a process that is gone.
    pub cgroup_id: Option<u64>,
    /// Container id.
    pub container: Option<Arc<str>>,
    /// The process named is the listener's, since nobody has accepted the connection.
    pub by_listener: bool,
    /// The process had closed it or was gone: the name is remembered.
    pub remembered: bool,
}

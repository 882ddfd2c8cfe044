//! The kernel's own text for the tracepoint `sock:inet_sock_set_state`.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use crate::oracle::state_name;

/// A recording of the state changes of one IPv4 address, in a trace instance of its own, on a
/// mount that nobody else sees.
#[derive(Debug)]
pub struct Recording {
    instance: PathBuf,
    ip: Ipv4Addr,
    /// Holds the mount that `instance` lies in.
    _mount: OwnedFd,
}

/// One state change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// CLOCK_MONOTONIC, µs.
    pub at_us: u64,
    /// Our end; port 0 before connect() has chosen one.
    pub local: SocketAddr,
    /// The peer's end.
    pub remote: SocketAddr,
    /// The state before, in the tracer's spelling.
    pub old: String,
    /// The state after.
    pub new: String,
}

/// Whether recordings can be made.
pub fn supported() -> io::Result<()> {
    let (path, _mount) = mount()?;
    std::fs::metadata(path.join("events/sock/inet_sock_set_state/enable")).map(drop)
}

impl Recording {
    /// Starts to record what happens to connections from or to `ip`.
    pub fn start(ip: Ipv4Addr) -> Recording {
        let (root, mount) = mount().expect("tracefs");
        let name = format!("tcptrace-tests-{}-{ip}", std::process::id());
        let instance = root.join("instances").join(name);
        std::fs::create_dir(&instance).expect("a trace instance");
        let recording = Recording {
            instance,
            ip,
            _mount: mount,
        };
        recording.set("trace_clock", "mono");
        recording.set("buffer_size_kb", "8192");
        recording.set("events/sock/inet_sock_set_state/enable", "1");
        recording
    }

    /// What was recorded so far, in order.
    pub fn changes(&self) -> Vec<Change> {
        let text = std::fs::read_to_string(self.instance.join("trace")).expect("the trace");
        text.lines()
            .filter(|line| line.contains(" inet_sock_set_state: "))
            .filter_map(parse)
            .filter(|c| c.local.ip() == self.ip || c.remote.ip() == self.ip)
            .collect()
    }

    fn set(&self, file: &str, value: &str) {
        let path = self.instance.join(file);
        std::fs::write(&path, value).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.set("events/enable", "0");
        // The instance is empty of readers now; if the kernel disagrees, it stays behind idle.
        let _ = std::fs::remove_dir(&self.instance);
    }
}

/// A mount of tracefs that is in nobody's tree, and the path to it.
fn mount() -> io::Result<(PathBuf, OwnedFd)> {
    let fs = fsopen("tracefs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&fs)?;
    let mount = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    let path = format!("/proc/self/fd/{}", mount.as_raw_fd());
    Ok((path.into(), mount))
}

/// `TASK-PID [CPU] FLAGS SECONDS.MICROS: inet_sock_set_state: family=AF_INET
/// protocol=IPPROTO_TCP sport=… dport=… saddr=… daddr=… saddrv6=… daddrv6=… oldstate=…
/// newstate=…`; `None` for what is not IPv4 or not TCP.
fn parse(line: &str) -> Option<Change> {
    let (head, fields) = line.split_once(" inet_sock_set_state: ")?;
    let field = |key: &str| {
        let mut words = fields.split_whitespace();
        words.find_map(|w| w.strip_prefix(key)?.strip_prefix('='))
    };
    if field("protocol") != Some("IPPROTO_TCP") {
        return None;
    }
    let ip = |key| field(key)?.parse::<Ipv4Addr>().ok();
    let port = |key| field(key)?.parse::<u16>().ok();
    let stamp = head.split_whitespace().last()?.trim_end_matches(':');
    let (seconds, micros) = stamp.split_once('.')?;
    Some(Change {
        at_us: seconds.parse::<u64>().ok()? * 1_000_000 + micros.parse::<u64>().ok()?,
        local: SocketAddr::from((ip("saddr")?, port("sport")?)),
        remote: SocketAddr::from((ip("daddr")?, port("dport")?)),
        old: state_name(field("oldstate")?),
        new: state_name(field("newstate")?),
    })
}

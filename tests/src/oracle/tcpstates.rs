//! libbpf-tools' `tcpstates`. It is right about full sockets; it knows no minisockets, and its
//! pid is whoever was running.

use std::ffi::CStr;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::child::{LIMIT, Process};
use crate::lab::Lab;
use crate::oracle::state_name;

/// A line.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The socket's kernel address.
    pub sk: String,
    /// Our port.
    pub local_port: u16,
    /// The peer's port.
    pub remote_port: u16,
    /// The state before, in the tracer's spelling.
    pub old: String,
    /// The state after.
    pub new: String,
    /// How long the socket was in the state before; 0 where it was not seen to enter it.
    pub lasted: Duration,
}

/// A running tcpstates.
#[derive(Debug)]
pub struct Tcpstates(Process);

impl Tcpstates {
    /// Starts it, and makes connections in `lab` until it prints one of them: it does not say
    /// when it is attached.
    #[track_caller]
    pub fn start(lab: &Lab) -> Tcpstates {
        let mut command = Command::new("stdbuf");
        command.args(["-oL", "tcpstates"]);
        // SAFETY: both calls of `private_tracefs` are async-signal-safe.
        unsafe { command.pre_exec(private_tracefs) };
        let process = Process::spawn(&mut command);
        for _ in 0..100 {
            let conn = lab.connect();
            let port = conn.listener.local.expect("bound").port();
            let seen = process.out.find(0, Duration::from_millis(100), |line| {
                let change = parse(&line.text)?;
                (change.local_port == port).then_some(())
            });
            if seen.is_some() {
                return Tcpstates(process);
            }
        }
        panic!("tcpstates sees nothing: {}", process.err.text());
    }

    /// Stops it; what it printed about the listener port `port`, in order.
    #[track_caller]
    pub fn stop(mut self, port: u16) -> Vec<Change> {
        self.0.signal(Signal::INT);
        self.0.wait(LIMIT);
        let lines = self.0.out.all();
        lines
            .iter()
            .filter_map(|line| parse(&line.text))
            .filter(|c| c.local_port == port || c.remote_port == port)
            .collect()
    }
}

/// Mounts tracefs, which it needs, where only it sees the mount.
fn private_tracefs() -> io::Result<()> {
    let mount = |kind: &CStr, at: &CStr, flags| {
        // SAFETY: the three texts live through the call, and tracefs takes no data.
        match unsafe {
            libc::mount(
                kind.as_ptr(),
                at.as_ptr(),
                kind.as_ptr(),
                flags,
                std::ptr::null(),
            )
        } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: unshare takes no pointers.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return Err(io::Error::last_os_error());
    }
    mount(c"none", c"/", libc::MS_REC | libc::MS_PRIVATE)?;
    match mount(c"tracefs", c"/sys/kernel/tracing", 0) {
        // It is mounted there for everybody.
        Err(e) if e.raw_os_error() == Some(libc::EBUSY) => Ok(()),
        outcome => outcome,
    }
}

/// `SKADDR PID COMM LADDR LPORT RADDR RPORT OLDSTATE -> NEWSTATE MS`; a COMM may hold blanks.
fn parse(line: &str) -> Option<Change> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [.., lport, _, rport, old, "->", new, ms] = words[..] else {
        return None;
    };
    Some(Change {
        sk: words[0].to_owned(),
        local_port: lport.parse().ok()?,
        remote_port: rport.parse().ok()?,
        old: state_name(old),
        new: state_name(new),
        lasted: Duration::from_secs_f64(ms.parse::<f64>().ok()? / 1000.0),
    })
}

//! What /proc tells beside the sockets: settings and counters of namespaces, and what processes have
//! open and wait for.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::owner::Comm;
use crate::time::Mono;

/// A setting or a counter of a network namespace, as it was at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The namespace.
    pub netns: u32,
    /// As sysctl(8) and nstat(8) have it: `net.ipv4.ip_local_port_range`, `TcpExt.ListenOverflows`,
    /// and `sockstat.TCP.orphan` for a number of `/proc/net/sockstat`.
    pub name: Arc<str>,
    /// Its value, with blanks for tabs.
    pub value: Arc<str>,
}

/// What a process had open and waited for at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activity {
    /// When.
    pub at: Mono,
    /// The process.
    pub pid: u32,
    /// Its file descriptors; `None`: they may not be counted.
    pub files: Option<u64>,
    /// How many it may have: the soft RLIMIT_NOFILE. `None`: not known, or no limit.
    pub files_max: Option<u64>,
    /// Its threads.
    pub threads: u32,
    /// Those that wait in a call that writes to a TCP socket, or connects one.
    pub blocked: Vec<Blocked>,
}

/// A thread that waits at a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// The thread.
    pub tid: u32,
    /// Its name.
    pub comm: Comm,
    /// The system call.
    pub call: Arc<str>,
    /// Its descriptor.
    pub fd: u32,
    /// The inode of the socket.
    pub inode: u32,
    /// It waited there then already, and has not run since.
    pub since: Mono,
}

/// The first and the last port of `net.ipv4.ip_local_port_range`.
pub fn port_range(text: &str) -> Option<(u16, u16)> {
    let mut words = text.split_whitespace();
    let low = words.next()?.parse().ok()?;
    let high = words.next()?.parse().ok()?;
    (low <= high).then_some((low, high))
}

/// The ports of `net.ipv4.ip_local_reserved_ports`: `8080,9148-9150`.
pub fn reserved_ports(text: &str) -> BTreeSet<u16> {
    let mut ports = BTreeSet::new();
    for part in text.split(',') {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(low), Ok(high)) = (low.trim().parse(), high.trim().parse::<u16>()) {
            ports.extend(low..=high);
        }
    }
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_ports_are_read() {
        let read = reserved_ports("8080,9148-9150");
        assert_eq!(
            read.into_iter().collect::<Vec<_>>(),
            [8080, 9148, 9149, 9150]
        );
        for odd in ["", ",", "x", "5-", "9-3", "70000", "-", "x-y,70000"] {
            assert!(reserved_ports(odd).is_empty(), "{odd}");
        }
    }

    #[test]
    fn a_range_has_two_ends() {
        assert_eq!(port_range("32768 60999"), Some((32_768, 60_999)));
        for text in ["", "32768", "60999 32768", "1 70000"] {
            assert_eq!(port_range(text), None, "{text}");
        }
    }
}

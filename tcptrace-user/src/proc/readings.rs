//! Settings and counters of the network namespace of the calling thread.

use std::fs;
use std::path::Path;

use crate::kernel::{sysctl, value};

/// Settings that decide what becomes of connections, as sysctl(8) names them.
const SETTINGS: [&str; 15] = [
    "net.core.somaxconn",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_abort_on_overflow",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_max_orphans",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_max_tw_buckets",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_timestamps",
    "net.ipv4.tcp_tw_reuse",
    "net.ipv4.tcp_tw_reuse_delay",
];

/// Counters of `/proc/net/netstat` that say what was dropped and thrown away.
const COUNTERS: [&str; 11] = [
    "TcpExt.ListenOverflows",
    "TcpExt.ListenDrops",
    "TcpExt.TCPReqQFullDrop",
    "TcpExt.TCPReqQFullDoCookies",
    "TcpExt.SyncookiesSent",
    "TcpExt.SyncookiesRecv",
    "TcpExt.TCPTimeWaitOverflow",
    "TcpExt.TCPAbortOnMemory",
    "TcpExt.TCPAbortOnData",
    "TcpExt.PAWSActive",
    "TcpExt.PAWSEstab",
];

/// Each by its name; what this kernel does not have is not among them.
pub(crate) fn readings() -> Vec<(&'static str, String)> {
    let setting = |name| Some((name, sysctl::setting(Path::new("/proc"), name).ok()?));
    let settings = SETTINGS.into_iter().filter_map(setting);
    // `/proc/net` is that of the first thread.
    let netstat = fs::read_to_string("/proc/thread-self/net/netstat").unwrap_or_default();
    let counter = |name: &'static str| {
        let counter = name.strip_prefix("TcpExt.")?;
        Some((name, value::of_netstat(&netstat, counter)?))
    };
    settings
        .chain(COUNTERS.into_iter().filter_map(counter))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_them() {
        let all = readings();
        let of = |name| all.iter().find(|(n, _)| *n == name).map(|(_, v)| v);
        let range = of("net.ipv4.ip_local_port_range").expect("a setting of every kernel");
        assert_eq!(range.split(' ').count(), 2);
        assert!(of("TcpExt.ListenDrops").is_some_and(|n| n.parse::<u64>().is_ok()));
    }
}

//! `/proc/net/netstat`: a namespace's counters, as `nstat` shows them.

use crate::netns::Netns;

/// A counter of the group `TcpExt`.
#[track_caller]
pub fn tcp_ext(ns: &Netns, name: &str) -> u64 {
    let text = ns.enter(|| std::fs::read_to_string("/proc/thread-self/net/netstat"));
    let text = text.expect("/proc/net/netstat");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    let value = pairs.find_map(|(n, value)| (n == name).then_some(value));
    value.expect(name).parse().expect("a number")
}

//! `/proc/net/tcp` and `/proc/net/tcp6`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::netns::Netns;
use crate::oracle::count;

/// A line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// The state in the tracer's spelling; of a minisocket its substate.
    pub state: &'static str,
    /// Whether it is a minisocket: those alone have the timer 3 (`get_timewait4_sock`).
    pub mini: bool,
    /// Our end, a v4-mapped address as IPv4.
    pub local: SocketAddr,
    /// The peer's end.
    pub remote: SocketAddr,
    /// Inode of the socket file; 0 where there is none.
    pub inode: u64,
}

/// Every TCP socket of the namespace.
#[track_caller]
pub fn sockets(ns: &Netns) -> Vec<Socket> {
    let text = ns.enter(|| {
        ["tcp", "tcp6"].map(|file| {
            let path = format!("/proc/thread-self/net/{file}");
            std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
        })
    });
    text.iter()
        .flat_map(|file| file.lines().skip(1))
        .map(parse)
        .collect()
}

/// How many there are of each state.
#[track_caller]
pub fn counts(ns: &Netns) -> BTreeMap<String, usize> {
    count(sockets(ns).into_iter().map(|s| s.state.to_owned()))
}

#[track_caller]
fn parse(line: &str) -> Socket {
    let words: Vec<&str> = line.split_whitespace().collect();
    Socket {
        state: state(words[3]),
        mini: words[5].starts_with("03:"),
        local: addr(words[1]),
        remote: addr(words[2]),
        inode: words[9].parse().expect("an inode"),
    }
}

fn state(hex: &str) -> &'static str {
    const NAMES: [&str; 12] = [
        "established",
        "syn_sent",
        "syn_recv",
        "fin_wait1",
        "fin_wait2",
        "time_wait",
        "close",
        "close_wait",
        "last_ack",
        "listen",
        "closing",
        "new_syn_recv",
    ];
    let number = usize::from_str_radix(hex, 16).expect("a state number");
    NAMES[number - 1]
}

/// `0100007F:0050`: each group of 8 digits is a word in the machine's byte order.
fn addr(text: &str) -> SocketAddr {
    let (ip, port) = text.split_once(':').expect("ip:port");
    let bytes: Vec<u8> = (0..ip.len() / 8)
        .flat_map(|i| {
            let word = u32::from_str_radix(&ip[8 * i..8 * i + 8], 16).expect("hex");
            word.to_ne_bytes()
        })
        .collect();
    let ip = match <[u8; 4]>::try_from(&bytes[..]) {
        Ok(four) => IpAddr::V4(Ipv4Addr::from(four)),
        Err(_) => {
            let sixteen = <[u8; 16]>::try_from(&bytes[..]).expect("4 or 16 bytes");
            IpAddr::V6(Ipv6Addr::from(sixteen)).to_canonical()
        }
    };
    SocketAddr::new(ip, u16::from_str_radix(port, 16).expect("a port"))
}

//! Who talks to whom: endpoints, tuples, roles, connection ids.

use std::fmt;
use std::net::SocketAddr;

/// The two ends of a connection and the namespace they are in. v4-mapped IPv6 is kept as IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// Our end; port 0 while the kernel has not chosen one.
    pub local: SocketAddr,
    /// The peer's end.
    pub remote: SocketAddr,
    /// Inode number of the network namespace, where it is known.
    pub netns: Option<u32>,
}

impl Tuple {
    /// A tuple with v4-mapped addresses brought to IPv4.
    pub fn new(local: SocketAddr, remote: SocketAddr, netns: Option<u32>) -> Tuple {
        let plain = |a: SocketAddr| SocketAddr::new(a.ip().to_canonical(), a.port());
        Tuple {
            local: plain(local),
            remote: plain(remote),
            netns,
        }
    }

    /// How well a listener bound to `addr` fits this connection; `None`: it would not take it. The
    /// kernel gives it to the best (`compute_score` of `inet_hashtables.c`). `[::]` takes IPv4 as
    /// well, unless it is IPV6_V6ONLY, which cannot be seen.
    pub fn fit(&self, addr: SocketAddr) -> Option<ListenerFit> {
        let same_family = addr.is_ipv4() == self.local.is_ipv4();
        match addr.ip() {
            _ if addr.port() != self.local.port() => None,
            ip if ip == self.local.ip() => Some(ListenerFit::Address),
            ip if ip.is_unspecified() && same_family => Some(ListenerFit::Any),
            ip if ip.is_unspecified() && ip.is_ipv6() => Some(ListenerFit::AnyFamily),
            _ => None,
        }
    }
}

/// How well a listener fits a connection, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListenerFit {
    /// It listens on all addresses, of IPv4 and IPv6.
    AnyFamily,
    /// It listens on all addresses of the connection's family.
    Any,
    /// It listens on the connection's very address.
    Address,
}

/// Which side asked for the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// We connected.
    Active,
    /// We accepted.
    Passive,
    /// The peer connected and nobody here has called accept.
    Unaccepted,
}

impl Role {
    /// `active`, `passive`, `unaccepted`.
    pub fn name(self) -> &'static str {
        match self {
            Role::Active => "active",
            Role::Passive => "passive",
            Role::Unaccepted => "unaccepted",
        }
    }
}

/// A connection: the kernel's socket cookie, and how often that socket had connected before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    /// The socket cookie: unique within a boot.
    pub cookie: u64,
    /// 0 for the first connection of the socket, 1 for its first reconnect…
    pub generation: u32,
}

/// `31ec`, `31ec.2`: the cookie as `ss -e` prints it, and the generation where it is not the first.
impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.generation {
            0 => write!(f, "{:x}", self.cookie),
            n => write!(f, "{:x}.{n}", self.cookie),
        }
    }
}

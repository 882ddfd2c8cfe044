//! Who talks to whom: endpoints, tuples, roles, connection ids.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

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

    /// Whether a listener bound to `addr` would have accepted this connection.
    pub fn came_through(&self, addr: SocketAddr) -> bool {
        addr.port() == self.local.port()
            && (addr.ip() == self.local.ip() || covers(addr.ip(), self.local.ip()))
    }
}

/// Whether a listener bound to `any` takes connections to `ip`: `[::]` takes IPv4 as well, unless
/// it is IPV6_V6ONLY, which cannot be seen.
fn covers(any: IpAddr, ip: IpAddr) -> bool {
    any.is_unspecified() && (any.is_ipv6() || ip.is_ipv4())
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

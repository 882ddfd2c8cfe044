//! Which connections the user asked for.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::change::View;
use crate::state::StateSet;
use crate::tuple::{Role, Tuple};

/// The user's filter: every field that is set must hold; within a list, any. What is not known
/// of a connection does not hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// States to show; empty: all.
    pub states: StateSet,
    /// Owner or any holder.
    pub pids: Vec<u32>,
    /// Name of the owner or of any holder: whole, or with `*` and `?`.
    pub comms: Vec<String>,
    /// Local port.
    pub local_ports: Ports,
    /// Remote port.
    pub remote_ports: Ports,
    /// Either port.
    pub any_ports: Ports,
    /// Local address.
    pub local_nets: Vec<Net>,
    /// Remote address.
    pub remote_nets: Vec<Net>,
    /// Address family.
    pub family: Option<Family>,
    /// Role.
    pub roles: Vec<Role>,
    /// cgroup path or container id: equal, below, or a prefix of the id.
    pub cgroups: Vec<String>,
    /// The v2 ids of these cgroups and of those below them, as far as they exist.
    pub cgroup_ids: Vec<u64>,
    /// Network namespaces by inode number.
    pub netns: Vec<u32>,
    /// Least age in the state, ns.
    pub min_age_ns: u64,
    /// Only what this one selects by its tuple.
    pub within: Option<Box<Filter>>,
}

impl Filter {
    /// Whether the connection is one of those asked for, its state included, its age aside.
    pub fn matches(&self, view: &View) -> bool {
        (self.states.is_empty() || self.states.contains(view.state)) && self.selects(view)
    }

    /// The same whatever its state: for a transition, which is of two states.
    pub fn selects(&self, view: &View) -> bool {
        self.selects_tuple(&view.tuple) && self.owner(view) && self.place(view)
    }

    /// Whether anything but the tuple has to be known of a connection to judge it.
    pub fn asks_for_owner(&self) -> bool {
        !(self.pids.is_empty()
            && self.comms.is_empty()
            && self.roles.is_empty()
            && self.cgroups.is_empty())
    }

    /// Whether some ends or namespaces were asked for: every event asks.
    fn asks_for_tuple(&self) -> bool {
        let ports = [&self.local_ports, &self.remote_ports, &self.any_ports];
        !(ports.iter().all(|ports| ports.is_empty())
            && self.local_nets.is_empty()
            && self.remote_nets.is_empty()
            && self.family.is_none()
            && self.netns.is_empty()
            && self.within.is_none())
    }

    /// Whether the ends and the namespace are those asked for.
    #[inline]
    pub fn selects_tuple(&self, tuple: &Tuple) -> bool {
        !self.asks_for_tuple() || self.selects_ends(tuple)
    }

    /// Apart from the question whether anything was asked for, which then takes a tenth of the time.
    #[inline(never)]
    fn selects_ends(&self, tuple: &Tuple) -> bool {
        let (local, remote) = (tuple.local, tuple.remote);
        let in_any = |nets: &[Net], ip| nets.is_empty() || nets.iter().any(|n| n.contains(ip));
        self.local_ports.admit(local.port())
            && self.remote_ports.admit(remote.port())
            && (self.any_ports.admit(local.port()) || self.any_ports.admit(remote.port()))
            && in_any(&self.local_nets, local.ip())
            && in_any(&self.remote_nets, remote.ip())
            && self.family.is_none_or(|f| f == Family::of(local.ip()))
            && (self.netns.is_empty() || tuple.netns.is_some_and(|n| self.netns.contains(&n)))
            && self.within.as_ref().is_none_or(|w| w.selects_tuple(tuple))
    }

    /// What of it a tuple is enough for.
    pub fn of_tuples(&self) -> Filter {
        Filter {
            local_ports: self.local_ports.clone(),
            remote_ports: self.remote_ports.clone(),
            any_ports: self.any_ports.clone(),
            local_nets: self.local_nets.clone(),
            remote_nets: self.remote_nets.clone(),
            family: self.family,
            netns: self.netns.clone(),
            ..Filter::default()
        }
    }

    fn owner(&self, view: &View) -> bool {
        let owner = &view.owner;
        let pids = owner
            .pid
            .into_iter()
            .chain(owner.holders.iter().map(|h| h.pid));
        let comms = owner
            .comm
            .iter()
            .chain(owner.holders.iter().map(|h| &h.comm));
        (self.pids.is_empty() || pids.into_iter().any(|p| self.pids.contains(&p)))
            && (self.comms.is_empty()
                || comms
                    .map(|c| c.to_text())
                    .any(|name| self.comms.iter().any(|glob| glob_matches(glob, &name))))
            && (self.roles.is_empty() || view.role.is_some_and(|r| self.roles.contains(&r)))
    }

    fn place(&self, view: &View) -> bool {
        let owner = &view.owner;
        let in_cgroup = |wanted: &String| match wanted.starts_with('/') {
            true => owner.cgroup.as_deref().is_some_and(|p| is_below(p, wanted)),
            false => owner
                .container
                .as_deref()
                .is_some_and(|id| id.starts_with(wanted.as_str())),
        };
        let by_id = || {
            owner
                .cgroup_id
                .is_some_and(|id| self.cgroup_ids.contains(&id))
        };
        self.cgroups.is_empty() || self.cgroups.iter().any(in_cgroup) || by_id()
    }
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4, and IPv4 over an IPv6 socket.
    V4,
    /// IPv6 proper.
    V6,
}

impl Family {
    /// The family of an address; a v4-mapped one is IPv4.
    pub fn of(ip: IpAddr) -> Family {
        match ip.to_canonical() {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }
}

/// Whether `name` fits a pattern in which `*` stands for any text and `?` for one character.
pub fn glob_matches(glob: &str, name: &str) -> bool {
    let (glob, name): (Vec<char>, Vec<char>) = (glob.chars().collect(), name.chars().collect());
    let (mut g, mut n) = (0, 0);
    // Where to go on after a `*` that took too little: behind it in the pattern, and in the name.
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        match (glob.get(g), retry) {
            (Some('*'), _) => {
                g += 1;
                retry = Some((g, n));
            }
            (Some(c), _) if *c == '?' || *c == name[n] => (g, n) = (g + 1, n + 1),
            (_, Some((star, taken))) => {
                (g, n) = (star, taken + 1);
                retry = Some((star, n));
            }
            _ => return false,
        }
    }
    glob[g..].iter().all(|c| *c == '*')
}

fn is_below(path: &str, ancestor: &str) -> bool {
    match path.strip_prefix(ancestor.trim_end_matches('/')) {
        Some(rest) => rest.is_empty() || rest.starts_with('/'),
        None => false,
    }
}

/// A set of ports; empty: no port was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports(Vec<RangeInclusive<u16>>);

impl Ports {
    /// Whether no port was asked for.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `port` is one of them.
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }

    /// Both sets together.
    pub fn union(mut self, other: Ports) -> Ports {
        self.0.extend(other.0);
        self
    }

    /// Every port, in the order asked for; one that was asked for twice comes twice.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        self.0.iter().cloned().flatten()
    }

    fn admit(&self, port: u16) -> bool {
        self.is_empty() || self.contains(port)
    }
}

/// `80,8000-8010`: read back as the same.
impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges = self
            .0
            .iter()
            .map(|range| match (range.start(), range.end()) {
                (first, last) if first == last => first.to_string(),
                (first, last) => format!("{first}-{last}"),
            });
        f.pad(&ranges.collect::<Vec<_>>().join(","))
    }
}

/// Why a text is no list of ports.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a port: write 1 to 65535, a range, or a list, as in 80,443,8000-8010")]
pub struct PortsError(String);

/// Reads `443`, `80,443`, `8000-8010`.
impl FromStr for Ports {
    type Err = PortsError;

    fn from_str(text: &str) -> Result<Ports, PortsError> {
        let word_ranges = text.split(',').map(|word| {
            let (first, last) = word.split_once('-').unwrap_or((word, word));
            match (port(first), port(last)) {
                (Some(first), Some(last)) if first <= last => Ok(first..=last),
                _ => Err(PortsError(word.to_owned())),
            }
        });
        word_ranges.collect::<Result<_, _>>().map(Ports)
    }
}

fn port(text: &str) -> Option<u16> {
    text.trim().parse().ok().filter(|p| *p != 0)
}

/// An address prefix. Bits below the prefix are zero, and a v4-mapped one is IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Net {
    addr: IpAddr,
    bits: u8,
}

impl Net {
    /// The network of `addr` with a prefix of `bits`; `None` if an address has fewer bits.
    pub fn new(addr: IpAddr, bits: u8) -> Option<Net> {
        let net = match (addr, addr.to_canonical()) {
            (IpAddr::V4(v4), _) if bits <= 32 => {
                let net = v4.to_bits() & u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
                (IpAddr::V4(Ipv4Addr::from_bits(net)), bits)
            }
            (IpAddr::V6(_), v4 @ IpAddr::V4(_)) if (96..=128).contains(&bits) => {
                return Net::new(v4, bits - 96);
            }
            (IpAddr::V6(v6), _) if bits <= 128 => {
                let net = v6.to_bits() & u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
                (IpAddr::V6(Ipv6Addr::from_bits(net)), bits)
            }
            _ => return None,
        };
        Some(Net {
            addr: net.0,
            bits: net.1,
        })
    }

    /// The network address.
    pub fn addr(self) -> IpAddr {
        self.addr
    }

    /// Bits of the prefix.
    pub fn bits(self) -> u8 {
        self.bits
    }

    /// Whether an address is in it. A v4-mapped address is IPv4; an IPv4 address is in no IPv6
    /// network.
    pub fn contains(self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        ip.is_ipv4() == self.addr.is_ipv4() && Net::new(ip, self.bits) == Some(self)
    }
}

/// `10.0.0.0/8`, `2001:db8::/32`.
impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.bits)
    }
}

/// Why a text is no address prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an address or a network: write 10.0.0.9, 10.0.0.0/8, 2001:db8::/32 or ::1")]
pub struct NetError(String);

/// Reads `10.0.0.0/8`, `[2001:db8::]/32`, and an address as the network of itself. Bits behind
/// the prefix are dropped: people write `10.1.2.3/8` and mean its network.
impl FromStr for Net {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Net, NetError> {
        read_net(text.trim()).ok_or_else(|| NetError(text.to_owned()))
    }
}

fn read_net(text: &str) -> Option<Net> {
    let (addr, bits) = match text.split_once('/') {
        Some((addr, bits)) => (addr, Some(bits.parse::<u8>().ok()?)),
        None => (text, None),
    };
    let bare = addr.strip_prefix('[').and_then(|a| a.strip_suffix(']'));
    let addr: IpAddr = bare.unwrap_or(addr).parse().ok()?;
    Net::new(addr, bits.unwrap_or(if addr.is_ipv4() { 32 } else { 128 }))
}

/// Why a text names no role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a role: use active, passive or unaccepted")]
pub struct RoleError(String);

/// Reads `active` (or `client`), `passive` (or `server`), `unaccepted`.
impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Role, RoleError> {
        match text.trim().to_ascii_lowercase().as_str() {
            "active" | "client" => Ok(Role::Active),
            "passive" | "server" => Ok(Role::Passive),
            "unaccepted" => Ok(Role::Unaccepted),
            _ => Err(RoleError(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests;

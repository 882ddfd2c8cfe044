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
#[derive(Clone, Debug, Default)]
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
            && self.netns.is_empty())
    }

    /// Whether the ends and the namespace are those asked for.
    pub fn selects_tuple(&self, tuple: &Tuple) -> bool {
        if !self.asks_for_tuple() {
            return true;
        }
        let (local, remote) = (tuple.local, tuple.remote);
        let in_any = |nets: &[Net], ip| nets.is_empty() || nets.iter().any(|n| n.contains(ip));
        self.local_ports.admit(local.port())
            && self.remote_ports.admit(remote.port())
            && (self.any_ports.admit(local.port()) || self.any_ports.admit(remote.port()))
            && in_any(&self.local_nets, local.ip())
            && in_any(&self.remote_nets, remote.ip())
            && self.family.is_none_or(|f| f == Family::of(local.ip()))
            && (self.netns.is_empty() || tuple.netns.is_some_and(|n| self.netns.contains(&n)))
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
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::owner::{Comm, Holder, Owner};
    use crate::state::TcpState;
    use crate::time::{Age, Mono};
    use crate::tuple::{ConnId, Tuple};

    fn view(local: &str, remote: &str) -> View {
        let end = |text: &str| text.parse::<SocketAddr>().unwrap();
        View {
            at: Mono(0),
            id: ConnId {
                cookie: 1,
                generation: 0,
            },
            tuple: Tuple::new(end(local), end(remote), Some(4_026_531_840)),
            role: Some(Role::Active),
            state: TcpState::CloseWait,
            age: Age::Exact(1),
            mini: false,
            owner: Owner {
                pid: Some(4711),
                comm: Some(Comm::from_bytes(b"python3")),
                holders: vec![Holder {
                    pid: 4712,
                    fd: 9,
                    comm: Comm::from_bytes(b"gunicorn: work"),
                }],
                cgroup: Some("/system.slice/shop.service/api".into()),
                container: Some("f00dcafe0123".into()),
                ..Owner::default()
            },
            recv_q: None,
            send_q: None,
            keepalive: None,
            verdict: None,
        }
    }

    #[track_caller]
    fn check(expected: bool, change: impl FnOnce(&mut Filter)) {
        let mut filter = Filter::default();
        change(&mut filter);
        let view = view("10.1.0.5:41822", "[::ffff:10.0.0.9]:443");
        assert_eq!(filter.matches(&view), expected, "{filter:?}");
    }

    #[test]
    fn every_field_that_is_set_must_hold() {
        check(true, |_| ());
        check(true, |f| f.states = "cw,tw".parse().unwrap());
        check(false, |f| f.states = "tw".parse().unwrap());
        check(true, |f| f.local_ports = "41822".parse().unwrap());
        check(false, |f| f.local_ports = "443".parse().unwrap());
        check(true, |f| f.remote_ports = "80,400-500".parse().unwrap());
        check(true, |f| f.any_ports = "443".parse().unwrap());
        check(true, |f| f.any_ports = "41822".parse().unwrap());
        check(false, |f| f.any_ports = "444".parse().unwrap());
        check(true, |f| {
            f.local_nets = vec!["10.1.0.0/16".parse().unwrap()]
        });
        check(false, |f| {
            f.remote_nets = vec!["10.1.0.0/16".parse().unwrap()]
        });
        check(true, |f| f.family = Some(Family::V4));
        check(false, |f| f.family = Some(Family::V6));
        check(true, |f| f.roles = vec![Role::Passive, Role::Active]);
        check(false, |f| f.roles = vec![Role::Unaccepted]);
        check(true, |f| f.netns = vec![1, 4_026_531_840]);
        check(false, |f| f.netns = vec![1]);
        check(false, |f| {
            f.pids = vec![4711];
            f.netns = vec![1];
        });
    }

    #[test]
    fn an_owner_is_who_opened_it_or_who_holds_it() {
        check(true, |f| f.pids = vec![4711]);
        check(true, |f| f.pids = vec![4712]);
        check(false, |f| f.pids = vec![9]);
        check(true, |f| f.comms = vec!["python3".into()]);
        check(true, |f| f.comms = vec!["guni*".into()]);
        check(false, |f| f.comms = vec!["python".into()]);
        check(true, |f| {
            f.cgroups = vec!["/system.slice/shop.service".into()]
        });
        check(true, |f| f.cgroups = vec!["/".into()]);
        check(false, |f| f.cgroups = vec!["/system.slice/shop".into()]);
        check(true, |f| f.cgroups = vec!["f00dcafe".into()]);
        check(false, |f| f.cgroups = vec!["cafe".into()]);
    }

    #[test]
    fn what_is_not_known_does_not_match() {
        let mut unknown = view("10.1.0.5:1", "10.0.0.9:2");
        unknown.owner = Owner::default();
        unknown.role = None;
        unknown.tuple.netns = None;
        for filter in [
            Filter {
                pids: vec![1],
                ..Filter::default()
            },
            Filter {
                comms: vec!["*".into()],
                ..Filter::default()
            },
            Filter {
                roles: vec![Role::Active],
                ..Filter::default()
            },
            Filter {
                netns: vec![1],
                ..Filter::default()
            },
            Filter {
                cgroups: vec!["/".into()],
                ..Filter::default()
            },
        ] {
            assert!(!filter.matches(&unknown), "{filter:?}");
        }
        assert!(Filter::default().matches(&unknown));
    }

    #[test]
    fn what_people_write_is_read() {
        for (text, net) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:db8:1::/32", "2001:db8::/32"),
            ("[::1]", "::1/128"),
            ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(text.parse::<Net>().unwrap().to_string(), net);
        }
        for text in [
            "",
            "10.0.0.0/33",
            "::/129",
            "10.0.0",
            "host",
            "1.2.3.4/",
            "/8",
        ] {
            assert!(text.parse::<Net>().is_err(), "{text}");
        }
        assert!("80, 443,8000-8010".parse::<Ports>().is_ok());
        for text in ["", "0", "65536", "http", "9-8", "80,", "-1", "1-2-3"] {
            assert!(text.parse::<Ports>().is_err(), "{text}");
        }
        assert_eq!("Active".parse(), Ok(Role::Active));
        assert!("both".parse::<Role>().is_err());
    }

    proptest! {
        #[test]
        fn a_network_is_its_first_bits(addr: u128, other: u128, flip in 0u32..128, bits in 0u8..=128) {
            // Half of the time an address that differs from the network's in one bit only.
            let other = if other & 1 == 0 { other } else { addr ^ (1 << flip) };
            let (a, b) = (Ipv6Addr::from_bits(addr), Ipv6Addr::from_bits(other));
            prop_assume!(a.to_ipv4_mapped().is_none() && b.to_ipv4_mapped().is_none());
            let same = (0..u32::from(bits)).all(|i| (addr ^ other) >> (127 - i) & 1 == 0);
            prop_assert_eq!(Net::new(a.into(), bits).unwrap().contains(b.into()), same);
        }

        #[test]
        fn so_is_an_ipv4_network(addr: u32, other: u32, flip in 0u32..32, bits in 0u8..=32) {
            let other = if other & 1 == 0 { other } else { addr ^ (1 << flip) };
            let net = Net::new(Ipv4Addr::from_bits(addr).into(), bits).unwrap();
            let same = (0..u32::from(bits)).all(|i| (addr ^ other) >> (31 - i) & 1 == 0);
            let plain = Ipv4Addr::from_bits(other);
            prop_assert_eq!(net.contains(plain.into()), same);
            prop_assert_eq!(net.contains(plain.to_ipv6_mapped().into()), same);
            prop_assert!(net.to_string().parse() == Ok(net));
        }

        #[test]
        fn globs_agree_with_a_slow_oracle(glob in "[ab?*]{0,8}", name in "[abc]{0,8}") {
            fn oracle(glob: &[u8], name: &[u8]) -> bool {
                match (glob.first(), name.first()) {
                    (None, _) => name.is_empty(),
                    (Some(b'*'), _) => (0..=name.len()).any(|n| oracle(&glob[1..], &name[n..])),
                    (Some(c), Some(d)) => (*c == b'?' || c == d) && oracle(&glob[1..], &name[1..]),
                    (Some(_), None) => false,
                }
            }
            prop_assert_eq!(glob_matches(&glob, &name), oracle(glob.as_bytes(), name.as_bytes()));
        }
    }
}

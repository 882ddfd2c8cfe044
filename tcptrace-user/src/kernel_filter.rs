//! Which part of the user's filter the kernel programs apply.
//!
//! What is pushed lets through at least what [`Filter::selects`] accepts: the agent applies the
//! whole filter to what comes. So a list longer than [`MAX_FILTER`] is not pushed, and neither is
//! what the programs cannot know for sure:
//! - `-4`: an IPv6 socket with v4-mapped addresses counts as IPv4, so the address family of the
//!   socket does not tell. It is pushed as the local network `::ffff:0:0/96` instead.
//! - names: the programs see the name of the acting thread, which need not be its process' name.
//! - `--role unaccepted`: accepting is an event, not accepting is none.
//! - `--min-age`: an age is known when it has passed, and the summary counts the shorter stays, too.
//!
//! One exception: a socket that a process did not open itself but was handed (fork, SCM_RIGHTS, an
//! accept that the programs do not see) is entered by the agent, at its next dump.
//!
//! The rule of the programs, on which this relies (see also the model in the tests):
//! - A port that the socket does not have yet (0) fits any list of ports.
//! - Addresses are compared in v4-mapped form, with their bytes in network order.
//! - With [`FLAG_SELECTED`], a socket passes if its cookie is in the map `SELECTED`. A program
//!   enters it when a process connects ([`FLAG_SELECT_ACTIVE`]) or accepts
//!   ([`FLAG_SELECT_PASSIVE`]) and the process fits `tgids` and `cgroup`; the agent enters the
//!   sockets that it finds in a dump and that fit. A socket that nobody has accepted is owned by
//!   its listener and passes where [`FLAG_SELECT_PASSIVE`] is set.

use std::net::{IpAddr, Ipv4Addr};

use tcptrace_common::config::{
    Config, FLAG_SELECT_ACTIVE, FLAG_SELECT_PASSIVE, FLAG_SELECTED, MAX_FILTER, Prefix,
};
use tcptrace_common::tcp::AF_INET6;
use tcptrace_core::filter::{Family, Filter, Net, Ports};
use tcptrace_core::tuple::Role;

/// Fills the filters of `config`. A cgroup is pushed if it is the only one and has none below it:
/// the programs compare one id, not paths.
pub(crate) fn push(filter: &Filter, config: &mut Config) {
    push_ports(
        &filter.local_ports,
        &mut config.local_ports,
        &mut config.local_ports_len,
    );
    push_ports(
        &filter.remote_ports,
        &mut config.remote_ports,
        &mut config.remote_ports_len,
    );
    push_ports(
        &filter.any_ports,
        &mut config.any_ports,
        &mut config.any_ports_len,
    );
    let mut local_nets = filter.local_nets.clone();
    match filter.family {
        Some(Family::V4) if local_nets.is_empty() => local_nets.extend(all_ipv4()),
        Some(Family::V6) => config.family = u32::from(AF_INET6),
        _ => {}
    }
    push_list(
        local_nets.into_iter().map(prefix),
        &mut config.local_nets,
        &mut config.local_nets_len,
    );
    push_list(
        filter.remote_nets.iter().copied().map(prefix),
        &mut config.remote_nets,
        &mut config.remote_nets_len,
    );
    if let [netns] = filter.netns[..] {
        config.netns = netns;
    }
    push_owner(filter, config);
}

fn push_owner(filter: &Filter, config: &mut Config) {
    push_list(
        filter.pids.iter().copied(),
        &mut config.tgids,
        &mut config.tgids_len,
    );
    config.cgroup = match (&filter.cgroups[..], &filter.cgroup_ids[..]) {
        ([_], [leaf]) => *leaf,
        _ => 0,
    };
    let any_role = filter.roles.is_empty() || filter.roles.contains(&Role::Unaccepted);
    let active = any_role || filter.roles.contains(&Role::Active);
    let passive = any_role || filter.roles.contains(&Role::Passive);
    if config.tgids_len > 0 || config.cgroup != 0 || !(active && passive) {
        config.flags |= FLAG_SELECTED;
        config.flags |= if active { FLAG_SELECT_ACTIVE } else { 0 };
        config.flags |= if passive { FLAG_SELECT_PASSIVE } else { 0 };
    }
}

fn push_ports(ports: &Ports, to: &mut [u16; MAX_FILTER], len: &mut u32) {
    push_list(ports.iter(), to, len);
}

/// Pushes a list, or nothing if it is too long.
fn push_list<T: Copy>(from: impl Iterator<Item = T>, to: &mut [T; MAX_FILTER], len: &mut u32) {
    let list: Vec<T> = from.take(MAX_FILTER + 1).collect();
    if list.len() <= MAX_FILTER {
        to[..list.len()].copy_from_slice(&list);
        *len = list.len() as u32;
    }
}

fn all_ipv4() -> Option<Net> {
    Net::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0)
}

fn prefix(net: Net) -> Prefix {
    let (addr, bits) = match net.addr() {
        IpAddr::V4(v4) => (v4.to_ipv6_mapped(), u32::from(net.bits()) + 96),
        IpAddr::V6(v6) => (v6, u32::from(net.bits())),
    };
    let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
    Prefix {
        net: network_order(addr.to_bits()),
        mask: network_order(mask),
    }
}

/// The halves as a load from the socket gives them: bytes in network order.
fn network_order(bits: u128) -> [u64; 2] {
    [((bits >> 64) as u64).to_be(), (bits as u64).to_be()]
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv6Addr, SocketAddr};

    use proptest::prelude::*;
    use tcptrace_common::tcp::AF_INET;
    use tcptrace_core::change::View;
    use tcptrace_core::owner::Owner;
    use tcptrace_core::state::TcpState;
    use tcptrace_core::time::{Age, Mono};
    use tcptrace_core::tuple::{ConnId, Tuple};
    use zerocopy::FromZeros;

    use super::*;

    /// A socket as the programs see it.
    #[derive(Clone, Debug)]
    struct Sock {
        family: u16,
        local: (Ipv6Addr, u16),
        remote: (Ipv6Addr, u16),
        netns: u32,
        role: Role,
        tgid: u32,
        cgroup: u64,
    }

    /// The rule of the programs.
    fn passes(config: &Config, sock: &Sock) -> bool {
        let ports = |list: &[u16], len: u32, port: u16| {
            len == 0 || port == 0 || list[..len as usize].contains(&port)
        };
        let nets = |list: &[Prefix], len: u32, addr: Ipv6Addr| {
            let half =
                |i: usize| u64::from_ne_bytes(addr.octets()[8 * i..][..8].try_into().unwrap());
            let fits = |p: &Prefix| (0..2).all(|i| half(i) & p.mask[i] == p.net[i]);
            len == 0 || list[..len as usize].iter().any(fits)
        };
        let flag = |bit| config.flags & bit != 0;
        let fits_owner = (config.tgids_len == 0
            || config.tgids[..config.tgids_len as usize].contains(&sock.tgid))
            && (config.cgroup == 0 || config.cgroup == sock.cgroup);
        let selected = match sock.role {
            Role::Active => flag(FLAG_SELECT_ACTIVE) && fits_owner,
            Role::Passive => flag(FLAG_SELECT_PASSIVE) && fits_owner,
            Role::Unaccepted => flag(FLAG_SELECT_PASSIVE),
        };
        (config.family == 0 || config.family == u32::from(sock.family))
            && (config.netns == 0 || config.netns == sock.netns)
            && ports(&config.local_ports, config.local_ports_len, sock.local.1)
            && ports(&config.remote_ports, config.remote_ports_len, sock.remote.1)
            && (ports(&config.any_ports, config.any_ports_len, sock.local.1)
                || ports(&config.any_ports, config.any_ports_len, sock.remote.1))
            && nets(&config.local_nets, config.local_nets_len, sock.local.0)
            && nets(&config.remote_nets, config.remote_nets_len, sock.remote.0)
            && (!flag(FLAG_SELECTED) || selected)
    }

    /// The same socket as the agent sees it.
    fn view(sock: &Sock) -> View {
        let end = |(ip, port): (Ipv6Addr, u16)| SocketAddr::new(ip.into(), port);
        View {
            at: Mono(0),
            id: ConnId {
                cookie: 1,
                generation: 0,
            },
            tuple: Tuple::new(end(sock.local), end(sock.remote), Some(sock.netns)),
            role: Some(sock.role),
            state: TcpState::CloseWait,
            age: Age::Unknown,
            mini: false,
            owner: Owner {
                pid: Some(sock.tgid),
                cgroup: Some(format!("/slice/{}", sock.cgroup).into()),
                by_listener: sock.role == Role::Unaccepted,
                ..Owner::default()
            },
            recv_q: None,
            send_q: None,
            keepalive: None,
            verdict: None,
            acquired_at: None,
            eof_at: None,
        }
    }

    fn pushed(filter: &Filter) -> Config {
        let mut config = Config::new_zeroed();
        push(filter, &mut config);
        config
    }

    fn addr() -> impl Strategy<Value = (u16, Ipv6Addr)> {
        let last = 0u8..4;
        prop_oneof![
            last.clone()
                .prop_map(|n| (AF_INET, Ipv4Addr::new(10, 0, n, n).to_ipv6_mapped())),
            last.clone()
                .prop_map(|n| (AF_INET6, Ipv4Addr::new(10, 0, n, n).to_ipv6_mapped())),
            last.prop_map(|n| (AF_INET6, Ipv6Addr::from_bits(0x2001 << 112 | u128::from(n)))),
        ]
    }

    fn role() -> impl Strategy<Value = Role> {
        prop_oneof![
            Just(Role::Active),
            Just(Role::Passive),
            Just(Role::Unaccepted)
        ]
    }

    prop_compose! {
        fn sock()(
            (family, local) in addr(), (_, remote) in addr(), lport in 0u16..4, rport in 1u16..4,
            netns in 1u32..3, role in role(), tgid in 1u32..4, cgroup in 1u64..3,
        ) -> Sock {
            Sock { family, local: (local, lport), remote: (remote, rport), netns, role, tgid, cgroup }
        }
    }

    fn ports() -> impl Strategy<Value = Ports> {
        let text = prop_oneof![
            Just("2"),
            Just("1,3"),
            Just("2-3"),
            Just("1-9"),
            Just("3-9000")
        ];
        prop_oneof![
            Just(Ports::default()),
            text.prop_map(|text| text.parse().unwrap())
        ]
    }

    fn nets() -> impl Strategy<Value = Vec<Net>> {
        let net = prop_oneof![
            Just("10.0.0.0/15"),
            Just("10.0.1.0/24"),
            Just("10.0.2.2"),
            Just("0.0.0.0/0"),
            Just("::/0"),
            Just("2001::/16"),
            Just("2001::2/127"),
        ];
        proptest::collection::vec(net.prop_map(|text| text.parse().unwrap()), 0..10)
    }

    prop_compose! {
        fn filter()(
            local_ports in ports(), remote_ports in ports(), any_ports in ports(),
            local_nets in nets(), remote_nets in nets(),
            family in prop_oneof![Just(None), Just(Some(Family::V4)), Just(Some(Family::V6))],
            roles in proptest::collection::vec(role(), 0..3),
            pids in proptest::collection::vec(1u32..4, 0..10),
            netns in proptest::collection::vec(1u32..3, 0..3),
            by_cgroup in any::<bool>(),
        ) -> Filter {
            let cgroups = if by_cgroup { vec!["/slice/1".to_owned()] } else { Vec::new() };
            Filter {
                local_ports, remote_ports, any_ports, local_nets, remote_nets, family, roles, pids,
                netns, cgroups, cgroup_ids: Vec::from_iter(by_cgroup.then_some(1)),
                ..Filter::default()
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn nothing_that_was_asked_for_is_dropped(filter in filter(), sock in sock()) {
            // An unaccepted socket is in the cgroup of its listener, which the programs cannot
            // know, and they let it pass.
            let config = pushed(&filter);
            prop_assert!(
                !filter.matches(&view(&sock)) || passes(&config, &sock),
                "{:?} drops {:?}", config, sock
            );
        }
    }

    #[test]
    fn a_filter_saves_work() {
        let sock = Sock {
            family: AF_INET6,
            local: (Ipv4Addr::LOCALHOST.to_ipv6_mapped(), 80),
            remote: (Ipv6Addr::LOCALHOST, 9),
            netns: 1,
            role: Role::Passive,
            tgid: 5,
            cgroup: 7,
        };
        let drops = |change: &dyn Fn(&mut Filter)| {
            let mut filter = Filter::default();
            change(&mut filter);
            !passes(&pushed(&filter), &sock)
        };
        assert!(!drops(&|_| ()));
        assert!(drops(&|f| f.pids = vec![6]));
        assert!(drops(&|f| f.roles = vec![Role::Active]));
        assert!(drops(&|f| f.netns = vec![2]));
        assert!(drops(&|f| f.local_ports = "81-84".parse().unwrap()));
        assert!(drops(
            &|f| f.remote_nets = vec!["10.0.0.0/8".parse().unwrap()]
        ));
        assert!(drops(&|f| {
            f.cgroups = vec!["/slice/8".to_owned()];
            f.cgroup_ids = vec![8];
        }));
        assert!(!drops(&|f| f.family = Some(Family::V4)));
        let v6 = Sock {
            local: (Ipv6Addr::LOCALHOST, 80),
            ..sock.clone()
        };
        let only_v4 = Filter {
            family: Some(Family::V4),
            ..Filter::default()
        };
        assert!(!passes(&pushed(&only_v4), &v6));
        assert!(!drops(&|f| f.local_ports = "81-9000".parse().unwrap()));
        assert!(!drops(&|f| f.roles = vec![Role::Unaccepted]));
    }
}

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
        acquired_at: None,
        eof_at: None,
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
    let within = |port: &str| {
        Some(Box::new(Filter {
            local_ports: port.parse().unwrap(),
            ..Filter::default()
        }))
    };
    check(true, |f| f.within = within("41822"));
    check(false, |f| f.within = within("443"));
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

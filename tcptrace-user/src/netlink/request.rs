//! Requests to `NETLINK_SOCK_DIAG`.

use std::net::{IpAddr, SocketAddr};

use tcptrace_common::tcp;
use tcptrace_core::state::{StateSet, TcpState};
use tcptrace_core::tuple::Tuple;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::wire::{Header, Name, SOCK_DESTROY, SOCK_DIAG_BY_FAMILY, SockId};

/// `NLM_F_REQUEST`.
const REQUEST: u16 = 0x1;
/// `NLM_F_ACK`: the answer says that it was done.
const ACK: u16 = 0x4;
/// `NLM_F_ROOT | NLM_F_MATCH`.
const DUMP: u16 = 0x300;
/// `1 << (INET_DIAG_INFO - 1) | 1 << (INET_DIAG_SKMEMINFO - 1)`: send `struct tcp_info`, and what
/// the socket dropped. The cgroup id and the shutdown bits come without being asked for.
const WANTED: u8 = 1 << 1 | 1 << 6;

/// `struct inet_diag_req_v2` behind its netlink header.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct Request {
    header: Header,
    family: u8,
    protocol: u8,
    extensions: u8,
    pad: u8,
    states: u32,
    id: SockId,
}

impl Request {
    /// Asks for every TCP socket of `family` (`AF_INET` or `AF_INET6`) in `states`.
    pub(crate) fn dump(family: u16, states: StateSet, seq: u32) -> Request {
        let id = SockId {
            sport: [0; 2],
            dport: [0; 2],
            src: [0; 16],
            dst: [0; 16],
            interface: 0,
            cookie: [u32::MAX; 2],
        };
        Request::new(REQUEST | DUMP, family, kernel_states(states), id, seq)
    }

    /// Asks for the one socket with these ends and this cookie.
    pub(crate) fn get(tuple: &Tuple, cookie: u64, seq: u32) -> Request {
        let (src, dst) = (address(tuple.local), address(tuple.remote));
        let id = SockId {
            sport: tuple.local.port().to_be_bytes(),
            dport: tuple.remote.port().to_be_bytes(),
            src,
            dst,
            interface: 0,
            cookie: [cookie as u32, (cookie >> 32) as u32],
        };
        let family = match tuple.local {
            SocketAddr::V4(_) => tcp::AF_INET,
            SocketAddr::V6(_) => tcp::AF_INET6,
        };
        Request::new(REQUEST, family, u32::MAX, id, seq)
    }

    /// Asks for the one socket of this name.
    pub(crate) fn look(name: &Name, seq: u32) -> Request {
        Request::new(REQUEST, u16::from(name.family), u32::MAX, name.id, seq)
    }

    /// Asks to destroy it.
    pub(crate) fn destroy(name: &Name, seq: u32) -> Request {
        let mut request = Request::look(name, seq);
        request.header.kind = SOCK_DESTROY;
        request.header.flags |= ACK;
        request
    }

    fn new(flags: u16, family: u16, states: u32, id: SockId, seq: u32) -> Request {
        Request {
            header: Header {
                len: size_of::<Request>() as u32,
                kind: SOCK_DIAG_BY_FAMILY,
                flags,
                seq,
                port: 0,
            },
            family: family as u8,
            protocol: tcp::IPPROTO_TCP as u8,
            extensions: WANTED,
            pad: 0,
            states,
            id,
        }
    }
}

/// The kernel's mask. Request sockets are asked for as SYN_RECV (`inet_diag_dump_icsk` adds
/// NEW_SYN_RECV to it by itself, and shows them as SYN_RECV).
fn kernel_states(states: StateSet) -> u32 {
    if states.contains(TcpState::NewSynRecv) {
        states.with(TcpState::SynRecv).bits()
    } else {
        states.bits()
    }
}

fn address(addr: SocketAddr) -> [u8; 16] {
    match addr.ip() {
        IpAddr::V4(ip) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&ip.octets());
            bytes
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_layout_of_the_kernel() {
        assert_eq!(size_of::<Header>(), 16);
        assert_eq!(size_of::<SockId>(), 48);
        assert_eq!(size_of::<Request>(), 72);
        let states = StateSet::of(&[TcpState::CloseWait, TcpState::NewSynRecv]);
        let request = Request::dump(tcp::AF_INET6, states, 7);
        let bytes = request.as_bytes();
        assert_eq!(bytes[..4], 72u32.to_ne_bytes());
        assert_eq!(bytes[4..6], 20u16.to_ne_bytes());
        assert_eq!(bytes[6..8], 0x301u16.to_ne_bytes());
        assert_eq!(bytes[16..20], [10, 6, 66, 0]);
        let mask: u32 = 1 << 3 | 1 << 8 | 1 << 12;
        assert_eq!(bytes[20..24], mask.to_ne_bytes());
    }

    #[test]
    fn one_socket_is_asked_for_by_ends_and_cookie() {
        let tuple = Tuple::new(
            "127.0.0.1:80".parse().expect("address"),
            "[::ffff:127.0.0.1]:4000".parse().expect("address"),
            None,
        );
        let request = Request::get(&tuple, 0x1_0000_0002, 1);
        assert_eq!(request.family, 2);
        assert_eq!(request.id.sport, [0, 80]);
        assert_eq!(request.id.dst[..4], [127, 0, 0, 1]);
        assert_eq!(request.id.cookie, [2, 1]);
    }
}

//! Answers of `NETLINK_SOCK_DIAG`, read from any bytes without a panic.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tcptrace_common::tcp;
use tcptrace_core::input::{SocketSnapshot, Timer};
use tcptrace_core::state::TcpState;
use tcptrace_core::time::Mono;
use tcptrace_core::tuple::Tuple;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::wire::{Header, Name, SOCK_DIAG_BY_FAMILY, SockId};

/// `NLM_F_DUMP_INTR`: the dump is not consistent.
const DUMP_INTERRUPTED: u16 = 0x10;
/// `NLMSG_NOOP`, `NLMSG_ERROR`, `NLMSG_DONE`, `NLMSG_OVERRUN` of `linux/netlink.h`.
const NOOP: u16 = 1;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const OVERRUN: u16 = 4;

/// Attributes of `linux/inet_diag.h`.
const INET_DIAG_INFO: u16 = 2;
const INET_DIAG_SKMEMINFO: u16 = 7;
const INET_DIAG_SHUTDOWN: u16 = 8;
const INET_DIAG_ULP_INFO: u16 = 19;
const INET_DIAG_CGROUP_ID: u16 = 21;
/// Inside `INET_DIAG_ULP_INFO`: the name of the upper layer protocol, zero-terminated.
const INET_ULP_INFO_NAME: u16 = 1;
/// `NLA_F_NESTED | NLA_F_NET_BYTEORDER`, not part of an attribute's type.
const ATTRIBUTE_FLAGS: u16 = 0xc000;

/// Where `struct tcp_info` keeps its `tcpi_last_*`, ms each.
const LAST_DATA_SENT: usize = 44;
const LAST_DATA_RECV: usize = 52;
const LAST_ACK_RECV: usize = 56;

/// Where `INET_DIAG_SKMEMINFO` has `SK_MEMINFO_DROPS`.
const DROPS: usize = 8 * 4;

/// Why bytes are no answer of sock_diag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ParseError {
    /// The header's length is less than the header or more than what is there.
    #[error("a netlink message of {len} bytes where {left} are left")]
    Length {
        /// As the header has it.
        len: u32,
        /// Bytes left in the datagram.
        left: usize,
    },
    /// The message is shorter than `struct inet_diag_msg`.
    #[error("a sock_diag answer of {0} bytes is too short")]
    Short(usize),
    /// Neither IPv4 nor IPv6.
    #[error("unknown address family {0} in a sock_diag answer")]
    Family(u8),
    /// A state that this program does not know.
    #[error("unknown TCP state number {0} in a sock_diag answer")]
    State(u8),
}

/// One netlink message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    /// Sequence number of the request that it answers.
    pub(crate) seq: u32,
    /// The kernel says that the dump is not consistent.
    pub(crate) interrupted: bool,
    /// What it is.
    pub(crate) body: Body<'a>,
}

/// What a netlink message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body<'a> {
    /// A socket, for [`socket`].
    Socket(&'a [u8]),
    /// The dump is over, with an errno or 0.
    Done(i32),
    /// The request failed with this errno; 0 is an acknowledgement.
    Error(i32),
    /// Messages were lost.
    Overrun,
    /// Nothing for us.
    Other,
}

/// The messages of a datagram. Ends behind the first one that cannot be read.
pub(crate) struct Messages<'a>(&'a [u8]);

impl<'a> Messages<'a> {
    /// Of the bytes received.
    pub(crate) fn new(datagram: &'a [u8]) -> Messages<'a> {
        Messages(datagram)
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.0;
        let Ok((header, _)) = Header::read_from_prefix(bytes) else {
            self.0 = &[];
            return None;
        };
        let len = header.len as usize;
        let Some(payload) = bytes.get(size_of::<Header>()..len) else {
            self.0 = &[];
            let left = bytes.len();
            return Some(Err(ParseError::Length {
                len: header.len,
                left,
            }));
        };
        self.0 = bytes.get(align(len)..).unwrap_or_default();
        let body = match header.kind {
            SOCK_DIAG_BY_FAMILY => Body::Socket(payload),
            DONE => Body::Done(errno(payload)),
            ERROR => Body::Error(errno(payload)),
            OVERRUN => Body::Overrun,
            NOOP => Body::Other,
            _ => Body::Other,
        };
        Some(Ok(Message {
            seq: header.seq,
            interrupted: header.flags & DUMP_INTERRUPTED != 0,
            body,
        }))
    }
}

/// `struct inet_diag_msg`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct DiagMsg {
    family: u8,
    state: u8,
    timer: u8,
    retrans: u8,
    id: SockId,
    expires: u32,
    rqueue: u32,
    wqueue: u32,
    uid: u32,
    inode: u32,
}

/// Reads the payload of a [`Body::Socket`] that was received at `at` in namespace `netns`.
///
/// Attributes that are missing or cut short are `None`: `tcp_info` grows with every kernel and
/// is read as far as it goes.
pub(crate) fn socket(payload: &[u8], at: Mono, netns: u32) -> Result<SocketSnapshot, ParseError> {
    let (msg, attributes) =
        DiagMsg::read_from_prefix(payload).map_err(|_| ParseError::Short(payload.len()))?;
    let state = match TcpState::try_from(msg.state) {
        // The kernel dumps no socket in CLOSE but those that are only bound, and those as CLOSE.
        Ok(TcpState::Close) => TcpState::BoundInactive,
        Ok(state) => state,
        Err(_) => return Err(ParseError::State(msg.state)),
    };
    let local = endpoint(msg.family, msg.id.src, msg.id.sport)?;
    let remote = endpoint(msg.family, msg.id.dst, msg.id.dport)?;
    let timer = timer(msg.timer, msg.expires);
    let mini = matches!(timer, Timer::TimeWait { .. });
    let mut snapshot = SocketSnapshot {
        at,
        cookie: u64::from(msg.id.cookie[0]) | u64::from(msg.id.cookie[1]) << 32,
        tuple: Tuple::new(local, remote, Some(netns)),
        state,
        mini,
        inode: msg.inode,
        uid: msg.uid,
        recv_q: msg.rqueue,
        send_q: msg.wqueue,
        timer,
        last_ack_recv_ms: None,
        last_data_recv_ms: None,
        last_data_sent_ms: None,
        cgroup: None,
        shutdown: None,
        drops: None,
        mptcp: false,
    };
    for (kind, value) in Attributes(attributes) {
        match kind {
            INET_DIAG_INFO if state != TcpState::Listen => {
                snapshot.last_data_sent_ms = u32_at(value, LAST_DATA_SENT);
                snapshot.last_data_recv_ms = u32_at(value, LAST_DATA_RECV);
                snapshot.last_ack_recv_ms = u32_at(value, LAST_ACK_RECV);
            }
            INET_DIAG_SKMEMINFO => snapshot.drops = u32_at(value, DROPS),
            INET_DIAG_SHUTDOWN => snapshot.shutdown = value.first().copied(),
            INET_DIAG_ULP_INFO => {
                let name = Attributes(value).find(|(kind, _)| *kind == INET_ULP_INFO_NAME);
                snapshot.mptcp = name.is_some_and(|(_, name)| name.starts_with(b"mptcp\0"));
            }
            INET_DIAG_CGROUP_ID => {
                snapshot.cgroup = u64::read_from_prefix(value).ok().map(|(id, _)| id);
            }
            _ => {}
        }
    }
    Ok(snapshot)
}

/// By which the socket of such a payload is asked for again.
pub(crate) fn name(payload: &[u8]) -> Result<Name, ParseError> {
    let (msg, _) =
        DiagMsg::read_from_prefix(payload).map_err(|_| ParseError::Short(payload.len()))?;
    Ok(Name {
        family: msg.family,
        id: msg.id,
    })
}

/// `idiag_timer` and `idiag_expires` as `inet_sk_diag_fill` and `inet_twsk_diag_fill` set them.
/// 3 is the timer of minisockets and of nothing else, so it tells them from full sockets.
fn timer(kind: u8, left_ms: u32) -> Timer {
    match kind {
        1 => Timer::Retransmit { left_ms },
        2 => Timer::Keepalive { left_ms },
        3 => Timer::TimeWait { left_ms },
        4 => Timer::Probe { left_ms },
        _ => Timer::Off,
    }
}

fn endpoint(family: u8, addr: [u8; 16], port: [u8; 2]) -> Result<SocketAddr, ParseError> {
    let ip = match u16::from(family) {
        tcp::AF_INET => IpAddr::V4(Ipv4Addr::new(addr[0], addr[1], addr[2], addr[3])),
        tcp::AF_INET6 => IpAddr::V6(Ipv6Addr::from(addr)),
        _ => return Err(ParseError::Family(family)),
    };
    Ok(SocketAddr::new(ip, u16::from_be_bytes(port)))
}

/// Type and value of netlink attributes (`struct nlattr`). Ends at the first that is malformed.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (head, _) = <[u16; 2]>::read_from_prefix(self.0).ok()?;
        let (len, kind) = (usize::from(head[0]), head[1] & !ATTRIBUTE_FLAGS);
        let value = self.0.get(4..len)?;
        self.0 = self.0.get(align(len)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// The errno, positive, that an error or done message starts with.
fn errno(payload: &[u8]) -> i32 {
    i32::read_from_prefix(payload).map_or(0, |(code, _)| code.saturating_neg().max(0))
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let (value, _) = u32::read_from_prefix(bytes.get(offset..)?).ok()?;
    Some(value)
}

/// Netlink's alignment is 4.
fn align(len: usize) -> usize {
    len.saturating_add(3) & !3
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AT: Mono = Mono(5);

    fn diag_msg(family: u8, state: u8, timer: u8) -> DiagMsg {
        let mut src = [0; 16];
        src[..4].copy_from_slice(&[10, 1, 0, 5]);
        DiagMsg {
            family,
            state,
            timer,
            retrans: 0,
            id: SockId {
                sport: 41_822u16.to_be_bytes(),
                dport: 443u16.to_be_bytes(),
                src,
                dst: src,
                interface: 0,
                cookie: [0x31ec, 1],
            },
            expires: 58_000,
            rqueue: 25,
            wqueue: 3,
            uid: 1_000,
            inode: 77,
        }
    }

    fn with_attribute(mut bytes: Vec<u8>, kind: u16, value: &[u8]) -> Vec<u8> {
        let len = 4 + value.len() as u16;
        bytes.extend(len.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(align(bytes.len()), 0);
        bytes
    }

    fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
        let header = Header {
            len: 16 + payload.len() as u32,
            kind,
            flags,
            seq: 9,
            port: 0,
        };
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend(payload);
        bytes.resize(align(bytes.len()), 0);
        bytes
    }

    #[test]
    fn a_full_socket_is_read_with_its_attributes() {
        let mut info = vec![0; 60];
        info[44..48].copy_from_slice(&11u32.to_ne_bytes());
        info[52..56].copy_from_slice(&22u32.to_ne_bytes());
        info[56..60].copy_from_slice(&33u32.to_ne_bytes());
        let bytes = diag_msg(2, 8, 2).as_bytes().to_vec();
        let bytes = with_attribute(bytes, INET_DIAG_SHUTDOWN, &[1]);
        let bytes = with_attribute(bytes, INET_DIAG_INFO, &info);
        let bytes = with_attribute(bytes, INET_DIAG_CGROUP_ID, &99u64.to_ne_bytes());
        let memory: Vec<u8> = (0..9u32).flat_map(u32::to_ne_bytes).collect();
        let bytes = with_attribute(bytes, INET_DIAG_SKMEMINFO, &memory);
        let s = socket(&bytes, AT, 4).expect("a socket");
        assert_eq!(s.cookie, 0x1_0000_31ec);
        assert_eq!(s.tuple.local.to_string(), "10.1.0.5:41822");
        assert_eq!(s.tuple.netns, Some(4));
        assert_eq!((s.state, s.mini), (TcpState::CloseWait, false));
        assert_eq!((s.recv_q, s.send_q, s.inode, s.uid), (25, 3, 77, 1_000));
        assert_eq!(s.timer, Timer::Keepalive { left_ms: 58_000 });
        assert_eq!(s.last_data_sent_ms, Some(11));
        assert_eq!(s.last_data_recv_ms, Some(22));
        assert_eq!(s.last_ack_recv_ms, Some(33));
        assert_eq!((s.cgroup, s.shutdown), (Some(99), Some(1)));
        assert_eq!(s.drops, Some(8));
    }

    #[test]
    fn a_minisocket_is_told_by_its_timer() {
        let bytes = diag_msg(2, 5, 3);
        let s = socket(bytes.as_bytes(), AT, 4).expect("a socket");
        assert_eq!((s.state, s.mini), (TcpState::FinWait2, true));
        assert_eq!(s.timer, Timer::TimeWait { left_ms: 58_000 });
        assert_eq!((s.last_ack_recv_ms, s.cgroup), (None, None));
    }

    #[test]
    fn v4_mapped_addresses_become_ipv4() {
        let mut msg = diag_msg(10, 1, 0);
        msg.id.src = Ipv4Addr::new(127, 0, 0, 1).to_ipv6_mapped().octets();
        msg.id.dst = Ipv6Addr::LOCALHOST.octets();
        let s = socket(msg.as_bytes(), AT, 4).expect("a socket");
        assert_eq!(s.tuple.local.to_string(), "127.0.0.1:41822");
        assert_eq!(s.tuple.remote.to_string(), "[::1]:443");
    }

    #[test]
    fn an_old_kernels_shorter_tcp_info_is_read_as_far_as_it_goes() {
        let bytes = with_attribute(diag_msg(2, 8, 0).as_bytes().to_vec(), 2, &[7; 56]);
        let s = socket(&bytes, AT, 4).expect("a socket");
        assert_eq!(s.last_data_recv_ms, Some(0x0707_0707));
        assert_eq!(s.last_ack_recv_ms, None);
    }

    #[test]
    fn what_cannot_be_known_is_refused() {
        let family = diag_msg(1, 8, 0);
        assert_eq!(socket(family.as_bytes(), AT, 4), Err(ParseError::Family(1)));
        let state = diag_msg(2, 99, 0);
        assert_eq!(socket(state.as_bytes(), AT, 4), Err(ParseError::State(99)));
        assert_eq!(socket(&[0; 71], AT, 4), Err(ParseError::Short(71)));
    }

    #[test]
    fn a_datagram_is_read_message_by_message() {
        let mut bytes = message(SOCK_DIAG_BY_FAMILY, 0x12, &[1, 2, 3]);
        bytes.extend(message(ERROR, 0, &(-2i32).to_ne_bytes()));
        bytes.extend(message(DONE, 2, &0i32.to_ne_bytes()));
        let all: Vec<_> = Messages::new(&bytes).map(|m| m.expect("whole")).collect();
        assert_eq!(all[0].body, Body::Socket(&[1, 2, 3]));
        assert!(all[0].interrupted && !all[1].interrupted);
        assert_eq!(all[1].body, Body::Error(2));
        assert_eq!((all[2].body, all[2].seq), (Body::Done(0), 9));
        assert_eq!(all.len(), 3);
    }

    #[test]
    fn a_length_that_lies_ends_the_datagram() {
        for len in [0u32, 15, 17, u32::MAX] {
            let mut bytes = message(DONE, 0, &[]);
            bytes[..4].copy_from_slice(&len.to_ne_bytes());
            let all: Vec<_> = Messages::new(&bytes).collect();
            assert_eq!(all, [Err(ParseError::Length { len, left: 16 })]);
        }
    }

    fn read_all(bytes: &[u8]) {
        let _ = socket(bytes, AT, 1);
        for message in Messages::new(bytes).flatten() {
            if let Body::Socket(payload) = message.body {
                let _ = socket(payload, AT, 1);
            }
        }
    }

    #[test]
    fn regressions_are_survived() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/regressions/netlink");
        let files: Vec<_> = std::fs::read_dir(dir).unwrap().collect();
        assert!(!files.is_empty());
        for file in files {
            read_all(&std::fs::read(file.unwrap().path()).unwrap());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            read_all(&bytes);
        }

        #[test]
        fn any_attributes_are_survived(tail in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut bytes = diag_msg(10, 8, 0).as_bytes().to_vec();
            bytes.extend(tail);
            prop_assert!(socket(&bytes, AT, 1).is_ok());
        }

        #[test]
        fn a_truncation_never_invents_a_socket(cut in 0usize..200) {
            let payload = with_attribute(diag_msg(2, 8, 0).as_bytes().to_vec(), 2, &[7; 100]);
            let bytes = message(SOCK_DIAG_BY_FAMILY, 0, &payload);
            let cut = cut.min(bytes.len());
            let whole = Messages::new(&bytes[..cut]).filter(Result::is_ok).count();
            prop_assert_eq!(whole, usize::from(cut == bytes.len()));
        }
    }
}

//! What requests to `NETLINK_SOCK_DIAG` and its answers have in common.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `SOCK_DIAG_BY_FAMILY` of `linux/sock_diag.h`: type of our requests and of the answers.
pub(crate) const SOCK_DIAG_BY_FAMILY: u16 = 20;

/// `SOCK_DESTROY` of `linux/sock_diag.h`.
pub(crate) const SOCK_DESTROY: u16 = 21;

/// `struct nlmsghdr`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct Header {
    /// Bytes of the message, this header included.
    pub(crate) len: u32,
    /// The type.
    pub(crate) kind: u16,
    /// `NLM_F_*`.
    pub(crate) flags: u16,
    /// Sequence number: of an answer, that of the request.
    pub(crate) seq: u32,
    /// Netlink port of the sender; 0 the kernel.
    pub(crate) port: u32,
}

/// `struct inet_diag_sockid`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct SockId {
    /// Local port, big-endian.
    pub(crate) sport: [u8; 2],
    /// Remote port, big-endian.
    pub(crate) dport: [u8; 2],
    /// Local address; IPv4 in the first four bytes.
    pub(crate) src: [u8; 16],
    /// Remote address.
    pub(crate) dst: [u8; 16],
    /// Interface that the socket is bound to, 0 none.
    pub(crate) interface: u32,
    /// The cookie: low half, high half.
    pub(crate) cookie: [u32; 2],
}

/// By which sock_diag finds one socket: its family, ends, interface and cookie, as it gave them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Name {
    /// `AF_INET` or `AF_INET6`; the latter for a v4-mapped address, too.
    pub(crate) family: u8,
    /// The rest.
    pub(crate) id: SockId,
}

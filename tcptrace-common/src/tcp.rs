//! Kernel numbers that are part of its user ABI: socket states, families, flags.

/// `TCP_ESTABLISHED` of `include/net/tcp_states.h`; the others follow it there.
pub const ESTABLISHED: u8 = 1;
/// SYN sent, no answer yet.
pub const SYN_SENT: u8 = 2;
/// SYN received, handshake not finished.
pub const SYN_RECV: u8 = 3;
/// We sent a FIN that is not acknowledged yet.
pub const FIN_WAIT1: u8 = 4;
/// Our FIN is acknowledged, the peer's has not come.
pub const FIN_WAIT2: u8 = 5;
/// Both FINs seen; the tuple is kept for 60 s.
pub const TIME_WAIT: u8 = 6;
/// No connection.
pub const CLOSE: u8 = 7;
/// The peer sent a FIN and we have not closed.
pub const CLOSE_WAIT: u8 = 8;
/// We closed after the peer and wait for the last ACK.
pub const LAST_ACK: u8 = 9;
/// A listener.
pub const LISTEN: u8 = 10;
/// Both sides closed at the same time.
pub const CLOSING: u8 = 11;
/// A request socket: `SYN_RECV` without a full socket.
pub const NEW_SYN_RECV: u8 = 12;
/// Bound, not connected; seen only through sock_diag (6.8 and later).
pub const BOUND_INACTIVE: u8 = 13;

/// `AF_INET`.
pub const AF_INET: u16 = 2;
/// `AF_INET6`.
pub const AF_INET6: u16 = 10;
/// `IPPROTO_TCP`.
pub const IPPROTO_TCP: u16 = 6;

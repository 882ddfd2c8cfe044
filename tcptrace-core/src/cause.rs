//! Why a socket left a state.

use tcptrace_common::event::{
    STATE_DEAD, STATE_EXITING, STATE_LAST_FPUT, STATE_NO_LINGER2, STATE_NO_SOCKET, STATE_OWNED,
    STATE_SHUT_SEND,
};

use crate::input::StateChange;
use crate::state::TcpState;

/// The cause of a transition, as far as it was seen. Where several could be, the one that the
/// evidence proves; [`Cause::Unknown`] where none does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// The owner called close().
    Close,
    /// The owner called shutdown().
    Shutdown,
    /// The owner exited.
    Exit,
    /// The owner called connect().
    Connect,
    /// The owner called listen().
    Listen,
    /// The handshake went on.
    Handshake,
    /// The peer sent a FIN.
    PeerFin,
    /// The peer acknowledged our FIN.
    Acked,
    /// The peer sent a RST.
    ResetReceived,
    /// We sent a RST: closed with unread data, or with SO_LINGER 0.
    ResetSent,
    /// Destroyed from outside (SOCK_DESTROY, `ss -K`).
    Destroyed,
    /// Retransmissions or keepalive probes went unanswered (ETIMEDOUT).
    TimedOut,
    /// Connection refused.
    Refused,
    /// The network said that the peer cannot be reached.
    Unreachable,
    /// connect() found no free local port (EADDRNOTAVAIL).
    NoPort,
    /// The kernel's timer ran out.
    Timer,
    /// A connect() took the tuple over (tcp_tw_reuse).
    ReusedByConnect,
    /// A new SYN took the tuple over.
    ReusedBySyn,
    /// The listener was closed before anyone accepted.
    ListenerClosed,
    /// The network namespace went away.
    NamespaceExit,
    /// There was no room for a minisocket (tcp_max_tw_buckets).
    TimeWaitOverflow,
    /// The owner asked for no FIN_WAIT_2 (TCP_LINGER2 < 0).
    NoLinger2,
    /// A reconnect or disconnect of the same socket.
    Disconnect,
    /// The end was not seen: the socket is gone, when and why is not known.
    EndNotSeen,
    /// No evidence.
    Unknown,
}

impl Cause {
    /// Every cause, in the order of their numbers in recordings: what is new goes to the end.
    pub const ALL: [Cause; 25] = [
        Cause::Unknown,
        Cause::Close,
        Cause::Shutdown,
        Cause::Exit,
        Cause::Connect,
        Cause::Listen,
        Cause::Handshake,
        Cause::PeerFin,
        Cause::Acked,
        Cause::ResetReceived,
        Cause::ResetSent,
        Cause::Destroyed,
        Cause::TimedOut,
        Cause::Refused,
        Cause::Unreachable,
        Cause::NoPort,
        Cause::Timer,
        Cause::ReusedByConnect,
        Cause::ReusedBySyn,
        Cause::ListenerClosed,
        Cause::NamespaceExit,
        Cause::TimeWaitOverflow,
        Cause::NoLinger2,
        Cause::Disconnect,
        Cause::EndNotSeen,
    ];

    /// The stable name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Close => "close",
            Cause::Shutdown => "shutdown",
            Cause::Exit => "exit",
            Cause::Connect => "connect",
            Cause::Listen => "listen",
            Cause::Handshake => "handshake",
            Cause::PeerFin => "peer_fin",
            Cause::Acked => "acked",
            Cause::ResetReceived => "reset_received",
            Cause::ResetSent => "reset_sent",
            Cause::Destroyed => "destroyed",
            Cause::TimedOut => "timed_out",
            Cause::Refused => "refused",
            Cause::Unreachable => "unreachable",
            Cause::NoPort => "no_port",
            Cause::Timer => "timer",
            Cause::ReusedByConnect => "reused_by_connect",
            Cause::ReusedBySyn => "reused_by_syn",
            Cause::ListenerClosed => "listener_closed",
            Cause::NamespaceExit => "namespace_exit",
            Cause::TimeWaitOverflow => "time_wait_overflow",
            Cause::NoLinger2 => "no_linger2",
            Cause::Disconnect => "disconnect",
            Cause::EndNotSeen => "end_not_seen",
            Cause::Unknown => "unknown",
        }
    }

    /// The words for a person.
    pub fn text(self) -> &'static str {
        match self {
            Cause::Close => "closed by its owner",
            Cause::Shutdown => "shut down by its owner",
            Cause::Exit => "owner exited",
            Cause::Connect => "connect()",
            Cause::Listen => "listen()",
            Cause::Handshake => "handshake",
            Cause::PeerFin => "peer sent FIN",
            Cause::Acked => "peer acknowledged our FIN",
            Cause::ResetReceived => "reset by peer",
            Cause::ResetSent => "closed with RST",
            Cause::Destroyed => "destroyed (SOCK_DESTROY)",
            Cause::TimedOut => "timed out",
            Cause::Refused => "refused",
            Cause::Unreachable => "peer unreachable",
            Cause::NoPort => "no free local port",
            Cause::Timer => "timer ran out",
            Cause::ReusedByConnect => "tuple reused by connect()",
            Cause::ReusedBySyn => "tuple reused by a new SYN",
            Cause::ListenerClosed => "listener closed, never accepted",
            Cause::NamespaceExit => "network namespace gone",
            Cause::TimeWaitOverflow => "no TIME_WAIT: tcp_max_tw_buckets reached",
            Cause::NoLinger2 => "no FIN_WAIT_2: TCP_LINGER2 < 0",
            Cause::Disconnect => "disconnected",
            Cause::EndNotSeen => "end not seen",
            Cause::Unknown => "cause unknown",
        }
    }
}

/// The cause of a full socket's transition, from the evidence that came with the event.
pub fn of_change(change: &StateChange) -> Cause {
    use TcpState::*;
    let has = |flag: u16| change.flags & flag != 0;
    let local_close = || {
        if has(STATE_EXITING) {
            Cause::Exit
        } else if has(STATE_LAST_FPUT) || has(STATE_DEAD) {
            Cause::Close
        } else if change.actor.is_some() {
            Cause::Shutdown
        } else {
            Cause::Unknown
        }
    };
    match (change.old, change.new) {
        (Close, SynSent) => Cause::Connect,
        (Close, Listen) => Cause::Listen,
        (Listen, Close) => local_close(),
        (_, Established | SynRecv) => Cause::Handshake,
        (_, FinWait1 | LastAck) => local_close(),
        (old, new) if old == new => local_close(),
        (_, CloseWait | Closing) => Cause::PeerFin,
        (_, FinWait2) => Cause::Acked,
        (_, Close) if change.err != 0 => of_errno(change.err),
        (LastAck | Closing, Close) => Cause::Acked,
        (SynSent, Close) if change.tuple.local.port() == 0 => Cause::NoPort,
        (SynSent, Close) => local_close(),
        (FinWait2, Close) if has(STATE_NO_LINGER2) => Cause::NoLinger2,
        (Established | CloseWait | SynRecv | FinWait1 | FinWait2, Close) => {
            if has(STATE_OWNED) && (has(STATE_LAST_FPUT) || has(STATE_EXITING)) {
                Cause::ResetSent
            } else if has(STATE_OWNED) && !has(STATE_NO_SOCKET) {
                Cause::Disconnect
            } else if has(STATE_NO_SOCKET) && !has(STATE_SHUT_SEND) {
                Cause::ListenerClosed
            } else {
                Cause::Unknown
            }
        }
        _ => Cause::Unknown,
    }
}

/// Linux errno numbers of `sk_err` (x86 and arm agree on these).
fn of_errno(errno: u32) -> Cause {
    match errno {
        32 | 104 => Cause::ResetReceived,
        103 => Cause::Destroyed,
        110 => Cause::TimedOut,
        111 => Cause::Refused,
        101 | 113 => Cause::Unreachable,
        _ => Cause::Unknown,
    }
}

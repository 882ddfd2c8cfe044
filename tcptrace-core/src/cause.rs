//! Why a socket left a state.

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

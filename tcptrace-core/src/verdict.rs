//! What the evidence says about a socket that lingers.

use crate::state::TcpState;

/// The finding about one socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// In a listener's queue: nobody has called accept().
    NeverAccepted,
    /// CLOSE_WAIT, Recv-Q 1: all data read, the FIN not.
    FinUnread,
    /// CLOSE_WAIT, Recv-Q 25, 26, 32, 38, 42, 58…: a TLS close_notify and the FIN, unread. Told by size.
    CloseNotifyUnread,
    /// CLOSE_WAIT: data and the FIN, unread.
    DataUnread,
    /// CLOSE_WAIT: a receive returned 0 and the owner did nothing.
    EofRead,
    /// CLOSE_WAIT, Recv-Q 0: everything consumed; whether a receive returned 0 was not seen.
    Drained,
    /// FIN_WAIT_2 with the file still open: shutdown() without close(), no timer runs.
    HalfClosed,
    /// FIN_WAIT_2 without owner: the kernel ends it by its timer.
    OrphanTimer,
    /// CLOSE with the file still open: the connection is dead, the descriptor leaks.
    DeadFdOpen,
}

impl Verdict {
    /// Every verdict.
    pub const ALL: [Verdict; 9] = [
        Verdict::NeverAccepted,
        Verdict::FinUnread,
        Verdict::CloseNotifyUnread,
        Verdict::DataUnread,
        Verdict::EofRead,
        Verdict::Drained,
        Verdict::HalfClosed,
        Verdict::OrphanTimer,
        Verdict::DeadFdOpen,
    ];

    /// The stable name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::NeverAccepted => "never_accepted",
            Verdict::FinUnread => "fin_unread",
            Verdict::CloseNotifyUnread => "close_notify_unread",
            Verdict::DataUnread => "data_unread",
            Verdict::EofRead => "eof_read",
            Verdict::Drained => "drained",
            Verdict::HalfClosed => "half_closed",
            Verdict::OrphanTimer => "orphan_timer",
            Verdict::DeadFdOpen => "dead_fd_open",
        }
    }

    /// The words for a person, short enough for a column.
    pub fn text(self) -> &'static str {
        match self {
            Verdict::NeverAccepted => "never accepted",
            Verdict::FinUnread => "FIN unread",
            Verdict::CloseNotifyUnread => "close_notify unread",
            Verdict::DataUnread => "data unread",
            Verdict::EofRead => "EOF read, not closed",
            Verdict::Drained => "drained, not closed",
            Verdict::HalfClosed => "half-closed, fd open",
            Verdict::OrphanTimer => "orphan, timer runs",
            Verdict::DeadFdOpen => "dead, fd open",
        }
    }
}

/// The facts a verdict is drawn from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Evidence {
    /// Nobody has accepted it.
    pub unaccepted: bool,
    /// A timewait minisocket.
    pub mini: bool,
    /// Some process has it open; `None`: not known.
    pub held: Option<bool>,
    /// A receive returned 0 in CLOSE_WAIT.
    pub eof_read: bool,
    /// `rcv_nxt - copied_seq`, where known.
    pub recv_q: Option<u32>,
}

/// Sizes of an unread TLS alert record (close_notify) plus the FIN's sequence number: TLS 1.3
/// AES-GCM and ChaCha20 24 bytes (25 with a content-type pad byte), TLS 1.2 AES-GCM 31, ChaCha20
/// 23, CBC suites 37, 41, 53 and 57.
const CLOSE_NOTIFY: [u32; 8] = [24, 25, 26, 32, 38, 42, 54, 58];

/// The verdict on a socket in `state`, if there is anything to say.
pub fn verdict(state: TcpState, e: Evidence) -> Option<Verdict> {
    match state {
        TcpState::CloseWait if e.unaccepted => Some(Verdict::NeverAccepted),
        TcpState::CloseWait if e.eof_read => Some(Verdict::EofRead),
        TcpState::CloseWait => match e.recv_q? {
            0 => Some(Verdict::Drained),
            1 => Some(Verdict::FinUnread),
            n if CLOSE_NOTIFY.contains(&n) => Some(Verdict::CloseNotifyUnread),
            _ => Some(Verdict::DataUnread),
        },
        TcpState::FinWait2 if e.mini => Some(Verdict::OrphanTimer),
        TcpState::FinWait2 => e.held.map(|held| match held {
            true => Verdict::HalfClosed,
            false => Verdict::OrphanTimer,
        }),
        TcpState::Close if e.held == Some(true) => Some(Verdict::DeadFdOpen),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recv_q_in_close_wait_is_a_fingerprint() {
        let of = |recv_q| {
            verdict(
                TcpState::CloseWait,
                Evidence {
                    recv_q: Some(recv_q),
                    ..Evidence::default()
                },
            )
        };
        assert_eq!(of(0), Some(Verdict::Drained));
        assert_eq!(of(1), Some(Verdict::FinUnread));
        assert_eq!(of(25), Some(Verdict::CloseNotifyUnread));
        assert_eq!(of(32), Some(Verdict::CloseNotifyUnread));
        assert_eq!(of(6), Some(Verdict::DataUnread));
        assert_eq!(verdict(TcpState::CloseWait, Evidence::default()), None);
    }
}

//! TCP states as the kernel numbers them and RFC 9293 names them, and sets of them.

use std::fmt;
use std::str::FromStr;

use tcptrace_common::tcp;

/// A socket's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum TcpState {
    /// Open on both sides.
    Established = tcp::ESTABLISHED,
    /// Connecting.
    SynSent = tcp::SYN_SENT,
    /// Being connected to.
    SynRecv = tcp::SYN_RECV,
    /// We closed first; our FIN is not acknowledged.
    FinWait1 = tcp::FIN_WAIT1,
    /// We closed first; the peer has not closed.
    FinWait2 = tcp::FIN_WAIT2,
    /// Both closed, we first; the tuple rests for 60 s.
    TimeWait = tcp::TIME_WAIT,
    /// No connection.
    Close = tcp::CLOSE,
    /// The peer closed, we have not.
    CloseWait = tcp::CLOSE_WAIT,
    /// Both closed, the peer first; our FIN is not acknowledged.
    LastAck = tcp::LAST_ACK,
    /// A listener.
    Listen = tcp::LISTEN,
    /// Both closed at once; our FIN is not acknowledged.
    Closing = tcp::CLOSING,
    /// A half-open request that has no socket yet.
    NewSynRecv = tcp::NEW_SYN_RECV,
    /// Bound, not connected, not listening.
    BoundInactive = tcp::BOUND_INACTIVE,
}

use TcpState::*;

/// Every state, in the kernel's order.
pub const ALL: [TcpState; 13] = [
    Established,
    SynSent,
    SynRecv,
    FinWait1,
    FinWait2,
    TimeWait,
    Close,
    CloseWait,
    LastAck,
    Listen,
    Closing,
    NewSynRecv,
    BoundInactive,
];

impl TcpState {
    /// `close_wait`: the form of JSON and of metrics.
    pub fn name(self) -> &'static str {
        match self {
            Established => "established",
            SynSent => "syn_sent",
            SynRecv => "syn_recv",
            FinWait1 => "fin_wait1",
            FinWait2 => "fin_wait2",
            TimeWait => "time_wait",
            Close => "close",
            CloseWait => "close_wait",
            LastAck => "last_ack",
            Listen => "listen",
            Closing => "closing",
            NewSynRecv => "new_syn_recv",
            BoundInactive => "bound_inactive",
        }
    }

    /// `CLOSE_WAIT`: the form of tables.
    pub fn label(self) -> &'static str {
        match self {
            Established => "ESTABLISHED",
            SynSent => "SYN_SENT",
            SynRecv => "SYN_RECV",
            FinWait1 => "FIN_WAIT1",
            FinWait2 => "FIN_WAIT2",
            TimeWait => "TIME_WAIT",
            Close => "CLOSE",
            CloseWait => "CLOSE_WAIT",
            LastAck => "LAST_ACK",
            Listen => "LISTEN",
            Closing => "CLOSING",
            NewSynRecv => "NEW_SYN_RECV",
            BoundInactive => "BOUND_INACTIVE",
        }
    }

    /// The kernel's number.
    pub fn number(self) -> u8 {
        self as u8
    }
}

/// The kernel used a number that this program does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown TCP state number {0}")]
pub struct UnknownState(pub u8);

impl TryFrom<u8> for TcpState {
    type Error = UnknownState;

    fn try_from(number: u8) -> Result<TcpState, UnknownState> {
        ALL.into_iter()
            .find(|s| s.number() == number)
            .ok_or(UnknownState(number))
    }
}

impl fmt::Display for TcpState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label())
    }
}

/// A set of states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateSet(u32);

impl StateSet {
    /// No state.
    pub const EMPTY: StateSet = StateSet(0);

    /// The set of these.
    pub fn of(states: &[TcpState]) -> StateSet {
        states.iter().fold(StateSet::EMPTY, |set, s| set.with(*s))
    }

    /// Every state.
    pub fn all() -> StateSet {
        StateSet::of(&ALL)
    }

    /// The set with `state` in it.
    pub fn with(self, state: TcpState) -> StateSet {
        StateSet(self.0 | 1 << state.number())
    }

    /// Both sets together.
    pub fn union(self, other: StateSet) -> StateSet {
        StateSet(self.0 | other.0)
    }

    /// Whether `state` is in it.
    pub fn contains(self, state: TcpState) -> bool {
        self.0 & 1 << state.number() != 0
    }

    /// Whether it has no state.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// One bit per state number, as the kernel programs and sock_diag take it.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Its states, in the kernel's order.
    pub fn iter(self) -> impl Iterator<Item = TcpState> {
        ALL.into_iter().filter(move |s| self.contains(*s))
    }
}

/// The states that `watch` follows unless told otherwise: those in which sockets linger.
pub fn lingering() -> StateSet {
    StateSet::of(&[CloseWait, FinWait2, TimeWait])
}

/// Why a text names no state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not a TCP state: use close_wait, fin_wait2, time_wait, established, syn_sent, \
         syn_recv, fin_wait1, last_ack, closing, close, listen (any spelling), or a group: \
         all, connected, synchronized, bucket, big, lingering"
)]
pub struct StateError(String);

/// Reads `close_wait`, `CLOSE-WAIT`, `CloseWait`, `cw`, `TIME_WAIT`, `fin-wait-2`, ss's groups…,
/// separated by commas.
impl FromStr for StateSet {
    type Err = StateError;

    fn from_str(text: &str) -> Result<StateSet, StateError> {
        let mut set = StateSet::EMPTY;
        for word in text.split(',') {
            set = set.union(word_states(word).ok_or_else(|| StateError(word.to_owned()))?);
        }
        Ok(set)
    }
}

fn word_states(word: &str) -> Option<StateSet> {
    let key: String = word
        .trim()
        .chars()
        .filter(|c| !matches!(c, '_' | '-' | ' '))
        .map(|c| c.to_ascii_lowercase())
        .collect();
    let key = key.strip_prefix("tcp").unwrap_or(&key);
    let one = |s| Some(StateSet::of(&[s]));
    let connected = [
        SynSent,
        Established,
        SynRecv,
        NewSynRecv,
        FinWait1,
        FinWait2,
        TimeWait,
        CloseWait,
        LastAck,
        Closing,
    ];
    match key {
        "established" | "estab" | "est" => one(Established),
        "synsent" => one(SynSent),
        "synrecv" | "synrcv" | "synreceived" => Some(StateSet::of(&[SynRecv, NewSynRecv])),
        "newsynrecv" => one(NewSynRecv),
        "finwait1" | "fw1" => one(FinWait1),
        "finwait2" | "fw2" => one(FinWait2),
        "finwait" | "fw" => Some(StateSet::of(&[FinWait1, FinWait2])),
        "timewait" | "tw" => one(TimeWait),
        "close" | "closed" | "unconnected" => one(Close),
        "closewait" | "cw" => one(CloseWait),
        "lastack" | "la" => one(LastAck),
        "listen" | "listening" => one(Listen),
        "closing" => one(Closing),
        "boundinactive" => one(BoundInactive),
        "all" => Some(StateSet::all()),
        "connected" => Some(StateSet::of(&connected)),
        "synchronized" => Some(StateSet::of(
            &connected.map(|s| if s == SynSent { Established } else { s }),
        )),
        "bucket" => Some(StateSet::of(&[SynRecv, NewSynRecv, TimeWait])),
        "big" => Some(StateSet::of(&[
            Established,
            SynSent,
            FinWait1,
            FinWait2,
            Close,
            CloseWait,
            LastAck,
            Listen,
            Closing,
        ])),
        "lingering" => Some(lingering()),
        _ => None,
    }
}

/// `close_wait,time_wait`.
impl fmt::Display for StateSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.iter().map(TcpState::name).collect();
        f.pad(&names.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_common_spelling_is_read() {
        for text in [
            "close_wait",
            "CLOSE-WAIT",
            "CLOSE_WAIT",
            "CloseWait",
            "closewait",
            "cw",
            "CW",
            "TCP_CLOSE_WAIT",
            " close wait ",
        ] {
            assert_eq!(text.parse(), Ok(StateSet::of(&[CloseWait])), "{text}");
        }
        for text in ["FIN-WAIT-2", "fin_wait_2", "FIN_WAIT2", "finwait2", "fw2"] {
            assert_eq!(text.parse(), Ok(StateSet::of(&[FinWait2])), "{text}");
        }
        assert_eq!("tw,cw".parse(), Ok(StateSet::of(&[TimeWait, CloseWait])));
        assert!("close_wait,".parse::<StateSet>().is_err());
        assert!("clsoe".parse::<StateSet>().is_err());
    }

    #[test]
    fn names_and_labels_read_back() {
        for state in ALL {
            for text in [state.name(), state.label()] {
                assert!(
                    text.parse::<StateSet>().is_ok_and(|s| s.contains(state)),
                    "{text}"
                );
            }
            assert_eq!(TcpState::try_from(state.number()), Ok(state));
        }
        assert_eq!(TcpState::try_from(0), Err(UnknownState(0)));
        assert_eq!(TcpState::try_from(14), Err(UnknownState(14)));
    }
}

//! What one look at a socket tells about its past: age, role, keepalive.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::change::View;
use crate::input::{SocketSnapshot, Timer};
use crate::owner::Owner;
use crate::state::TcpState;
use crate::time::Age;
use crate::tuple::{ConnId, Role, Tuple};
use crate::verdict::{Evidence, verdict};

const MS: u64 = 1_000_000;
/// `TCP_TIMEWAIT_LEN` of `include/net/tcp.h`, a constant: `tcp_fin_timeout` does not change it.
const TIME_WAIT: u64 = 60_000 * MS;
/// How much later than asked a timer of 60 s may run: the wheel's granularity at its worst,
/// HZ=100. Meanwhile sock_diag shows 0 ms left.
const WHEEL: u64 = 5_120 * MS;

/// How long the socket has been in its state, as far as its counters tell.
///
/// - CLOSE_WAIT: `tp->rcv_tstamp` is set by the FIN's own ACK and by every later one, so the age
///   is at least `tcpi_last_ack_recv`; no data follows a FIN, so it is at most
///   `tcpi_last_data_recv`. Both are equal when both sides have been silent since.
/// - FIN_WAIT_2, full socket: at least `tcpi_last_ack_recv` (data from the peer acknowledges,
///   too), at most `tcpi_last_data_sent`, since nothing but our FIN came after our data.
/// - TIME_WAIT: 60 s less what its timer has left. A segment that restarts the timer restarts
///   this age.
/// - FIN_WAIT_2, minisocket: `tcp_fin_timeout` of its namespace less what its timer has left,
///   which is wrong for a socket with TCP_LINGER2 of its own, and at least that for one that was
///   shut down before it was closed. Above 60 s the kernel (`tcp_close`, `tcp_keepalive_timer`)
///   keeps a full socket for all but 60 s of it and then arms the minisocket for as long again.
/// - Anything else leaves no trace.
///
/// The kernel counts whole jiffies (1 to 10 ms): both bounds are right to one jiffy.
pub fn age(s: &SocketSnapshot, fin_timeout_ns: Option<u64>) -> Age {
    let ms = |ms: u32| u64::from(ms) * MS;
    match (s.state, s.timer) {
        (TcpState::TimeWait, Timer::TimeWait { left_ms: 0 }) => Age::Between {
            min: TIME_WAIT,
            max: Some(TIME_WAIT + WHEEL),
        },
        (TcpState::TimeWait, Timer::TimeWait { left_ms }) => {
            let min = TIME_WAIT.saturating_sub(ms(left_ms));
            Age::Between {
                min,
                max: Some(min),
            }
        }
        (TcpState::FinWait2, Timer::TimeWait { left_ms }) => {
            let total = fin_timeout_ns.map(|timeout| match timeout {
                0..=TIME_WAIT => timeout,
                _ => (timeout - TIME_WAIT).saturating_mul(2),
            });
            match total.and_then(|total| total.checked_sub(ms(left_ms))) {
                Some(min) => Age::Between { min, max: None },
                // Armed for longer than the sysctl says: 3.5 times a long RTO, or TCP_LINGER2.
                None => Age::Unknown,
            }
        }
        (TcpState::CloseWait, _) => between(s.last_ack_recv_ms, s.last_data_recv_ms),
        (TcpState::FinWait2, _) => between(s.last_ack_recv_ms, s.last_data_sent_ms),
        _ => Age::Unknown,
    }
}

fn between(at_least_ms: Option<u32>, at_most_ms: Option<u32>) -> Age {
    let Some(min) = at_least_ms.map(|ms| u64::from(ms) * MS) else {
        return Age::Unknown;
    };
    let max = at_most_ms.map(|ms| (u64::from(ms) * MS).max(min));
    Age::Between { min, max }
}

/// SO_KEEPALIVE, told by the timer: it runs all the time while the option is set, but sock_diag
/// names only the first of retransmission, probe and keepalive.
pub fn keepalive(s: &SocketSnapshot) -> Option<bool> {
    let connected = matches!(
        s.state,
        TcpState::Established | TcpState::CloseWait | TcpState::FinWait1 | TcpState::FinWait2
    );
    // Without an owner, the same timer ends FIN_WAIT_2.
    if !connected || s.mini || s.inode == 0 && s.state == TcpState::FinWait2 {
        return None;
    }
    match s.timer {
        Timer::Keepalive { .. } => Some(true),
        Timer::Off => Some(false),
        Timer::Retransmit { .. } | Timer::Probe { .. } | Timer::TimeWait { .. } => None,
    }
}

/// The listeners of a dump: through which of them has a connection come?
#[derive(Clone, Debug, Default)]
pub struct Listeners {
    by_port: BTreeMap<(Option<u32>, u16), Vec<Listener>>,
}

/// A listening address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The address.
    pub addr: SocketAddr,
    /// Inodes of the sockets that listen there: more than one with SO_REUSEPORT.
    pub inodes: Vec<u32>,
}

impl Listeners {
    /// Takes the socket up if it is a listener.
    pub fn add(&mut self, s: &SocketSnapshot) {
        if s.state != TcpState::Listen {
            return;
        }
        let addr = s.tuple.local;
        let same_port = self
            .by_port
            .entry((s.tuple.netns, addr.port()))
            .or_default();
        match same_port.iter_mut().find(|l| l.addr == addr) {
            Some(listener) => listener.inodes.push(s.inode),
            None => same_port.push(Listener {
                addr,
                inodes: vec![s.inode],
            }),
        }
    }

    /// The listener that would have accepted this connection: the one on its very address,
    /// else one on all addresses of its family, else one on all addresses.
    pub fn covering(&self, tuple: &Tuple) -> Option<&Listener> {
        self.by_port
            .get(&(tuple.netns, tuple.local.port()))?
            .iter()
            .filter(|l| tuple.fit(l.addr).is_some())
            .max_by_key(|l| tuple.fit(l.addr))
    }
}

/// The role of a socket that nobody saw being born. A listener on its local address means that
/// it was accepted, or waits for that if it has no inode yet.
pub fn role(s: &SocketSnapshot, listeners: &Listeners) -> Option<Role> {
    match s.state {
        TcpState::Listen | TcpState::Close | TcpState::BoundInactive => None,
        TcpState::SynSent => Some(Role::Active),
        TcpState::SynRecv | TcpState::NewSynRecv => Some(Role::Passive),
        _ if listeners.covering(&s.tuple).is_none() => Some(Role::Active),
        TcpState::Established | TcpState::CloseWait if s.inode == 0 => Some(Role::Unaccepted),
        _ => Some(Role::Passive),
    }
}

/// A connection that is known from one look only. The owner must be the listener's where
/// [`role`] says that nobody accepted it.
pub fn view(
    s: &SocketSnapshot,
    listeners: &Listeners,
    fin_timeout_ns: Option<u64>,
    owner: Owner,
) -> View {
    let role = role(s, listeners);
    // Minisockets and half-open requests have no queues: their 0 says nothing.
    let queues = !s.mini && (s.state != TcpState::SynRecv || s.last_ack_recv_ms.is_some());
    let evidence = Evidence {
        unaccepted: role == Some(Role::Unaccepted),
        mini: s.mini,
        held: Some(s.inode != 0),
        eof_read: false,
        recv_q: queues.then_some(s.recv_q),
    };
    View {
        at: s.at,
        id: ConnId {
            cookie: s.cookie,
            generation: 0,
        },
        tuple: s.tuple,
        role,
        state: s.state,
        age: age(s, fin_timeout_ns),
        mini: s.mini,
        owner,
        recv_q: queues.then_some(s.recv_q),
        send_q: queues.then_some(s.send_q),
        keepalive: keepalive(s),
        verdict: verdict(s.state, evidence),
        acquired_at: None,
        eof_at: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::snapshot::tests::{MINUTE, S, snapshot};
    use crate::time::Mono;
    use crate::verdict::Verdict;

    #[test]
    fn close_wait_lies_between_the_last_ack_and_the_last_data() {
        let mut s = snapshot(TcpState::CloseWait, "10.0.0.1:40000", "10.0.0.9:443");
        assert_eq!(age(&s, None), Age::Unknown);
        s.last_ack_recv_ms = Some(308);
        s.last_data_recv_ms = Some(2_308);
        let bounds = |min, max| Age::Between {
            min: min * MS,
            max: Some(max * MS),
        };
        assert_eq!(age(&s, None), bounds(308, 2_308));
        s.last_data_recv_ms = Some(100);
        assert_eq!(age(&s, None), bounds(308, 308));
        s.state = TcpState::Established;
        assert_eq!(age(&s, None), Age::Unknown);
    }

    #[test]
    fn fin_wait2_is_bounded_by_what_we_sent() {
        let mut s = snapshot(TcpState::FinWait2, "10.0.0.1:40000", "10.0.0.9:443");
        s.last_ack_recv_ms = Some(1);
        s.last_data_recv_ms = Some(1);
        s.last_data_sent_ms = Some(5_000);
        let Age::Between { min, max } = age(&s, None) else {
            panic!("bounds");
        };
        assert_eq!((min, max), (MS, Some(5_000 * MS)));
    }

    #[test]
    fn minisockets_count_down() {
        let mut s = snapshot(TcpState::TimeWait, "10.0.0.1:40000", "10.0.0.9:443");
        s.mini = true;
        let mut min_of = |state, left_ms, timeout| {
            s.state = state;
            s.timer = Timer::TimeWait { left_ms };
            age(&s, timeout).at_least()
        };
        use TcpState::{FinWait2, TimeWait};
        assert_eq!(min_of(TimeWait, 58_000, None), Some(2 * S));
        assert_eq!(min_of(TimeWait, 0, None), Some(60 * S));
        assert_eq!(min_of(TimeWait, 61_000, None), Some(0));
        assert_eq!(min_of(FinWait2, 58_000, Some(MINUTE)), Some(2 * S));
        assert_eq!(min_of(FinWait2, 58_000, None), None);
        assert_eq!(min_of(FinWait2, 58_000, Some(5 * S)), None);
        // 62 s are 2 s as a full socket and 2 s as a minisocket.
        assert_eq!(min_of(FinWait2, 1_000, Some(62 * S)), Some(3 * S));
    }

    #[test]
    fn listeners_tell_who_connected() {
        let mut listeners = Listeners::default();
        for (addr, inode) in [
            ("0.0.0.0:80", 1),
            ("[::]:80", 2),
            ("10.0.0.1:80", 3),
            ("10.0.0.1:80", 4),
        ] {
            let mut s = snapshot(TcpState::Listen, addr, "0.0.0.0:0");
            s.inode = inode;
            listeners.add(&s);
        }
        let covering = |local: &str| {
            let s = snapshot(TcpState::Established, local, "10.0.0.9:5000");
            listeners.covering(&s.tuple).map(|l| l.inodes.clone())
        };
        assert_eq!(covering("10.0.0.1:80"), Some(vec![3, 4]));
        assert_eq!(covering("10.0.0.2:80"), Some(vec![1]));
        assert_eq!(covering("[::1]:80"), Some(vec![2]));
        assert_eq!(covering("10.0.0.1:81"), None);

        let role_of = |state, local: &str, inode| {
            let mut s = snapshot(state, local, "10.0.0.9:5000");
            s.inode = inode;
            role(&s, &listeners)
        };
        use TcpState::{CloseWait, Established, Listen, TimeWait};
        assert_eq!(role_of(CloseWait, "10.0.0.1:80", 0), Some(Role::Unaccepted));
        assert_eq!(role_of(CloseWait, "10.0.0.1:80", 9), Some(Role::Passive));
        assert_eq!(role_of(TimeWait, "10.0.0.1:80", 0), Some(Role::Passive));
        assert_eq!(role_of(Established, "10.0.0.1:4000", 9), Some(Role::Active));
        assert_eq!(role_of(Listen, "10.0.0.1:80", 9), None);
        let mut elsewhere = snapshot(CloseWait, "10.0.0.1:80", "10.0.0.9:5000");
        elsewhere.tuple.netns = Some(99);
        assert_eq!(role(&elsewhere, &listeners), Some(Role::Active));
    }

    #[test]
    fn the_timer_tells_keepalive() {
        let mut s = snapshot(TcpState::CloseWait, "10.0.0.1:40000", "10.0.0.9:443");
        assert_eq!(keepalive(&s), Some(false));
        s.timer = Timer::Keepalive { left_ms: 1 };
        assert_eq!(keepalive(&s), Some(true));
        s.timer = Timer::Retransmit { left_ms: 1 };
        assert_eq!(keepalive(&s), None);
        s.state = TcpState::FinWait2;
        s.inode = 0;
        s.timer = Timer::Keepalive { left_ms: 1 };
        assert_eq!(keepalive(&s), None);
    }

    #[test]
    fn a_minisockets_queues_are_unknown() {
        let mut s = snapshot(TcpState::FinWait2, "10.0.0.1:40000", "10.0.0.9:443");
        s.mini = true;
        s.inode = 0;
        s.timer = Timer::TimeWait { left_ms: 58_000 };
        let view = view(&s, &Listeners::default(), Some(MINUTE), Owner::default());
        assert_eq!(
            (view.recv_q, view.send_q, view.keepalive),
            (None, None, None)
        );
        assert_eq!(view.verdict, Some(Verdict::OrphanTimer));
        assert_eq!(view.at, Mono(0));
    }
}

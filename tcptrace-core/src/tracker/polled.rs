//! Without events: connections are known from dumps alone, so that every change lies between the
//! last dump that showed the old and the first that shows the new.

use super::conn::{Conn, Entered};
use super::{Minisockets, Tracker};
use crate::cause::Cause;
use crate::input::SocketSnapshot;
use crate::state::TcpState;
use crate::time::Mono;

/// `TCP_TIMEWAIT_LEN`: before this no TIME_WAIT ends by its timer.
const TIME_WAIT_NS: u64 = 60_000_000_000;

/// The last dump of all sockets, as a bound in time.
#[derive(Debug, Default)]
pub(super) struct LastDump {
    began: Option<Mono>,
    ended: Mono,
    /// Namespaces that it showed whole.
    netns: Vec<u32>,
}

impl LastDump {
    pub(super) fn ended(&mut self, began: Mono, ended: Mono, netns: &[u32]) {
        self.began = Some(began);
        self.ended = ended;
        self.netns = netns.to_vec();
    }

    /// When it began, if it would have shown a socket of this namespace.
    fn without(&self, netns: Option<u32>) -> Option<Mono> {
        let covered = netns.is_some_and(|netns| self.netns.contains(&netns));
        self.began.filter(|_| covered)
    }
}

impl Tracker {
    /// Whether nothing but dumps tells of connections.
    pub(super) fn polls(&self) -> bool {
        self.options.polled_ns.is_some()
    }

    /// A socket that the last dump did not show came to be after it.
    pub(super) fn bounded(&self, entered: Entered, socket: &SocketSnapshot) -> Entered {
        let Some(absent) = self
            .last_dump
            .without(socket.tuple.netns)
            .filter(|_| self.polls())
        else {
            return entered;
        };
        let earliest = entered.earliest.map_or(absent, |e| e.max(absent));
        Entered::between(Some(earliest), entered.latest.max(earliest))
    }

    /// It left its state somewhere between the last look at it and `latest`: its stay gets as much
    /// shorter at least.
    pub(super) fn left_between(&mut self, cookie: u64, conn: &mut Conn, latest: Mono) {
        if self.polls() {
            // What is due goes by the time of entry.
            self.due.remove(self.due_at(conn), cookie);
            let unseen = latest.since(conn.touched);
            conn.entered.latest = conn.entered.latest.plus(unseen).min(latest);
            conn.entered.exact = false;
        }
    }

    /// When a connection that two dumps did not show was gone at the latest.
    pub(super) fn gone_by(&self) -> Mono {
        match self.polls() {
            true => self.last_dump.ended,
            false => self.now,
        }
    }

    /// Why a dump shows another state, as far as only one thing can have led to it.
    pub(super) fn polled_move(&self, old: TcpState, new: TcpState) -> Cause {
        match (old, new) {
            _ if !self.polls() => Cause::EndNotSeen,
            (TcpState::Established, TcpState::CloseWait)
            | (TcpState::FinWait2, TcpState::TimeWait) => Cause::PeerFin,
            _ => Cause::EndNotSeen,
        }
    }

    /// Why dumps do not show a connection any more.
    pub(super) fn sampled_end(&self, conn: &Conn) -> Cause {
        if !conn.mini || self.options.minisockets != Minisockets::Sampled {
            return Cause::EndNotSeen;
        }
        let oldest = conn.entered.earliest.map(|e| self.now.since(e));
        let too_early = oldest.is_some_and(|age| age < TIME_WAIT_NS);
        match (self.polls(), conn.state) {
            // With tcp_fin_timeout and TCP_LINGER2 nobody can say.
            (true, TcpState::FinWait2) => Cause::EndNotSeen,
            (true, _) if too_early => Cause::EndNotSeen,
            _ => Cause::Timer,
        }
    }

    /// Whether a stay that began at `entered` began before the watch, or at an unknown time.
    pub(super) fn is_found(&self, entered: Entered) -> bool {
        let within = |earliest| self.began.is_some_and(|began| earliest >= began);
        let in_our_time = self.polls() && entered.earliest.is_some_and(within);
        !entered.exact && !in_our_time
    }
}

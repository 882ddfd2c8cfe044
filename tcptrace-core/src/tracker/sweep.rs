//! What a dump of all sockets does: it lists those that were there before us, gives the facts
//! that events do not carry, and reconciles after losses.

use std::collections::{BTreeMap, BTreeSet};

use super::conn::{Conn, Entered, Listener, World};
use super::{Minisockets, Tracker};
use crate::cause::Cause;
use crate::change::Change;
use crate::infer;
use crate::input::{SocketSnapshot, Sweep};
use crate::owner::Holder;
use crate::state::TcpState;
use crate::time::Mono;
use crate::tuple::{Role, Tuple};

/// A connection that this many dumps in a row do not show is gone: one alone may miss a socket
/// that moves between hash chains meanwhile.
const MISSED: u8 = 2;

/// Requests that dumps show in this state have no socket yet: of their coming and going no event tells,
/// so none was lost.
const HALF_OPEN: TcpState = TcpState::SynRecv;

/// Sockets of a namespace that cannot be found are believed for so long.
const NETNS_GONE_NS: u64 = 120_000_000_000;

/// Where the dumps stand.
#[derive(Debug, Default)]
pub(super) struct SweepState {
    /// Number of the running or last sweep; the first is 1.
    number: u32,
    began: Option<Mono>,
    /// The first was taken whole: every older socket is known.
    first_done: bool,
    /// Namespaces and processes that the last one could not look into.
    unlisted: u64,
    /// MPTCP subflows, which are no connections of their own, and the sweep that saw each last.
    left_out: BTreeMap<u64, u32>,
    /// Connections that ended while it ran, whose rows may still come.
    ended: BTreeSet<u64>,
}

impl SweepState {
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// Whether every older socket has been listed.
    pub(super) fn complete(&self) -> bool {
        self.first_done
    }

    /// How much the last sweep could not look into.
    pub(super) fn unlisted(&self) -> u64 {
        self.unlisted
    }

    /// Whether a socket is left out on purpose.
    pub(super) fn leaves_out(&self, cookie: u64) -> bool {
        self.left_out.contains_key(&cookie)
    }

    pub(super) fn removed(&mut self, cookie: u64) {
        if self.began.is_some() {
            self.ended.insert(cookie);
        }
    }
}

impl Tracker {
    pub(super) fn sweep(&mut self, sweep: &Sweep, changes: &mut Vec<Change>) {
        match sweep {
            Sweep::Begin { at } => {
                self.advance(*at);
                self.sweep.number += 1;
                self.sweep.began = Some(*at);
                self.sweep.ended.clear();
            }
            Sweep::End {
                at,
                netns,
                partly,
                hidden,
            } => {
                self.advance(*at);
                self.sweep.unlisted = partly.len() as u64 + u64::from(*hidden);
                let began = self.sweep.began;
                self.end_sweep(netns, partly, *hidden == 0, changes);
                if let Some(began) = began {
                    self.last_dump.ended(began, *at, netns);
                }
            }
        }
    }

    /// One socket, in a sweep or looked up by itself.
    pub(super) fn socket(&mut self, socket: &SocketSnapshot, changes: &mut Vec<Change>) {
        let cookie = socket.cookie;
        if socket.state == TcpState::Listen {
            let before = self.world.add_listener(Listener {
                tuple: socket.tuple,
                cookie,
                holders: Vec::new(),
                opened_by: None,
                seen_in: self.sweep.number,
                gone: false,
                queue: Some((socket.recv_q, socket.send_q)),
                drops_before: socket.drops,
                drops: socket.drops.map(|drops| (drops, drops)),
            });
            self.overflow_sampled(socket, before);
            return;
        }
        if socket.mptcp || self.sweep.leaves_out(cookie) {
            self.leave_out(cookie);
            return;
        }
        let ignored = socket.mini && self.options.minisockets == Minisockets::Ignored;
        if ignored || !self.options.filter.selects_tuple(&socket.tuple) {
            return;
        }
        let asked = self.sweep.began.unwrap_or(socket.at);
        let cookie = match socket.mini {
            true => self.minisocket_key(cookie, &socket.tuple),
            false => {
                let known = self.conns.get(&cookie);
                if known.is_some_and(|conn| conn.mini && conn.tuple != socket.tuple) {
                    self.part(cookie, changes);
                }
                cookie
            }
        };
        let Some(mut conn) = self.conns.remove(&cookie) else {
            match self.sweep.began.is_some() && !self.sweep.ended.contains(&cookie) {
                true => self.found(cookie, socket, changes),
                false => self.parted.ended(cookie),
            }
            return;
        };
        conn.seen_in = self.sweep.number;
        conn.missed = 0;
        let role = conn.role;
        conn.look(socket);
        let same = conn.state == socket.state && (conn.mini == socket.mini);
        if !same && conn.touched < asked {
            if conn.mini != socket.mini && conn.state == socket.state {
                conn.mini = socket.mini;
            } else {
                self.reconcile(cookie, &mut conn, socket, changes);
            }
        }
        if self.polls() {
            conn.touched = conn.touched.max(socket.at);
        }
        let told = conn.role;
        self.conns.insert(cookie, conn);
        if told != role {
            self.reconsider(cookie);
        }
    }

    /// Whether the last dump did not show a connection that the one before it may have shown:
    /// another one tells whether it is gone.
    pub fn doubts(&self) -> bool {
        self.conns.values().any(|conn| conn.missed > 0)
    }

    /// Remembers that a socket is none of ours.
    pub(super) fn leave_out(&mut self, cookie: u64) {
        self.sweep.left_out.insert(cookie, self.sweep.number);
    }

    /// A socket that no event told of.
    fn found(&mut self, key: u64, socket: &SocketSnapshot, changes: &mut Vec<Change>) {
        let age = infer::age(socket, self.fin_timeout(&socket.tuple));
        let entered = self.bounded(Entered::aged(age, socket.at), socket);
        let mut conn = Conn::new(socket.tuple, socket.state, entered, socket.at);
        conn.mini = socket.mini;
        conn.seen_in = self.sweep.number;
        conn.look(socket);
        let missed = self.sweep.first_done && !self.options.selective && !self.polls();
        let silent = socket.state == HALF_OPEN;
        if missed && !silent && self.options.filter.states.contains(socket.state) {
            self.reconciled += 1;
        }
        self.enter(key, &mut conn, socket.state, entered, changes);
        conn.look(socket);
        self.conns.insert(key, conn);
    }

    /// The dump shows another state than the last event left: transitions were not seen.
    fn reconcile(
        &mut self,
        cookie: u64,
        conn: &mut Conn,
        socket: &SocketSnapshot,
        changes: &mut Vec<Change>,
    ) {
        let watched = self.options.filter.states;
        let sampled = conn.mini && self.options.minisockets == Minisockets::Sampled;
        if !sampled
            && !self.polls()
            && !self.options.selective
            && (watched.contains(conn.state) || watched.contains(socket.state))
        {
            self.reconciled += 1;
        }
        let last = conn.touched;
        let age = infer::age(socket, self.fin_timeout(&socket.tuple));
        let aged = Entered::aged(age, socket.at);
        let latest = aged.latest.max(last);
        let entered = Entered::between(Some(aged.earliest.unwrap_or(last).max(last)), latest);
        let cause = match sampled && !self.polls() {
            true => Cause::PeerFin,
            false => self.polled_move(conn.state, socket.state),
        };
        self.left_between(cookie, conn, entered.latest);
        self.leave(cookie, conn, entered.latest, socket.state, cause, changes);
        conn.mini = socket.mini;
        self.enter(cookie, conn, socket.state, entered, changes);
        conn.look(socket);
    }

    fn end_sweep(
        &mut self,
        netns: &[u32],
        partly: &[u32],
        all_found: bool,
        changes: &mut Vec<Change>,
    ) {
        let Some(began) = self.sweep.began.take() else {
            return;
        };
        self.sweep.first_done = true;
        self.sweep.ended.clear();
        let number = self.sweep.number;
        self.sweep
            .left_out
            .retain(|_, seen_in| *seen_in + 1 >= number);
        self.world.drop_listeners(netns, number);
        self.infer_roles();
        self.forget_processes();
        let mut gone = Vec::new();
        #[expect(
            clippy::iter_over_hash_type,
            reason = "sorted before anything comes of it"
        )]
        for (cookie, conn) in &mut self.conns {
            // A namespace that was not found at all is gone, unless something happens in it: one
            // that no process is in can only be kept alive by an open file.
            let covered = conn.tuple.netns.is_none_or(|n| {
                let quiet = began.since(conn.touched) > NETNS_GONE_NS;
                let gone = all_found && !partly.contains(&n) && quiet;
                netns.contains(&n) || gone
            });
            if !covered || conn.seen_in == number || conn.touched >= began {
                continue;
            }
            conn.missed += 1;
            if conn.missed >= MISSED {
                gone.push(*cookie);
            }
        }
        gone.sort_unstable();
        for cookie in gone {
            let Some(conn) = self.conns.get(&cookie) else {
                continue;
            };
            let sampled = conn.mini && self.options.minisockets == Minisockets::Sampled;
            let watched = self.options.filter.states.contains(conn.state);
            let silent = sampled || conn.state == HALF_OPEN;
            let loss = watched && !silent && !self.polls() && self.is_loss(conn);
            self.reconciled += u64::from(loss);
            let (cause, at) = (self.sampled_end(conn), self.gone_by());
            // It ended at an unknown time, so its duration is an estimate.
            if let Some(conn) = self.conns.get_mut(&cookie) {
                conn.entered.exact = false;
            }
            if let Some(mut conn) = self.conns.remove(&cookie) {
                self.left_between(cookie, &mut conn, at);
                self.conns.insert(cookie, conn);
            }
            self.end(cookie, at, TcpState::Close, cause, changes);
        }
        let conns = &self.conns;
        let followed = |cookie| conns.contains_key(&cookie);
        self.world.stacks.forget(self.now, followed);
    }

    /// Sockets found by a dump do not say who connected. Where a listener covers their local end
    /// they came through it; else they connected.
    fn infer_roles(&mut self) {
        let world = &self.world;
        let through = |tuple: &Tuple| !world.listeners(tuple).is_empty();
        let mut told = Vec::new();
        #[expect(clippy::iter_over_hash_type, reason = "each is judged by itself")]
        for (cookie, conn) in &mut self.conns {
            let role = match conn.role {
                None if through(&conn.tuple) => Role::Passive,
                None => Role::Active,
                Some(Role::Unaccepted) if !through(&conn.tuple) => Role::Active,
                Some(_) => continue,
            };
            conn.role = Some(role);
            told.push(*cookie);
        }
        for cookie in told {
            self.reconsider(cookie);
        }
    }

    /// Drops what is known of processes to which no socket leads any more.
    fn forget_processes(&mut self) {
        let mut pids = BTreeSet::new();
        #[expect(clippy::iter_over_hash_type, reason = "collected into an ordered set")]
        for conn in self.conns.values() {
            pids.extend(conn.pids());
        }
        for listener in self.world.listeners.values().flatten() {
            pids.extend(listener.holders.iter().map(|h| h.pid));
            pids.extend(listener.opened_by.map(|a| a.pid));
        }
        self.world.processes.retain(|pid, _| pids.contains(pid));
    }

    fn fin_timeout(&self, tuple: &Tuple) -> Option<u64> {
        self.world.fin_timeouts.get(&tuple.netns?).copied()
    }
}

impl World {
    /// Adds or renews a listener, and gives what it had dropped when it was first met.
    pub(super) fn add_listener(&mut self, listener: Listener) -> Option<u32> {
        let key = (listener.tuple.netns, listener.tuple.local.port());
        let list = self.listeners.entry(key).or_default();
        match list.iter_mut().find(|l| l.cookie == listener.cookie) {
            Some(known) => {
                known.seen_in = listener.seen_in;
                known.queue = listener.queue.or(known.queue);
                known.drops = match (known.drops, listener.drops) {
                    (Some((first, _)), Some((_, last))) => Some((first, last)),
                    (known, seen) => known.or(seen),
                };
                known.drops_before
            }
            None => {
                let before = listener.drops_before;
                list.push(listener);
                before
            }
        }
    }

    /// A listener closes. It stays until the next sweep: its queue is emptied after this.
    pub(super) fn listener_gone(&mut self, cookie: u64) {
        for listener in self.listeners.values_mut().flatten() {
            listener.gone |= listener.cookie == cookie;
        }
    }

    pub(super) fn listener_holders(&mut self, cookie: u64, holders: &[Holder]) {
        for listener in self.listeners.values_mut().flatten() {
            if listener.cookie == cookie {
                listener.holders = holders.to_vec();
            }
        }
    }

    fn drop_listeners(&mut self, netns: &[u32], number: u32) {
        for (key, list) in &mut self.listeners {
            if key.0.is_none_or(|n| netns.contains(&n)) {
                list.retain(|l| l.seen_in == number);
            }
        }
        self.listeners.retain(|_, list| !list.is_empty());
    }
}

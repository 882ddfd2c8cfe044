//! The lifecycle state of every connection.
//!
//! [`Tracker::apply`] is total: it never fails and never panics, whatever comes in whatever
//! order. On a stream that loses events the impossible will come, and is counted.

mod census;
mod conn;
mod due;
mod events;
mod handover;
mod host;
mod named;
mod overflow;
mod parted;
mod polled;
mod stacks;
mod stats;
mod sweep;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, VecDeque};

use crate::cause::Cause;
use crate::change::{Change, View};
use crate::filter::Filter;
use crate::input::{Definition, EventBody, Input, Loss};
use crate::owner::Comm;
use crate::report::summary::Key;
use crate::state::{StateSet, TcpState};
use crate::time::Mono;
use crate::tuple::{Role, Tuple};
use crate::verdict::Verdict;

pub use census::{Census, Stay};
pub use conn::Idle;
use conn::{Birth, Conn, Entered, World};
use due::Due;
use overflow::Overflows;
use parted::Parted;
use polled::LastDump;
pub(crate) use stacks::MAX_PLACES;
pub use stacks::{LATE_NS, Ledger, Outstanding};
use stats::Stats;
use sweep::SweepState;

type Map<K, V> = std::collections::HashMap<K, V, foldhash::fast::FixedState>;

/// A stopped minisocket timer is a death if no re-arm follows within this; the kernel re-arms in
/// the same function call.
const REARM_NS: u64 = 50_000_000;

/// How many dead sockets with an open file are remembered.
const MAX_DEAD: usize = 65_536;

/// What the user asked of the tracker.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Which connections; `states` are those whose dwell times are measured and in which sockets
    /// are shown, `min_age_ns` is the age at which one is.
    pub filter: Filter,
    /// Tell of every transition from or to one of these.
    pub transitions: StateSet,
    /// How the summary is grouped.
    pub by: Vec<Key>,
    /// How minisockets are followed.
    pub minisockets: Minisockets,
    /// The programs count what full accept queues drop; else dumps tell.
    pub overflows_seen: bool,
    /// Threads are told of, some time after the events of their sockets.
    pub stacks: bool,
    /// It is asked what became of the connections of each stack: see [`Tracker::ledger`].
    pub ledgers: bool,
    /// The programs follow sockets of some owners only: a dump may well find others.
    pub selective: bool,
    /// All sockets are looked at every so many ns, and nothing is known of the time between;
    /// `None`: events tell.
    pub polled_ns: Option<u64>,
    /// How the data was got, for the summary.
    pub mode: String,
}

/// How minisockets are followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Minisockets {
    /// By events: exactly.
    Seen,
    /// By dumps: estimated.
    Sampled,
    #[default]
    /// Not at all: nobody asked for the states that they can be in.
    Ignored,
}

/// The state of everything.
pub struct Tracker {
    options: Options,
    now: Mono,
    began: Option<Mono>,
    /// Boxed: every event takes one out and puts it back.
    conns: Map<u64, Box<Conn>>,
    /// When which connection is to be shown.
    due: Due,
    /// Minisockets whose timer was stopped, in the order of that.
    dying: VecDeque<(Mono, u64)>,
    /// Sockets born without a cookie, by address until their cookie is known.
    births: Map<u64, Birth>,
    /// Dead sockets whose descriptor is open: they may connect again.
    dead: Map<u64, Box<Conn>>,
    /// With the time of their death: one that connected and died again stands there twice.
    dead_order: VecDeque<(u64, Mono)>,
    parted: Parted,
    overflows: Overflows,
    world: World,
    sweep: SweepState,
    last_dump: LastDump,
    loss: Loss,
    /// What had been lost at the last restart.
    lost_before: Loss,
    reconciled: u64,
    anomalies: u64,
    /// Connects that found no free local port.
    no_port: u64,
    stats: Stats,
}

/// A connection that is to be shown, and what the agent should look up before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its cookie.
    pub cookie: u64,
    /// Its tuple.
    pub tuple: Tuple,
    /// A minisocket: it has no holder.
    pub mini: bool,
    /// Nobody has accepted it: its listener's holders are wanted.
    pub unaccepted: bool,
    /// The process that is believed to have it.
    pub pid: Option<u32>,
}

impl Tracker {
    /// A tracker that has seen nothing.
    pub fn new(options: Options) -> Tracker {
        let stacks = stacks::Stacks::new(options.stacks, options.ledgers);
        Tracker {
            options,
            now: Mono(0),
            began: None,
            conns: Map::default(),
            due: Due::default(),
            dying: VecDeque::new(),
            births: Map::default(),
            dead: Map::default(),
            dead_order: VecDeque::new(),
            parted: Parted::default(),
            overflows: Overflows::default(),
            world: World {
                stacks,
                ..World::default()
            },
            sweep: SweepState::default(),
            last_dump: LastDump::default(),
            loss: Loss::default(),
            lost_before: Loss::default(),
            reconciled: 0,
            anomalies: 0,
            no_port: 0,
            stats: Stats::default(),
        }
    }

    /// Takes one input and appends what follows from it.
    pub fn apply(&mut self, input: &Input, changes: &mut Vec<Change>) {
        match input {
            Input::Kernel(event) => {
                self.advance(event.at);
                match &event.body {
                    EventBody::State(change) => self.state_change(event, change, changes),
                    EventBody::Accept {
                        tuple,
                        actor,
                        fd,
                        state,
                    } => {
                        self.accepted(event, *tuple, *actor, *fd, *state, changes);
                    }
                    EventBody::Mini {
                        tuple,
                        substate,
                        op,
                    } => {
                        self.mini(event, *tuple, *substate, *op, changes);
                    }
                    EventBody::Close { actor, exiting } => {
                        self.close(event, *actor, *exiting, changes);
                    }
                    EventBody::Eof { actor } => self.eof(event, *actor),
                    EventBody::LeftOut if event.cookie == 0 => {}
                    EventBody::LeftOut => self.leave_out(event.cookie),
                }
            }
            Input::Lost(loss) => self.loss = *loss,
            Input::Tick(at) | Input::End(at) => {
                self.advance(*at);
                self.bury(*at, changes);
                self.show_due(*at, changes);
                self.show_overflows(*at, changes);
                // Nothing comes after the end.
                self.settle_stacks(match input {
                    Input::End(_) => Mono(u64::MAX),
                    _ => *at,
                });
            }
            Input::Socket(socket) => {
                self.advance(socket.at);
                self.socket(socket, changes);
            }
            Input::Sweep(sweep) => self.sweep(sweep, changes),
            Input::Overflow(overflow) => {
                self.advance(overflow.at);
                self.overflow(overflow);
            }
            Input::Stack(seen) => {
                self.advance(seen.at);
                let followed = self.conns.contains_key(&seen.cookie);
                self.world.stacks.seen(seen, self.now, followed);
                self.settle_stacks(self.now);
            }
            Input::Define(definition) => self.define(definition),
        }
    }

    /// The time of the latest input.
    pub fn now(&self) -> Mono {
        self.now
    }

    /// The states whose sockets are shown.
    pub fn watched(&self) -> StateSet {
        self.options.filter.states
    }

    /// What was lost so far.
    pub fn loss(&self) -> Loss {
        self.loss.since(&self.lost_before)
    }

    /// When a tick is owed.
    pub fn next_deadline(&self) -> Option<Mono> {
        let due = self.due.first().map(|(at, _)| at);
        let dying = self.dying.front().map(|(at, _)| at.plus(REARM_NS));
        let overflow = self.overflows.next_due();
        due.into_iter().chain(dying).chain(overflow).min()
    }

    /// The connections that a tick at `now` will show.
    pub fn wanted(&self, now: Mono) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        for (_, cookie) in self.due.by(now) {
            let Some(conn) = self.conns.get(&cookie) else {
                continue;
            };
            wanted.push(Wanted {
                cookie,
                tuple: conn.tuple,
                mini: conn.mini,
                unaccepted: conn.role == Some(Role::Unaccepted),
                pid: conn.acquired.as_deref().map(|a| a.actor.pid),
            });
        }
        wanted.extend(self.overflows.wanted(now));
        wanted
    }

    /// The listeners that have half-open requests: their holders are wanted by who looks at queues.
    pub fn besieged(&self) -> Vec<Wanted> {
        let half_open = self.conns.values();
        let half_open = half_open.filter(|conn| conn.state == TcpState::SynRecv);
        let listeners = half_open.flat_map(|conn| self.world.listeners(&conn.tuple));
        let by_cookie: BTreeMap<u64, Tuple> = listeners.map(|l| (l.cookie, l.tuple)).collect();
        let wanted = |(cookie, tuple)| Wanted {
            cookie,
            tuple,
            mini: false,
            unaccepted: true,
            pid: None,
        };
        by_cookie.into_iter().map(wanted).collect()
    }

    /// Whether a connection is tracked.
    pub fn knows(&self, cookie: u64) -> bool {
        self.conns.contains_key(&cookie) || self.parted.knows(cookie)
    }

    /// How many connections are in a watched state and selected.
    pub fn open(&self) -> usize {
        self.open_views().len()
    }

    /// Whether the facts about a process are known, under this name.
    pub fn knows_process(&self, pid: u32, comm: Option<Comm>) -> bool {
        let process = self.world.processes.get(&pid);
        process.is_some_and(|p| comm.is_none_or(|comm| comm == p.comm))
    }

    /// Cookies of the listeners whose queue an unaccepted connection may be in.
    pub fn listeners_of(&self, tuple: &Tuple) -> Vec<u64> {
        self.world
            .listeners(tuple)
            .iter()
            .map(|l| l.cookie)
            .collect()
    }

    fn advance(&mut self, at: Mono) {
        self.now = self.now.max(at);
        self.began.get_or_insert(at);
    }

    fn define(&mut self, definition: &Definition) {
        match definition {
            Definition::Holders { cookie, holders } => {
                let now = self.now;
                if let Some(conn) = self.conns.get_mut(cookie) {
                    if !holders.is_empty() && conn.role == Some(Role::Unaccepted) {
                        conn.role = Some(Role::Passive);
                    }
                    let facts = conn.facts.get_or_insert_default();
                    facts.held_at = Some(now);
                    facts.holders.clone_from(holders);
                    self.reconsider(*cookie);
                } else {
                    self.world.listener_holders(*cookie, holders);
                }
            }
            Definition::Process(process) => {
                self.world.processes.insert(process.pid, process.clone());
            }
            Definition::FinTimeout { netns, ns } => {
                self.world.fin_timeouts.insert(*netns, *ns);
            }
            Definition::Stack(stack) => self.world.stacks.define(stack),
            Definition::Reading(reading) => self.world.host.read(reading),
            Definition::Activity(activity) => self.world.host.acted(activity),
            Definition::Note(note) => self.world.note(note),
        }
    }

    /// Ends the minisockets whose timer was stopped and not armed again.
    fn bury(&mut self, now: Mono, changes: &mut Vec<Change>) {
        while let Some((at, cookie)) = self.dying.front().copied() {
            if at.plus(REARM_NS) > now {
                break;
            }
            self.dying.pop_front();
            match self.conns.get(&cookie).and_then(|conn| conn.dying) {
                Some((stopped, cause)) if stopped == at => {
                    self.end(cookie, at, TcpState::Close, cause, changes);
                }
                // It was armed again, or has run out.
                _ => {}
            }
        }
    }

    fn settle_stacks(&mut self, now: Mono) {
        let conns = &self.conns;
        let followed = |cookie| conns.contains_key(&cookie);
        self.world.stacks.settle(now, followed);
    }

    /// The connection left its last state.
    fn end(
        &mut self,
        cookie: u64,
        at: Mono,
        next: TcpState,
        cause: Cause,
        changes: &mut Vec<Change>,
    ) {
        let Some(mut conn) = self.conns.remove(&cookie) else {
            return;
        };
        self.sweep.removed(cookie);
        self.parted.ended(cookie);
        self.world.stacks.ended(cookie, at, cause);
        self.leave(cookie, &mut conn, at, next, cause, changes);
        if conn.fd_open {
            conn.state = TcpState::Close;
            conn.entered = Entered::at(at);
            self.remember_dead(cookie, conn);
        }
    }

    fn remember_dead(&mut self, cookie: u64, conn: Box<Conn>) {
        self.dead_order.push_back((cookie, conn.entered.latest));
        self.dead.insert(cookie, conn);
        if self.dead_order.len() > MAX_DEAD
            && let Some((oldest, died)) = self.dead_order.pop_front()
            && let Entry::Occupied(dead) = self.dead.entry(oldest)
            && dead.get().entered.latest == died
        {
            dead.remove();
        }
    }

    /// Counts and tells that `conn` leaves its state; the caller puts it into the next one.
    fn leave(
        &mut self,
        cookie: u64,
        conn: &mut Conn,
        at: Mono,
        next: TcpState,
        cause: Cause,
        changes: &mut Vec<Change>,
    ) {
        if cause == Cause::NoPort && self.options.filter.selects_tuple(&conn.tuple) {
            self.no_port += 1;
        }
        let watched = self.options.filter.states.contains(conn.state);
        let told = self.tells(conn.state, next);
        if !watched && !told {
            return;
        }
        self.due.remove(self.due_at(conn), cookie);
        let age = conn.entered.age(at);
        let old_enough = age.at_least().is_some_and(|age| age >= self.min_age());
        let by_tuple = self.options.by.is_empty() && !self.options.filter.asks_for_owner();
        if by_tuple && !told && !conn.shown && !old_enough {
            if self.options.filter.selects_tuple(&conn.tuple) {
                self.stats.left(conn.state, age, conn.found);
            }
            return;
        }
        let mut view = conn.view(cookie, at, &self.world);
        if !self.options.filter.selects(&view) {
            return;
        }
        if next == TcpState::Close && conn.fd_open {
            view.verdict = Some(Verdict::DeadFdOpen);
        }
        if watched {
            self.stats.left(view.state, age, conn.found);
            self.stats
                .left_group(&view, conn.found, cause, &self.options.by);
            if !conn.shown && old_enough {
                changes.push(Change::Stuck(view.clone()));
            }
            if conn.shown || old_enough {
                changes.push(Change::Resolved {
                    view: view.clone(),
                    next,
                    cause,
                });
            }
        }
        if told {
            changes.push(Change::Transition { view, next, cause });
        }
    }

    /// `conn` is in a new state from `entered` on.
    fn enter(
        &mut self,
        cookie: u64,
        conn: &mut Conn,
        state: TcpState,
        entered: Entered,
        changes: &mut Vec<Change>,
    ) {
        conn.state = state;
        conn.entered = entered;
        conn.shown = false;
        conn.found = self.is_found(entered);
        conn.outdated();
        if !self.options.filter.states.contains(state) {
            return;
        }
        // A dump does not tell whose it is: that is looked up before the next tick.
        if self.min_age() == 0 && !conn.found && !self.polls() {
            let view = conn.view(cookie, self.now, &self.world);
            if self.options.filter.selects(&view) {
                conn.shown = true;
                changes.push(Change::Stuck(view));
                return;
            }
        }
        self.due.insert(self.due_at(conn), cookie);
    }

    /// Moves `conn` on and puts it back.
    fn transition(
        &mut self,
        cookie: u64,
        mut conn: Box<Conn>,
        at: Mono,
        next: TcpState,
        cause: Cause,
        changes: &mut Vec<Change>,
    ) {
        self.leave(cookie, &mut conn, at, next, cause, changes);
        self.enter(cookie, &mut conn, next, Entered::at(at), changes);
        conn.touched = at;
        self.conns.insert(cookie, conn);
    }

    fn show_due(&mut self, now: Mono, changes: &mut Vec<Change>) {
        while self.due.first().is_some_and(|(at, _)| at <= now)
            && let Some((_, cookie)) = self.due.pop_first()
        {
            let Some(conn) = self.conns.get_mut(&cookie) else {
                continue;
            };
            let view = conn.view(cookie, now, &self.world);
            if self.options.filter.selects(&view) {
                conn.shown = true;
                changes.push(Change::Stuck(view));
            }
        }
    }

    /// Whether a transition is to be told.
    fn tells(&self, old: TcpState, new: TcpState) -> bool {
        let told = self.options.transitions;
        told.contains(old) || told.contains(new)
    }

    /// When the connection, as it is, is to be shown.
    fn due_at(&self, conn: &Conn) -> Mono {
        conn.entered.latest.plus(self.min_age())
    }

    /// Whether what was missed of a connection is a loss: not where the programs follow some
    /// sockets only, and not of one that nobody asked for.
    fn is_loss(&self, conn: &Conn) -> bool {
        !self.options.selective && self.options.filter.selects_tuple(&conn.tuple)
    }

    /// Something was learned of a connection that the filter may have rejected for not knowing
    /// it: it is to be shown if it fits now.
    fn reconsider(&mut self, cookie: u64) {
        let Some(conn) = self.conns.get(&cookie) else {
            return;
        };
        if self.options.filter.states.contains(conn.state) && !conn.shown {
            let due = self.due_at(conn);
            self.due.insert(due, cookie);
        }
    }

    fn min_age(&self) -> u64 {
        self.options.filter.min_age_ns
    }

    /// Every connection in a watched state, as it is now, in the order of their cookies.
    fn open_views(&self) -> Vec<(View, bool)> {
        let open = self.open_keys().into_iter();
        open.map(|(_, view, found)| (view, found)).collect()
    }

    /// The same with their keys.
    fn open_keys(&self) -> Vec<(u64, View, bool)> {
        let mut cookies: Vec<u64> = self.conns.keys().copied().collect();
        cookies.sort_unstable();
        let mut views = Vec::new();
        for cookie in cookies {
            let Some(conn) = self.conns.get(&cookie) else {
                continue;
            };
            if !self.options.filter.states.contains(conn.state) {
                continue;
            }
            let view = conn.view(cookie, self.now, &self.world);
            if self.options.filter.selects(&view) {
                views.push((cookie, view, conn.found));
            }
        }
        views
    }
}

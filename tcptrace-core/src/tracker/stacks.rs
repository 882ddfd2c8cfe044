//! Where in their code processes acquired the connections, read their end, and closed them.
//!
//! A thread is seen some time after the events of its connection: one that lived shortly may be gone
//! by then. So what is kept of a connection stays for a while after its end, and of one that ends
//! before its thread was seen the end is kept for as long.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::conn::Idle;
use super::named::{MAX_STACKS, Named};
use super::{Map, Tracker};
use crate::cause::Cause;
use crate::change::View;
use crate::histogram::Durations;
use crate::stack::{Point, Seen, Stack, StackId};
use crate::time::Mono;

/// How long after the events of a connection a thread may still be told of.
pub const LATE_NS: u64 = 5_000_000_000;

/// More places than these at which connections of one stack are closed are counted together.
pub(crate) const MAX_PLACES: usize = 64;

/// What became of the connections that were acquired at one stack.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// All of them: `open + closed + otherwise`.
    pub acquired: u64,
    /// Those that neither were closed nor have ended.
    pub open: u64,
    /// Those that were closed, shut down or disconnected here.
    pub closed: u64,
    /// Where that was, as far as it was seen.
    pub places: BTreeMap<StackId, u64>,
    /// From acquiring to closing.
    pub held: Durations,
    /// Those that ended in another way.
    pub otherwise: BTreeMap<Cause, u64>,
}

impl Ledger {
    /// `held_ns`: how long it was held, where that is known.
    fn close(&mut self, place: Option<StackId>, held_ns: Option<u64>) {
        self.open = self.open.saturating_sub(1);
        self.closed += 1;
        if let Some(ns) = held_ns {
            self.held.record(ns);
        }
        let Some(place) = place else {
            return;
        };
        if self.places.len() < MAX_PLACES || self.places.contains_key(&place) {
            *self.places.entry(place).or_default() += 1;
        }
    }

    fn end(&mut self, cause: Cause) {
        self.open = self.open.saturating_sub(1);
        *self.otherwise.entry(cause).or_default() += 1;
    }
}

/// A connection in a watched state, and where it was acquired and read to its end.
#[derive(Clone, Debug)]
pub struct Outstanding {
    /// The connection.
    pub view: View,
    /// A thread connected or accepted.
    pub acquired: Option<Seen>,
    /// A receive returned 0.
    pub eof: Option<Seen>,
    /// How long the peer was silent before its FIN.
    pub idle: Idle,
    /// When we last sent data, where somebody looked.
    pub sent_at: Option<Mono>,
    /// The time until the next keepalive probe, ns, when it was last looked at.
    pub probe_ns: Option<u64>,
}

/// How a process let go of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Released {
    /// By a call.
    Closed,
    /// By its exit.
    Exited,
}

/// What is kept of one connection.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    acquired: Option<Seen>,
    eof: Option<Seen>,
    closed: Option<Seen>,
    /// The tracker follows it or has done so: it counts as acquired.
    counted: bool,
    /// It counts as closed, or as ended otherwise.
    settled: bool,
    released: Option<(Mono, Released)>,
    ended: Option<(Mono, Cause)>,
}

type Ledgers = BTreeMap<StackId, Ledger>;

/// The stacks of a trace, and what was seen with them.
#[derive(Debug, Default)]
pub(super) struct Stacks {
    named: Named,
    /// Threads that were told of with a stack that has no room.
    refused: u64,
    /// Threads that were told of when what they did was settled without them.
    late: u64,
    /// `None`: nobody asks for them.
    ledgers: Option<Ledgers>,
    kept: Map<u64, Kept>,
    /// When to look again at what is kept of which connection.
    later: VecDeque<(Mono, u64)>,
    /// Threads are told of: else nothing is kept of any connection.
    in_use: bool,
}

impl Stacks {
    /// `in_use`: threads will be told of; `ledgers`: it is asked what became of connections.
    pub(super) fn new(in_use: bool, ledgers: bool) -> Stacks {
        Stacks {
            in_use,
            ledgers: ledgers.then(Ledgers::new),
            ..Stacks::default()
        }
    }

    pub(super) fn define(&mut self, stack: &Stack) {
        let used = || used(&self.kept, self.ledgers.as_ref());
        self.named.define(stack, used);
    }

    /// `followed`: the tracker knows of the connection.
    pub(super) fn seen(&mut self, seen: &Seen, now: Mono, followed: bool) {
        self.in_use = true;
        if self.knows(seen) {
            // Whoever comes in the middle is told again.
            return;
        }
        if self.named.get(seen.stack).is_none() {
            self.named.missed();
            self.refused += 1;
        }
        let late = now > seen.at.plus(LATE_NS);
        match seen.point {
            Point::Connect | Point::Accept => self.acquired(seen, now, followed, late),
            Point::Eof if followed => {
                let kept = self.kept.entry(seen.cookie).or_default();
                kept.eof.get_or_insert(*seen);
            }
            Point::Eof => {}
            Point::Close => match self.kept.get_mut(&seen.cookie) {
                Some(kept) if !kept.settled || kept.closed.is_some() => {
                    kept.closed.get_or_insert(*seen);
                    settle(kept, &mut self.ledgers);
                }
                _ if late => self.too_late(),
                _ => {}
            },
        }
    }

    fn acquired(&mut self, seen: &Seen, now: Mono, followed: bool, late: bool) {
        let kept = self.kept.entry(seen.cookie).or_default();
        if kept.acquired.is_some() {
            // The same socket connects again.
            let mut before = *kept;
            before.ended.get_or_insert((seen.at, Cause::Disconnect));
            settle(&mut before, &mut self.ledgers);
        }
        // What came before is of an earlier connection of the socket.
        let since = |other: &Seen| other.at >= seen.at;
        *kept = Kept {
            acquired: Some(*seen),
            eof: kept.eof.filter(since),
            closed: kept.closed.filter(since),
            released: kept.released.filter(|(at, _)| *at >= seen.at),
            ended: kept.ended.filter(|(at, _)| *at >= seen.at),
            ..Kept::default()
        };
        if followed || kept.ended.is_some() || kept.released.is_some() {
            count(kept, &mut self.ledgers);
            if kept.closed.is_some() {
                settle(kept, &mut self.ledgers);
            }
        } else {
            // Its events may have been lost: then the next dump finds it.
            self.later.push_back((now.plus(LATE_NS), seen.cookie));
            if late {
                self.too_late();
            }
        }
    }

    fn knows(&self, seen: &Seen) -> bool {
        let kept = self.kept.get(&seen.cookie);
        kept.is_some_and(|kept| [kept.acquired, kept.eof, kept.closed].contains(&Some(*seen)))
    }

    fn too_late(&mut self) {
        self.late += u64::from(self.ledgers.is_some());
    }

    /// Its process lets go of a connection.
    pub(super) fn released(&mut self, cookie: u64, at: Mono, how: Released) {
        if let Some(kept) = self.keep(cookie)
            && kept.ended.is_none()
            && kept.released.is_none()
        {
            kept.released = Some((at, how));
            self.later.push_back((at.plus(LATE_NS), cookie));
        }
    }

    /// A connection has ended.
    pub(super) fn ended(&mut self, cookie: u64, at: Mono, cause: Cause) {
        if let Some(kept) = self.keep(cookie)
            && kept.ended.is_none()
        {
            kept.ended = Some((at, cause));
            self.later.push_back((at.plus(LATE_NS), cookie));
        }
    }

    fn keep(&mut self, cookie: u64) -> Option<&mut Kept> {
        match self.in_use {
            true => Some(self.kept.entry(cookie).or_default()),
            false => None,
        }
    }

    /// Time has come to be `now`, and nothing that is older than [`LATE_NS`] comes any more.
    pub(super) fn settle(&mut self, now: Mono, followed: impl Fn(u64) -> bool) {
        while let Some((_, cookie)) = self.later.pop_front_if(|(at, _)| *at <= now) {
            let Some(kept) = self.kept.get_mut(&cookie) else {
                continue;
            };
            let followed = followed(cookie) && kept.ended.is_none();
            if followed && kept.acquired.is_some() {
                count(kept, &mut self.ledgers);
            }
            settle(kept, &mut self.ledgers);
            if !followed {
                self.kept.remove(&cookie);
            }
        }
    }

    /// Whatever is kept of connections that are followed no longer has ended.
    pub(super) fn forget(&mut self, now: Mono, followed: impl Fn(u64) -> bool) {
        let unknown = |(cookie, kept): (&u64, &Kept)| {
            (kept.ended.is_none() && !followed(*cookie)).then_some(*cookie)
        };
        let mut gone: Vec<u64> = self.kept.iter().filter_map(unknown).collect();
        gone.sort_unstable();
        for cookie in gone {
            self.ended(cookie, now, Cause::EndNotSeen);
        }
    }

    /// Counts from here on, with those that are there.
    pub(super) fn restart(&mut self) {
        self.ledgers.iter_mut().for_each(Ledgers::clear);
        (self.refused, self.late) = (0, 0);
        for kept in self.kept.values_mut().filter(|kept| !kept.settled) {
            if std::mem::take(&mut kept.counted) {
                count(kept, &mut self.ledgers);
            }
        }
    }

    /// Where a connection was acquired, and where its end was read.
    pub(super) fn of(&self, cookie: u64) -> [Option<Seen>; 2] {
        let kept = self.kept.get(&cookie);
        kept.map_or([None; 2], |kept| [kept.acquired, kept.eof])
    }

    pub(super) fn named(&self, seen: Option<Seen>) -> Option<Arc<Stack>> {
        self.named.get(seen?.stack).cloned()
    }
}

/// The stacks that something leads to.
fn used(kept: &Map<u64, Kept>, ledgers: Option<&Ledgers>) -> BTreeSet<StackId> {
    let seen = |kept: &Kept| [kept.acquired, kept.eof, kept.closed];
    let seen = kept.values().flat_map(seen).flatten();
    let ledgers = ledgers.into_iter().flatten();
    let places = ledgers.flat_map(|(id, ledger)| std::iter::once(id).chain(ledger.places.keys()));
    seen.map(|seen| seen.stack).chain(places.copied()).collect()
}

fn count(kept: &mut Kept, ledgers: &mut Option<Ledgers>) {
    let Some(ledgers) = ledgers else {
        return;
    };
    if let Some(acquired) = kept.acquired.filter(|_| !kept.counted) {
        // A stack without room for its ledger has none for its names, and is counted there.
        if ledgers.len() >= MAX_STACKS && !ledgers.contains_key(&acquired.stack) {
            return;
        }
        kept.counted = true;
        let ledger = ledgers.entry(acquired.stack).or_default();
        ledger.acquired += 1;
        ledger.open += 1;
    }
}

/// Counts what became of the connection, if that is known.
fn settle(kept: &mut Kept, ledgers: &mut Option<Ledgers>) {
    let Some(acquired) = kept.acquired.filter(|_| kept.counted && !kept.settled) else {
        return;
    };
    let Some(ledger) = ledgers.as_mut().and_then(|l| l.get_mut(&acquired.stack)) else {
        return;
    };
    let held = |until: Mono| Some(until.since(acquired.at));
    match (kept.closed, kept.released, kept.ended) {
        (Some(closed), ..) => ledger.close(Some(closed.stack), held(closed.at)),
        (_, Some((at, Released::Closed)), _) => ledger.close(None, held(at)),
        (_, Some((_, Released::Exited)), _) => ledger.end(Cause::Exit),
        (_, _, Some((at, cause))) if is_local(cause) => ledger.close(None, held(at)),
        (_, _, Some((_, cause))) if is_after_close(cause) => ledger.close(None, None),
        (_, _, Some((_, cause))) => ledger.end(cause),
        (None, None, None) => return,
    }
    kept.settled = true;
}

/// Whether a call here ends a connection so.
fn is_local(cause: Cause) -> bool {
    use Cause::{Close, Disconnect, ResetSent, Shutdown};
    matches!(cause, Close | Disconnect | ResetSent | Shutdown)
}

/// Whether a connection ends so only if it was closed here before: that was not seen, or not in this
/// part of a recording.
fn is_after_close(cause: Cause) -> bool {
    use Cause::{Acked, NoLinger2, ReusedByConnect, ReusedBySyn, TimeWaitOverflow, Timer};
    matches!(
        cause,
        Acked | NoLinger2 | ReusedByConnect | ReusedBySyn | TimeWaitOverflow | Timer
    )
}

impl Tracker {
    /// Every connection in a watched state that the filter selects, in the order of their cookies.
    pub fn outstanding(&self) -> impl Iterator<Item = Outstanding> {
        self.open_keys().into_iter().map(|(key, view, _)| {
            let [acquired, eof] = self.world.stacks.of(key);
            let conn = self.conns.get(&key);
            let facts = conn.and_then(|conn| conn.facts.as_deref());
            Outstanding {
                view,
                acquired,
                eof,
                idle: facts.map(|facts| facts.idle).unwrap_or_default(),
                sent_at: facts.and_then(|facts| facts.sent_at),
                probe_ns: facts.and_then(|facts| facts.probe_ns),
            }
        })
    }

    /// What became of the connections that were acquired at a stack.
    pub fn ledger(&self, stack: StackId) -> Option<&Ledger> {
        self.world.stacks.ledgers.as_ref()?.get(&stack)
    }

    /// The stacks at which connections were acquired.
    pub fn ledgers(&self) -> impl Iterator<Item = (StackId, &Ledger)> {
        let ledgers = self.world.stacks.ledgers.iter().flatten();
        ledgers.map(|(stack, ledger)| (*stack, ledger))
    }

    /// A stack by its number.
    pub fn stack(&self, id: StackId) -> Option<&Arc<Stack>> {
        self.world.stacks.named.get(id)
    }

    /// Whether a stack that somebody is seen with is to be defined again: it is not known any more, and
    /// there is room.
    pub fn wants_stack(&self, id: StackId) -> bool {
        self.world.stacks.named.wants(id)
    }

    /// Whether threads are told of.
    pub fn takes_stacks(&self) -> bool {
        self.world.stacks.in_use
    }

    /// Threads that were seen with a stack that found no room.
    pub fn stacks_refused(&self) -> u64 {
        self.world.stacks.refused
    }

    /// Threads that were told of so late that what they did was settled without them.
    pub fn stacks_late(&self) -> u64 {
        self.world.stacks.late
    }

    /// Where the connections that there are were acquired and read to their end, for one who has
    /// not heard of it, in the order of cookies.
    pub fn threads_seen(&self) -> Vec<Seen> {
        let kept = self.world.stacks.kept.iter();
        let mut open: Vec<(&u64, &Kept)> = kept.filter(|(_, kept)| kept.ended.is_none()).collect();
        open.sort_unstable_by_key(|(cookie, _)| **cookie);
        let seen = |(_, kept): (_, &Kept)| [kept.acquired, kept.eof, kept.closed];
        open.into_iter().flat_map(seen).flatten().collect()
    }
}

//! Sockets that nobody closes, by where in the code they were acquired, and where others of the same
//! place are closed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::summary::{self, Completeness};
use crate::cause::Cause;
use crate::change::View;
use crate::input::StackLoss;
use crate::stack::{Point, Stack, StackId};
use crate::state::{StateSet, TcpState};
use crate::time::{Age, Mono, WallAnchor};
use crate::tracker::{Ledger, Outstanding, Tracker};
use crate::verdict::Verdict;

mod by;
mod folded;
mod kin;
mod object;
mod trend;

pub use by::{By, ByError};
pub use folded::{paths, to_folded};
pub use kin::Kin;
use kin::Kindred;
pub use object::LeaksLine;
pub use trend::{Counts, Trend, Trends};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// What sockets of a group have in common.
    pub by: By,
    /// The least time in the state, ns.
    pub min_age_ns: u64,
}

/// What the sockets of a group have in common; `None`: it is not known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// They were acquired here.
    Stack(Option<StackId>),
    /// Their owner.
    Pid(Option<u32>),
    /// Their peer.
    Peer(Option<String>),
    /// The container of their owner.
    Container(Option<String>),
}

/// The report.
#[derive(Clone, Debug)]
pub struct Leaks {
    /// What was asked.
    pub question: Question,
    /// The states in which sockets count.
    pub states: StateSet,
    /// Where it begins.
    pub from: Mono,
    /// Where it ends.
    pub to: Mono,
    /// All sockets.
    pub total: u64,
    /// The greatest first.
    pub groups: Vec<Group>,
    /// Stacks that are missing; `None`: the trace took none.
    pub stacks: Option<StacksMissing>,
    /// What of the truth is missing.
    pub completeness: Completeness,
    /// Gives instants their date.
    pub anchor: WallAnchor,
}

/// Stacks that are missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StacksMissing {
    /// They were not taken.
    pub lost: StackLoss,
    /// They were taken, and found no room.
    pub refused: u64,
    /// They were named when what they tell had been settled without them.
    pub late: u64,
}

/// Sockets that have something in common.
#[derive(Clone, Debug)]
pub struct Group {
    /// What that is.
    pub key: Key,
    /// How many.
    pub count: u64,
    /// Older ones whose stack is not known, with the pid and peer of this group and of no other.
    pub inferred: u64,
    /// Of `count`, how many were acquired since the watch began; `None`: not known of all.
    pub acquired_since: Option<u64>,
    /// Near the start, in the middle, at the end.
    pub counts: Counts,
    /// By state.
    pub states: BTreeMap<TcpState, u64>,
    /// The longest that one of them has been in its state.
    pub oldest: Age,
    /// Half of them have been in it for longer.
    pub half: Age,
    /// Whose, the greatest first.
    pub owners: Vec<(Owner, u64)>,
    /// With whom, the greatest first; `None`: not known.
    pub peers: Vec<(Option<String>, u64)>,
    /// What the evidence says; `None`: nothing.
    pub verdicts: BTreeMap<Option<Verdict>, u64>,
    /// The least and the greatest Recv-Q, of those of which it is known.
    pub recv_q: Option<(u32, u32)>,
    /// Where they were acquired, the greatest first.
    pub acquired: Vec<Acquired>,
    /// Where their end was read, the greatest first.
    pub eof_at: Vec<(Place, u64)>,
    /// Those whose end was read.
    pub eof_read: u64,
    /// Those whose end is known to be unread.
    pub eof_unread: u64,
    /// These sockets, as far as they are alike.
    pub samples: Vec<Sample>,
    /// What threads of the owners do now, in words, where somebody looked.
    pub now: Vec<String>,
}

/// Whose sockets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    /// The process; `None`: not known.
    pub pid: Option<u32>,
    /// Its name.
    pub comm: Option<String>,
    /// Its container.
    pub container: Option<String>,
}

/// A stack; `None`: it found no room.
pub type Place = Option<Arc<Stack>>;

/// Sockets that are alike in all that profiles tell.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Where they were acquired; `None`: it is not known.
    pub at: Place,
    /// Whose.
    pub owner: Owner,
    /// With whom.
    pub peer: Option<String>,
    /// Their state.
    pub state: TcpState,
    /// How many.
    pub count: u64,
}

/// Where sockets were acquired, and what became of all that were acquired there.
#[derive(Clone, Debug)]
pub struct Acquired {
    /// Where.
    pub at: Place,
    /// By connecting or accepting.
    pub point: Point,
    /// How many of the group.
    pub count: u64,
    /// All of them since the watch began, those of the group among them.
    pub fate: Fate,
    /// If none of those was closed: others that the same code acquired.
    pub kin: Option<Kin>,
}

/// What became of connections.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fate {
    /// All.
    pub acquired: u64,
    /// Closed, shut down or disconnected here.
    pub closed: u64,
    /// Where, the greatest first. Of the others that were closed it was not seen.
    pub places: Vec<(Place, u64)>,
    /// From acquiring to closing: half of them took at most so many ns, and 99 % this.
    pub held_ns: Option<[u64; 2]>,
    /// Ended in another way.
    pub otherwise: BTreeMap<Cause, u64>,
}

impl Group {
    /// With those that are inferred.
    pub fn size(&self) -> u64 {
        self.count + self.inferred
    }

    /// Who closed first, where that follows from the states.
    pub fn closed_first(&self) -> Option<&'static str> {
        use TcpState::*;
        let first = |state: &TcpState| match state {
            CloseWait | LastAck => Some("peer"),
            FinWait1 | FinWait2 | TimeWait => Some("local"),
            _ => None,
        };
        let all: BTreeSet<_> = self.states.keys().map(first).collect();
        all.into_iter().reduce(|_, _| None).flatten()
    }
}

impl Leaks {
    /// Of what a tracker has seen. `completeness`: as the summary has it.
    pub fn new(
        tracker: &Tracker,
        mut trends: Trends,
        completeness: Completeness,
        anchor: WallAnchor,
    ) -> Leaks {
        trends.end(tracker);
        let question = trends.question();
        let from = trends.began().unwrap_or(tracker.now());
        let members = members(tracker, question);
        let total = members.values().map(Members::size).sum();
        let mut kindred = Kindred::new(tracker);
        let mut groups: Vec<Group> = members
            .into_iter()
            .map(|(key, members)| {
                let counts = trends.counts(&key);
                group(tracker, &mut kindred, key, members, counts, from)
            })
            .collect();
        groups.sort_by(|a, b| (Reverse(a.size()), &a.key).cmp(&(Reverse(b.size()), &b.key)));
        Leaks {
            question,
            states: tracker.watched(),
            from,
            to: tracker.now(),
            total,
            groups,
            stacks: tracker.takes_stacks().then(|| StacksMissing {
                lost: tracker.loss().stacks,
                refused: tracker.stacks_refused(),
                late: tracker.stacks_late(),
            }),
            completeness,
            anchor,
        }
    }

    /// Leaves only groups that grow.
    pub fn keep_growing(&mut self) {
        let grows = |group: &Group| matches!(group.counts.trend(), Trend::Growing(_));
        self.groups.retain(grows);
    }
}

/// The sockets of a group.
#[derive(Debug, Default)]
struct Members {
    sockets: Vec<Outstanding>,
    /// Those that are inferred to be of this group.
    inferred: u64,
}

impl Members {
    fn size(&self) -> u64 {
        self.sockets.len() as u64 + self.inferred
    }
}

fn members(tracker: &Tracker, question: Question) -> BTreeMap<Key, Members> {
    let mut members: BTreeMap<Key, Members> = BTreeMap::new();
    for socket in old_enough(tracker, question) {
        let key = key(&socket, question.by);
        members.entry(key).or_default().sockets.push(socket);
    }
    if question.by == By::Stack {
        infer(&mut members);
    }
    members
}

fn old_enough(tracker: &Tracker, question: Question) -> impl Iterator<Item = Outstanding> {
    let least = question.min_age_ns;
    let is_it = move |s: &Outstanding| s.view.age.at_least().unwrap_or(0) >= least;
    tracker.outstanding().filter(is_it)
}

/// How many sockets each group has, and how many have no stack: what is inferred may change.
fn counts(tracker: &Tracker, question: Question) -> BTreeMap<Key, u64> {
    tally(old_enough(tracker, question).map(|socket| key(&socket, question.by)))
}

fn key(socket: &Outstanding, by: By) -> Key {
    let view = &socket.view;
    match by {
        By::Stack => Key::Stack(socket.acquired.map(|seen| seen.stack)),
        By::Pid => Key::Pid(view.owner.pid),
        By::Peer => Key::Peer(summary::Key::Peer.of(view, None)),
        By::Container => Key::Container(summary::Key::Container.of(view, None)),
    }
}

/// Sockets without a stack go to the only group that has their owner and peer, if there is one.
fn infer(members: &mut BTreeMap<Key, Members>) {
    let Some(unknown) = members.remove(&Key::Stack(None)) else {
        return;
    };
    let mut groups: BTreeMap<(u32, String), BTreeSet<Key>> = BTreeMap::new();
    for (key, group) in &*members {
        for (pid, peer) in group.sockets.iter().filter_map(|s| pid_and_peer(&s.view)) {
            groups.entry((pid, peer)).or_default().insert(key.clone());
        }
    }
    for socket in unknown.sockets {
        let like = pid_and_peer(&socket.view).and_then(|who| groups.get(&who));
        let only = like
            .filter(|keys| keys.len() == 1)
            .and_then(BTreeSet::first);
        match only.and_then(|key| members.get_mut(key)) {
            Some(group) => group.inferred += 1,
            None => {
                let without = members.entry(Key::Stack(None)).or_default();
                without.sockets.push(socket);
            }
        }
    }
}

fn pid_and_peer(view: &View) -> Option<(u32, String)> {
    view.owner.pid.zip(summary::Key::Peer.of(view, None))
}

fn group(
    tracker: &Tracker,
    kindred: &mut Kindred<'_>,
    key: Key,
    members: Members,
    counts: Counts,
    from: Mono,
) -> Group {
    let sockets = &members.sockets;
    let views = || sockets.iter().map(|socket| &socket.view);
    let acquired = |socket: &Outstanding| socket.acquired.map(|seen| seen.at >= from);
    let since: Option<Vec<bool>> = sockets.iter().map(acquired).collect();
    let recv_q = views().filter_map(|view| view.recv_q);
    let eof = sockets.iter().filter_map(|socket| socket.eof);
    let read = |s: &&Outstanding| s.eof.is_some() || s.view.verdict == Some(Verdict::EofRead);
    let mut ages: Vec<Age> = views().map(|view| view.age).collect();
    ages.sort_by_key(|age| age.at_least());
    Group {
        count: sockets.len() as u64,
        inferred: members.inferred,
        acquired_since: since.map(|since| since.into_iter().filter(|is| *is).count() as u64),
        counts,
        states: tally(views().map(|view| view.state)),
        oldest: ages.last().copied().unwrap_or(Age::Unknown),
        half: ages.get(ages.len() / 2).copied().unwrap_or(Age::Unknown),
        owners: greatest_first(tally(views().map(owner))),
        peers: greatest_first(tally(views().map(|v| summary::Key::Peer.of(v, None)))),
        verdicts: tally(views().map(|view| view.verdict)),
        recv_q: recv_q.clone().min().zip(recv_q.max()),
        acquired: acquired_at(tracker, kindred, sockets.iter(), usize::MAX),
        eof_at: places(tracker, &tally(eof.map(|seen| seen.stack))),
        eof_read: sockets.iter().filter(read).count() as u64,
        eof_unread: sockets
            .iter()
            .filter(|s| !read(s) && is_unread(&s.view))
            .count() as u64,
        samples: samples(tracker, sockets),
        now: Vec::new(),
        key,
    }
}

fn is_unread(view: &View) -> bool {
    use Verdict::{CloseNotifyUnread, DataUnread, FinUnread, NeverAccepted};
    let verdict = view.verdict;
    verdict.is_some_and(|v| {
        matches!(
            v,
            CloseNotifyUnread | DataUnread | FinUnread | NeverAccepted
        )
    })
}

fn owner(view: &View) -> Owner {
    Owner {
        pid: view.owner.pid,
        comm: view.owner.comm.map(|comm| comm.to_text()),
        container: view.owner.container.as_deref().map(str::to_owned),
    }
}

fn samples(tracker: &Tracker, sockets: &[Outstanding]) -> Vec<Sample> {
    let like = sockets.iter().map(|socket| {
        let stack = socket.acquired.map(|seen| seen.stack);
        let peer = summary::Key::Peer.of(&socket.view, None);
        (stack, owner(&socket.view), peer, socket.view.state)
    });
    let samples = tally(like).into_iter();
    let sample = |((stack, owner, peer, state), count): ((Option<StackId>, _, _, _), _)| Sample {
        at: stack.and_then(|stack| tracker.stack(stack).cloned()),
        owner,
        peer,
        state,
        count,
    };
    samples.map(sample).collect()
}

/// Where these were acquired, the greatest place first, at most so many of them.
pub(crate) fn places_of<'a>(
    tracker: &Tracker,
    sockets: impl Iterator<Item = &'a Outstanding>,
    most: usize,
) -> Vec<Acquired> {
    acquired_at(tracker, &mut Kindred::new(tracker), sockets, most)
}

fn acquired_at<'a>(
    tracker: &Tracker,
    kindred: &mut Kindred<'_>,
    sockets: impl Iterator<Item = &'a Outstanding>,
    most: usize,
) -> Vec<Acquired> {
    let seen = sockets.filter_map(|socket| socket.acquired);
    let stacks = greatest_first(tally(
        seen.map(|seen| (seen.stack, seen.point == Point::Accept)),
    ));
    let acquired = |((stack, accepted), count)| {
        let ledger = tracker.ledger(stack);
        let closed = ledger.is_some_and(|ledger| ledger.closed > 0);
        let at = tracker.stack(stack).cloned();
        Acquired {
            point: match accepted {
                true => Point::Accept,
                false => Point::Connect,
            },
            count,
            fate: ledger.map_or_else(Fate::default, |l| fate(tracker, l)),
            kin: at
                .as_deref()
                .filter(|_| !closed)
                .and_then(|at| kindred.of(at)),
            at,
        }
    };
    stacks.into_iter().take(most).map(acquired).collect()
}

fn fate(tracker: &Tracker, ledger: &Ledger) -> Fate {
    let held = |quantile| ledger.held.quantile_ns(quantile);
    Fate {
        acquired: ledger.acquired,
        closed: ledger.closed,
        places: places(tracker, &ledger.places),
        held_ns: held(0.5).zip(held(0.99)).map(<[u64; 2]>::from),
        otherwise: ledger.otherwise.clone(),
    }
}

fn places(tracker: &Tracker, stacks: &BTreeMap<StackId, u64>) -> Vec<(Place, u64)> {
    let stacks = greatest_first(stacks.clone()).into_iter();
    let place = |(stack, count)| (tracker.stack(stack).cloned(), count);
    stacks.map(place).collect()
}

/// How many of each.
pub(crate) fn tally<T: Ord>(values: impl Iterator<Item = T>) -> BTreeMap<T, u64> {
    let mut counts = BTreeMap::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    counts
}

/// The most frequent first.
pub(crate) fn greatest_first<T: Ord>(counts: BTreeMap<T, u64>) -> Vec<(T, u64)> {
    let mut counts: Vec<(T, u64)> = counts.into_iter().collect();
    // Stable: those that are as many stay in their order.
    counts.sort_by_key(|(_, count)| Reverse(*count));
    counts
}

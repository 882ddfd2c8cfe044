//! Everything that a finding can be drawn from.

use std::collections::{BTreeMap, BTreeSet};

use super::growth::{Course, Growth};
use super::tally::Tally;
use crate::change::View;
use crate::owner::Comm;
use crate::report::leaks;
use crate::state::TcpState;
use crate::time::{Age, Mono};
use crate::tracker::{Outstanding, Tracker};
use crate::tuple::Tuple;

/// The end of a trace.
pub(super) struct Case<'a> {
    pub(super) tracker: &'a Tracker,
    pub(super) tally: &'a Tally,
    /// A socket counts as stuck after this.
    pub(super) min_age_ns: u64,
    pub(super) from: Mono,
    pub(super) span_ns: u64,
    /// Every connection.
    pub(super) sockets: Vec<Outstanding>,
}

/// Whose sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Who {
    pub(super) pid: Option<u32>,
    pub(super) comm: Option<Comm>,
    pub(super) container: Option<String>,
}

impl Who {
    pub(super) fn of(view: &View) -> Who {
        Who {
            pid: view.owner.pid,
            comm: view.owner.comm,
            container: view.owner.container.as_deref().map(str::to_owned),
        }
    }
}

impl From<(Option<u32>, Option<Comm>)> for Who {
    fn from((pid, comm): (Option<u32>, Option<Comm>)) -> Who {
        Who {
            pid,
            comm,
            container: None,
        }
    }
}

impl<'a> Case<'a> {
    pub(super) fn new(tracker: &'a Tracker, tally: &'a Tally, min_age_ns: u64) -> Case<'a> {
        let span_ns = tracker.span_ns();
        Case {
            tracker,
            tally,
            min_age_ns,
            from: tracker.now().minus(span_ns),
            span_ns,
            sockets: tracker.outstanding().collect(),
        }
    }

    /// Those in a state for long enough.
    pub(super) fn stuck(&self, state: TcpState) -> impl Iterator<Item = &Outstanding> {
        let least = self.min_age_ns;
        let old = move |s: &&Outstanding| s.view.age.at_least().unwrap_or(0) >= least;
        let there = self.sockets.iter();
        there.filter(move |s| s.view.state == state).filter(old)
    }

    /// How many more of these there are than were stuck in CLOSE_WAIT at first, as clients or not: that
    /// is known after the minimum age.
    pub(super) fn growth(&self, stuck: &[&Outstanding], client: bool) -> Growth {
        let from = self.from.plus(self.min_age_ns);
        let to = self.from.plus(self.span_ns);
        let mut course = Course::since(from);
        for socket in stuck {
            let age = socket.view.age;
            if let Some(age) = age.at_most().or(age.at_least()) {
                course.came(to.minus(age).plus(self.min_age_ns));
            }
        }
        let pids: BTreeSet<Option<u32>> = stuck.iter().map(|s| s.view.owner.pid).collect();
        for pid in pids {
            if let Some(released) = self.tally.released.get(&(pid, client)) {
                course.merge(released);
            }
        }
        course.growth(from, to)
    }

    /// Those that `wanted` takes, by the address of the listener through which they come.
    pub(super) fn by_listener(
        &self,
        wanted: impl Fn(&View) -> bool,
    ) -> BTreeMap<Tuple, Vec<&Outstanding>> {
        let listeners = self.tracker.listeners();
        let tuples: BTreeMap<u64, Tuple> = listeners.map(|l| (l.id.cookie, l.tuple)).collect();
        let mut by_listener: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for socket in self.sockets.iter().filter(|s| wanted(&s.view)) {
            let through = self.tracker.listeners_of(&socket.view.tuple);
            let tuple = through.first().and_then(|cookie| tuples.get(cookie));
            if let Some(tuple) = tuple {
                by_listener.entry(*tuple).or_default().push(socket);
            }
        }
        by_listener
    }

    /// Those that `wanted` takes, by namespace.
    pub(super) fn by_netns(
        &self,
        wanted: impl Fn(&View) -> bool,
    ) -> BTreeMap<Option<u32>, Vec<&Outstanding>> {
        let mut by_netns: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for socket in self.sockets.iter().filter(|s| wanted(&s.view)) {
            by_netns
                .entry(socket.view.tuple.netns)
                .or_default()
                .push(socket);
        }
        by_netns
    }
}

/// The oldest of some sockets, and the age over which half of them are.
pub(super) fn ages(sockets: &[&Outstanding]) -> (Age, Age) {
    let mut ages: Vec<Age> = sockets.iter().map(|s| s.view.age).collect();
    ages.sort_by_key(|age| age.at_least());
    let of = |at: Option<&Age>| at.copied().unwrap_or(Age::Unknown);
    (of(ages.last()), of(ages.get(ages.len() / 2)))
}

/// How many of each, the most frequent first.
pub(super) fn tally<K: Ord>(all: impl Iterator<Item = K>) -> Vec<(K, u64)> {
    leaks::greatest_first(leaks::tally(all))
}

//! Counts and durations per state, and per group where groups were asked for.

use std::collections::BTreeMap;

use super::Tracker;
use crate::cause::Cause;
use crate::change::View;
use crate::histogram;
use crate::report::histogram::Histogram;
use crate::report::summary::{Completeness, Durations, Group, Key, StateLine, Summary};
use crate::state::{StateSet, TcpState};
use crate::time::Age;

/// More groups than this are counted together: a histogram each would cost more than it tells.
const MAX_GROUPS: usize = 2_048;

/// What [`MAX_GROUPS`] leaves over.
const OTHER: &str = "(other)";

/// The values of the keys; `None`: not known.
type GroupId = Vec<Option<String>>;

/// Everything that was counted.
#[derive(Debug, Default)]
pub(super) struct Stats {
    states: BTreeMap<TcpState, Dwell>,
    groups: BTreeMap<GroupId, BTreeMap<TcpState, Dwell>>,
}

/// The stays in one state that have ended.
#[derive(Clone, Debug, Default)]
struct Dwell {
    left: u64,
    /// Of these, how many had been in it before we watched.
    before: u64,
    /// Left after a time that is known within bounds only.
    estimated: u64,
    durations: histogram::Durations,
}

impl Dwell {
    fn left(&mut self, age: Age, found: bool) {
        self.left += 1;
        self.before += u64::from(found);
        self.estimated += u64::from(age.is_estimated());
        // Less than what could be seen is not nothing: then the upper bound counts.
        let counted = match age {
            Age::Between { min: 0, max } => max,
            age => age.at_least(),
        };
        if let Some(ns) = counted {
            self.durations.record(ns);
        }
    }
}

impl Stats {
    /// A stay has ended.
    pub(super) fn left(&mut self, state: TcpState, age: Age, found: bool) {
        self.states.entry(state).or_default().left(age, found);
    }

    /// The same for its group, if there are any.
    pub(super) fn left_group(&mut self, view: &View, found: bool, cause: Cause, by: &[Key]) {
        if !by.is_empty() {
            let key = self.key(view, Some(cause), by);
            let group = self.groups.entry(key).or_default();
            group.entry(view.state).or_default().left(view.age, found);
        }
    }

    fn key(&self, view: &View, cause: Option<Cause>, by: &[Key]) -> GroupId {
        let key: GroupId = by.iter().map(|k| k.of(view, cause)).collect();
        if self.groups.len() >= MAX_GROUPS && !self.groups.contains_key(&key) {
            return vec![Some(OTHER.to_owned()); by.len()];
        }
        key
    }
}

/// The stays in one state that go on.
#[derive(Clone, Debug, Default)]
struct Open {
    count: u64,
    before: u64,
    oldest: Option<Age>,
}

impl Open {
    fn add(&mut self, age: Age, found: bool) {
        self.count += 1;
        self.before += u64::from(found);
        let older = match self.oldest {
            None => true,
            Some(oldest) => age.at_least() > oldest.at_least(),
        };
        if older {
            self.oldest = Some(age);
        }
    }
}

impl Tracker {
    /// The totals as they are now.
    pub fn summary(&self) -> Summary {
        let mut open: BTreeMap<TcpState, Open> = BTreeMap::new();
        let mut open_groups: BTreeMap<GroupId, BTreeMap<TcpState, Open>> = BTreeMap::new();
        let by = &self.options.by;
        let mut estimated = 0;
        for (view, found) in self.open_views() {
            estimated += u64::from(view.age.is_estimated());
            open.entry(view.state).or_default().add(view.age, found);
            if !by.is_empty() {
                let key = self.stats.key(&view, None, by);
                let group = open_groups.entry(key).or_default();
                group.entry(view.state).or_default().add(view.age, found);
            }
        }
        let states: Vec<StateLine> = self
            .options
            .filter
            .states
            .iter()
            .map(|s| line(s, self.stats.states.get(&s), open.get(&s)))
            .collect();
        estimated += states.iter().map(|s| s.estimated).sum::<u64>();
        Summary {
            span_ns: self.span_ns(),
            states,
            by: by.clone(),
            groups: self.groups(open_groups),
            overflows: self.overflow_lines(),
            completeness: self.completeness(estimated),
        }
    }

    /// How long was watched, ns.
    pub fn span_ns(&self) -> u64 {
        self.began.map_or(0, |began| self.now.since(began))
    }

    /// The stays in each of these states, as far as they are watched.
    pub fn histograms(&self, states: StateSet) -> Vec<Histogram> {
        let mut open: BTreeMap<TcpState, Vec<Age>> = BTreeMap::new();
        for (view, _) in self.open_views() {
            open.entry(view.state).or_default().push(view.age);
        }
        let watched = self.options.filter.states.iter();
        let asked = watched.filter(|state| states.contains(*state));
        asked
            .map(|state| {
                let left = self.stats.states.get(&state);
                let open = open.remove(&state).unwrap_or_default();
                let estimated = left.map_or(0, |left| left.estimated);
                Histogram::new(state, left.map(|left| &left.durations), estimated, &open)
            })
            .collect()
    }

    fn groups(&self, mut open: BTreeMap<GroupId, BTreeMap<TcpState, Open>>) -> Vec<Group> {
        for key in self.stats.groups.keys() {
            open.entry(key.clone()).or_default();
        }
        let none = BTreeMap::new();
        let mut groups: Vec<Group> = open
            .into_iter()
            .map(|(key, open)| {
                let left = self.stats.groups.get(&key).unwrap_or(&none);
                let lines = self
                    .options
                    .filter
                    .states
                    .iter()
                    .filter(|s| left.contains_key(s) || open.contains_key(s))
                    .map(|s| line(s, left.get(&s), open.get(&s)))
                    .collect();
                Group { key, lines }
            })
            .collect();
        let weight = |g: &Group| g.lines.iter().map(|l| l.open + l.left).sum::<u64>();
        groups.sort_by(|a, b| weight(b).cmp(&weight(a)).then_with(|| a.key.cmp(&b.key)));
        groups
    }

    fn completeness(&self, estimated: u64) -> Completeness {
        let loss = self.loss();
        Completeness {
            ring_full: loss.ring_full,
            recursion_missed: loss.recursion_missed,
            map_full: loss.map_full,
            read_faults: loss.read_faults,
            undecodable: loss.undecodable,
            reconciled: self.reconciled + self.anomalies,
            unlisted: self.sweep.unlisted(),
            mptcp: loss.mptcp,
            unread_bytes: 0,
            gaps: 0,
            estimated,
            stacks_not_taken: [self.stacks_refused(), self.stacks_late()]
                .into_iter()
                .fold(loss.stacks.total(), u64::saturating_add),
            polled_ns: self.options.polled_ns,
            mode: self.options.mode.clone(),
            notes: self.world.notes.iter().map(|n| n.to_string()).collect(),
        }
    }
}

fn line(state: TcpState, left: Option<&Dwell>, open: Option<&Open>) -> StateLine {
    let none = Dwell::default();
    let left = left.unwrap_or(&none);
    let at = |q| left.durations.quantile_ns(q);
    let durations = match (left.durations.min_ns(), left.durations.max_ns()) {
        (Some(min_ns), Some(max_ns)) => Some(Durations {
            min_ns,
            p50_ns: at(0.5).unwrap_or(min_ns),
            p90_ns: at(0.9).unwrap_or(max_ns),
            p99_ns: at(0.99).unwrap_or(max_ns),
            p999_ns: at(0.999).unwrap_or(max_ns),
            max_ns,
        }),
        _ => None,
    };
    StateLine {
        state,
        before: left.before + open.map_or(0, |o| o.before),
        entered: left.left - left.before + open.map_or(0, |o| o.count - o.before),
        left: left.left,
        open: open.map_or(0, |o| o.count),
        estimated: left.estimated,
        oldest_open: open.and_then(|o| o.oldest),
        durations,
    }
}

//! How many sockets each group had over time: a bounded number of points.

use std::collections::BTreeMap;

use super::{Key, Question, counts};
use crate::input::{Input, Sweep};
use crate::time::Mono;
use crate::tracker::Tracker;

/// More points than this are made half as many.
const MAX_POINTS: usize = 16;

/// Time between two points at first, ns.
const FIRST_STEP_NS: u64 = 1_000_000_000;

/// Fewer points than this tell no trend.
const LEAST_POINTS: usize = 3;

/// Whether a group grows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Trend {
    /// It has become greater, by so many per minute.
    Growing(f64),
    /// It has neither become greater nor smaller.
    Steady,
    /// It has become smaller, by so many per minute.
    Shrinking(f64),
    /// It was watched for too short a time.
    Unknown,
}

/// Sockets of a group near the start, in the middle and at the end, and how long it took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Near the start.
    pub start: u64,
    /// In the middle.
    pub middle: u64,
    /// At the end.
    pub end: u64,
    /// From start to end, ns.
    pub span_ns: u64,
}

impl Counts {
    /// One more and one less are no trend, and neither is what goes up and comes down.
    pub fn trend(&self) -> Trend {
        let Counts {
            start, middle, end, ..
        } = *self;
        let per_min = |more: u64| more as f64 * 60e9 / self.span_ns as f64;
        let rises = |low: u64, high: u64| {
            let by = high.saturating_sub(low);
            let steadily = (low..=high).contains(&middle);
            by >= 2 && (steadily || by >= high / 10)
        };
        match () {
            () if self.span_ns == 0 => Trend::Unknown,
            () if rises(start, end) => Trend::Growing(per_min(end - start)),
            () if rises(end, start) => Trend::Shrinking(per_min(start - end)),
            () => Trend::Steady,
        }
    }
}

/// Counts by group, at points that are as far from each other.
#[derive(Clone, Debug)]
pub struct Trends {
    question: Question,
    began: Option<Mono>,
    step_ns: u64,
    /// What is in a dump is not there at once.
    dumping: bool,
    points: Vec<(Mono, BTreeMap<Key, u64>)>,
}

impl Trends {
    /// Nothing was watched yet.
    pub fn new(question: Question) -> Trends {
        Trends {
            question,
            began: None,
            step_ns: FIRST_STEP_NS,
            dumping: false,
            points: Vec::new(),
        }
    }

    /// Begins here.
    pub fn begin(&mut self, at: Mono) {
        self.began = Some(at);
    }

    /// Takes an input, before the tracker does.
    pub fn input(&mut self, input: &Input, tracker: &Tracker) {
        let Some(at) = input.at() else {
            return;
        };
        let began = *self.began.get_or_insert(at);
        if let Input::Sweep(sweep) = input {
            self.dumping = matches!(sweep, Sweep::Begin { .. });
        }
        // What was there is shown when it has been seen for the least age.
        let next = match self.points.last() {
            Some((last, _)) => last.plus(self.step_ns),
            None => began.plus(self.question.min_age_ns.saturating_add(self.step_ns)),
        };
        if at < next || self.dumping {
            return;
        }
        self.take(tracker);
        if self.points.len() >= MAX_POINTS {
            self.step_ns = self.step_ns.saturating_mul(2);
            let mut keep = false;
            self.points.retain(|_| {
                keep = !keep;
                keep
            });
        }
    }

    /// Nothing follows.
    pub fn end(&mut self, tracker: &Tracker) {
        self.take(tracker);
    }

    fn take(&mut self, tracker: &Tracker) {
        let counts = counts(tracker, self.question);
        self.points.push((tracker.now(), counts));
    }

    pub(super) fn question(&self) -> Question {
        self.question
    }

    /// When the watch began.
    pub(super) fn began(&self) -> Option<Mono> {
        self.began
    }

    /// Those of one group; a span of 0: they tell no trend.
    pub(super) fn counts(&self, key: &Key) -> Counts {
        let of = |counts: &BTreeMap<Key, u64>| counts.get(key).copied().unwrap_or(0);
        let [(first, start), .., (last, end)] = &self.points[..] else {
            return Counts::default();
        };
        let (_, middle) = &self.points[self.points.len() / 2];
        let tells = self.points.len() >= LEAST_POINTS;
        Counts {
            start: of(start),
            middle: of(middle),
            end: of(end),
            span_ns: if tells { last.since(*first) } else { 0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trend_is_more_than_one_socket() {
        let of = |start, middle, end| {
            let span_ns = 60_000_000_000;
            let counts = Counts {
                start,
                middle,
                end,
                span_ns,
            };
            counts.trend()
        };
        assert_eq!(of(0, 10, 20), Trend::Growing(20.0));
        assert_eq!(of(5, 5, 6), Trend::Steady);
        assert_eq!(of(100, 90, 102), Trend::Steady);
        assert_eq!(of(100, 90, 150), Trend::Growing(50.0));
        assert_eq!(of(100, 40, 10), Trend::Shrinking(90.0));
        assert_eq!(of(100_000, 100_005, 100_010), Trend::Growing(10.0));
        assert_eq!(Counts::default().trend(), Trend::Unknown);
    }
}

//! Whether there are more and more of something, and how long that can go on.

use std::array;

use serde_json::Value;

use super::finding::Finding;
use super::words::rate;
use crate::report::snapshot::thousands;
use crate::time::{Mono, duration_text};

/// The time is looked at in so many parts.
const PARTS: usize = 4;

/// What comes all the time brings this share of its average in every part but one: 1 of so many.
const SHARE: i64 = 4;

/// A time shorter than this tells no rate, ns.
const LEAST_NS: u64 = 1_000_000_000;

/// Slots of a course, of which more than half are in use once it has outgrown them.
const SLOTS: usize = 32;

/// How long the slots of a course are at first, ns.
const SLOT_NS: u64 = 10_000_000;

/// How a number changed during a trace.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Growth {
    /// The time was too short to tell.
    Unknown,
    /// There are no more than there were.
    No,
    /// More came all the time.
    Steady {
        /// So many.
        more: u64,
        per_second: f64,
    },
    /// More came, but not all the time: what comes next no rate can say.
    Bursts {
        /// So many.
        more: u64,
        /// In this time.
        span_ns: u64,
        /// None came in the last so many ns.
        quiet_ns: u64,
    },
}

impl Growth {
    fn judge(parts: [i64; PARTS], span_ns: u64, quiet_ns: u64) -> Growth {
        if span_ns < LEAST_NS {
            return Growth::Unknown;
        }
        let Ok(more @ 1..) = u64::try_from(parts.iter().sum::<i64>()) else {
            return Growth::No;
        };
        let mut sorted = parts;
        sorted.sort_unstable();
        // One part may be without: chance leaves some empty.
        let usual = sorted[1];
        match usual > 0 && usual * SHARE * PARTS as i64 >= more as i64 {
            true => Growth::Steady {
                more,
                per_second: more as f64 * 1e9 / span_ns as f64,
            },
            false => Growth::Bursts {
                more,
                span_ns,
                quiet_ns,
            },
        }
    }

    /// How many more there are.
    pub(super) fn more(self) -> Option<u64> {
        match self {
            Growth::Unknown => None,
            Growth::No => Some(0),
            Growth::Steady { more, .. } | Growth::Bursts { more, .. } => Some(more),
        }
    }

    /// The time until something with so much room is full; `None`: nobody can say.
    pub(super) fn time_left(self, room: u64) -> Option<String> {
        let Growth::Steady { per_second, .. } = self else {
            return None;
        };
        let seconds = room as f64 / per_second;
        // Beyond this it says nothing about anything.
        (seconds < 86_400.0).then(|| duration_text((seconds * 1e9) as u64))
    }

    /// `, +4.1/s`; `, +12, none of them in the last 6.2s`; `, +12 in 10.0s`; nothing.
    pub(super) fn text(self) -> String {
        match self {
            Growth::Unknown | Growth::No => String::new(),
            Growth::Steady { per_second, .. } => format!(", +{}", rate(per_second)),
            Growth::Bursts {
                more,
                span_ns,
                quiet_ns,
            } => match quiet_ns >= span_ns / 2 {
                true => format!(
                    ", +{}, none of them in the last {}",
                    thousands(more),
                    duration_text(quiet_ns)
                ),
                false => format!(", +{} in {}", thousands(more), duration_text(span_ns)),
            },
        }
    }

    /// Its numbers.
    pub(super) fn tell(self, finding: &mut Finding) {
        let per_second: Value = match self {
            Growth::Steady { per_second, .. } => per_second.into(),
            Growth::No => 0.0.into(),
            Growth::Unknown | Growth::Bursts { .. } => Value::Null,
        };
        finding.number("growth", self.more());
        finding.number("growth_per_s", per_second);
    }
}

/// A number in the course of time. How long that will be nobody knows: slots get longer with it.
#[derive(Clone, Debug, Default)]
pub(super) struct Course {
    /// With the first change, unless somebody said when.
    began: Option<Mono>,
    doubled: u32,
    slots: [i64; SLOTS],
}

impl Course {
    /// Nothing is to come before this.
    pub(super) fn since(began: Mono) -> Course {
        Course {
            began: Some(began),
            ..Course::default()
        }
    }

    /// So many more, or less.
    pub(super) fn add(&mut self, at: Mono, more: i64) {
        let began = *self.began.get_or_insert(at);
        let slot = loop {
            match usize::try_from(at.since(began) / self.slot_ns()) {
                Ok(slot) if slot < SLOTS => break slot,
                _ => self.double(),
            }
        };
        self.slots[slot] += more;
    }

    /// One more, unless it was there from the beginning.
    pub(super) fn came(&mut self, at: Mono) {
        if self.began.is_none_or(|began| at > began) {
            self.add(at, 1);
        }
    }

    /// What came here came there, too.
    pub(super) fn merge(&mut self, other: &Course) {
        for (at, more) in other.changes() {
            self.add(at, more);
        }
    }

    /// How it grew between these.
    pub(super) fn growth(&self, from: Mono, to: Mono) -> Growth {
        let span_ns = to.since(from);
        let mut parts = [0; PARTS];
        let mut last = from;
        for (at, more) in self.changes() {
            let part = u128::from(at.since(from)) * PARTS as u128 / u128::from(span_ns.max(1));
            parts[usize::try_from(part).map_or(PARTS - 1, |part| part.min(PARTS - 1))] += more;
            if more > 0 {
                last = at.plus(self.slot_ns() / 2);
            }
        }
        Growth::judge(parts, span_ns, to.since(last))
    }

    /// What came, in the middle of each slot.
    fn changes(&self) -> impl Iterator<Item = (Mono, i64)> {
        let began = self.began.unwrap_or_default();
        let slot_ns = self.slot_ns();
        let slots = (0..).zip(self.slots).filter(|(_, more)| *more != 0);
        slots.map(move |(slot, more)| {
            let at = began.plus(slot_ns.saturating_mul(slot));
            (at.plus(slot_ns / 2), more)
        })
    }

    fn slot_ns(&self) -> u64 {
        SLOT_NS << self.doubled
    }

    fn double(&mut self) {
        let old = self.slots;
        let of = |slot: usize| old.get(slot).copied().unwrap_or(0);
        self.slots = array::from_fn(|slot| of(2 * slot) + of(2 * slot + 1));
        self.doubled += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn growth(times: impl IntoIterator<Item = u64>) -> Growth {
        let mut course = Course::since(Mono(S));
        times.into_iter().for_each(|at| course.add(Mono(S + at), 1));
        course.growth(Mono(S), Mono(11 * S))
    }

    #[test]
    fn what_comes_all_the_time_has_a_rate() {
        let even = growth((0..10).map(|i| i * S));
        assert_eq!(
            even,
            Growth::Steady {
                more: 10,
                per_second: 1.0
            }
        );
        assert_eq!(even.text(), ", +1.0/s");
        assert_eq!(even.time_left(100).as_deref(), Some("100s"));
        assert_eq!(even.time_left(1_000_000), None);
        // Chance leaves a part empty, and makes others crowded.
        let uneven = growth([0, 1, 3, 3, 4, 4, 9].map(|s| s * S));
        assert!(matches!(uneven, Growth::Steady { more: 7, .. }));
    }

    #[test]
    fn what_came_at_once_has_none() {
        for at in [0, 2, 5, 9] {
            let burst = growth((0..1_000).map(|i| at * S + i * 1_000_000));
            assert!(matches!(burst, Growth::Bursts { more: 1_000, .. }), "{at}");
            assert_eq!(burst.time_left(1), None);
        }
        // A few that come after it make it no rate.
        let trickle = growth((0..100).chain((1..10).map(|s| s * S)));
        assert_eq!(trickle.time_left(1), None);
        assert_eq!(growth([]), Growth::No);
        assert_eq!(growth([S]).time_left(1), None);
        let short = Course::default().growth(Mono(0), Mono(S / 2));
        assert_eq!(short, Growth::Unknown);
    }

    #[test]
    fn what_has_stopped_says_since_when() {
        let stopped = growth((0..40).map(|i| i * S / 10));
        assert_eq!(stopped.text(), ", +40, none of them in the last 6.0s");
        let begun = growth((60..100).map(|i| i * S / 10));
        assert_eq!(begun.text(), ", +40 in 10.0s");
    }

    #[test]
    fn a_course_keeps_the_course_of_time() {
        for span in [2 * S, 10 * S, 3_600 * S] {
            let from = Mono(77);
            let to = from.plus(span);
            let mut steady = Course::default();
            let mut burst = Course::default();
            let mut churn = Course::default();
            for i in 0..400 {
                let at = from.plus(span / 400 * i);
                steady.add(at, 1);
                churn.add(at, 1);
                churn.add(at, -1);
                burst.add(from.plus(span / 4_000 * i), 1);
            }
            let Growth::Steady { more, per_second } = steady.growth(from, to) else {
                panic!("{:?}", steady.growth(from, to));
            };
            assert_eq!(more, 400);
            assert_eq!(per_second, 400.0 * 1e9 / span as f64);
            assert_eq!(churn.growth(from, to), Growth::No);
            let Growth::Bursts { more, quiet_ns, .. } = burst.growth(from, to) else {
                panic!("{:?}", burst.growth(from, to));
            };
            assert_eq!(more, 400);
            assert!((span * 8 / 10..=span * 9 / 10).contains(&quiet_ns));
        }
        assert_eq!(Course::default().growth(Mono(0), Mono(S)), Growth::No);
    }

    #[test]
    fn what_falls_in_between_has_no_rate() {
        let mut course = Course::default();
        for (second, more) in [(0, 20), (3, -15), (6, 20), (9, -15)] {
            course.add(Mono(second * S), more);
        }
        let growth = course.growth(Mono(0), Mono(10 * S));
        assert!(matches!(growth, Growth::Bursts { more: 10, .. }));
    }
}

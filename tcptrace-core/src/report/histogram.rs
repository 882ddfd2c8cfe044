//! How long sockets stay in a state: buckets that people can read, and percentiles.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::histogram::Durations;
use crate::state::TcpState;
use crate::time::{Age, duration_text};

const US: u64 = 1_000;
const MS: u64 = 1_000 * US;
const S: u64 = 1_000 * MS;
const MINUTE: u64 = 60 * S;
const HOUR: u64 = 60 * MINUTE;

/// Where buckets end and the next begin, ns.
const BOUNDS: [u64; 32] = [
    10 * US,
    20 * US,
    50 * US,
    100 * US,
    200 * US,
    500 * US,
    MS,
    2 * MS,
    5 * MS,
    10 * MS,
    20 * MS,
    50 * MS,
    100 * MS,
    200 * MS,
    500 * MS,
    S,
    2 * S,
    5 * S,
    10 * S,
    20 * S,
    30 * S,
    MINUTE,
    2 * MINUTE,
    5 * MINUTE,
    10 * MINUTE,
    20 * MINUTE,
    30 * MINUTE,
    HOUR,
    2 * HOUR,
    6 * HOUR,
    12 * HOUR,
    24 * HOUR,
];

/// The percentiles that are told.
pub const PERCENTILES: [f64; 9] = [25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99, 99.999];

/// Stays in one state.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// The state.
    pub state: TcpState,
    /// Stays by how long they are, from the shortest to the longest, empty ones between included.
    pub buckets: Vec<Bucket>,
    /// Stays that have ended, and of which it is known how long they were.
    pub left: u64,
    /// Stays that go on.
    pub open: u64,
    /// Of these, how many nobody knows the age of.
    pub open_unknown: u64,
    /// Some of these times are not exact.
    pub estimated: bool,
    /// Shortest and longest of those that have ended, ns.
    pub extremes: Option<(u64, u64)>,
    /// Of those that have ended, ns at each of [`PERCENTILES`].
    pub percentiles: Option<[u64; PERCENTILES.len()]>,
}

/// Stays of similar length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Bucket {
    /// At least so long, ns.
    pub from_ns: u64,
    /// Shorter than this, ns; `None`: of any length from there on.
    pub to_ns: Option<u64>,
    /// Stays that have ended.
    pub left: u64,
    /// Stays that go on, by their age.
    pub open: u64,
}

impl Bucket {
    /// `10ms`, `1m`: as short as the bounds are.
    pub(crate) fn bound_text(ns: u64) -> String {
        match ns {
            0 => "0".to_owned(),
            ns if ns % HOUR == 0 => format!("{}h", ns / HOUR),
            ns if ns % MINUTE == 0 => format!("{}m", ns / MINUTE),
            ns if ns % S == 0 => format!("{}s", ns / S),
            ns if ns % MS == 0 => format!("{}ms", ns / MS),
            ns if ns % US == 0 => format!("{}us", ns / US),
            ns => duration_text(ns),
        }
    }
}

impl Histogram {
    /// Of stays that have ended after `durations`, and of those that go on.
    pub(crate) fn new(
        state: TcpState,
        durations: Option<&Durations>,
        estimated: u64,
        open: &[Age],
    ) -> Histogram {
        let none = Durations::default();
        let durations = durations.unwrap_or(&none);
        let mut counts: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
        for (ns, count) in durations.counts() {
            counts.entry(bucket_of(ns)).or_default().0 += count;
        }
        let known = open.iter().filter_map(|age| age.at_least());
        let open_known: Vec<u64> = known.collect();
        for ns in &open_known {
            counts.entry(bucket_of(*ns)).or_default().1 += 1;
        }
        let first = counts.keys().next().copied();
        let last = counts.keys().next_back().copied();
        let range = first.zip(last).map(|(first, last)| first..=last);
        let buckets = range.into_iter().flatten().map(|index| {
            let (left, open) = counts.get(&index).copied().unwrap_or_default();
            Bucket {
                from_ns: index.checked_sub(1).map_or(0, |before| BOUNDS[before]),
                to_ns: BOUNDS.get(index).copied(),
                left,
                open,
            }
        });
        let at = |percentile: f64| durations.quantile_ns(percentile / 100.0).unwrap_or(0);
        Histogram {
            state,
            buckets: buckets.collect(),
            left: durations.len(),
            open: open.len() as u64,
            open_unknown: (open.len() - open_known.len()) as u64,
            estimated: estimated > 0 || open.iter().any(|age| age.is_estimated()),
            extremes: durations.min_ns().zip(durations.max_ns()),
            percentiles: (!durations.is_empty()).then(|| PERCENTILES.map(at)),
        }
    }

    /// Whether there was no stay at all.
    pub fn is_empty(&self) -> bool {
        self.left == 0 && self.open == 0
    }
}

fn bucket_of(ns: u64) -> usize {
    BOUNDS.partition_point(|bound| *bound <= ns)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(durations: &[u64], open: &[Age]) -> Histogram {
        let mut counted = Durations::default();
        durations.iter().for_each(|ns| counted.record(*ns));
        Histogram::new(TcpState::CloseWait, Some(&counted), 0, open)
    }

    #[test]
    fn stays_stand_in_their_buckets() {
        let open = [Age::Exact(90 * S), Age::Unknown];
        let histogram = of(&[15 * S, 25 * S, 60 * S], &open);
        let buckets: Vec<_> = histogram
            .buckets
            .iter()
            .map(|b| (b.from_ns / S, b.to_ns.map(|to| to / S), b.left, b.open))
            .collect();
        assert_eq!(
            buckets,
            [
                (10, Some(20), 1, 0),
                (20, Some(30), 1, 0),
                (30, Some(60), 0, 0),
                (60, Some(120), 1, 1)
            ]
        );
        assert_eq!((histogram.open, histogram.open_unknown), (2, 1));
        assert!(histogram.estimated);
        assert_eq!(histogram.extremes, Some((15 * S, 60 * S)));
    }

    #[test]
    fn what_is_not_known_is_not_zero() {
        let histogram = of(&[], &[]);
        assert!(histogram.is_empty() && histogram.buckets.is_empty());
        assert_eq!((histogram.extremes, histogram.percentiles), (None, None));
    }

    #[test]
    fn bounds_are_short() {
        let texts: Vec<String> = BOUNDS.iter().map(|ns| Bucket::bound_text(*ns)).collect();
        assert_eq!(&texts[..3], ["10us", "20us", "50us"]);
        assert_eq!(&texts[20..24], ["30s", "1m", "2m", "5m"]);
        assert_eq!(texts[31], "24h");
    }

    proptest! {
        #[test]
        fn every_stay_is_in_one_bucket(
            durations in proptest::collection::vec(any::<u64>(), 0..40),
            open in proptest::collection::vec(any::<u64>(), 0..40),
        ) {
            let ages: Vec<Age> = open.iter().map(|ns| Age::Exact(*ns)).collect();
            let histogram = of(&durations, &ages);
            let sum = |of: fn(&Bucket) -> u64| histogram.buckets.iter().map(of).sum::<u64>();
            prop_assert_eq!(sum(|b| b.left), durations.len() as u64);
            prop_assert_eq!(sum(|b| b.open), open.len() as u64);
            for pair in histogram.buckets.windows(2) {
                prop_assert_eq!(pair[0].to_ns, Some(pair[1].from_ns));
            }
        }
    }
}

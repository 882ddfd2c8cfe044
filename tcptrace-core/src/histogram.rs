//! Durations, counted into an HdrHistogram: three significant digits from 1 µs to 24 h.

use hdrhistogram::Histogram;

/// 24 h in µs: what is longer counts as this long.
const MAX_US: u64 = 24 * 3_600 * 1_000_000;

/// So many are kept as they are: most groups have few, and a histogram takes up to 70 KiB.
const FEW: usize = 64;

/// Durations of one kind.
#[derive(Clone, Debug, Default)]
pub struct Durations {
    /// In their order, ns; none if there are many.
    few: Vec<u64>,
    /// By their µs. It grows with the largest value.
    many: Option<Box<Histogram<u32>>>,
    min_ns: u64,
    max_ns: u64,
}

impl Durations {
    /// Counts one duration.
    pub fn record(&mut self, ns: u64) {
        self.extremes(ns, ns);
        if self.many.is_none() && self.few.len() < FEW {
            let place = self.few.partition_point(|other| *other <= ns);
            self.few.insert(place, ns);
        } else {
            count(self.many(), ns);
        }
    }

    /// Counts all of another.
    pub fn add(&mut self, other: &Durations) {
        let Some(theirs) = &other.many else {
            other.few.iter().for_each(|ns| self.record(*ns));
            return;
        };
        self.extremes(other.min_ns, other.max_ns);
        let added = self.many().add(&**theirs);
        debug_assert!(added.is_ok(), "a growing histogram takes another");
    }

    fn extremes(&mut self, min_ns: u64, max_ns: u64) {
        if self.is_empty() {
            (self.min_ns, self.max_ns) = (min_ns, max_ns);
        }
        self.min_ns = self.min_ns.min(min_ns);
        self.max_ns = self.max_ns.max(max_ns);
    }

    /// The histogram, with the few in it.
    fn many(&mut self) -> &mut Histogram<u32> {
        let few = &mut self.few;
        self.many.get_or_insert_with(|| {
            let mut many = Histogram::new(3).expect("three digits are possible");
            std::mem::take(few)
                .into_iter()
                .for_each(|ns| count(&mut many, ns));
            Box::new(many)
        })
    }

    /// How many were counted.
    pub fn len(&self) -> u64 {
        let many = self.many.as_ref().map_or(0, |many| many.len());
        self.few.len() as u64 + many
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The shortest, exactly, ns.
    pub fn min_ns(&self) -> Option<u64> {
        (!self.is_empty()).then_some(self.min_ns)
    }

    /// The longest, exactly, ns.
    pub fn max_ns(&self) -> Option<u64> {
        (!self.is_empty()).then_some(self.max_ns)
    }

    /// The distinct durations, ns, in their order, and how many there are of each; within 0.1 %.
    pub fn counts(&self) -> impl Iterator<Item = (u64, u64)> {
        let few = self.few.chunk_by(u64::eq);
        let few = few.map(|same| (same[0], same.len() as u64));
        let many = self.many.iter().flat_map(|many| many.iter_recorded());
        few.chain(many.map(|value| {
            let ns = value.value_iterated_to().saturating_mul(1_000);
            (
                ns.clamp(self.min_ns, self.max_ns),
                u64::from(value.count_at_value()),
            )
        }))
    }

    /// The duration below which `quantile` (0 to 1) of them lie, ns, within 0.1 % and never
    /// outside the shortest and the longest.
    pub fn quantile_ns(&self, quantile: f64) -> Option<u64> {
        if let Some(many) = &self.many {
            let ns = many.value_at_quantile(quantile).saturating_mul(1_000);
            return Some(ns.clamp(self.min_ns, self.max_ns));
        }
        let below = (quantile.clamp(0.0, 1.0) * self.few.len() as f64).ceil() as usize;
        self.few.get(below.saturating_sub(1)).copied()
    }
}

fn count(many: &mut Histogram<u32>, ns: u64) {
    let recorded = many.record((ns / 1_000).clamp(1, MAX_US));
    debug_assert!(
        recorded.is_ok(),
        "a growing histogram takes any value up to a day"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_recorded_is_not_zero() {
        let none = Durations::default();
        assert_eq!(
            (none.len(), none.min_ns(), none.quantile_ns(0.5)),
            (0, None, None)
        );
    }

    #[test]
    fn few_are_exact_and_many_like_them() {
        let durations = |n: u64| {
            let mut all = Durations::default();
            (1..=n).rev().for_each(|ms| all.record(ms * 1_000_003));
            all
        };
        let few = durations(FEW as u64);
        assert!(few.many.is_none());
        assert_eq!(few.quantile_ns(0.5), Some(32 * 1_000_003));
        assert_eq!(few.quantile_ns(0.0), few.min_ns());
        assert_eq!(few.quantile_ns(1.0), few.max_ns());
        let mut many = few.clone();
        many.add(&few);
        assert!(many.many.is_some() && many.few.is_empty());
        assert_eq!((many.len(), many.min_ns()), (2 * few.len(), few.min_ns()));
        for quantile in [0.0, 0.01, 0.5, 0.9, 0.99, 1.0] {
            let (a, b) = (few.quantile_ns(quantile), many.quantile_ns(quantile));
            let (a, b) = (a.expect("some"), b.expect("some"));
            assert!(a.abs_diff(b) <= a / 1_000, "{quantile}: {a} {b}");
        }
        let twice = few.counts().zip(many.counts());
        for ((a, one), (b, two)) in twice {
            assert!(a.abs_diff(b) <= a / 1_000 && (one, two) == (1, 2));
        }
        // In whatever order they come together.
        let mut other = Durations::default();
        other.add(&many);
        other.add(&few);
        many.add(&few);
        assert!(many.counts().eq(other.counts()));
    }

    #[test]
    fn extremes_are_exact_and_quantiles_close() {
        let mut d = Durations::default();
        for ms in 1..=1_000u64 {
            d.record(ms * 1_000_000 + 7);
        }
        assert_eq!(
            (d.min_ns(), d.max_ns()),
            (Some(1_000_007), Some(1_000_000_007))
        );
        let p50 = d.quantile_ns(0.5).expect("has values");
        assert!(p50.abs_diff(500_000_000) <= 500_000, "{p50}");
        d.record(0);
        d.record(u64::MAX);
        assert_eq!(
            (d.len(), d.min_ns(), d.max_ns()),
            (1_002, Some(0), Some(u64::MAX))
        );
        assert_eq!(
            d.quantile_ns(1.0),
            Some(MAX_US * 1_000).max(d.quantile_ns(1.0))
        );
    }
}

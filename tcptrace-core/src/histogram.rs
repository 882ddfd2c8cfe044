//! Durations, counted into an HdrHistogram: three significant digits from 1 µs to 24 h.

use hdrhistogram::Histogram;

/// 24 h in µs: what is longer counts as this long.
const MAX_US: u64 = 24 * 3_600 * 1_000_000;

/// Durations of one kind.
#[derive(Clone, Debug, Default)]
pub struct Durations {
    /// Made at the first value: most groups never get one. Grows with the largest value.
    us: Option<Histogram<u32>>,
    min_ns: u64,
    max_ns: u64,
}

impl Durations {
    /// Counts one duration.
    pub fn record(&mut self, ns: u64) {
        let us = (ns / 1_000).clamp(1, MAX_US);
        if self.us.is_none() {
            self.us = Histogram::new(3).ok();
            (self.min_ns, self.max_ns) = (ns, ns);
        }
        if let Some(histogram) = &mut self.us {
            let recorded = histogram.record(us);
            debug_assert!(
                recorded.is_ok(),
                "a growing histogram takes any value up to a day"
            );
        }
        self.min_ns = self.min_ns.min(ns);
        self.max_ns = self.max_ns.max(ns);
    }

    /// Counts all of another.
    pub fn add(&mut self, other: &Durations) {
        let Some(theirs) = &other.us else { return };
        let Some(ours) = &mut self.us else {
            self.clone_from(other);
            return;
        };
        let added = ours.add(theirs);
        debug_assert!(added.is_ok(), "a growing histogram takes another");
        self.min_ns = self.min_ns.min(other.min_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// How many were counted.
    pub fn len(&self) -> u64 {
        self.us.as_ref().map_or(0, Histogram::len)
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.us.is_none()
    }

    /// The shortest, exactly, ns.
    pub fn min_ns(&self) -> Option<u64> {
        self.us.as_ref().map(|_| self.min_ns)
    }

    /// The longest, exactly, ns.
    pub fn max_ns(&self) -> Option<u64> {
        self.us.as_ref().map(|_| self.max_ns)
    }

    /// The distinct durations, ns, in their order, and how many there are of each; within 0.1 %.
    pub fn counts(&self) -> impl Iterator<Item = (u64, u64)> {
        let values = self.us.iter().flat_map(Histogram::iter_recorded);
        values.map(|value| {
            let ns = value.value_iterated_to().saturating_mul(1_000);
            (
                ns.clamp(self.min_ns, self.max_ns),
                u64::from(value.count_at_value()),
            )
        })
    }

    /// The duration below which `quantile` (0 to 1) of them lie, ns, within 0.1 % and never
    /// outside the shortest and the longest.
    pub fn quantile_ns(&self, quantile: f64) -> Option<u64> {
        let histogram = self.us.as_ref()?;
        let ns = histogram.value_at_quantile(quantile).saturating_mul(1_000);
        Some(ns.clamp(self.min_ns, self.max_ns))
    }
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

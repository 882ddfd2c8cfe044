//! What several measurements of one thing say: the median, and how far they lie apart.

/// Median and extremes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// Of these; `None` where there is none. What is no number was not measured.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            0 => f64::midpoint(values[middle - 1], values[middle]),
            _ => values[middle],
        };
        Some(Spread {
            median,
            least,
            most,
        })
    }

    /// Of one measurement.
    pub(crate) fn one(value: f64) -> Option<Spread> {
        Spread::of([value])
    }
}

/// One thing in every round.
pub(crate) type Rounds = Vec<Option<f64>>;

/// What `f` makes of one thing and another of the same round, of all rounds that have both.
pub(crate) fn paired(one: &Rounds, other: &Rounds, f: impl Fn(f64, f64) -> f64) -> Option<Spread> {
    let pairs = one.iter().zip(other);
    Spread::of(pairs.filter_map(|(one, other)| Some(f((*one)?, (*other)?))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_and_nothing_has_none() {
        let spread = |values: &[f64]| Spread::of(values.iter().copied());
        let of = |median, least, most| {
            Some(Spread {
                median,
                least,
                most,
            })
        };
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[f64::NAN, f64::INFINITY]), None);
        assert_eq!(spread(&[3.0, 1.0, 2.0]), of(2.0, 1.0, 3.0));
        assert_eq!(spread(&[4.0, 1.0, 2.0, 9.0]), of(3.0, 1.0, 9.0));
        assert_eq!(spread(&[5.0, f64::NAN]), of(5.0, 5.0, 5.0));
    }

    #[test]
    fn ratios_are_taken_in_the_round_before_the_median() {
        // The machine was twice as fast in the second round: a ratio of medians would say 0.6.
        let base = vec![Some(100.0), Some(200.0), Some(100.0)];
        let with = vec![Some(90.0), Some(180.0), Some(60.0)];
        let ratio = paired(&with, &base, |with, base| with / base).expect("a ratio");
        assert_eq!((ratio.median, ratio.least, ratio.most), (0.9, 0.6, 0.9));
        let gaps = paired(&vec![None, Some(1.0)], &vec![Some(1.0), None], |a, b| a / b);
        assert_eq!(gaps, None);
    }
}

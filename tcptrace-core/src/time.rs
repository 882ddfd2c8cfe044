//! Time as a value: monotonic instants, ages, their text forms. Nothing here reads a clock.

use std::fmt;

/// Nanoseconds of CLOCK_MONOTONIC, the clock of `bpf_ktime_get_ns` and of the kernel's timers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub u64);

impl Mono {
    /// Nanoseconds since `earlier`; 0 if it is later.
    pub fn since(self, earlier: Mono) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This instant `ns` later.
    pub fn plus(self, ns: u64) -> Mono {
        Mono(self.0.saturating_add(ns))
    }

    /// This instant `ns` earlier.
    pub fn minus(self, ns: u64) -> Mono {
        Mono(self.0.saturating_sub(ns))
    }
}

/// One reading of both clocks, to give monotonic instants a date.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WallAnchor {
    /// CLOCK_MONOTONIC.
    pub mono: Mono,
    /// CLOCK_REALTIME, ns since 1970.
    pub wall_ns: i64,
}

impl WallAnchor {
    /// CLOCK_REALTIME of an instant, assuming that nobody stepped the clock since the anchor.
    pub fn wall_ns(self, at: Mono) -> i64 {
        let delta = i128::from(at.0) - i128::from(self.mono.0);
        (i128::from(self.wall_ns) + delta).clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
    }

    /// RFC 3339 in UTC with nine decimals: `2026-11-22T02:58:31.000000000Z`.
    pub fn rfc3339(self, at: Mono) -> String {
        self.text(at, 9)
    }

    /// The same for people, to the millisecond: `2026-11-22T02:58:31.000Z`.
    pub fn rfc3339_ms(self, at: Mono) -> String {
        self.text(at, 3)
    }

    fn text(self, at: Mono, decimals: usize) -> String {
        let nanos = i128::from(self.wall_ns(at));
        match jiff::Timestamp::from_nanosecond(nanos) {
            Ok(t) => format!("{t:.decimals$}"),
            Err(_) => "unknown".to_owned(),
        }
    }
}

/// How long something has lasted, and how well that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// Both ends were seen, ns.
    Exact(u64),
    /// Known within bounds, ns; `max` is `None` where nothing bounds it from above.
    Between {
        /// At least this long.
        min: u64,
        /// At most this long.
        max: Option<u64>,
    },
    /// Nothing is known.
    Unknown,
}

impl Age {
    /// The value to show and to compare with a threshold: the exact one, or the lower bound.
    pub fn at_least(self) -> Option<u64> {
        match self {
            Age::Exact(ns) => Some(ns),
            Age::Between { min, .. } => Some(min),
            Age::Unknown => None,
        }
    }

    /// The upper bound, if there is one; of an exact one, itself.
    pub fn at_most(self) -> Option<u64> {
        match self {
            Age::Exact(ns) => Some(ns),
            Age::Between { max, .. } => max,
            Age::Unknown => None,
        }
    }

    /// Whether it is anything but exact.
    pub fn is_estimated(self) -> bool {
        !matches!(self, Age::Exact(_))
    }

    /// The same, `ns` later.
    pub fn plus(self, ns: u64) -> Age {
        match self {
            Age::Exact(a) => Age::Exact(a.saturating_add(ns)),
            Age::Between { min, max } => Age::Between {
                min: min.saturating_add(ns),
                max: max.map(|m| m.saturating_add(ns)),
            },
            Age::Unknown => Age::Between { min: ns, max: None },
        }
    }
}

/// `12.3s`, `~1h52m`, `?`: an estimate carries `~`, the unknown is never 0.
impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match *self {
            Age::Exact(ns) => duration_text(ns),
            // A bound of 0 says nothing.
            Age::Between { min: 0, max: None } => "?".to_owned(),
            Age::Between {
                min: 0,
                max: Some(max),
            } => format!("<{}", duration_text(max)),
            Age::Between { min, .. } => format!("~{}", duration_text(min)),
            Age::Unknown => "?".to_owned(),
        };
        f.pad(&text)
    }
}

/// A duration in at most seven columns, cut (never rounded up): `870ns`, `12.3us`, `4.56ms`,
/// `30.0s`, `12m05s`, `1h52m`, `3d04h`.
pub fn duration_text(ns: u64) -> String {
    const US: u64 = 1_000;
    const MS: u64 = 1_000_000;
    const S: u64 = 1_000_000_000;
    let scaled = |unit: u64, name: &str| {
        let whole = ns / unit;
        if whole >= 100 {
            format!("{whole}{name}")
        } else {
            format!("{whole}.{}{name}", ns % unit * 10 / unit)
        }
    };
    let seconds = ns / S;
    match ns {
        0..US => format!("{ns}ns"),
        US..MS => scaled(US, "us"),
        MS..S => scaled(MS, "ms"),
        _ if seconds < 600 => scaled(S, "s"),
        _ if seconds < 3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ if seconds < 86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// Why a text is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a duration: write a number with a unit, as in 500ms, 30s, 10m, 1h30m, 2d")]
pub struct DurationError(String);

/// Reads `500ms`, `30s`, `1h30m`, `1.5s`; a bare `0` or number means seconds. Gives ns.
pub fn parse_duration(text: &str) -> Result<u64, DurationError> {
    let error = || DurationError(text.to_owned());
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(error());
    }
    let mut total: f64 = 0.0;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let value: f64 = number.parse().map_err(|_| error())?;
        let letters = after
            .find(|c: char| !c.is_alphabetic())
            .unwrap_or(after.len());
        let (unit, next) = after.split_at(letters);
        let scale = match unit {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "" if next.is_empty() && total == 0.0 => 1e9,
            "m" | "min" => 60e9,
            "h" => 3_600e9,
            "d" => 86_400e9,
            _ => return Err(error()),
        };
        total += value * scale;
        rest = next;
    }
    if !total.is_finite() || total >= u64::MAX as f64 {
        return Err(error());
    }
    Ok(total.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        for (text, ns) in [
            ("0", 0),
            ("30", 30_000_000_000),
            ("500ms", 500_000_000),
            ("1.5s", 1_500_000_000),
            ("1h30m", 5_400_000_000_000),
            ("2d", 172_800_000_000_000),
            ("7us", 7_000),
        ] {
            assert_eq!(parse_duration(text), Ok(ns), "{text}");
        }
        for text in [
            "",
            "s",
            "-1s",
            "1x",
            "1s30",
            "nan",
            "1e9s",
            "999999999999999d",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ages_say_how_well_they_are_known() {
        assert_eq!(Age::Exact(30_000_000_000).to_string(), "30.0s");
        assert_eq!(
            Age::Between {
                min: 6_725_000_000_000,
                max: None
            }
            .to_string(),
            "~1h52m"
        );
        assert_eq!(Age::Unknown.to_string(), "?");
        assert_eq!(Age::Exact(999).to_string(), "999ns");
        assert_eq!(Age::Exact(1_234_567).to_string(), "1.2ms");
        assert_eq!(Age::Exact(725_000_000_000).to_string(), "12m05s");
        assert_eq!(Age::Unknown.plus(5), Age::Between { min: 5, max: None });
    }

    #[test]
    fn instants_get_their_date_from_the_anchor() {
        let anchor = WallAnchor {
            mono: Mono(1_000),
            wall_ns: 1_700_000_000_000_000_000,
        };
        assert_eq!(
            anchor.rfc3339(Mono(1_001)),
            "2023-11-14T22:13:20.000000001Z"
        );
        assert_eq!(anchor.rfc3339(Mono(0)), "2023-11-14T22:13:19.999999000Z");
    }
}

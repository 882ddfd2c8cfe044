//! A moment of a recording, as people write it.

use std::str::FromStr;

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use tcptrace_core::time::{Mono, WallAnchor, parse_duration};

/// A moment, before it is known of which recording.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Moment {
    /// So many ns after the start.
    After(u64),
    /// A time of day, the first after the start.
    At(Time),
    /// An instant.
    On(Timestamp),
}

/// Why a text names no moment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no moment of a recording: write 90s (after its start), 02:41:00, or \
     2026-11-22T02:41:00Z"
)]
pub(crate) struct MomentError(String);

impl FromStr for Moment {
    type Err = MomentError;

    fn from_str(text: &str) -> Result<Moment, MomentError> {
        let after = text.strip_prefix('+').unwrap_or(text);
        if let Ok(ns) = parse_duration(after) {
            return Ok(Moment::After(ns));
        }
        if let Ok(instant) = text.parse::<Timestamp>() {
            return Ok(Moment::On(instant));
        }
        // `T` would be a date's.
        match text.parse::<Time>() {
            Ok(time) if text.contains(':') && !text.contains(['T', ' ']) => Ok(Moment::At(time)),
            _ => Err(MomentError(text.to_owned())),
        }
    }
}

impl Moment {
    /// The moment in a recording that began at `start`; a time of day is one of `zone`.
    pub(crate) fn of(&self, start: WallAnchor, zone: &TimeZone) -> Mono {
        let since = |instant: Timestamp| {
            let ns = instant.as_nanosecond() - i128::from(start.wall_ns);
            start.mono.plus(ns.clamp(0, i128::from(u64::MAX)) as u64)
        };
        match self {
            Moment::After(ns) => start.mono.plus(*ns),
            Moment::On(instant) => since(*instant),
            Moment::At(time) => first_after(start, *time, zone).map_or(start.mono, since),
        }
    }
}

fn first_after(start: WallAnchor, time: Time, zone: &TimeZone) -> Option<Timestamp> {
    let started = Timestamp::from_nanosecond(i128::from(start.wall_ns)).ok()?;
    let today = started
        .to_zoned(zone.clone())
        .datetime()
        .with()
        .time(time)
        .build()
        .ok()?;
    let on = |date: jiff::civil::DateTime| Some(date.to_zoned(zone.clone()).ok()?.timestamp());
    match on(today) {
        Some(instant) if instant >= started => Some(instant),
        _ => on(today.checked_add(1.day()).ok()?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_found_in_the_recording() {
        // 2026-11-22T23:30:00Z.
        let start = WallAnchor {
            mono: Mono(1_000),
            wall_ns: 1_795_390_200_000_000_000,
        };
        let minutes = |text: &str| {
            let moment: Moment = text.parse().unwrap();
            moment.of(start, &TimeZone::UTC).since(start.mono) / 60_000_000_000
        };
        assert_eq!(minutes("0"), 0);
        assert_eq!(minutes("90m"), 90);
        assert_eq!(minutes("+1h30m"), 90);
        assert_eq!(minutes("23:45"), 15);
        assert_eq!(minutes("23:45:59.5"), 15);
        // After midnight.
        assert_eq!(minutes("00:10:00"), 40);
        assert_eq!(minutes("2026-11-22T23:40:00Z"), 10);
        assert_eq!(minutes("2026-11-23T01:40:00+01:00"), 70);
        // Before it began, nothing is left out.
        assert_eq!(minutes("2026-11-22T00:00:00Z"), 0);
        for text in [
            "",
            "noon",
            "25:00",
            "2026-11-22",
            "-5s",
            "2026-11-22T10:00:00",
        ] {
            assert!(text.parse::<Moment>().is_err(), "{text}");
        }
    }
}

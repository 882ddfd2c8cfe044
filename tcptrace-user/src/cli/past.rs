//! The options of what reads recordings.

use std::path::PathBuf;

use clap::Args;
use tcptrace_core::report::timeline::Wanted;

use super::{Filters, Told};
use crate::examples;
use crate::moment::Moment;

/// Which part of a recording.
#[derive(Args, Clone, Debug)]
pub(crate) struct Excerpt {
    /// Begin here: 90s after the start, 02:41:00, or 2026-11-22T02:41:00Z
    #[arg(long, value_name = "T")]
    pub(crate) from: Option<Moment>,
    /// End here
    #[arg(long, value_name = "T")]
    pub(crate) to: Option<Moment>,
    /// Exit with 4 if anything is missing: of the recording, or of what it tells
    #[arg(long)]
    pub(crate) strict: bool,
}

/// Options of `replay`.
#[derive(Args, Debug)]
#[command(after_long_help = examples::REPLAY)]
pub(crate) struct Replay {
    /// Recordings: the files of one rotation replay as one; -: standard input
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// So many times as fast as it happened; max: at once
    #[arg(long, value_name = "X|max", default_value = "max", value_parser = parse_speed)]
    pub(crate) speed: Speed,
    /// Print what became of one connection: its ends, as in 10.0.0.5:41822-10.0.0.9:443, or its id
    #[arg(
        long,
        value_name = "TUPLE|ID",
        conflicts_with_all = ["transitions", "by", "state", "min_age", "timestamp", "wide"]
    )]
    pub(crate) conn: Option<Wanted>,
    /// Which part of it.
    #[command(flatten)]
    pub(crate) excerpt: Excerpt,
    /// How it is told.
    #[command(flatten)]
    pub(crate) told: Told,
    /// Which sockets.
    #[command(flatten)]
    pub(crate) filters: Filters,
}

/// How fast a recording is replayed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Speed {
    /// So many times as fast as it happened.
    Times(f64),
    /// As fast as it can be read.
    Max,
}

/// Reads `max`, `1`, `10x`, `0.5`.
fn parse_speed(text: &str) -> Result<Speed, String> {
    if text == "max" {
        return Ok(Speed::Max);
    }
    match text.trim_end_matches('x').parse() {
        Ok(times) if times > 0.0 && f64::is_finite(times) => Ok(Speed::Times(times)),
        _ => Err(format!("'{text}' is not a speed: write 1, 10x, 0.5 or max")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_factors() {
        assert_eq!(parse_speed("max"), Ok(Speed::Max));
        assert_eq!(parse_speed("10x"), Ok(Speed::Times(10.0)));
        assert_eq!(parse_speed("0.5"), Ok(Speed::Times(0.5)));
        for text in ["", "0", "-1", "x", "inf", "nan", "fast"] {
            assert!(parse_speed(text).is_err(), "{text}");
        }
    }
}

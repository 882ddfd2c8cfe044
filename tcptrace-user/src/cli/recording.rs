//! The options of `record` and `replay`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use tcptrace_core::report::timeline::Wanted;
use tcptrace_core::time::parse_duration;

use super::{Filters, Told, Tracing, bytes};
use crate::examples;
use crate::moment::Moment;

/// Options of `record`.
#[derive(Args, Debug)]
#[command(after_long_help = examples::RECORD)]
pub(crate) struct Record {
    /// The file to write; -: standard output [default: tcptrace-DATE-TIME.rec]
    #[arg(short = 'O', long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Overwrite the file if there is one
    #[arg(long)]
    pub(crate) force: bool,
    /// Stop after this time, as ^C does
    #[arg(short, long, value_name = "D", value_parser = parse_duration)]
    pub(crate) duration: Option<u64>,
    /// Begin another file at this size or after this time, as in 64M or 1h: FILE.00001, FILE.00002…
    #[arg(long, value_name = "SIZE|D", value_parser = parse_rotation)]
    pub(crate) rotate: Option<Rotation>,
    /// Keep so many of these files, and remove the oldest
    #[arg(
        long,
        value_name = "N",
        requires = "rotate",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub(crate) keep: Option<u32>,
    /// Record while this command runs, and only the sockets of its processes; it runs as who runs
    /// tcptrace
    #[arg(last = true, value_name = "COMMAND", conflicts_with_all = ["pid", "cgroup"])]
    pub(crate) command: Vec<OsString>,
    /// How it is traced.
    #[command(flatten)]
    pub(crate) tracing: Tracing,
    /// Which sockets.
    #[command(flatten)]
    pub(crate) filters: Filters,
}

/// When another file is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rotation {
    /// At so many bytes.
    Bytes(u64),
    /// After so many ns.
    Every(u64),
}

/// Options of `replay`.
#[derive(Args, Debug)]
#[command(after_long_help = examples::REPLAY)]
pub(crate) struct Replay {
    /// Recordings: the files of one rotation replay as one; -: standard input
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Begin here: 90s after the start, 02:41:00, or 2026-11-22T02:41:00Z
    #[arg(long, value_name = "T")]
    pub(crate) from: Option<Moment>,
    /// End here
    #[arg(long, value_name = "T")]
    pub(crate) to: Option<Moment>,
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
    /// Exit with 4 if anything is missing: of the recording, or of what it tells
    #[arg(long)]
    pub(crate) strict: bool,
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

/// Reads `64M` as a size and `1h` as a time; a plain number could be either.
fn parse_rotation(text: &str) -> Result<Rotation, String> {
    const LEAST_BYTES: u64 = 1 << 20;
    const LEAST_NS: u64 = 1_000_000_000;
    let plain = text.ends_with(|c: char| c.is_ascii_digit());
    let rotation = match (parse_duration(text), bytes(text)) {
        _ if plain => None,
        // `m` is a minute, `M` a mebibyte.
        (Ok(ns), _) => (ns >= LEAST_NS).then_some(Rotation::Every(ns)),
        (_, Some(bytes)) => (bytes >= LEAST_BYTES).then_some(Rotation::Bytes(bytes)),
        _ => None,
    };
    rotation.ok_or_else(|| {
        format!(
            "'{text}' is neither a size of 1M or more nor a time of 1s or more, as in 64M or 1h"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotations_are_sizes_or_times() {
        assert_eq!(parse_rotation("64M"), Ok(Rotation::Bytes(64 << 20)));
        assert_eq!(parse_rotation("1G"), Ok(Rotation::Bytes(1 << 30)));
        assert_eq!(parse_rotation("5m"), Ok(Rotation::Every(300_000_000_000)));
        assert_eq!(parse_rotation("1h"), Ok(Rotation::Every(3_600_000_000_000)));
        for text in ["", "64", "1K", "500ms", "0s", "M", "soon"] {
            assert!(parse_rotation(text).is_err(), "{text}");
        }
    }

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

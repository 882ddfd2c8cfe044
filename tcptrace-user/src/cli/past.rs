//! The options of what reads recordings.

use std::path::PathBuf;

use clap::Args;
use tcptrace_core::report::summary::Key;
use tcptrace_core::report::timeline::Wanted;
use tcptrace_core::state::StateSet;

use super::{Filters, Subject, Told};
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

/// Options of `report`.
#[derive(Args, Debug)]
#[command(after_long_help = examples::REPORT)]
pub(crate) struct Report {
    /// Show how long sockets were in these states [default: those that are shown]
    #[arg(long, value_name = "STATES")]
    pub(crate) hist: Vec<StateSet>,
    /// Group sockets by these: state, comm, pid, peer, port, container, cause
    #[arg(
        long,
        value_name = "KEYS",
        value_delimiter = ',',
        default_value = "comm,pid"
    )]
    pub(crate) by: Vec<Key>,
    /// Show so many groups
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) top: usize,
    /// Print a table of percentiles, too
    #[arg(long)]
    pub(crate) percentiles: bool,
    /// Print one JSON object
    #[arg(long, conflicts_with_all = ["html", "svg"])]
    pub(crate) json: bool,
    /// Write a page that shows the report in a browser, without any network; -: standard output
    #[arg(long, value_name = "OUT")]
    pub(crate) html: Option<PathBuf>,
    /// Write the page's charts as a picture; -: standard output
    #[arg(long, value_name = "OUT")]
    pub(crate) svg: Option<PathBuf>,
    /// Overwrite these files if there are any
    #[arg(long)]
    pub(crate) force: bool,
    /// Of what.
    #[command(flatten)]
    pub(crate) subject: Subject,
}

/// Options of `diff`.
#[derive(Args, Debug)]
#[command(after_long_help = examples::DIFF)]
pub(crate) struct Diff {
    /// The recording from before
    #[arg(value_name = "A")]
    pub(crate) before: PathBuf,
    /// The recording from after
    #[arg(value_name = "B")]
    pub(crate) after: PathBuf,
    /// Compare by these: comm, pid, peer, port, container
    #[arg(
        long,
        value_name = "KEYS",
        value_delimiter = ',',
        value_parser = parse_diff_key,
        default_value = "comm,peer"
    )]
    pub(crate) by: Vec<Key>,
    /// Show what has not grown, too
    #[arg(long)]
    pub(crate) all: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Exit with 4 if anything is missing: of a recording, or of what it tells
    #[arg(long)]
    pub(crate) strict: bool,
    /// Which sockets.
    #[command(flatten)]
    pub(crate) filters: Filters,
}

fn parse_diff_key(text: &str) -> Result<Key, String> {
    match text.parse() {
        Ok(Key::State) => Err("states are compared each for itself".to_owned()),
        Ok(Key::Cause) => Err("a socket that is still open has left for no cause".to_owned()),
        Ok(key) => Ok(key),
        Err(error) => Err(error.to_string()),
    }
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

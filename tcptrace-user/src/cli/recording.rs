//! The options of `record`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use tcptrace_core::condition::Condition;
use tcptrace_core::time::parse_duration;

use super::{Filters, Tracing, bytes};
use crate::examples;

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
    #[arg(long, value_name = "SIZE|D", value_parser = parse_rotation, group = "numbered")]
    pub(crate) rotate: Option<Rotation>,
    /// Write nothing yet, and hold what happens in so much memory, as in 64M; at --trigger and at
    /// SIGUSR1 it is written, to FILE.00001, FILE.00002…
    #[arg(
        long,
        value_name = "SIZE",
        value_parser = parse_ring,
        group = "numbered",
        conflicts_with = "force"
    )]
    pub(crate) ring: Option<usize>,
    /// Write what --ring holds when this comes to be true, as in 'close_wait > 500 or lost > 0'
    #[arg(long, value_name = "EXPR", requires = "ring")]
    pub(crate) trigger: Option<Condition>,
    /// Write so much of what was before [default: all that is held]
    #[arg(long, value_name = "D", requires = "ring", value_parser = parse_duration)]
    pub(crate) pre: Option<u64>,
    /// Go on writing for so long [default: 10s]
    #[arg(long, value_name = "D", requires = "ring", value_parser = parse_duration)]
    pub(crate) post: Option<u64>,
    /// Keep so many of these files, and remove the oldest
    #[arg(
        long,
        value_name = "N",
        requires = "numbered",
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

/// Reads `64M` as bytes of memory.
fn parse_ring(text: &str) -> Result<usize, String> {
    const LEAST: u64 = 4 << 20;
    let size = bytes(text).filter(|bytes| *bytes >= LEAST);
    size.and_then(|bytes| usize::try_from(bytes).ok())
        .ok_or_else(|| format!("'{text}' is not a size of 4M or more, as in 64M"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_have_a_size() {
        assert_eq!(parse_ring("64M"), Ok(64 << 20));
        assert_eq!(parse_ring("4194304"), Ok(4 << 20));
        for text in ["", "1M", "M", "5m s"] {
            assert!(parse_ring(text).is_err(), "{text}");
        }
    }

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
}

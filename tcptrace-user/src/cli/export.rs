//! The options of `export`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use tcptrace_core::time::parse_duration;

use super::{Excerpt, Filters};
use crate::examples;

/// Options of `export`.
#[derive(Args, Debug)]
#[command(after_long_help = examples::EXPORT)]
pub(crate) struct Export {
    /// What to write
    #[arg(value_name = "FORMAT")]
    pub(crate) format: Format,
    /// Recordings: the files of one rotation count as one; -: standard input
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// The file to write, or the directory of parquet's tables; -: standard output, the default
    #[arg(short = 'O', long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Overwrite what is there
    #[arg(long)]
    pub(crate) force: bool,
    /// Length of hlog's intervals, as in 1s, 1m [default: 1s]
    #[arg(long, value_name = "D", value_parser = parse_duration)]
    pub(crate) interval: Option<u64>,
    /// Which part of it.
    #[command(flatten)]
    pub(crate) excerpt: Excerpt,
    /// Which sockets.
    #[command(flatten)]
    pub(crate) filters: Filters,
}

/// What recordings are made into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// JSON lines, as `replay --transitions --json` prints them
    Jsonl,
    /// One row per transition
    Csv,
    /// HdrHistogram interval log: ns in each state
    Hlog,
    /// Trace for ui.perfetto.dev
    Perfetto,
    /// Two tables: connections and transitions
    Parquet,
    /// Packets that these transitions imply, for Wireshark: all are synthetic
    Pcapng,
}

impl Format {
    /// The name that is typed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Format::Jsonl => "jsonl",
            Format::Csv => "csv",
            Format::Hlog => "hlog",
            Format::Perfetto => "perfetto",
            Format::Parquet => "parquet",
            Format::Pcapng => "pcapng",
        }
    }
}

//! The options of what tells of a recording, or of this machine.

use std::path::PathBuf;

use clap::Args;
use tcptrace_core::time::parse_duration;

use super::{Excerpt, Filters, Tracing};

/// What a report is of.
#[derive(Args, Debug)]
pub(crate) struct Subject {
    /// Recordings: the files of one rotation are one; -: standard input. None, or `live`: this
    /// machine, until ^C
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Which part of the recording.
    #[command(flatten)]
    pub(crate) excerpt: Excerpt,
    /// Live: stop after this time, as ^C does
    #[arg(short, long, value_name = "D", value_parser = parse_duration)]
    pub(crate) duration: Option<u64>,
    /// Live: record to this file at the same time, for `tcptrace replay`
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
    /// How it is traced, live.
    #[command(flatten)]
    pub(crate) tracing: Tracing,
    /// Which sockets.
    #[command(flatten)]
    pub(crate) filters: Filters,
}

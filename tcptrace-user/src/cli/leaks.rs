//! The options of `leaks`.

use std::path::PathBuf;

use clap::Args;
use tcptrace_core::report::leaks::By;
use tcptrace_core::time::parse_duration;

use super::{Excerpt, Filters, Tracing};
use crate::examples;

/// Options of `leaks`.
#[derive(Args, Debug)]
#[command(after_long_help = examples::LEAKS)]
pub(crate) struct Leaks {
    /// Recordings: the files of one rotation are one; -: standard input. None, or `live`: this
    /// machine, until ^C
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Group sockets by this: stack, pid, peer, container
    #[arg(long, value_name = "KEY", default_value_t = By::Stack)]
    pub(crate) by: By,
    /// Show so many groups
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) top: usize,
    /// Show only groups that grow
    #[arg(long)]
    pub(crate) growing: bool,
    /// Show every frame of a stack, as -v does
    #[arg(long)]
    pub(crate) full_stacks: bool,
    /// Print one JSON object
    #[arg(long, conflicts_with_all = ["folded", "flamegraph", "pprof"])]
    pub(crate) json: bool,
    /// Print a line per stack, the outermost frame first, as programs for flame graphs take it
    #[arg(long, conflicts_with_all = ["flamegraph", "pprof"])]
    pub(crate) folded: bool,
    /// Write a flame graph of where the sockets were acquired; -: standard output
    #[arg(long, value_name = "OUT")]
    pub(crate) flamegraph: Option<PathBuf>,
    /// Write the same as a profile for pprof; -: standard output
    #[arg(long, value_name = "OUT")]
    pub(crate) pprof: Option<PathBuf>,
    /// Overwrite these files if there are any
    #[arg(long)]
    pub(crate) force: bool,
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

//! The options of `leaks`.

use std::path::PathBuf;

use clap::Args;
use tcptrace_core::report::leaks::By;

use super::Subject;
use crate::examples;

/// Options of `leaks`.
#[derive(Args, Debug)]
#[command(after_long_help = examples::LEAKS)]
pub(crate) struct Leaks {
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
    /// Of what.
    #[command(flatten)]
    pub(crate) subject: Subject,
}

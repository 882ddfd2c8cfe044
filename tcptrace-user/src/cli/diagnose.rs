//! The options of `diagnose`.

use std::path::PathBuf;

use clap::Args;
use tcptrace_core::diagnose::FailOn;

use super::Subject;
use crate::examples;

/// Options of `diagnose`.
#[derive(Args, Debug)]
#[command(after_long_help = examples::DIAGNOSE)]
pub(crate) struct Diagnose {
    /// Read this recording, as if it were given without -I
    #[arg(short = 'I', long, value_name = "FILE", conflicts_with = "files")]
    pub(crate) input: Option<PathBuf>,
    /// Exit with 10 if this is found: a severity and what is graver, as warning; findings by name, as
    /// close_wait_client,fd_limit; or a condition, as 'close_wait > 500'
    #[arg(long, value_name = "EXPR")]
    pub(crate) fail_on: Option<FailOn>,
    /// Show so many findings, the gravest first
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) top: usize,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Overwrite the file of --record if there is one
    #[arg(long)]
    pub(crate) force: bool,
    /// What it is of.
    #[command(flatten)]
    pub(crate) subject: Subject,
}

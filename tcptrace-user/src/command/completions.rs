//! `tcptrace completions`.

use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::{Shell, generate};

use crate::cli::Cli;

/// Prints the completion script of a shell.
pub(crate) fn run(shell: Shell) -> anyhow::Result<ExitCode> {
    // Into memory first: `generate` panics where it cannot write.
    let mut script = Vec::new();
    generate(shell, &mut Cli::command(), "tcptrace", &mut script);
    super::print(&script)?;
    Ok(ExitCode::SUCCESS)
}

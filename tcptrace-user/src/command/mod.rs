//! The commands: each wires options, sources and printers together.

mod collect;
mod completions;
mod diagnose;
mod diff;
mod doctor;
mod document;
mod explain;
mod export;
mod kill;
mod leaks;
mod man;
mod now;
mod page;
mod play;
mod record;
mod replay;
mod report;
mod running;
mod snapshot;
mod trace;
mod watch;

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context as _;
use trace::WRITE;

use crate::cli::{Cli, Command};
use crate::error::{EXIT_INCOMPLETE, Usage};
use crate::kernel::plan::PlanOptions;
use crate::options::{self, Terminal};

/// Runs what was typed.
pub(crate) fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let terminal = Terminal::of(&cli.global);
    match cli.command {
        Command::Diagnose(typed) => diagnose::run(&options::Diagnose::resolve(typed, terminal)?),
        Command::Watch(typed) => watch::run(&options::Watch::resolve(typed, terminal)?),
        Command::Record(typed) => record::run(&options::Record::resolve(typed, terminal)?),
        Command::Replay(typed) => replay::run(&options::Replay::resolve(typed, terminal)?),
        Command::Report(typed) => report::run(&options::Report::resolve(typed, terminal)?),
        Command::Leaks(typed) => leaks::run(&options::Leaks::resolve(typed, terminal)?),
        Command::Diff(typed) => diff::run(&options::Diff::resolve(typed, terminal)?),
        Command::Export(typed) => export::run(&options::Export::resolve(typed, terminal)?),
        Command::Snapshot(typed) => snapshot::run(&options::Snapshot::resolve(typed, terminal)?),
        Command::Kill(typed) => kill::run(&options::Kill::resolve(typed, terminal)?),
        Command::Doctor(typed) => doctor::run(&options::Doctor::resolve(typed, terminal)),
        Command::Explain(typed) => explain::run(&options::Explain::resolve(typed, terminal)),
        Command::Completions { shell } => completions::run(shell),
        Command::Man { verb } => man::run(verb.as_deref()),
    }
}

/// Writes a document to standard output, to its last byte.
fn print(document: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(document)?;
    out.flush()
}

/// Prints one object as a line of JSON.
fn print_json(object: &impl serde::Serialize) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(object)?;
    line.push(b'\n');
    print(&line).context(WRITE)
}

/// How what reads recordings ends: `strict` wants them complete.
fn verdict(strict: bool, complete: bool) -> ExitCode {
    match strict && !complete {
        true => ExitCode::from(EXIT_INCOMPLETE),
        false => ExitCode::SUCCESS,
    }
}

/// What `--hooks` asks of the plan.
fn plan_options(hooks: &[String]) -> Result<PlanOptions, Usage> {
    let hint = "`tcptrace doctor` lists what this kernel offers";
    PlanOptions::parse(hooks.iter().map(String::as_str))
        .map_err(|e| Usage::new(e.to_string(), hint))
}

//! Options of `export`.

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use tcptrace_core::state::StateSet;

use super::past::files;
use super::recording::one_file;
use super::{Excerpt, Question, Terminal, states};
use crate::cli::{self, Format};
use crate::error::Usage;
use crate::recorder::Place;

/// Length of an interval, unless told otherwise: the finest that is of use, since intervals in which
/// nothing ended take no room, and whoever reads them adds up as many as they like.
const INTERVAL_NS: u64 = 1_000_000_000;

/// The shortest interval: times in an interval log have three decimals.
const LEAST_INTERVAL_NS: u64 = 1_000_000;

/// Options of `export`.
#[derive(Clone, Debug)]
pub(crate) struct Export {
    /// What to write.
    pub(crate) format: Format,
    /// `-`: standard input.
    pub(crate) files: Vec<PathBuf>,
    /// Where to; of parquet, the directory of the tables.
    pub(crate) place: Place,
    /// Which part of the recording.
    pub(crate) excerpt: Excerpt,
    /// Of which sockets.
    pub(crate) question: Question,
    /// States that were asked for; empty: all.
    pub(crate) states: StateSet,
    /// Length of hlog's intervals.
    pub(crate) interval_ns: u64,
    /// Where notices go.
    pub(crate) terminal: Terminal,
}

impl Export {
    /// Resolves what was typed. This machine is not asked: it need not be the one that recorded.
    pub(crate) fn resolve(typed: cli::Export, terminal: Terminal) -> anyhow::Result<Export> {
        let format = typed.format;
        fits(format, &typed)?;
        let path = typed.output.unwrap_or_else(|| PathBuf::from("-"));
        check_place(format, &path)?;
        Ok(Export {
            format,
            files: files(typed.files)?,
            place: one_file(path, typed.force),
            excerpt: Excerpt::resolve(typed.excerpt),
            states: states(&typed.filters.state),
            question: Question::resolve(typed.filters, true, Vec::new())?,
            interval_ns: typed.interval.unwrap_or(INTERVAL_NS),
            terminal,
        })
    }
}

/// Whether the format can do what was asked of it.
fn fits(format: Format, typed: &cli::Export) -> Result<(), Usage> {
    let name = format.name();
    if format == Format::Parquet && !cfg!(feature = "parquet") {
        return Err(Usage::new(
            "this tcptrace was built without parquet",
            "build it with `cargo build --release --features parquet`, as `cargo xtask run` does",
        ));
    }
    match typed.interval {
        Some(_) if format != Format::Hlog => {
            return Err(Usage::new(
                format!("--interval is of hlog, and {name} has none"),
                "leave it away",
            ));
        }
        Some(ns) if ns < LEAST_INTERVAL_NS => {
            return Err(Usage::new(
                "--interval is less than 1ms",
                "times in an interval log have three decimals: take 1ms or more",
            ));
        }
        _ => {}
    }
    let whole = matches!(format, Format::Perfetto | Format::Parquet | Format::Pcapng);
    if whole && !typed.filters.state.is_empty() {
        return Err(Usage::new(
            format!("{name} shows connections from their beginning to their end, in all states"),
            "leave --state away; jsonl, csv and hlog take it",
        ));
    }
    if format != Format::Jsonl && typed.filters.min_age.is_some() {
        return Err(Usage::new(
            format!("--min-age says when a socket is stuck, and {name} does not tell that"),
            "leave --min-age away; jsonl takes it",
        ));
    }
    Ok(())
}

fn check_place(format: Format, path: &Path) -> Result<(), Usage> {
    let stdout = path == Path::new("-");
    match format {
        Format::Parquet if stdout => Err(Usage::new(
            "parquet is two tables",
            "give a directory for them with -O",
        )),
        Format::Perfetto | Format::Pcapng if stdout && io::stdout().is_terminal() => {
            Err(Usage::new(
                format!("{} is not for a terminal", format.name()),
                "give a file with -O, or pipe it on",
            ))
        }
        _ => Ok(()),
    }
}

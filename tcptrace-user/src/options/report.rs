//! Options of `report` and `diff`.

use std::path::{Path, PathBuf};

use tcptrace_core::state::StateSet;

use super::past::{Excerpt, Question, files};
use super::recording::one_file;
use super::{Terminal, Trace, WATCH_MIN_AGE_NS, dwelt_in, filter, nothing_lingers, shown, states};
use crate::cli;
use crate::error::Usage;
use crate::recorder::Place;

/// Options of `report`.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    /// Of what.
    pub(crate) source: Source,
    /// The states whose stays are shown; empty: all that are followed.
    pub(crate) hist: StateSet,
    /// Groups that are shown.
    pub(crate) top: usize,
    /// With a table of percentiles.
    pub(crate) percentiles: bool,
    /// One JSON object.
    pub(crate) json: bool,
    /// A page for a browser.
    pub(crate) html: Option<Place>,
    /// A picture.
    pub(crate) svg: Option<Place>,
    /// What is missing is a failure.
    pub(crate) strict: bool,
    /// Where the output goes.
    pub(crate) terminal: Terminal,
}

/// Where a report's inputs come from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// From files.
    Files {
        /// `-`: standard input.
        files: Vec<PathBuf>,
        /// Which part of them.
        excerpt: Excerpt,
        /// What is asked.
        question: Box<Question>,
    },
    /// From this machine.
    Live {
        /// What is traced.
        trace: Box<Trace>,
        /// Where it is recorded as well.
        record: Option<Place>,
    },
}

impl Report {
    /// Resolves what was typed.
    pub(crate) fn resolve(typed: cli::Report, terminal: Terminal) -> anyhow::Result<Report> {
        if typed.filters.min_age.is_some() {
            return Err(Usage::new(
                "a report counts every stay, however short",
                "leave --min-age away; `watch` and `replay` have it",
            )
            .into());
        }
        let place = |path: PathBuf| one_file(path, typed.force);
        let both = typed.html.as_ref().is_some_and(|out| out == Path::new("-"))
            && typed.svg.as_ref().is_some_and(|out| out == Path::new("-"));
        if both {
            return Err(Usage::new(
                "two documents do not go to one standard output",
                "give a file to --html or --svg",
            )
            .into());
        }
        let hist = dwelt_in(states(&typed.hist));
        if !typed.hist.is_empty() && hist.is_empty() {
            return Err(nothing_lingers(states(&typed.hist)).into());
        }
        Ok(Report {
            hist,
            top: typed.top,
            percentiles: typed.percentiles,
            json: typed.json,
            html: typed.html.clone().map(place),
            svg: typed.svg.clone().map(place),
            strict: typed.excerpt.strict,
            terminal,
            source: match is_live(&typed.files) {
                true => live(typed, hist, terminal)?,
                false => recorded(typed, hist)?,
            },
        })
    }
}

/// Refuses options that make sense live only.
pub(super) fn check_recorded(
    duration: Option<u64>,
    record: Option<&Path>,
    tracing: &cli::Tracing,
) -> Result<(), Usage> {
    let live_only = [
        ("--duration", duration.is_some()),
        ("--record", record.is_some()),
        ("--ring-size", tracing.ring_size.is_some()),
        ("--hooks", !tracing.hooks.is_empty()),
        ("--interval", tracing.interval.is_some()),
        ("--btf", tracing.btf.is_some()),
        ("--stacks", tracing.stacks.is_some()),
    ];
    match live_only.into_iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((option, _)) => Err(Usage::new(
            format!("{option} is for a live report, and this one is of a recording"),
            format!("leave {option} away, or the files"),
        )),
    }
}

/// Refuses options that make sense for a recording only.
pub(super) fn check_live(excerpt: &cli::Excerpt) -> Result<(), Usage> {
    let recorded_only = [
        ("--from", excerpt.from.is_some()),
        ("--to", excerpt.to.is_some()),
    ];
    match recorded_only.into_iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((option, _)) => Err(Usage::new(
            format!("{option} is for a report of a recording, and this one is live"),
            "give a recording, or -d",
        )),
    }
}

/// Whether this machine was asked for.
pub(super) fn is_live(files: &[PathBuf]) -> bool {
    files.is_empty() || files == [Path::new("live")]
}

fn recorded(typed: cli::Report, hist: StateSet) -> Result<Source, Usage> {
    check_recorded(typed.duration, typed.record.as_deref(), &typed.tracing)?;
    Ok(Source::Files {
        files: files(typed.files)?,
        excerpt: Excerpt::resolve(typed.excerpt),
        question: Box::new(Question::resolve(typed.filters, false, typed.by)?.with(hist)),
    })
}

fn live(typed: cli::Report, hist: StateSet, terminal: Terminal) -> anyhow::Result<Source> {
    check_live(&typed.excerpt)?;
    let asked = states(&typed.filters.state);
    let mut filter = filter(typed.filters, WATCH_MIN_AGE_NS)?;
    filter.states = shown(asked).union(hist);
    if filter.states.is_empty() {
        return Err(nothing_lingers(asked).into());
    }
    let begun = format!("tracing {} for a report", filter.states);
    let stacks = typed.tracing.stacks;
    let trace = Trace {
        by: typed.by,
        ..Trace::new(begun, terminal, filter, typed.duration, typed.tracing)?
    };
    Ok(Source::Live {
        trace: Box::new(match stacks.is_some() {
            true => trace.with_stacks(stacks),
            false => trace,
        }),
        record: typed.record.map(|path| one_file(path, false)),
    })
}

/// Options of `diff`.
#[derive(Clone, Debug)]
pub(crate) struct Diff {
    /// The recording from before, and the one from after.
    pub(crate) files: [PathBuf; 2],
    /// All of them.
    pub(crate) excerpt: Excerpt,
    /// What is asked of both.
    pub(crate) question: Question,
    /// What has not grown is shown, too.
    pub(crate) all: bool,
    /// One JSON object.
    pub(crate) json: bool,
    /// Where the output goes.
    pub(crate) terminal: Terminal,
}

impl Diff {
    /// Resolves what was typed.
    pub(crate) fn resolve(typed: cli::Diff, terminal: Terminal) -> anyhow::Result<Diff> {
        if typed.before == typed.after {
            return Err(Usage::new(
                "a recording does not differ from itself",
                "give two recordings; `tcptrace report` tells of one",
            )
            .into());
        }
        Ok(Diff {
            files: [typed.before, typed.after],
            excerpt: Excerpt::whole(typed.strict),
            question: Question::resolve(typed.filters, false, typed.by)?,
            all: typed.all,
            json: typed.json,
            terminal,
        })
    }
}

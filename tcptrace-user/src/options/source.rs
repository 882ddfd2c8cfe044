//! What a report is of: a recording, or this machine.

use std::path::{Path, PathBuf};

use tcptrace_core::report::summary::Key;
use tcptrace_core::state::StateSet;

use super::past::{Excerpt, Question, files};
use super::recording::one_file;
use super::{Terminal, Trace, WATCH_MIN_AGE_NS, filter, nothing_lingers, shown, states};
use crate::cli;
use crate::error::Usage;
use crate::recorder::Place;

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

/// What a report wants of its inputs, besides what was typed.
pub(super) struct Wants {
    /// What it is about when everything is attached: `tracing CLOSE_WAIT for a report`.
    pub(super) begun: fn(StateSet) -> String,
    /// Keys of the summary's groups.
    pub(super) by: Vec<Key>,
    /// States that are looked at besides those that are shown.
    pub(super) also: StateSet,
    /// All states, as far as a recording holds them, unless some were asked for.
    pub(super) every_state: bool,
    /// States whose transitions are told, as far as a recording holds them.
    pub(super) told: StateSet,
    /// Settings of namespaces and what processes do are looked at.
    pub(super) survey: bool,
    /// Stacks are taken, unless none are wanted.
    pub(super) stacks: bool,
    /// It is asked what became of the connections of each stack.
    pub(super) ledgers: bool,
    /// A recording is overwritten.
    pub(super) force: bool,
}

impl Source {
    /// Whether it is this machine.
    pub(super) fn is_live(typed: &cli::Subject) -> bool {
        typed.files.is_empty() || typed.files == [Path::new("live")]
    }

    /// Resolves what was typed.
    pub(super) fn resolve(
        typed: cli::Subject,
        wants: Wants,
        terminal: Terminal,
    ) -> anyhow::Result<Source> {
        match Source::is_live(&typed) {
            true => live(typed, wants, terminal),
            false => Ok(recorded(typed, wants)?),
        }
    }
}

fn recorded(typed: cli::Subject, wants: Wants) -> Result<Source, Usage> {
    check_recorded(&typed)?;
    let question = Question::resolve(typed.filters, false, wants.by)?;
    Ok(Source::Files {
        files: files(typed.files)?,
        excerpt: Excerpt::resolve(typed.excerpt),
        question: Box::new(
            question
                .with(wants.also, wants.ledgers)
                .within_held(wants.every_state, wants.told),
        ),
    })
}

fn live(typed: cli::Subject, wants: Wants, terminal: Terminal) -> anyhow::Result<Source> {
    check_live(&typed.excerpt)?;
    let asked = match wants.every_state {
        true => StateSet::all(),
        false => states(&typed.filters.state),
    };
    let mut filter = filter(typed.filters, WATCH_MIN_AGE_NS)?;
    filter.states = shown(asked).union(wants.also);
    if filter.states.is_empty() {
        return Err(nothing_lingers(asked).into());
    }
    let begun = (wants.begun)(filter.states);
    let stacks = typed.tracing.stacks;
    let trace = Trace {
        by: wants.by,
        transitions: wants.told,
        states: filter.states.union(wants.told),
        survey: wants.survey,
        ledgers: wants.ledgers,
        ..Trace::new(begun, terminal, filter, typed.duration, typed.tracing)?
    };
    Ok(Source::Live {
        trace: Box::new(match wants.stacks || stacks.is_some() {
            true => trace.with_stacks(stacks),
            false => trace,
        }),
        record: typed.record.map(|path| one_file(path, wants.force)),
    })
}

/// Refuses options that make sense live only.
fn check_recorded(typed: &cli::Subject) -> Result<(), Usage> {
    let tracing = &typed.tracing;
    let live_only = [
        ("--duration", typed.duration.is_some()),
        ("--record", typed.record.is_some()),
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
fn check_live(excerpt: &cli::Excerpt) -> Result<(), Usage> {
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

//! Options of `leaks`.

use std::path::{Path, PathBuf};

use tcptrace_core::report::leaks;
use tcptrace_core::state::{StateSet, TcpState};

use super::past::{Excerpt, Question, files};
use super::recording::one_file;
use super::report::{Source, check_live, check_recorded, is_live};
use super::{Terminal, Trace, WATCH_MIN_AGE_NS, filter, nothing_lingers, shown, states};
use crate::cli;
use crate::error::Usage;
use crate::recorder::Place;

/// Options of `leaks`.
#[derive(Clone, Debug)]
pub(crate) struct Leaks {
    /// Of what.
    pub(crate) source: Source,
    /// How sockets are grouped, and which count.
    pub(crate) question: leaks::Question,
    /// Groups that are shown.
    pub(crate) top: usize,
    /// Only groups that grow.
    pub(crate) growing: bool,
    /// Every frame of a stack.
    pub(crate) full_stacks: bool,
    /// One JSON object.
    pub(crate) json: bool,
    /// Lines of stacks.
    pub(crate) folded: bool,
    /// A picture.
    pub(crate) flamegraph: Option<Place>,
    /// A profile.
    pub(crate) pprof: Option<Place>,
    /// What is missing is a failure.
    pub(crate) strict: bool,
    /// Where the output goes.
    pub(crate) terminal: Terminal,
}

impl Leaks {
    /// Resolves what was typed.
    pub(crate) fn resolve(mut typed: cli::Leaks, terminal: Terminal) -> anyhow::Result<Leaks> {
        if states(&typed.filters.state).is_empty() {
            typed.filters.state = vec![StateSet::of(&[TcpState::CloseWait])];
        }
        let to_stdout = |out: &Option<PathBuf>| out.as_deref() == Some(Path::new("-"));
        if to_stdout(&typed.flamegraph) && to_stdout(&typed.pprof) {
            return Err(Usage::new(
                "two documents do not go to one standard output",
                "give a file to --flamegraph or --pprof",
            )
            .into());
        }
        let place = |path: PathBuf| one_file(path, typed.force);
        let min_age_ns = *typed.filters.min_age.get_or_insert(WATCH_MIN_AGE_NS);
        Ok(Leaks {
            question: leaks::Question {
                by: typed.by,
                min_age_ns,
            },
            top: typed.top,
            growing: typed.growing,
            full_stacks: typed.full_stacks || terminal.verbose > 0,
            json: typed.json,
            folded: typed.folded,
            flamegraph: typed.flamegraph.clone().map(place),
            pprof: typed.pprof.clone().map(place),
            strict: typed.excerpt.strict,
            terminal,
            source: match is_live(&typed.files) {
                true => live(typed, terminal)?,
                false => recorded(typed)?,
            },
        })
    }
}

fn recorded(typed: cli::Leaks) -> anyhow::Result<Source> {
    check_recorded(typed.duration, typed.record.as_deref(), &typed.tracing)?;
    Ok(Source::Files {
        files: files(typed.files)?,
        excerpt: Excerpt::resolve(typed.excerpt),
        question: Box::new(Question::resolve(typed.filters, false, Vec::new())?),
    })
}

fn live(typed: cli::Leaks, terminal: Terminal) -> anyhow::Result<Source> {
    check_live(&typed.excerpt)?;
    let asked = states(&typed.filters.state);
    let mut filter = filter(typed.filters, WATCH_MIN_AGE_NS)?;
    filter.states = shown(asked);
    if filter.states.is_empty() {
        return Err(nothing_lingers(asked).into());
    }
    let begun = format!("looking for leaks in {}", filter.states);
    let stacks = typed.tracing.stacks;
    let trace = Trace::new(begun, terminal, filter, typed.duration, typed.tracing)?;
    Ok(Source::Live {
        trace: Box::new(trace.with_stacks(stacks)),
        record: typed.record.map(|path| one_file(path, typed.force)),
    })
}

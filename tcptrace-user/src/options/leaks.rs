//! Options of `leaks`.

use std::path::{Path, PathBuf};

use tcptrace_core::report::leaks;
use tcptrace_core::state::{StateSet, TcpState};

use super::recording::one_file;
use super::source::{Source, Wants};
use super::{Terminal, WATCH_MIN_AGE_NS, states};
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
        let filters = &mut typed.subject.filters;
        let min_age_ns = *filters.min_age.get_or_insert(WATCH_MIN_AGE_NS);
        if states(&filters.state).is_empty() {
            filters.state = vec![StateSet::of(&[TcpState::CloseWait])];
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
        let wants = Wants {
            begun: |states| format!("looking for leaks in {states}"),
            by: Vec::new(),
            also: StateSet::EMPTY,
            every_state: false,
            told: StateSet::EMPTY,
            survey: false,
            stacks: true,
            ledgers: true,
            force: typed.force,
        };
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
            flamegraph: typed.flamegraph.map(place),
            pprof: typed.pprof.map(place),
            strict: typed.subject.excerpt.strict,
            terminal,
            source: Source::resolve(typed.subject, wants, terminal)?,
        })
    }
}

//! Options of `diagnose`.

use tcptrace_core::diagnose::{FailOn, Tally};
use tcptrace_core::state::StateSet;

use super::source::{Source, Wants};
use super::{Terminal, WATCH_MIN_AGE_NS, states};
use crate::cli;

/// How long this machine is watched, unless told otherwise.
const DURATION_NS: u64 = 10_000_000_000;

/// A socket that is closed sooner than this is not stuck, unless told otherwise.
const MIN_AGE_NS: u64 = 5_000_000_000;

/// Options of `diagnose`.
#[derive(Clone, Debug)]
pub(crate) struct Diagnose {
    /// Of what.
    pub(crate) source: Source,
    /// A socket counts as stuck after this.
    pub(crate) min_age_ns: u64,
    /// What makes it a failure.
    pub(crate) fail_on: Option<FailOn>,
    /// Findings that are shown.
    pub(crate) top: usize,
    /// One JSON object.
    pub(crate) json: bool,
    /// What is missing is a failure.
    pub(crate) strict: bool,
    /// Where the output goes.
    pub(crate) terminal: Terminal,
}

impl Diagnose {
    /// Resolves what was typed.
    pub(crate) fn resolve(
        mut typed: cli::Diagnose,
        terminal: Terminal,
    ) -> anyhow::Result<Diagnose> {
        let subject = &mut typed.subject;
        subject.files.extend(typed.input);
        if Source::is_live(subject) {
            subject.duration.get_or_insert(DURATION_NS);
        }
        let min_age_ns = subject.filters.min_age.unwrap_or(MIN_AGE_NS);
        // Whose a socket is has to be known before it counts.
        subject.filters.min_age = Some(min_age_ns.min(WATCH_MIN_AGE_NS));
        let wants = Wants {
            begun: |_| "looking for what is wrong".to_owned(),
            by: Vec::new(),
            also: StateSet::EMPTY,
            every_state: states(&subject.filters.state).is_empty(),
            told: Tally::told(),
            survey: true,
            stacks: true,
            ledgers: true,
            force: typed.force,
        };
        Ok(Diagnose {
            min_age_ns,
            fail_on: typed.fail_on,
            top: typed.top,
            json: typed.json,
            strict: typed.subject.excerpt.strict,
            terminal,
            source: Source::resolve(typed.subject, wants, terminal)?,
        })
    }
}

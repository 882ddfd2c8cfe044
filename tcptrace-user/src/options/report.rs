//! Options of `report` and `diff`.

use std::path::{Path, PathBuf};

use tcptrace_core::state::StateSet;

use super::past::{Excerpt, Question};
use super::recording::one_file;
use super::source::{Source, Wants};
use super::{Terminal, dwelt_in, nothing_lingers, states};
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

impl Report {
    /// Resolves what was typed.
    pub(crate) fn resolve(typed: cli::Report, terminal: Terminal) -> anyhow::Result<Report> {
        if typed.subject.filters.min_age.is_some() {
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
        let wants = Wants {
            begun: |states| format!("tracing {states} for a report"),
            by: typed.by,
            also: hist,
            every_state: false,
            told: StateSet::EMPTY,
            survey: false,
            stacks: false,
            ledgers: false,
            force: typed.force,
        };
        Ok(Report {
            hist,
            top: typed.top,
            percentiles: typed.percentiles,
            json: typed.json,
            html: typed.html.map(place),
            svg: typed.svg.map(place),
            strict: typed.subject.excerpt.strict,
            terminal,
            source: Source::resolve(typed.subject, wants, terminal)?,
        })
    }
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

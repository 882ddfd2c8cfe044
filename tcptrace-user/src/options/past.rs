//! Options of what reads recordings: what is asked of them.

use std::path::{Path, PathBuf};

use tcptrace_core::filter::Filter;
use tcptrace_core::recording::Capture;
use tcptrace_core::report::summary::Key;
use tcptrace_core::report::timeline::Wanted;
use tcptrace_core::state::StateSet;
use tcptrace_core::tracker::{self, Minisockets};

use super::{Look, Terminal, dwelt_in, filter_elsewhere, nothing_lingers, states, transitions};
use crate::cli;
use crate::error::Usage;
use crate::moment::Moment;
use crate::source::start;

/// Which part of a recording, and how fast.
#[derive(Clone, Debug)]
pub(crate) struct Excerpt {
    /// Begin here.
    pub(crate) from: Option<Moment>,
    /// End here.
    pub(crate) to: Option<Moment>,
    /// The time zone in which times of day are.
    pub(crate) zone: jiff::tz::TimeZone,
    /// How many times as fast as it happened; `None`: as fast as can be.
    pub(crate) speed: Option<f64>,
    /// What is missing is a failure.
    pub(crate) strict: bool,
}

impl Excerpt {
    pub(super) fn resolve(typed: cli::Excerpt) -> Excerpt {
        Excerpt {
            from: typed.from,
            to: typed.to,
            zone: jiff::tz::TimeZone::system(),
            speed: None,
            strict: typed.strict,
        }
    }

    /// All of it.
    pub(super) fn whole(strict: bool) -> Excerpt {
        Excerpt::resolve(cli::Excerpt {
            from: None,
            to: None,
            strict,
        })
    }
}

/// What is asked of a recording.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    /// States that were asked for; empty: those that were shown when it was recorded.
    asked: StateSet,
    /// States that are wanted besides.
    also: StateSet,
    /// All states that the recording holds.
    every_state: bool,
    /// States whose transitions are told besides, as far as the recording holds them.
    told: StateSet,
    /// Which sockets, whatever their state.
    filter: Filter,
    /// The least age that was asked for, ns; `None`: that of the recording.
    min_age_ns: Option<u64>,
    /// Transitions were asked for.
    transitions: bool,
    /// Keys of the summary's groups.
    by: Vec<Key>,
    /// It is asked what became of the connections of each stack.
    ledgers: bool,
}

impl Question {
    pub(super) fn resolve(
        filters: cli::Filters,
        transitions: bool,
        by: Vec<Key>,
    ) -> Result<Question, Usage> {
        Ok(Question {
            asked: states(&filters.state),
            also: StateSet::EMPTY,
            every_state: false,
            told: StateSet::EMPTY,
            min_age_ns: filters.min_age,
            filter: filter_elsewhere(filters)?,
            transitions,
            by,
            ledgers: false,
        })
    }

    /// The same, with stays in these states, too; and `ledgers`, if they are asked for.
    pub(super) fn with(self, also: StateSet, ledgers: bool) -> Question {
        Question {
            also,
            ledgers,
            ..self
        }
    }

    /// The same, with all states, and with transitions of `told`, as far as the recording holds them.
    pub(super) fn within_held(self, every_state: bool, told: StateSet) -> Question {
        Question {
            every_state,
            told,
            ..self
        }
    }

    /// As a live run with these options would have it.
    ///
    /// # Errors
    /// If states were asked for that the recording does not hold.
    pub(crate) fn tracker(&self, capture: &Capture) -> Result<tracker::Options, Usage> {
        let (states, transitions) = self.states(capture)?;
        Ok(tracker::Options {
            filter: Filter {
                states,
                min_age_ns: self.min_age_ns.unwrap_or(capture.min_age_ns),
                ..self.filter_within(capture)
            },
            transitions,
            by: self.by.clone(),
            ledgers: self.ledgers,
            minisockets: match start::watches_minisockets(states.union(transitions)) {
                true => capture.minisockets,
                false => Minisockets::Ignored,
            },
            ..all_of(capture)
        })
    }

    /// Every transition, and nothing that is stuck.
    pub(crate) fn one_life(&self, capture: &Capture) -> tracker::Options {
        tracker::Options {
            filter: Filter {
                states: StateSet::EMPTY,
                ..self.filter_within(capture)
            },
            ..all_of(capture)
        }
    }

    /// Transitions, and nothing that is stuck.
    ///
    /// # Errors
    /// If states were asked for that the recording does not hold.
    pub(crate) fn transitions(&self, capture: &Capture) -> Result<tracker::Options, Usage> {
        let (_, transitions) = self.states(capture)?;
        Ok(tracker::Options {
            transitions,
            ..self.one_life(capture)
        })
    }

    /// Not more than was recorded: of other sockets there are parts only.
    fn filter_within(&self, capture: &Capture) -> Filter {
        let within = Some(&capture.within).filter(|within| **within != Filter::default());
        Filter {
            within: within.cloned().map(Box::new),
            ..self.filter.clone()
        }
    }

    /// What of the recording is shown: the states, and the transitions.
    fn states(&self, capture: &Capture) -> Result<(StateSet, StateSet), Usage> {
        let held = capture.states;
        let mut wanted = dwelt_in(self.asked).union(dwelt_in(self.also));
        if self.transitions {
            wanted = wanted.union(self.asked);
        }
        let missing = wanted.iter().filter(|s| !held.contains(*s));
        let missing = missing.fold(StateSet::EMPTY, StateSet::with);
        if !missing.is_empty() {
            return Err(Usage::new(
                format!("the recording does not hold {missing}"),
                format!("it was taken of {held} only; `tcptrace record` without --state takes all"),
            ));
        }
        let shown = match self.asked.is_empty() {
            true if self.every_state => dwelt_in(held),
            true => capture.shown,
            false => dwelt_in(self.asked),
        };
        let shown = shown.union(dwelt_in(self.also));
        let told = transitions(self.transitions, self.asked).union(self.told);
        let transitions = both(told, held);
        match shown.is_empty() && transitions.is_empty() {
            true => Err(nothing_lingers(self.asked.union(held))),
            false => Ok((shown, transitions)),
        }
    }
}

fn both(a: StateSet, b: StateSet) -> StateSet {
    let common = a.iter().filter(|s| b.contains(*s));
    common.fold(StateSet::EMPTY, StateSet::with)
}

fn all_of(capture: &Capture) -> tracker::Options {
    tracker::Options {
        filter: Filter::default(),
        transitions: capture.states,
        by: Vec::new(),
        minisockets: capture.minisockets,
        overflows_seen: capture.overflows_seen,
        stacks: capture.stacks,
        ledgers: false,
        selective: capture.selective,
        polled_ns: capture.polled_ns,
        mode: capture.mode.clone(),
    }
}

/// Options of `replay`.
#[derive(Clone, Debug)]
pub(crate) struct Replay {
    /// `-`: standard input.
    pub(crate) files: Vec<PathBuf>,
    /// Which part of it.
    pub(crate) excerpt: Excerpt,
    /// What is asked.
    pub(crate) question: Question,
    /// Tell of this connection, and of nothing else.
    pub(crate) conn: Option<Wanted>,
    /// How it is printed.
    pub(crate) look: Look,
}

impl Replay {
    /// Resolves what was typed. This machine is not asked: it need not be the one that recorded.
    pub(crate) fn resolve(typed: cli::Replay, terminal: Terminal) -> anyhow::Result<Replay> {
        let transitions = transitions(typed.told.transitions, states(&typed.filters.state));
        Ok(Replay {
            files: files(typed.files)?,
            excerpt: Excerpt {
                speed: match typed.speed {
                    cli::Speed::Max => None,
                    cli::Speed::Times(times) => Some(times),
                },
                ..Excerpt::resolve(typed.excerpt)
            },
            look: Look::new(terminal, &typed.told, transitions),
            question: Question::resolve(typed.filters, typed.told.transitions, typed.told.by)?,
            conn: typed.conn,
        })
    }
}

/// The files of one recording.
pub(super) fn files(files: Vec<PathBuf>) -> Result<Vec<PathBuf>, Usage> {
    match files.len() > 1 && files.iter().any(|f| f == Path::new("-")) {
        true => Err(Usage::new(
            "standard input is no part of a rotation",
            "give the files alone, or `cat` them in their order into `tcptrace replay -`",
        )),
        false => Ok(files),
    }
}

//! Options of `record` and `replay`.

use std::env;
use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tcptrace_core::filter::Filter;
use tcptrace_core::recording::Capture;
use tcptrace_core::report::summary::Key;
use tcptrace_core::report::timeline::Wanted;
use tcptrace_core::state::StateSet;

use super::{
    Look, POLL_EVERY_NS, Terminal, Trace, WATCH_MIN_AGE_NS, check_interval, dwelt_in, filter,
    filter_elsewhere, nothing_lingers, shown, states, transitions,
};
use crate::cli;
use crate::error::Usage;
use crate::moment::Moment;
use crate::recorder::{Place, Rotate};

/// Who called sudo, if somebody did.
pub(super) fn sudo_owner() -> Option<(u32, u32)> {
    let id = |name| env::var(name).ok()?.parse().ok();
    id("SUDO_UID").zip(id("SUDO_GID"))
}

/// Options of `record`.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// What is traced.
    pub(crate) trace: Trace,
    /// Where to.
    pub(crate) place: Place,
    /// When another file is begun.
    pub(crate) rotate: Option<Rotate>,
    /// Record while this runs; empty: nothing is run.
    pub(crate) command: Vec<OsString>,
    /// Standard error is a terminal, and a status line is wanted there.
    pub(crate) status: bool,
}

impl Record {
    /// Resolves what was typed.
    pub(crate) fn resolve(typed: cli::Record, terminal: Terminal) -> anyhow::Result<Record> {
        let asked = states(&typed.filters.state);
        let mut filter = filter(typed.filters, WATCH_MIN_AGE_NS)?;
        filter.states = shown(asked);
        check_interval(&typed.tracing)?;
        if filter.states.is_empty() {
            return Err(nothing_lingers(asked).into());
        }
        let rotate = typed.rotate.map(|rotation| match rotation {
            cli::Rotation::Bytes(bytes) => Rotate::Bytes(bytes),
            cli::Rotation::Every(ns) => Rotate::Every(Duration::from_nanos(ns)),
        });
        let path = typed.output.unwrap_or_else(default_recording);
        if rotate.is_some() && path == Path::new("-") {
            return Err(Usage::new(
                "standard output cannot be rotated",
                "give a file with -O, or leave --rotate away",
            )
            .into());
        }
        Ok(Record {
            trace: Trace {
                terminal,
                begun: match path == Path::new("-") {
                    true => "recording".to_owned(),
                    false => format!("recording to {}", path.display()),
                },
                states: match asked.is_empty() {
                    true => StateSet::all(),
                    false => filter.states,
                },
                filter,
                transitions: StateSet::EMPTY,
                by: Vec::new(),
                duration_ns: typed.duration,
                ring_size: typed.tracing.ring_size,
                hooks: typed.tracing.hooks,
                btf: typed.tracing.btf,
                interval_ns: typed.tracing.interval.unwrap_or(POLL_EVERY_NS),
            },
            place: Place {
                path,
                force: typed.force,
                numbered: rotate.map(|_| typed.keep),
                owner: sudo_owner(),
            },
            rotate,
            command: typed.command,
            status: io::stderr().is_terminal() && !terminal.quiet,
        })
    }
}

/// `tcptrace-20261122-024110.rec`, of the local time.
fn default_recording() -> PathBuf {
    let now = jiff::Zoned::now();
    now.strftime("tcptrace-%Y%m%d-%H%M%S.rec")
        .to_string()
        .into()
}

/// Options of `replay`.
#[derive(Clone, Debug)]
pub(crate) struct Replay {
    /// `-`: standard input.
    pub(crate) files: Vec<PathBuf>,
    /// Begin here.
    pub(crate) from: Option<Moment>,
    /// End here.
    pub(crate) to: Option<Moment>,
    /// The time zone in which times of day are.
    pub(crate) zone: jiff::tz::TimeZone,
    /// How many times as fast as it happened; `None`: as fast as can be.
    pub(crate) speed: Option<f64>,
    /// Tell of this connection, and of nothing else.
    pub(crate) conn: Option<Wanted>,
    /// What is missing is a failure.
    pub(crate) strict: bool,
    /// States that were asked for; empty: those that were shown when it was recorded.
    pub(crate) asked: StateSet,
    /// Which sockets, whatever their state.
    pub(crate) filter: Filter,
    /// The least age that was asked for, ns; `None`: that of the recording.
    pub(crate) min_age_ns: Option<u64>,
    /// Transitions were asked for.
    pub(crate) transitions: bool,
    /// Keys of the summary's groups.
    pub(crate) by: Vec<Key>,
    /// How it is printed.
    pub(crate) look: Look,
}

impl Replay {
    /// Resolves what was typed. This machine is not asked: it need not be the one that recorded.
    pub(crate) fn resolve(typed: cli::Replay, terminal: Terminal) -> anyhow::Result<Replay> {
        let asked = states(&typed.filters.state);
        if typed.files.len() > 1 && typed.files.iter().any(|f| f == Path::new("-")) {
            return Err(Usage::new(
                "standard input is no part of a rotation",
                "give the files alone, or `cat` them in their order into `tcptrace replay -`",
            )
            .into());
        }
        let transitions = transitions(typed.told.transitions, asked);
        Ok(Replay {
            files: typed.files,
            from: typed.from,
            to: typed.to,
            zone: jiff::tz::TimeZone::system(),
            speed: match typed.speed {
                cli::Speed::Max => None,
                cli::Speed::Times(times) => Some(times),
            },
            conn: typed.conn,
            strict: typed.strict,
            asked,
            min_age_ns: typed.filters.min_age,
            filter: filter_elsewhere(typed.filters)?,
            transitions: typed.told.transitions,
            by: typed.told.by,
            look: Look::new(
                terminal,
                typed.told.timestamp,
                (typed.told.json, typed.told.wide),
                transitions,
            ),
        })
    }

    /// What of the recording is shown: the states, and the transitions.
    ///
    /// # Errors
    /// If states were asked for that it does not hold.
    pub(crate) fn states(&self, capture: &Capture) -> Result<(StateSet, StateSet), Usage> {
        let held = capture.states;
        let missing = self.asked.iter().filter(|s| !held.contains(*s));
        let missing = missing.fold(StateSet::EMPTY, StateSet::with);
        if !missing.is_empty() {
            return Err(Usage::new(
                format!("the recording does not hold {missing}"),
                format!("it was taken of {held} only; `tcptrace record` without --state takes all"),
            ));
        }
        let shown = match self.asked.is_empty() {
            true => capture.shown,
            false => dwelt_in(self.asked),
        };
        let transitions = both(transitions(self.transitions, self.asked), held);
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

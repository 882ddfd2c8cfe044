//! Options of `record`.

use std::env;
use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tcptrace_core::condition::Condition;
use tcptrace_core::state::StateSet;

use super::{Terminal, Trace, WATCH_MIN_AGE_NS, filter, nothing_lingers, shown, states};
use crate::cli;
use crate::error::Usage;
use crate::recorder::{Flight, Place, Rotate};

/// Who called sudo, if somebody did.
pub(crate) fn sudo_owner() -> Option<(u32, u32)> {
    let id = |name| env::var(name).ok()?.parse().ok();
    id("SUDO_UID").zip(id("SUDO_GID"))
}

/// One file that belongs to whoever called sudo.
pub(super) fn one_file(path: PathBuf, force: bool) -> Place {
    Place {
        path,
        force,
        numbered: None,
        owner: sudo_owner(),
    }
}

/// How long a dump goes on, unless told otherwise.
const POST_NS: u64 = 10_000_000_000;

/// Options of `record`.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// What is traced.
    pub(crate) trace: Trace,
    /// What becomes of it.
    pub(crate) way: Way,
    /// Record while this runs; empty: nothing is run.
    pub(crate) command: Vec<OsString>,
    /// Standard error is a terminal, and a status line is wanted there.
    pub(crate) status: bool,
}

/// What becomes of what is recorded.
#[derive(Clone, Debug)]
pub(crate) enum Way {
    /// It goes to a file, or to one after the other.
    Files(Place, Option<Rotate>),
    /// It is held in memory, and written when this comes to be true or a signal comes.
    Memory(Flight, Option<Condition>),
}

impl Record {
    /// Resolves what was typed.
    pub(crate) fn resolve(typed: cli::Record, terminal: Terminal) -> anyhow::Result<Record> {
        let asked = states(&typed.filters.state);
        let mut filter = filter(typed.filters, WATCH_MIN_AGE_NS)?;
        filter.states = shown(asked);
        if filter.states.is_empty() {
            return Err(nothing_lingers(asked).into());
        }
        let traced = match asked.is_empty() {
            true => StateSet::all(),
            false => filter.states,
        };
        let rotate = typed.rotate.map(|rotation| match rotation {
            cli::Rotation::Bytes(bytes) => Rotate::Bytes(bytes),
            cli::Rotation::Every(ns) => Rotate::Every(Duration::from_nanos(ns)),
        });
        let path = typed.output.unwrap_or_else(default_recording);
        let numbered = rotate.is_some() || typed.ring.is_some();
        if numbered && path == Path::new("-") {
            return Err(Usage::new(
                "standard output is one file, and --rotate and --ring write several",
                "give a file with -O, or leave them away",
            )
            .into());
        }
        if let Some(condition) = &typed.trigger {
            check_trigger(condition, traced)?;
        }
        let begun = match (typed.ring, &typed.trigger) {
            (None, _) if path == Path::new("-") => "recording".to_owned(),
            (None, _) => format!("recording to {}", path.display()),
            (Some(_), None) => "armed: SIGUSR1 triggers".to_owned(),
            (Some(_), Some(condition)) => format!("armed: '{condition}' and SIGUSR1 trigger"),
        };
        let stacks = typed.tracing.stacks;
        let place = Place {
            numbered: numbered.then_some(typed.keep),
            ..one_file(path, typed.force)
        };
        let trace = Trace {
            states: traced,
            survey: true,
            ..Trace::new(begun, terminal, filter, typed.duration, typed.tracing)?
        };
        Ok(Record {
            // Who asks for some states wants it cheap.
            trace: match asked.is_empty() || stacks.is_some() {
                true => trace.with_stacks(stacks),
                false => trace,
            },
            way: match typed.ring {
                None => Way::Files(place, rotate),
                Some(size) => {
                    let flight = Flight {
                        place,
                        size,
                        pre: typed.pre.map(Duration::from_nanos),
                        post: Duration::from_nanos(typed.post.unwrap_or(POST_NS)),
                    };
                    Way::Memory(flight, typed.trigger)
                }
            },
            command: typed.command,
            status: io::stderr().is_terminal() && !terminal.quiet,
        })
    }
}

/// Only what is traced is counted.
fn check_trigger(condition: &Condition, traced: StateSet) -> Result<(), Usage> {
    match condition
        .states()
        .into_iter()
        .find(|s| !traced.contains(*s))
    {
        None => Ok(()),
        Some(state) => Err(Usage::new(
            format!(
                "the trigger asks for {}, which is not recorded",
                state.name()
            ),
            "name it with --state, too, or leave --state away: then all are recorded",
        )),
    }
}

/// `tcptrace-20261122-024110.rec`, of the local time.
fn default_recording() -> PathBuf {
    let now = jiff::Zoned::now();
    now.strftime("tcptrace-%Y%m%d-%H%M%S.rec")
        .to_string()
        .into()
}

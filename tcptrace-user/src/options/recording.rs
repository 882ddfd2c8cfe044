//! Options of `record`.

use std::env;
use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tcptrace_core::state::StateSet;

use super::{
    POLL_EVERY_NS, Terminal, Trace, WATCH_MIN_AGE_NS, check_interval, filter, nothing_lingers,
    shown, states,
};
use crate::cli;
use crate::error::Usage;
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

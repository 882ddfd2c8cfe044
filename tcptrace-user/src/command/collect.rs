//! What `report`, `leaks` and `diagnose` share: a recording, or this machine, watched to its end, and something
//! collected on the way.

use std::io;
use std::process::ExitCode;

use tcptrace_core::change::Change;
use tcptrace_core::diagnose::Host;
use tcptrace_core::input::Input;
use tcptrace_core::report::leaks::Trends;
use tcptrace_core::report::series::Series;
use tcptrace_core::report::summary::Summary;
use tcptrace_core::state::StateSet;
use tcptrace_core::time::{Mono, WallAnchor};
use tcptrace_core::tracker::Tracker;

use super::play::{Shown, play};
use super::trace::{self, Recording, cannot_write};
use crate::options::{Source, Terminal};
use crate::pipeline::{Recorded, Sink};
use crate::recorder::Progress;
use crate::source::replay;

/// What a report takes from the inputs, beside what the tracker keeps.
pub(super) trait Collect {
    /// What was asked for begins here, in the middle of a recording.
    fn begin(&mut self, at: Mono);

    /// Takes an input, before the tracker does.
    fn input(&mut self, input: &Input, tracker: &Tracker);

    /// Takes what the tracker tells.
    fn change(&mut self, _: &Change) {}

    /// A part of the recording is missing here.
    fn gap(&mut self) {}
}

/// What is there at the end.
pub(super) struct Collected<C> {
    pub(super) tracker: Tracker,
    pub(super) collected: C,
    /// The totals, and what of a recording is missing.
    pub(super) summary: Summary,
    /// Where it was traced.
    pub(super) host: Host,
    /// It was this machine.
    pub(super) live: bool,
    pub(super) recorded: Option<Recorded>,
}

/// Watches a source to its end. What collects is made for the states that are looked at. `None`: whoever
/// read our output went away.
///
/// # Errors
/// [`CannotRun`](crate::error::CannotRun) if this kernel or these privileges do not allow a live
/// one; if the recording cannot be read, or not be made.
pub(super) fn collect<C: Collect>(
    source: &Source,
    terminal: &Terminal,
    new: impl FnOnce(StateSet) -> C,
) -> anyhow::Result<Option<Collected<C>>> {
    match source {
        Source::Files {
            files,
            excerpt,
            question,
        } => {
            let recording = replay::Recording::open(files)?;
            let session = recording.session();
            let host = Host {
                name: session.host.clone(),
                kernel: session.kernel.clone(),
                anchor: session.anchor,
            };
            let tracker = question.tracker(&recording.session().capture)?;
            let gate = Gate {
                inner: new(tracker.filter.states),
                closed: excerpt.from.is_some(),
            };
            let played = play(recording, excerpt, tracker, terminal, gate)?;
            Ok(played.map(|played| Collected {
                summary: played.summary(),
                tracker: played.tracker,
                collected: played.sink.inner,
                host,
                live: false,
                recorded: None,
            }))
        }
        Source::Live { trace, record } => {
            let recording = Recording::beside(record.as_ref())?;
            let mut anchor = WallAnchor::default();
            let gate = |at| {
                anchor = at;
                Ok(Gate {
                    inner: new(trace.filter.states),
                    closed: false,
                })
            };
            let traced = trace::run(trace, recording, None, gate)?;
            Ok(traced.map(|traced| Collected {
                summary: traced.tracker.summary(),
                tracker: traced.tracker,
                collected: traced.sink.inner,
                host: this_host(anchor),
                live: true,
                recorded: traced.recorded,
            }))
        }
    }
}

/// The machine that we run on.
fn this_host(anchor: WallAnchor) -> Host {
    let uname = rustix::system::uname();
    Host {
        name: uname.nodename().to_string_lossy().into_owned(),
        kernel: uname.release().to_string_lossy().into_owned(),
        anchor,
    }
}

/// How a report ends, when it is written.
///
/// # Errors
/// If it was to be recorded, and could not.
pub(super) fn end(
    recorded: Option<Recorded>,
    strict: bool,
    complete: bool,
) -> anyhow::Result<ExitCode> {
    match recorded {
        Some(Err((name, error))) => Err(cannot_write(&name, error)),
        _ => Ok(super::verdict(strict, complete)),
    }
}

impl Collect for Series {
    fn begin(&mut self, at: Mono) {
        Series::begin(self, at);
    }

    fn input(&mut self, input: &Input, tracker: &Tracker) {
        Series::input(self, input, tracker);
    }

    fn gap(&mut self) {
        Series::gap(self);
    }
}

impl Collect for Trends {
    fn begin(&mut self, at: Mono) {
        Trends::begin(self, at);
    }

    fn input(&mut self, input: &Input, tracker: &Tracker) {
        Trends::input(self, input, tracker);
    }
}

/// Lets through what was asked for.
struct Gate<C> {
    inner: C,
    /// What comes was not asked for.
    closed: bool,
}

impl<C: Collect> Shown for Gate<C> {
    fn open(&mut self, at: Mono) {
        self.closed = false;
        self.inner.begin(at);
    }

    fn gap(&mut self) {
        if !self.closed {
            self.inner.gap();
        }
    }

    fn prints_meanwhile(&self) -> bool {
        false
    }
}

impl<C: Collect> Sink for Gate<C> {
    fn input(&mut self, input: &Input, tracker: &Tracker) {
        if !self.closed {
            self.inner.input(input, tracker);
        }
    }

    fn change(&mut self, change: &Change) -> io::Result<()> {
        if !self.closed {
            self.inner.change(change);
        }
        Ok(())
    }

    fn pause(&mut self, _: &Tracker, _: Option<Progress>) -> io::Result<bool> {
        Ok(true)
    }
}

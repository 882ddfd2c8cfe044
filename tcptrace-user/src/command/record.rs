//! `tcptrace record`: the inputs of `watch`, for later.

use std::io;
use std::process::ExitCode;

use tcptrace_core::change::Change;
use tcptrace_core::report::summary_text;
use tcptrace_core::time::duration_text;
use tcptrace_core::tracker::Tracker;

use super::trace::{self, Recording, Traced, cannot_write};
use crate::companion::Companion;
use crate::options::{Record, Way};
use crate::pipeline::Sink;
use crate::recorder::{self, Destination, Progress};
use crate::status::{StatusLine, size_text};

/// Runs `tcptrace record`.
///
/// # Errors
/// [`CannotRun`](crate::error::CannotRun) if this kernel or these privileges do not allow it; else
/// what failed.
pub(crate) fn run(options: &Record) -> anyhow::Result<ExitCode> {
    let recording = match &options.way {
        Way::Files(place, rotate) => Recording::Files(Destination::open(place.clone())?, *rotate),
        Way::Memory(flight, condition) => {
            recorder::check(&flight.place)?;
            Recording::Memory(flight.clone(), condition.clone())
        }
    };
    let mut companion = match &options.command[..] {
        [] => None,
        words => Some(Companion::hold(words)?),
    };
    let mut trace = options.trace.clone();
    let terminal = trace.terminal;
    if let Some(companion) = &companion {
        companion.narrow(&mut trace.filter);
        companion.alone().inspect(|why| terminal.notice(why));
    }
    let status = |_| {
        Ok(Status {
            line: StatusLine::new(options.status),
            inputs: 0,
        })
    };
    let traced = trace::run(&trace, Some(recording), companion.as_mut(), status)?;
    let Some(traced) = traced else {
        return Ok(ExitCode::SUCCESS);
    };
    let Traced {
        tracker,
        mut sink,
        recorded,
    } = traced;
    sink.clear();
    if let Some(companion) = &mut companion {
        terminal.notice(&companion.farewell());
    }
    let data = summary_text::completeness(&tracker.summary().completeness);
    match recorded {
        Some(Ok((name, progress))) => {
            terminal.notice(&match options.way {
                Way::Files(..) => wrote(&name, progress),
                Way::Memory(..) => dumped(progress),
            });
            terminal.notice(&data);
            Ok(ExitCode::SUCCESS)
        }
        Some(Err((name, error))) => Err(cannot_write(&name, error)),
        None => Ok(ExitCode::SUCCESS),
    }
}

fn wrote(name: &str, progress: Progress) -> String {
    let Progress {
        inputs,
        bytes,
        files,
        ..
    } = progress;
    let size = size_text(bytes);
    match files {
        1 => format!("wrote {name}: {inputs} records, {size}"),
        _ => format!(
            "wrote {name} and {} files before it: {inputs} records, {size}",
            files - 1
        ),
    }
}

fn dumped(progress: Progress) -> String {
    match progress.files {
        0 => "never triggered: nothing was written".to_owned(),
        1 => "triggered once".to_owned(),
        dumps => format!(
            "triggered {dumps} times: {} in all",
            size_text(progress.bytes)
        ),
    }
}

/// Shows no changes, and how the recording goes.
struct Status {
    line: StatusLine,
    /// At the last renewal.
    inputs: u64,
}

impl Sink for Status {
    fn change(&mut self, _: &Change) -> io::Result<()> {
        Ok(())
    }

    fn pause(&mut self, tracker: &Tracker, recorded: Option<Progress>) -> io::Result<bool> {
        let Some(progress) = recorded else {
            return Ok(true);
        };
        let lost = || tracker.loss().total();
        let before = &mut self.inputs;
        self.line.renew(|elapsed| match progress.held {
            Some(held) => {
                let (bytes, most) = (size_text(held.bytes.0), size_text(held.bytes.1));
                let reaches = duration_text(held.reaches.as_nanos() as u64);
                format!(
                    "armed: {reaches} held in {bytes} of {most}, {} lost",
                    lost()
                )
            }
            None => {
                let more = progress.inputs.saturating_sub(*before);
                *before = progress.inputs;
                let rate = more as f64 / elapsed.as_secs_f64();
                format!(
                    "recording: {} records, {rate:.0}/s, {}, {} lost",
                    progress.inputs,
                    size_text(progress.bytes),
                    lost()
                )
            }
        });
        Ok(true)
    }

    fn clear(&mut self) {
        self.line.clear();
    }
}

//! `tcptrace record`: the inputs of `watch`, for later.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tcptrace_core::change::Change;
use tcptrace_core::report::summary_text;
use tcptrace_core::tracker::Tracker;

use super::trace::{self, Recording, Traced, cannot_write};
use crate::companion::Companion;
use crate::options::Record;
use crate::pipeline::Sink;
use crate::recorder::{Destination, Progress};

/// How often the status line is renewed.
const EVERY: Duration = Duration::from_secs(1);

/// Runs `tcptrace record`.
///
/// # Errors
/// [`CannotRun`](crate::error::CannotRun) if this kernel or these privileges do not allow it; else
/// what failed.
pub(crate) fn run(options: &Record) -> anyhow::Result<ExitCode> {
    let recording = Recording {
        destination: Destination::open(options.place.clone())?,
        rotate: options.rotate,
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
    let status = |_| Ok(Status::new(options.status));
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
            terminal.notice(&format!("wrote {}", told(&name, progress)));
            terminal.notice(&data);
            Ok(ExitCode::SUCCESS)
        }
        Some(Err((name, error))) => Err(cannot_write(&name, error)),
        None => Ok(ExitCode::SUCCESS),
    }
}

fn told(name: &str, progress: Progress) -> String {
    let Progress {
        inputs,
        bytes,
        files,
    } = progress;
    let size = size_text(bytes);
    match files {
        1 => format!("{name}: {inputs} records, {size}"),
        _ => format!(
            "{name} and {} files before it: {inputs} records, {size}",
            files - 1
        ),
    }
}

/// `870 B`, `12.3 KiB`, `4.5 MiB`.
fn size_text(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let scale = |power: u32| 1u64 << (10 * power);
    match (1..=4).rev().find(|power| bytes >= scale(*power)) {
        None => format!("{bytes} B"),
        Some(power) => {
            let tenths = bytes as u128 * 10 / u128::from(scale(power));
            format!(
                "{}.{} {}",
                tenths / 10,
                tenths % 10,
                units[power as usize - 1]
            )
        }
    }
}

/// A line on standard error that is renewed, where that is a terminal.
struct Status {
    shown: bool,
    last: Instant,
    inputs: u64,
    /// Columns that the line has taken.
    width: usize,
}

impl Status {
    fn new(shown: bool) -> Status {
        Status {
            shown,
            last: Instant::now(),
            inputs: 0,
            width: 0,
        }
    }

    fn clear(&mut self) {
        if self.width > 0 {
            self.show("");
            self.width = 0;
        }
    }

    fn show(&mut self, line: &str) {
        let width = self.width;
        // Where nobody looks, there is nobody to tell.
        let _ = write!(io::stderr(), "\r{line:<width$}\r");
        self.width = line.len();
    }
}

impl Sink for Status {
    fn change(&mut self, _: &Change) -> io::Result<()> {
        Ok(())
    }

    fn pause(&mut self, tracker: &Tracker, recorded: Option<Progress>) -> io::Result<bool> {
        let (Some(progress), true) = (recorded, self.shown && self.last.elapsed() >= EVERY) else {
            return Ok(true);
        };
        let elapsed = self.last.elapsed().as_secs_f64();
        let rate = (progress.inputs - self.inputs) as f64 / elapsed;
        let lost = tracker.loss().total();
        let size = size_text(progress.bytes);
        self.show(&format!(
            "recording: {} records, {rate:.0}/s, {size}, {lost} lost",
            progress.inputs
        ));
        (self.last, self.inputs) = (Instant::now(), progress.inputs);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (1_536, "1.5 KiB"),
            (19_293_798, "18.3 MiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(size_text(bytes), text);
        }
    }
}

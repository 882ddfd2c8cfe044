//! `tcptrace watch`: sockets that linger, live, and the summary at the end.

use std::process::ExitCode;

use anyhow::Context as _;

use super::trace::{self, Recording, Traced, WRITE, cannot_write};
use crate::options::Watch;
use crate::screen::Screen;

/// Runs `tcptrace watch`.
///
/// # Errors
/// [`CannotRun`](crate::error::CannotRun) if this kernel or these privileges do not allow it; else
/// what failed.
pub(crate) fn run(options: &Watch) -> anyhow::Result<ExitCode> {
    let recording = Recording::beside(options.record.as_ref())?;
    let screen = |anchor| Screen::new(&options.look, anchor);
    let Some(traced) = trace::run(&options.trace, recording, None, screen)? else {
        return Ok(ExitCode::SUCCESS);
    };
    let Traced {
        tracker,
        mut sink,
        recorded,
    } = traced;
    sink.summary(&tracker.summary(), tracker.now())
        .context(WRITE)?;
    match recorded {
        Some(Err((name, error))) => Err(cannot_write(&name, error)),
        _ => Ok(ExitCode::SUCCESS),
    }
}

//! `tcptrace diff`: what lingers in one recording and did not in another.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use tcptrace_core::change::Change;
use tcptrace_core::report::summary::Summary;
use tcptrace_core::time::Mono;
use tcptrace_core::tracker::Tracker;

use super::play::{Shown, play};
use super::trace::WRITE;
use crate::error::EXIT_INCOMPLETE;
use crate::options::Diff;
use crate::pipeline::Sink;
use crate::recorder::Progress;
use crate::source::replay::Recording;

/// Runs `tcptrace diff`.
///
/// # Errors
/// If one of the files is no recording, or cannot be read, or does not hold what is asked.
pub(crate) fn run(options: &Diff) -> anyhow::Result<ExitCode> {
    let [before, after] = &options.files;
    let before = summary(options, before)?;
    let after = summary(options, after)?;
    let (Some(before), Some(after)) = (before, after) else {
        return Ok(ExitCode::SUCCESS);
    };
    let diff = tcptrace_core::report::diff::Diff::new(&before, &after);
    let document = match options.json {
        true => {
            let mut line = serde_json::to_vec(&diff.to_json())?;
            line.push(b'\n');
            line
        }
        false => diff
            .to_text(options.all, options.terminal.width)
            .into_bytes(),
    };
    super::print(&document).context(WRITE)?;
    let complete = before.completeness.complete() && after.completeness.complete();
    Ok(match options.excerpt.strict && !complete {
        true => ExitCode::from(EXIT_INCOMPLETE),
        false => ExitCode::SUCCESS,
    })
}

fn summary(options: &Diff, file: &Path) -> anyhow::Result<Option<Summary>> {
    let recording = Recording::open(&[file.to_owned()])?;
    let tracker = options
        .question
        .tracker(&recording.session().capture)
        .with_context(|| file.display().to_string())?;
    let played = play(recording, &options.excerpt, tracker, &options.terminal, End)?;
    Ok(played.map(|played| played.summary()))
}

/// Nothing is shown before the end.
struct End;

impl Shown for End {
    fn open(&mut self, _: Mono) {}

    fn gap(&mut self) {}
}

impl Sink for End {
    fn change(&mut self, _: &Change) -> io::Result<()> {
        Ok(())
    }

    fn pause(&mut self, _: &Tracker, _: Option<Progress>) -> io::Result<bool> {
        Ok(true)
    }
}

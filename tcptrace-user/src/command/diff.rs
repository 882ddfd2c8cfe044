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
    match options.json {
        true => super::print_json(&diff.to_json())?,
        false => {
            let text = diff.to_text(options.all, options.terminal.width);
            super::print(text.as_bytes()).context(WRITE)?;
        }
    }
    let complete = before.completeness.complete() && after.completeness.complete();
    Ok(super::verdict(options.excerpt.strict, complete))
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

    fn prints_meanwhile(&self) -> bool {
        false
    }
}

impl Sink for End {
    fn change(&mut self, _: &Change) -> io::Result<()> {
        Ok(())
    }

    fn pause(&mut self, _: &Tracker, _: Option<Progress>) -> io::Result<bool> {
        Ok(true)
    }
}

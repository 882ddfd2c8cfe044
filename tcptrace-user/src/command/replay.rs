//! `tcptrace replay`: what `watch` would have printed of what was recorded.

use std::io;
use std::process::ExitCode;

use anyhow::Context as _;
use tcptrace_core::change::Change;
use tcptrace_core::input::Input;
use tcptrace_core::report::summary_text;
use tcptrace_core::report::timeline::Timeline;
use tcptrace_core::time::{Mono, WallAnchor};
use tcptrace_core::tracker::Tracker;

use super::play::{Shown, play};
use super::trace::WRITE;
use crate::error::Usage;
use crate::options::Replay;
use crate::pipeline::Sink;
use crate::recorder::Progress;
use crate::screen::Screen;
use crate::source::replay::Recording;

/// Runs `tcptrace replay`.
///
/// # Errors
/// If the files are none, or not of one recording, or cannot be read.
pub(crate) fn run(options: &Replay) -> anyhow::Result<ExitCode> {
    let recording = Recording::open(&options.files)?;
    let complete = match &options.conn {
        None => lines(options, recording)?,
        Some(wanted) => {
            let lost = recording.session().lost_before.total();
            life(options, recording, Timeline::new(wanted.clone(), lost))?
        }
    };
    Ok(super::verdict(
        options.excerpt.strict,
        complete.unwrap_or(true),
    ))
}

/// The lines of `watch`, and its summary. Whether the data is complete; `None`: whoever read it
/// went away.
fn lines(options: &Replay, recording: Recording) -> anyhow::Result<Option<bool>> {
    let session = recording.session();
    let tracker = options.question.tracker(&session.capture)?;
    let gate = Gate {
        screen: Screen::new(&options.look, session.anchor).context(WRITE)?,
        closed: options.excerpt.from.is_some(),
    };
    let terminal = &options.look.terminal;
    let Some(mut played) = play(recording, &options.excerpt, tracker, terminal, gate)? else {
        return Ok(None);
    };
    let summary = played.summary();
    let at = played.tracker.now();
    played.sink.screen.summary(&summary, at).context(WRITE)?;
    // The program ends: to free what is known of each connection takes as long as a tenth of it all.
    std::mem::forget(played.tracker);
    Ok(Some(summary.completeness.complete()))
}

/// What became of one connection.
fn life(
    options: &Replay,
    recording: Recording,
    timeline: Timeline,
) -> anyhow::Result<Option<bool>> {
    let anchor = recording.session().anchor;
    let tracker = options.question.one_life(&recording.session().capture);
    let story = Story {
        timeline,
        closed: options.excerpt.from.is_some(),
    };
    let terminal = &options.look.terminal;
    let Some(played) = play(recording, &options.excerpt, tracker, terminal, story)? else {
        return Ok(None);
    };
    let completeness = played.summary().completeness;
    let complete = completeness.complete();
    if !complete {
        terminal.notice(&summary_text::completeness(&completeness));
    }
    print(&played.sink.timeline, anchor, options.look.json)?;
    Ok(Some(complete))
}

fn print(timeline: &Timeline, anchor: WallAnchor, json: bool) -> anyhow::Result<()> {
    if timeline.is_empty() {
        return Err(Usage::new(
            "no such connection in what was replayed",
            "`tcptrace replay FILE --transitions --json` lists all with their ids and ends",
        )
        .into());
    }
    let mut document = Vec::new();
    match json {
        false => document.extend(timeline.to_text(anchor).into_bytes()),
        true => {
            for object in timeline.to_json(anchor) {
                serde_json::to_writer(&mut document, &object)?;
                document.push(b'\n');
            }
        }
    }
    super::print(&document).context(WRITE)
}

/// The screen, which may be closed.
struct Gate {
    screen: Screen,
    closed: bool,
}

impl Shown for Gate {
    fn open(&mut self, _: Mono) {
        self.closed = false;
    }

    fn gap(&mut self) {}
}

impl Sink for Gate {
    fn change(&mut self, change: &Change) -> io::Result<()> {
        match self.closed {
            false => self.screen.change(change),
            true => Ok(()),
        }
    }

    fn pause(&mut self, tracker: &Tracker, recorded: Option<Progress>) -> io::Result<bool> {
        self.screen.pause(tracker, recorded)
    }
}

/// What became of one connection, told when all is known.
struct Story {
    timeline: Timeline,
    closed: bool,
}

impl Shown for Story {
    fn open(&mut self, _: Mono) {
        self.closed = false;
    }

    fn gap(&mut self) {
        self.timeline.gap();
    }

    fn prints_meanwhile(&self) -> bool {
        false
    }
}

impl Sink for Story {
    fn input(&mut self, input: &Input, _: &Tracker) {
        // Losses are totals: what was lost before is not lost here.
        if !self.closed || matches!(input, Input::Lost(_)) {
            self.timeline.input(input);
        }
    }

    fn change(&mut self, change: &Change) -> io::Result<()> {
        if !self.closed {
            self.timeline.change(change);
        }
        Ok(())
    }

    fn pause(&mut self, _: &Tracker, _: Option<Progress>) -> io::Result<bool> {
        Ok(true)
    }
}

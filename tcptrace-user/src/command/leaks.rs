//! `tcptrace leaks`: sockets that nobody closes, and where in the code they were acquired.

use std::io;
use std::process::ExitCode;

use anyhow::Context as _;
use tcptrace_core::change::Change;
use tcptrace_core::export::to_pprof;
use tcptrace_core::input::Input;
use tcptrace_core::report::flame;
use tcptrace_core::report::leaks::{self, Leaks, LeaksLine, Trends};
use tcptrace_core::report::leaks_text::{self, Style};
use tcptrace_core::time::{Mono, WallAnchor};
use tcptrace_core::tracker::Tracker;

use super::document::Document;
use super::play::{Shown, play};
use super::trace::{self, Recording, WRITE, cannot_write};
use crate::options::{self, Source};
use crate::pipeline::{Recorded, Sink};
use crate::recorder::Progress;
use crate::source::replay;

/// Runs `tcptrace leaks`.
///
/// # Errors
/// [`CannotRun`](crate::error::CannotRun) if this kernel or these privileges do not allow a live
/// one; if the recording cannot be read; if the report cannot be written.
pub(crate) fn run(options: &options::Leaks) -> anyhow::Result<ExitCode> {
    // What cannot be written is not worth the wait.
    let flamegraph = options
        .flamegraph
        .as_ref()
        .map(Document::open)
        .transpose()?;
    let pprof = options.pprof.as_ref().map(Document::open).transpose()?;
    let Some(Made { leaks, recorded }) = make(options)? else {
        return Ok(ExitCode::SUCCESS);
    };
    let documents = flamegraph.is_some() || pprof.is_some();
    if let Some(document) = flamegraph {
        document.save(flame::to_svg(&leaks).as_bytes(), &options.terminal)?;
    }
    if let Some(document) = pprof {
        document.save(&to_pprof(&leaks), &options.terminal)?;
    }
    if options.json {
        super::print_json(&LeaksLine::new(&leaks))?;
    } else if options.folded {
        super::print(leaks::to_folded(&leaks).as_bytes()).context(WRITE)?;
    } else if !documents {
        let style = Style {
            terminal: options.terminal.width,
            color: options.terminal.color,
            top: options.top,
            full_stacks: options.full_stacks,
        };
        super::print(leaks_text::to_text(&leaks, style).as_bytes()).context(WRITE)?;
    }
    match recorded {
        Some(Err((name, error))) => Err(cannot_write(&name, error)),
        _ => Ok(super::verdict(
            options.strict,
            leaks.completeness.complete(),
        )),
    }
}

/// A report, and how it came to be.
struct Made {
    leaks: Leaks,
    recorded: Option<Recorded>,
}

/// `None`: whoever read our output went away.
fn make(options: &options::Leaks) -> anyhow::Result<Option<Made>> {
    let trends = Trends::new(options.question);
    let wanted = |mut leaks: Leaks| {
        if options.growing {
            leaks.keep_growing();
        }
        leaks
    };
    match &options.source {
        Source::Files {
            files,
            excerpt,
            question,
        } => {
            let recording = replay::Recording::open(files)?;
            let anchor = recording.session().anchor;
            let tracker = question.tracker(&recording.session().capture)?;
            let collector = Collector {
                trends,
                closed: excerpt.from.is_some(),
            };
            let played = play(recording, excerpt, tracker, &options.terminal, collector)?;
            Ok(played.map(|played| {
                let completeness = played.summary().completeness;
                let trends = played.sink.trends;
                let leaks = Leaks::new(&played.tracker, trends, completeness, anchor);
                Made {
                    leaks: wanted(leaks),
                    recorded: None,
                }
            }))
        }
        Source::Live { trace, record } => {
            let recording = Recording::beside(record.as_ref())?;
            let mut at = WallAnchor::default();
            let collector = |anchor| {
                at = anchor;
                Ok(Collector {
                    trends,
                    closed: false,
                })
            };
            let traced = trace::run(trace, recording, None, collector)?;
            Ok(traced.map(|traced| {
                let completeness = traced.tracker.summary().completeness;
                let trends = traced.sink.trends;
                let leaks = Leaks::new(&traced.tracker, trends, completeness, at);
                let mut leaks = wanted(leaks);
                super::now::tell(&mut leaks, options.top, &traced.tracker);
                Made {
                    leaks,
                    recorded: traced.recorded,
                }
            }))
        }
    }
}

/// Takes what the tracker does not keep.
struct Collector {
    trends: Trends,
    /// What comes was not asked for.
    closed: bool,
}

impl Shown for Collector {
    fn open(&mut self, at: Mono) {
        self.closed = false;
        self.trends.begin(at);
    }

    fn gap(&mut self) {}

    fn prints_meanwhile(&self) -> bool {
        false
    }
}

impl Sink for Collector {
    fn input(&mut self, input: &Input, tracker: &Tracker) {
        if !self.closed {
            self.trends.input(input, tracker);
        }
    }

    fn change(&mut self, _: &Change) -> io::Result<()> {
        Ok(())
    }

    fn pause(&mut self, _: &Tracker, _: Option<Progress>) -> io::Result<bool> {
        Ok(true)
    }
}

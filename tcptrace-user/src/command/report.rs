//! `tcptrace report`: how long sockets stayed in each state, how many were open when, and whose.

use std::io;
use std::process::ExitCode;

use anyhow::Context as _;
use tcptrace_core::change::Change;
use tcptrace_core::input::Input;
use tcptrace_core::report::full::{Report, ReportLine};
use tcptrace_core::report::full_text::{self, Style};
use tcptrace_core::report::series::Series;
use tcptrace_core::report::summary::Summary;
use tcptrace_core::report::{html, svg};
use tcptrace_core::state::StateSet;
use tcptrace_core::time::{Mono, WallAnchor};
use tcptrace_core::tracker::Tracker;

use super::document::Document;
use super::play::{Shown, play};
use super::trace::{self, Recording, Traced, WRITE, cannot_write};
use crate::options::{self, Source};
use crate::pipeline::{Recorded, Sink};
use crate::recorder::Progress;
use crate::source::replay;

/// Runs `tcptrace report`.
///
/// # Errors
/// [`CannotRun`](crate::error::CannotRun) if this kernel or these privileges do not allow a live
/// one; if the recording cannot be read; if the report cannot be written.
pub(crate) fn run(options: &options::Report) -> anyhow::Result<ExitCode> {
    // What cannot be written is not worth the wait.
    let html = options.html.as_ref().map(Document::open).transpose()?;
    let svg = options.svg.as_ref().map(Document::open).transpose()?;
    let Some(Made { report, recorded }) = make(options)? else {
        return Ok(ExitCode::SUCCESS);
    };
    let documents = html.is_some() || svg.is_some();
    if let Some(document) = html {
        document.save(
            html::to_html(&report, options.top).as_bytes(),
            &options.terminal,
        )?;
    }
    if let Some(document) = svg {
        document.save(svg::to_svg(&report).as_bytes(), &options.terminal)?;
    }
    if options.json {
        super::print_json(&ReportLine::new(&report))?;
    } else if !documents {
        let style = Style {
            terminal: options.terminal.width,
            color: options.terminal.color,
            percentiles: options.percentiles,
            top: options.top,
        };
        super::print(full_text::to_text(&report, style).as_bytes()).context(WRITE)?;
    }
    match recorded {
        Some(Err((name, error))) => Err(cannot_write(&name, error)),
        _ => Ok(super::verdict(
            options.strict,
            report.summary.completeness.complete(),
        )),
    }
}

/// A report, and how it came to be.
struct Made {
    report: Report,
    recorded: Option<Recorded>,
}

/// `None`: whoever read our output went away.
fn make(options: &options::Report) -> anyhow::Result<Option<Made>> {
    let hist = options.hist;
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
                series: Series::new(tracker.filter.states),
                closed: excerpt.from.is_some(),
            };
            let played = play(recording, excerpt, tracker, &options.terminal, collector)?;
            Ok(played.map(|played| {
                let summary = played.summary();
                Made {
                    report: report(&played.tracker, summary, played.sink, hist, anchor),
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
                    series: Series::new(trace.filter.states),
                    closed: false,
                })
            };
            let traced = trace::run(trace, recording, None, collector)?;
            Ok(traced.map(|traced| {
                let Traced {
                    tracker,
                    sink,
                    recorded,
                } = traced;
                Made {
                    report: report(&tracker, tracker.summary(), sink, hist, at),
                    recorded,
                }
            }))
        }
    }
}

fn report(
    tracker: &Tracker,
    summary: Summary,
    collector: Collector,
    hist: StateSet,
    anchor: WallAnchor,
) -> Report {
    let mut series = collector.series;
    series.end(tracker);
    let hist = match hist.is_empty() {
        true => StateSet::all(),
        false => hist,
    };
    Report {
        summary,
        histograms: tracker.histograms(hist),
        series,
        anchor,
    }
}

/// Takes what the tracker does not keep.
struct Collector {
    series: Series,
    closed: bool,
}

impl Shown for Collector {
    fn open(&mut self, at: Mono) {
        self.closed = false;
        self.series.begin(at);
    }

    fn gap(&mut self) {
        if !self.closed {
            self.series.gap();
        }
    }

    fn prints_meanwhile(&self) -> bool {
        false
    }
}

impl Sink for Collector {
    fn input(&mut self, input: &Input, tracker: &Tracker) {
        if !self.closed {
            self.series.input(input, tracker);
        }
    }

    fn change(&mut self, _: &Change) -> io::Result<()> {
        Ok(())
    }

    fn pause(&mut self, _: &Tracker, _: Option<Progress>) -> io::Result<bool> {
        Ok(true)
    }
}

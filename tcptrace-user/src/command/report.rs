//! `tcptrace report`: how long sockets stayed in each state, how many were open when, and whose.

use std::process::ExitCode;

use anyhow::Context as _;
use tcptrace_core::report::full::{Report, ReportLine};
use tcptrace_core::report::full_text::{self, Style};
use tcptrace_core::report::series::Series;
use tcptrace_core::report::{html, svg};
use tcptrace_core::state::StateSet;

use super::collect::{self, Collected};
use super::document::Document;
use super::trace::WRITE;
use crate::options;

/// Runs `tcptrace report`.
///
/// # Errors
/// [`CannotRun`](crate::error::CannotRun) if this kernel or these privileges do not allow a live
/// one; if the recording cannot be read; if the report cannot be written.
pub(crate) fn run(options: &options::Report) -> anyhow::Result<ExitCode> {
    // What cannot be written is not worth the wait.
    let html = options.html.as_ref().map(Document::open).transpose()?;
    let svg = options.svg.as_ref().map(Document::open).transpose()?;
    let Some(collected) = collect::collect(&options.source, &options.terminal, Series::new)? else {
        return Ok(ExitCode::SUCCESS);
    };
    let Collected {
        tracker,
        collected: mut series,
        summary,
        host,
        recorded,
        ..
    } = collected;
    series.end(&tracker);
    let hist = match options.hist.is_empty() {
        true => StateSet::all(),
        false => options.hist,
    };
    let report = Report {
        summary,
        histograms: tracker.histograms(hist),
        series,
        anchor: host.anchor,
    };
    // As in a replay: the program ends, and to free all takes its time.
    std::mem::forget(tracker);
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
    let complete = report.summary.completeness.complete();
    collect::end(recorded, options.strict, complete)
}

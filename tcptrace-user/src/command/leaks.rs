//! `tcptrace leaks`: sockets that nobody closes, and where in the code they were acquired.

use std::process::ExitCode;

use anyhow::Context as _;
use tcptrace_core::export::to_pprof;
use tcptrace_core::report::flame;
use tcptrace_core::report::leaks::{self, Leaks, LeaksLine, Trends};
use tcptrace_core::report::leaks_text::{self, Style};

use super::collect::{self, Collected};
use super::document::Document;
use super::trace::WRITE;
use crate::options;

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
    let trends = |_| Trends::new(options.question);
    let Some(collected) = collect::collect(&options.source, &options.terminal, trends)? else {
        return Ok(ExitCode::SUCCESS);
    };
    let Collected {
        tracker,
        collected: trends,
        summary,
        host,
        live,
        recorded,
    } = collected;
    let mut leaks = Leaks::new(&tracker, trends, summary.completeness, host.anchor);
    if options.growing {
        leaks.keep_growing();
    }
    if live {
        super::now::tell(&mut leaks, options.top, &tracker);
    }
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
    let complete = leaks.completeness.complete();
    collect::end(recorded, options.strict, complete)
}

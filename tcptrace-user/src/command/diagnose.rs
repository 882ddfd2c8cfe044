//! `tcptrace diagnose`: what is wrong, who does it, and what to do.

use std::process::ExitCode;

use anyhow::Context as _;
use tcptrace_core::change::Change;
use tcptrace_core::diagnose::{self, Diagnosis, DiagnosisLine, Style, Tally};
use tcptrace_core::input::Input;
use tcptrace_core::time::Mono;
use tcptrace_core::tracker::Tracker;

use super::collect::{self, Collect};
use super::trace::WRITE;
use crate::error::EXIT_MATCHED;
use crate::options;

/// Runs `tcptrace diagnose`.
///
/// # Errors
/// [`CannotRun`](crate::error::CannotRun) if this kernel or these privileges do not allow a live
/// one; if the recording cannot be read; if the output cannot be written.
pub(crate) fn run(options: &options::Diagnose) -> anyhow::Result<ExitCode> {
    let tally = |_| Tally::new(options.min_age_ns);
    let Some(seen) = collect::collect(&options.source, &options.terminal, tally)? else {
        return Ok(ExitCode::SUCCESS);
    };
    let diagnosis = Diagnosis::new(
        &seen.tracker,
        &seen.collected,
        options.min_age_ns,
        seen.summary.completeness,
        seen.host,
    );
    if options.json {
        super::print_json(&DiagnosisLine::new(&diagnosis))?;
    } else {
        let style = Style {
            terminal: options.terminal.width,
            color: options.terminal.color,
            top: options.top,
        };
        super::print(diagnose::to_text(&diagnosis, style).as_bytes()).context(WRITE)?;
    }
    let complete = diagnosis.completeness.complete();
    let ended = collect::end(seen.recorded, options.strict, complete)?;
    let fail_on = options.fail_on.as_ref();
    match fail_on.and_then(|fail_on| fail_on.why(&diagnosis, &seen.tracker)) {
        Some(why) => {
            options.terminal.notice(&format!("--fail-on: {why}"));
            Ok(ExitCode::from(EXIT_MATCHED))
        }
        None => Ok(ended),
    }
}

impl Collect for Tally {
    fn begin(&mut self, _: Mono) {
        self.restart();
    }

    fn input(&mut self, _: &Input, tracker: &Tracker) {
        self.begun(tracker.now().minus(tracker.span_ns()));
    }

    fn change(&mut self, change: &Change) {
        Tally::change(self, change);
    }
}

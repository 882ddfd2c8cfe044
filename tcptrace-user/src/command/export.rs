//! `tcptrace export`: recordings in the formats of other programs.

#[cfg(feature = "parquet")]
mod tables;

use std::fs::File;
use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use tcptrace_core::change::Change;
use tcptrace_core::export::{Csv, Exporter, Format, Hlog, JsonLines, Pcapng, Perfetto};
use tcptrace_core::input::Input;
use tcptrace_core::report::summary::Summary;
use tcptrace_core::report::summary_text;
use tcptrace_core::state::StateSet;
use tcptrace_core::time::Mono;
use tcptrace_core::tracker::{self, Tracker};

use super::play::{Shown, play};
use crate::cli;
use crate::options::Export;
use crate::pipeline::Sink;
use crate::recorder::{self, Progress};
use crate::source::replay::Recording;

/// Bytes that are written at once.
const CHUNK: usize = 64 << 10;

/// Runs `tcptrace export`.
///
/// # Errors
/// If the files are none, or not of one recording, or cannot be read, or the output not be written.
pub(crate) fn run(options: &Export) -> anyhow::Result<ExitCode> {
    let recording = Recording::open(&options.files)?;
    let capture = &recording.session().capture;
    let tracker = match options.format {
        cli::Format::Jsonl => options.question.tracker(capture)?,
        _ => options.question.transitions(capture)?,
    };
    let states = match options.states.is_empty() {
        true => StateSet::all(),
        false => options.states,
    };
    let summary = match options.format {
        cli::Format::Jsonl => write(options, recording, tracker, JsonLines::default()),
        cli::Format::Csv => write(options, recording, tracker, Csv::default()),
        cli::Format::Hlog => {
            let format = Hlog::new(states, options.interval_ns);
            write(options, recording, tracker, format)
        }
        cli::Format::Perfetto => write(options, recording, tracker, Perfetto::default()),
        cli::Format::Pcapng => write(options, recording, tracker, Pcapng::default()),
        #[cfg(feature = "parquet")]
        cli::Format::Parquet => {
            let tables = tables::Tables::create(&options.place)?;
            write_into(None, options, recording, tracker, tables)
        }
        // Refused when it was typed.
        #[cfg(not(feature = "parquet"))]
        cli::Format::Parquet => Ok(None),
    }?;
    let Some(Summary { completeness, .. }) = summary else {
        return Ok(ExitCode::SUCCESS);
    };
    options
        .terminal
        .notice(&summary_text::completeness(&completeness));
    Ok(super::verdict(
        options.excerpt.strict,
        completeness.complete(),
    ))
}

/// Writes one file; `None`: whoever read it went away.
fn write(
    options: &Export,
    recording: Recording,
    tracker: tracker::Options,
    format: impl Format,
) -> anyhow::Result<Option<Summary>> {
    let file = recorder::output(&options.place)?;
    write_into(Some(file), options, recording, tracker, format)
}

/// The same into a file that is open, or into those that the format has itself.
fn write_into(
    file: Option<File>,
    options: &Export,
    recording: Recording,
    tracker: tracker::Options,
    format: impl Format,
) -> anyhow::Result<Option<Summary>> {
    let mut buffer = Vec::with_capacity(2 * CHUNK);
    let open = options.excerpt.from.is_none();
    let exporter = Exporter::new(format, recording.session(), open, &mut buffer)?;
    let sink = Output {
        exporter,
        buffer,
        file,
    };
    let terminal = &options.terminal;
    let Some(mut played) = play(recording, &options.excerpt, tracker, terminal, sink)? else {
        return Ok(None);
    };
    let summary = played.summary();
    played
        .sink
        .end(&played.tracker, &summary)
        .context(super::trace::WRITE)?;
    Ok(Some(summary))
}

/// A format on its way into a file.
struct Output<F> {
    exporter: Exporter<F>,
    buffer: Vec<u8>,
    /// `None`: the format has its own.
    file: Option<File>,
}

impl<F: Format> Output<F> {
    fn flush(&mut self) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            file.write_all(&self.buffer)?;
        }
        self.buffer.clear();
        Ok(())
    }

    fn end(&mut self, tracker: &Tracker, summary: &Summary) -> io::Result<()> {
        self.exporter.end(tracker, summary, &mut self.buffer)?;
        self.flush()
    }
}

impl<F: Format> Shown for Output<F> {
    fn open(&mut self, _: Mono) {
        self.exporter.open();
    }

    fn gap(&mut self) {
        self.exporter.gap(&mut self.buffer);
    }
}

impl<F: Format> Sink for Output<F> {
    fn input(&mut self, input: &Input, _: &Tracker) {
        self.exporter.input(input, &mut self.buffer);
    }

    fn change(&mut self, change: &Change) -> io::Result<()> {
        self.exporter.change(change, &mut self.buffer)?;
        match self.buffer.len() < CHUNK {
            true => Ok(()),
            false => self.flush(),
        }
    }

    fn pause(&mut self, tracker: &Tracker, _: Option<Progress>) -> io::Result<bool> {
        self.exporter.tidy(tracker, &mut self.buffer)?;
        self.flush()?;
        Ok(true)
    }
}

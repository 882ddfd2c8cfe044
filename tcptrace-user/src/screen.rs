//! Standard output as `watch` and `replay` fill it.

use std::io::{self, BufWriter, Stdout, Write};
use std::os::fd::AsFd as _;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tcptrace_core::change::Change;
use tcptrace_core::report::json::Line;
use tcptrace_core::report::summary::{Summary, SummaryLine};
use tcptrace_core::report::summary_text;
use tcptrace_core::report::watch::{Printer, Style};
use tcptrace_core::time::{Mono, WallAnchor};
use tcptrace_core::tracker::Tracker;

use crate::options::{Look, Terminal};
use crate::pipeline::Sink;
use crate::recorder::Progress;

/// Whether whoever read our output has gone, as `head` does, while we have nothing to write.
fn reader_is_gone() -> bool {
    let stdout = io::stdout();
    let mut fds = [PollFd::from_borrowed_fd(stdout.as_fd(), PollFlags::empty())];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&now)).is_ok_and(|n| n > 0) && fds[0].revents().contains(PollFlags::ERR)
}

/// Standard output, for people or for programs.
pub(crate) struct Screen {
    out: BufWriter<Stdout>,
    /// `None`: JSON lines.
    printer: Option<Printer>,
    look: Look,
    anchor: WallAnchor,
}

impl Screen {
    /// A screen with its first line; `anchor` gives instants their date, and is the start.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn new(look: &Look, anchor: WallAnchor) -> io::Result<Screen> {
        let printer = (!look.json).then(|| {
            let style = Style {
                time: look.time.clone(),
                width: look.terminal.width,
                color: look.terminal.color,
                wide: look.wide,
                transitions: look.transitions,
                stack: look.stack,
            };
            Printer::new(style, anchor)
        });
        let mut out = BufWriter::with_capacity(1 << 16, io::stdout());
        if let Some(printer) = &printer {
            writeln!(out, "{}", printer.header())?;
        }
        Ok(Screen {
            out,
            printer,
            look: look.clone(),
            anchor,
        })
    }

    /// Writes the summary, drawn up at `at`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn summary(&mut self, summary: &Summary, at: Mono) -> io::Result<()> {
        if self.look.json {
            self.json(&SummaryLine::new(summary, at, self.anchor))?;
        } else {
            let Terminal { width, color, .. } = self.look.terminal;
            let text = summary_text::to_text(summary, width, color);
            self.out.write_all(text.as_bytes())?;
        }
        self.out.flush()
    }

    fn json(&mut self, line: &impl serde::Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, line).map_err(io::Error::from)?;
        self.out.write_all(b"\n")
    }
}

impl Sink for Screen {
    fn change(&mut self, change: &Change) -> io::Result<()> {
        match &self.printer {
            // The line of the transition says it already.
            Some(_) if self.look.transitions && matches!(change, Change::Resolved { .. }) => Ok(()),
            Some(printer) => writeln!(self.out, "{}", printer.line(change)),
            None => self.json(&Line::change(change, self.anchor)),
        }
    }

    fn pause(&mut self, _: &Tracker, _: Option<Progress>) -> io::Result<bool> {
        self.out.flush()?;
        Ok(!reader_is_gone())
    }
}

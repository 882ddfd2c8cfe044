//! JSON lines, as `replay --transitions --json` has them.

use std::io;

use serde::Serialize;

use super::{Format, Step};
use crate::change::Change;
use crate::recording::Session;
use crate::report::json::Line;
use crate::report::summary::{Summary, SummaryLine};
use crate::time::WallAnchor;
use crate::tracker::Tracker;

/// One object per line, the summary last.
#[derive(Clone, Debug, Default)]
pub struct JsonLines {
    anchor: WallAnchor,
}

impl Format for JsonLines {
    fn begin(&mut self, session: &Session, _: &mut Vec<u8>) -> io::Result<()> {
        self.anchor = session.anchor;
        Ok(())
    }

    fn moved(&mut self, step: &Step, out: &mut Vec<u8>) -> io::Result<()> {
        self.other(step.change, out)
    }

    fn other(&mut self, change: &Change, out: &mut Vec<u8>) -> io::Result<()> {
        line(&Line::change(change, self.anchor), out)
    }

    fn end(&mut self, tracker: &Tracker, summary: &Summary, out: &mut Vec<u8>) -> io::Result<()> {
        line(&SummaryLine::new(summary, tracker.now(), self.anchor), out)
    }
}

fn line(object: &impl Serialize, out: &mut Vec<u8>) -> io::Result<()> {
    serde_json::to_writer(&mut *out, object)?;
    out.push(b'\n');
    Ok(())
}

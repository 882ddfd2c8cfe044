//! The interval log of HdrHistogram, version 1.3: how long connections were in each state.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Write as _;
use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer as _, V2DeflateSerializer};

use super::{Format, Step};
use crate::recording::Session;
use crate::report::summary::Summary;
use crate::state::{StateSet, TcpState};
use crate::time::{Age, Mono};
use crate::tracker::Tracker;

/// The kernel tells of a minisocket's death this long after others at the most; so long an interval
/// stays open behind its end, ns.
const LATE: u64 = 1_000_000_000;

/// What readers in other languages can count, ns.
const LONGEST: u64 = i64::MAX as u64 >> 1;

/// 3 significant digits, like every percentile that tcptrace prints.
const DIGITS: u8 = 3;

/// A histogram per interval and state, of exact durations and of estimated ones.
pub struct Hlog {
    /// States that are told of.
    states: StateSet,
    interval_ns: u64,
    start: Mono,
    /// Intervals before this one were written.
    written: u64,
    open: BTreeMap<(u64, Tag), Histogram<u64>>,
    serializer: V2DeflateSerializer,
}

/// Which durations: of a state, and whether they are estimated.
type Tag = (TcpState, bool);

impl Hlog {
    /// Of these states, with intervals of so many ns.
    pub fn new(states: StateSet, interval_ns: u64) -> Hlog {
        Hlog {
            states,
            interval_ns: interval_ns.max(1),
            start: Mono(0),
            written: 0,
            open: BTreeMap::new(),
            serializer: V2DeflateSerializer::new(),
        }
    }

    /// Writes the intervals before this one.
    fn write_before(&mut self, interval: u64, out: &mut Vec<u8>) -> io::Result<()> {
        while let Some(entry) = self.open.first_entry()
            && entry.key().0 < interval
        {
            let ((number, tag), histogram) = entry.remove_entry();
            self.line(number, tag, &histogram, out)?;
        }
        self.written = self.written.max(interval);
        Ok(())
    }

    fn line(
        &mut self,
        number: u64,
        (state, estimated): Tag,
        histogram: &Histogram<u64>,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        let mut packed = Vec::new();
        self.serializer
            .serialize(histogram, &mut packed)
            .map_err(io::Error::other)?;
        let seconds = |ns: u64| ns as f64 / 1e9;
        let mut line = format!("Tag={}", state.name());
        if estimated {
            line.push_str(".estimated");
        }
        // A String takes whatever it is given.
        let _ = write!(
            line,
            ",{:.3},{:.3},{:.3},",
            seconds(number.saturating_mul(self.interval_ns)),
            seconds(self.interval_ns),
            histogram.max() as f64 / 1e6,
        );
        STANDARD.encode_string(&packed, &mut line);
        line.push('\n');
        out.extend_from_slice(line.as_bytes());
        Ok(())
    }
}

impl Format for Hlog {
    fn begin(&mut self, session: &Session, out: &mut Vec<u8>) -> io::Result<()> {
        self.start = session.anchor.mono;
        let start = session.anchor.wall_ns as f64 / 1e9;
        let when = session.anchor.rfc3339(self.start);
        let head = format!(
            "#[Logged with tcptrace: ns in each state, in the interval in which it was left]\n\
             #[Histogram log format version 1.3]\n\
             #[StartTime: {start:.3} (seconds since epoch), {when}]\n\
             #[BaseTime: {start:.3} (seconds since epoch)]\n\
             \"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\
             \"Interval_Compressed_Histogram\"\n"
        );
        out.extend_from_slice(head.as_bytes());
        Ok(())
    }

    fn moved(&mut self, step: &Step, out: &mut Vec<u8>) -> io::Result<()> {
        let view = step.view;
        let ns = match view.age {
            // A bound of 0 says nothing.
            Age::Between { min: 0, max } => max,
            age => age.at_least(),
        };
        let Some(ns) = ns.filter(|_| self.states.contains(view.state)) else {
            return Ok(());
        };
        let since = view.at.since(self.start);
        self.write_before(since.saturating_sub(LATE) / self.interval_ns, out)?;
        let interval = (since / self.interval_ns).max(self.written);
        let tag = (view.state, view.age.is_estimated());
        let histogram = match self.open.entry((interval, tag)) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Histogram::new(DIGITS).map_err(io::Error::other)?),
        };
        histogram.record(ns.min(LONGEST)).map_err(io::Error::other)
    }

    fn end(&mut self, _: &Tracker, _: &Summary, out: &mut Vec<u8>) -> io::Result<()> {
        self.write_before(u64::MAX, out)
    }
}

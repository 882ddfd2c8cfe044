//! Work of the core on inputs that are the same on every machine, to be timed (`benches/core.rs`)
//! and to have its instructions counted (`bin/counted.rs`). `cargo xtask bench` runs both.

#[path = "../../tcptrace-core/tests/recording/churn.rs"]
mod churn;

use tcptrace_core::filter::Filter;
use tcptrace_core::input::{EventBody, Input};
use tcptrace_core::owner::{Actor, Comm};
use tcptrace_core::recording::{Ending, Item, Reader, Session, Writer};
use tcptrace_core::report::full::Report;
use tcptrace_core::report::full_text::{self, Style};
use tcptrace_core::report::series::Series;
use tcptrace_core::report::summary::Key;
use tcptrace_core::state::{StateSet, lingering};
use tcptrace_core::time::{Mono, WallAnchor};
use tcptrace_core::tracker::{Minisockets, Options, Tracker};

/// How many processes there are in [`Work::Group`].
const OWNERS: u64 = 10_000;

/// A piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Inputs to the bytes of a recording.
    Encode,
    /// These bytes to inputs.
    Decode,
    /// Inputs to the tracker, as `watch` does it.
    Apply,
    /// A recording to its report, as `report` does it.
    Report,
    /// Inputs to the tracker, by process, where there are 10,000.
    Group,
}

impl Work {
    /// Every piece.
    pub const ALL: [Work; 5] = [
        Work::Encode,
        Work::Decode,
        Work::Apply,
        Work::Report,
        Work::Group,
    ];

    /// As it is called.
    pub fn name(self) -> &'static str {
        match self {
            Work::Encode => "encode",
            Work::Decode => "decode",
            Work::Apply => "apply",
            Work::Report => "report",
            Work::Group => "group",
        }
    }

    /// The piece of that name.
    pub fn named(name: &str) -> Option<Work> {
        Work::ALL.into_iter().find(|work| work.name() == name)
    }
}

/// What the work is done on.
#[derive(Debug)]
pub struct Load {
    inputs: Vec<Input>,
    /// The same with the owners of [`Work::Group`].
    owned: Vec<Input>,
    recording: Vec<u8>,
}

impl Load {
    /// So many connections over loopback, both ends, from handshake to close.
    pub fn new(connections: u64) -> Load {
        let mut inputs = churn::inputs(connections);
        let end = inputs.last().and_then(Input::at).unwrap_or(Mono(0));
        inputs.push(Input::End(end));
        Load {
            recording: encode(&inputs),
            owned: inputs.iter().map(with_owner).collect(),
            inputs,
        }
    }

    /// How many records it has.
    pub fn records(&self) -> u64 {
        self.inputs.len() as u64
    }

    /// Bytes of its recording.
    pub fn bytes(&self) -> u64 {
        self.recording.len() as u64
    }

    /// Does a piece of work, whose result is of some length.
    pub fn run(&self, work: Work) -> usize {
        match work {
            Work::Encode => encode(&self.inputs).len(),
            Work::Decode => {
                let mut length = 0;
                decode(&self.recording, |inputs| length += inputs.len());
                length
            }
            Work::Apply => self.apply(&self.inputs, Vec::new()),
            Work::Report => self.report(),
            Work::Group => self.apply(&self.owned, vec![Key::Comm, Key::Pid]),
        }
    }

    fn apply(&self, inputs: &[Input], by: Vec<Key>) -> usize {
        let mut tracker = Tracker::new(options(by));
        let mut changes = Vec::new();
        for input in inputs {
            changes.clear();
            tracker.apply(input, &mut changes);
        }
        tracker.summary().groups.len()
    }

    fn report(&self) -> usize {
        let mut tracker = Tracker::new(options(vec![Key::Comm, Key::Pid]));
        let mut series = Series::new(tracker.watched());
        let mut changes = Vec::new();
        decode(&self.recording, |inputs| {
            for input in inputs {
                series.input(input, &tracker);
                tracker.apply(input, &mut changes);
                changes.clear();
            }
        });
        series.end(&tracker);
        let report = Report {
            summary: tracker.summary(),
            histograms: tracker.histograms(StateSet::all()),
            series,
            anchor: WallAnchor::default(),
        };
        let style = Style {
            terminal: None,
            color: false,
            percentiles: false,
            top: 20,
        };
        full_text::to_text(&report, style).len()
    }
}

/// Those of `watch` without options, with everything attached.
fn options(by: Vec<Key>) -> Options {
    Options {
        filter: Filter {
            states: lingering(),
            min_age_ns: 1_000_000_000,
            ..Filter::default()
        },
        by,
        minisockets: Minisockets::Seen,
        mode: "full".to_owned(),
        ..Options::default()
    }
}

fn encode(inputs: &[Input]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::begin(&Session::default(), &mut bytes);
    for input in inputs {
        // None of these is as long as half a block.
        let _ = writer.append(input);
        if writer.is_full() {
            writer.flush(&mut bytes);
        }
    }
    writer.end(Ending::Ended, &mut bytes);
    bytes
}

fn decode(recording: &[u8], mut take: impl FnMut(&[Input])) {
    let mut reader = Reader::new();
    let mut inputs = Vec::new();
    for chunk in recording.chunks(256 << 10) {
        reader.push(chunk);
        while let Ok(item) = reader.next(&mut inputs)
            && !matches!(item, Item::More | Item::Done)
        {
            take(&inputs);
            inputs.clear();
        }
    }
}

/// The same of one of many processes.
fn with_owner(input: &Input) -> Input {
    let mut input = input.clone();
    if let Input::Kernel(event) = &mut input {
        let owner = 1_000 + event.cookie % OWNERS;
        match &mut event.body {
            EventBody::State(change) => {
                change.actor = change.actor.map(|actor| of_process(actor, owner));
            }
            EventBody::Accept { actor, .. }
            | EventBody::Close { actor, .. }
            | EventBody::Eof { actor } => *actor = of_process(*actor, owner),
            EventBody::Mini { .. } | EventBody::LeftOut => {}
        }
    }
    input
}

fn of_process(actor: Actor, pid: u64) -> Actor {
    Actor {
        pid: pid as u32,
        tid: pid as u32,
        comm: Comm::from_bytes(format!("job-{}", pid % 100).as_bytes()),
        ..actor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_done_and_is_the_same_again() {
        let load = Load::new(200);
        assert_eq!(load.run(Work::Decode) as u64, load.records());
        assert_eq!(load.run(Work::Encode) as u64, load.bytes());
        assert!(load.run(Work::Report) > 500);
        // A client and a server of each connection, of which one lingers as neither's.
        assert!(load.run(Work::Group) > 200);
        assert_eq!(load.run(Work::Apply), 0);
        let again = Load::new(200);
        for work in Work::ALL {
            assert_eq!(Work::named(work.name()), Some(work));
            assert_eq!(load.run(work), again.run(work), "{}", work.name());
        }
    }
}

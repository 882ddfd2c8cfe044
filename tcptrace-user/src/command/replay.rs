//! `tcptrace replay`: what `watch` would have printed of what was recorded.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tcptrace_core::change::Change;
use tcptrace_core::filter::Filter;
use tcptrace_core::input::{Definition, Input, Sweep};
use tcptrace_core::recording::Capture;
use tcptrace_core::report::summary::Completeness;
use tcptrace_core::report::summary_text;
use tcptrace_core::report::timeline::Timeline;
use tcptrace_core::state::StateSet;
use tcptrace_core::time::{Mono, WallAnchor};
use tcptrace_core::tracker::{Minisockets, Options, Tracker};

use super::trace::WRITE;
use crate::end::End;
use crate::error::{EXIT_INCOMPLETE, Usage};
use crate::moment::Moment;
use crate::options::Replay;
use crate::pace::Pace;
use crate::pipeline::{Pipeline, Sink};
use crate::recorder::Progress;
use crate::screen::Screen;
use crate::source::replay::{Missing, Recording, Step};
use crate::source::start;

/// Runs `tcptrace replay`.
///
/// # Errors
/// If the files are none, or not of one recording, or cannot be read.
pub(crate) fn run(options: &Replay) -> anyhow::Result<ExitCode> {
    let recording = Recording::open(&options.files)?;
    let anchor = recording.session().anchor;
    let capture = recording.session().capture.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    let closed = options.from.is_some();
    let complete = match &options.conn {
        None => {
            let tracker = tracker_options(options, &capture)?;
            let screen = Screen::new(&options.look, anchor).context(WRITE)?;
            let gate = Gate { screen, closed };
            let replayed = runtime.block_on(replay(options, recording, tracker, gate))?;
            let Some((tracker, mut gate, missing)) = replayed else {
                return Ok(ExitCode::SUCCESS);
            };
            let mut summary = tracker.summary();
            missing.tell(&mut summary.completeness);
            let at = tracker.now();
            gate.screen.summary(&summary, at).context(WRITE)?;
            summary.completeness.complete()
        }
        Some(wanted) => {
            let tracker = one_life(options, &capture);
            let timeline = Timeline::new(wanted.clone());
            let story = Story { timeline, closed };
            let replayed = runtime.block_on(replay(options, recording, tracker, story))?;
            let Some((tracker, story, missing)) = replayed else {
                return Ok(ExitCode::SUCCESS);
            };
            let mut completeness = tracker.summary().completeness;
            missing.tell(&mut completeness);
            let complete = completeness.complete();
            if !complete {
                let data = summary_text::completeness(&completeness);
                options.look.terminal.notice(&data);
            }
            print(&story.timeline, anchor, options.look.json)?;
            complete
        }
    };
    Ok(match options.strict && !complete {
        true => ExitCode::from(EXIT_INCOMPLETE),
        false => ExitCode::SUCCESS,
    })
}

fn print(timeline: &Timeline, anchor: WallAnchor, json: bool) -> anyhow::Result<()> {
    if timeline.is_empty() {
        return Err(Usage::new(
            "no such connection in what was replayed",
            "`tcptrace replay FILE --transitions --json` lists all with their ids and ends",
        )
        .into());
    }
    let mut document = Vec::new();
    match json {
        false => document.extend(timeline.to_text(anchor).into_bytes()),
        true => {
            for object in timeline.to_json(anchor) {
                serde_json::to_writer(&mut document, &object)?;
                document.push(b'\n');
            }
        }
    }
    super::print(&document).context(WRITE)
}

/// Replays what was asked for; `None`: whoever read it went away.
async fn replay<S: Shown>(
    options: &Replay,
    mut recording: Recording,
    tracker: Options,
    sink: S,
) -> anyhow::Result<Option<(Tracker, S, Missing)>> {
    let mut end = End::new()?;
    let session = recording.session();
    let of = |moment: &Moment| moment.of(session.anchor, &options.zone);
    let mut replay = Running {
        ticks: !ticks_fit(&session.capture, &tracker.filter),
        dumping: false,
        pipeline: Pipeline::new(None, Tracker::new(tracker), sink),
        from: options.from.as_ref().map(of),
        to: options.to.as_ref().map(of),
        pace: options.speed.map(Pace::new),
        past: false,
        ended: false,
    };
    let mut inputs = Vec::new();
    let mut interrupted = false;
    let mut gaps = 0;
    let mut step = Step::More;
    while step != Step::Done && !replay.past && !interrupted {
        inputs.clear();
        step = recording.next(&mut inputs)?;
        if recording.missing().gaps > gaps {
            gaps = recording.missing().gaps;
            replay.pipeline.sink().gap();
            // Its end may be what is missing.
            replay.dumping = false;
        }
        interrupted = end.reached_within(Duration::ZERO).await;
        for input in &inputs {
            let wait = replay.wait(input);
            if !wait.is_zero() {
                if !replay.pipeline.pause().context(WRITE)? {
                    return Ok(None);
                }
                interrupted = end.reached_within(wait).await;
            }
            if replay.past || interrupted {
                break;
            }
            replay.feed(input).context(WRITE)?;
        }
        if !replay.pipeline.pause().context(WRITE)? {
            return Ok(None);
        }
    }
    let missing = recording.missing();
    for note in notes(missing) {
        options.look.terminal.notice(&note);
        let note = Definition::Note(Arc::from(note));
        replay.pipeline.feed(&Input::Define(note)).context(WRITE)?;
    }
    replay.end().context(WRITE)?;
    let (tracker, sink, _) = replay.pipeline.into_parts();
    Ok(Some((tracker, sink, missing)))
}

/// As a live run with these options would have it.
fn tracker_options(options: &Replay, capture: &Capture) -> Result<Options, Usage> {
    let (states, transitions) = options.states(capture)?;
    Ok(Options {
        filter: Filter {
            states,
            min_age_ns: options.min_age_ns.unwrap_or(capture.min_age_ns),
            ..options.filter.clone()
        },
        transitions,
        by: options.by.clone(),
        minisockets: match start::watches_minisockets(states.union(transitions)) {
            true => capture.minisockets,
            false => Minisockets::Ignored,
        },
        ..all_of(capture)
    })
}

/// Every transition, and nothing that is stuck.
fn one_life(options: &Replay, capture: &Capture) -> Options {
    Options {
        filter: Filter {
            states: StateSet::EMPTY,
            ..options.filter.clone()
        },
        ..all_of(capture)
    }
}

fn all_of(capture: &Capture) -> Options {
    Options {
        filter: Filter::default(),
        transitions: capture.states,
        by: Vec::new(),
        minisockets: capture.minisockets,
        overflows_seen: capture.overflows_seen,
        selective: capture.selective,
        polled_ns: capture.polled_ns,
        mode: capture.mode.clone(),
    }
}

/// Whether the ticks of the recording are those that are owed here.
fn ticks_fit(capture: &Capture, filter: &Filter) -> bool {
    capture.shown == filter.states && capture.min_age_ns == filter.min_age_ns
}

/// What a person has to know of what is missing.
fn notes(missing: Missing) -> Vec<String> {
    let mut notes = Vec::new();
    if missing.no_end {
        notes.push(
            "the recording breaks off: it was cut, its writer was killed, or is still at it"
                .to_owned(),
        );
    }
    if missing.bytes > 0 {
        notes.push(format!(
            "{} bytes of the recording could not be read",
            missing.bytes
        ));
    }
    if missing.unknown > 0 {
        let unknown = missing.unknown;
        notes.push(format!(
            "{unknown} records are of kinds that only a later version knows, and were skipped"
        ));
    }
    notes
}

impl Missing {
    fn tell(self, completeness: &mut Completeness) {
        completeness.unread_bytes = self.bytes;
        completeness.gaps = self.gaps;
    }
}

/// A replay on its way.
struct Running<S> {
    pipeline: Pipeline<S>,
    /// What was before is taken in silence; `None`: the beginning, or it is past.
    from: Option<Mono>,
    to: Option<Mono>,
    /// Ticks are owed that are not in the recording.
    ticks: bool,
    /// In the midst of a dump, after which come the owners of what it showed: no ticks.
    dumping: bool,
    pace: Option<Pace>,
    /// What follows was not asked for.
    past: bool,
    /// The tracker knows that nothing follows.
    ended: bool,
}

impl<S: Shown> Running<S> {
    /// How long to wait before an input.
    fn wait(&mut self, input: &Input) -> Duration {
        match (&mut self.pace, input.at(), self.from) {
            (Some(pace), Some(at), None) => pace.wait(at),
            _ => Duration::ZERO,
        }
    }

    fn feed(&mut self, input: &Input) -> io::Result<()> {
        if let Some(at) = input.at() {
            if let Some(to) = self.to.filter(|to| at > *to) {
                self.ticks_before(to)?;
                (self.past, self.ended) = (true, true);
                return self.pipeline.feed(&Input::End(to));
            }
            match input {
                Input::Sweep(sweep) => self.dumping = matches!(sweep, Sweep::Begin { .. }),
                // What is looked up for a socket follows its row.
                Input::Socket(_) => {}
                _ if self.dumping => {}
                _ => self.ticks_before(at)?,
            }
            if self.from.is_some_and(|from| at >= from) {
                self.begin()?;
            }
        }
        self.ended |= matches!(input, Input::End(_));
        self.pipeline.feed(input)
    }

    /// What is shown begins here.
    fn begin(&mut self) -> io::Result<()> {
        let Some(from) = self.from.take() else {
            return Ok(());
        };
        self.pipeline.restart(from);
        self.pipeline.sink().open();
        self.pipeline.feed(&Input::Tick(from))
    }

    fn ticks_before(&mut self, at: Mono) -> io::Result<()> {
        while self.ticks
            && let Some(owed) = self.pipeline.tracker().next_deadline()
            && owed < at
        {
            self.pipeline.feed(&Input::Tick(owed))?;
        }
        Ok(())
    }

    /// Nothing follows. A recording that has an end has said so itself.
    fn end(&mut self) -> io::Result<()> {
        self.begin()?;
        match self.ended {
            true => Ok(()),
            false => {
                let now = self.pipeline.tracker().now();
                self.pipeline.feed(&Input::End(now))
            }
        }
    }
}

/// What a replay fills.
trait Shown: Sink {
    /// What comes from here on was asked for.
    fn open(&mut self);

    /// A part of the recording is missing here.
    fn gap(&mut self);
}

/// The screen, which may be closed.
struct Gate {
    screen: Screen,
    closed: bool,
}

impl Shown for Gate {
    fn open(&mut self) {
        self.closed = false;
    }

    fn gap(&mut self) {}
}

impl Sink for Gate {
    fn change(&mut self, change: &Change) -> io::Result<()> {
        match self.closed {
            false => self.screen.change(change),
            true => Ok(()),
        }
    }

    fn pause(&mut self, tracker: &Tracker, recorded: Option<Progress>) -> io::Result<bool> {
        self.screen.pause(tracker, recorded)
    }
}

/// What became of one connection, told when all is known.
struct Story {
    timeline: Timeline,
    closed: bool,
}

impl Shown for Story {
    fn open(&mut self) {
        self.closed = false;
    }

    fn gap(&mut self) {
        self.timeline.gap();
    }
}

impl Sink for Story {
    fn input(&mut self, input: &Input) {
        if !self.closed {
            self.timeline.input(input);
        }
    }

    fn change(&mut self, change: &Change) -> io::Result<()> {
        if !self.closed {
            self.timeline.change(change);
        }
        Ok(())
    }

    fn pause(&mut self, _: &Tracker, _: Option<Progress>) -> io::Result<bool> {
        Ok(true)
    }
}

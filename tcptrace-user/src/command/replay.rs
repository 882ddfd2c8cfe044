//! `tcptrace replay`: what `watch` would have printed of what was recorded.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tcptrace_core::change::Change;
use tcptrace_core::filter::Filter;
use tcptrace_core::input::{Definition, Input};
use tcptrace_core::recording::Capture;
use tcptrace_core::state::StateSet;
use tcptrace_core::time::Mono;
use tcptrace_core::tracker::{Minisockets, Options, Tracker};

use super::trace::WRITE;
use crate::end::End;
use crate::error::EXIT_INCOMPLETE;
use crate::options::Replay;
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
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    runtime.block_on(replay(options, recording))
}

async fn replay(options: &Replay, mut recording: Recording) -> anyhow::Result<ExitCode> {
    let mut end = End::new()?;
    let session = recording.session();
    let (anchor, capture) = (session.anchor, session.capture.clone());
    let of = |moment: &Option<crate::moment::Moment>| {
        moment
            .as_ref()
            .map(|moment| moment.of(anchor, &options.zone))
    };
    let (from, to) = (of(&options.from), of(&options.to));
    let (states, transitions) = options.states(&capture)?;
    let gate = Gate {
        screen: Screen::new(&options.look, anchor).context(WRITE)?,
        open: from.is_none(),
    };
    let options_of_tracker = tracker_options(options, &capture, states, transitions);
    let ticks = !ticks_fit(&capture, &options_of_tracker.filter);
    let tracker = Tracker::new(options_of_tracker);
    let mut replay = Running {
        pipeline: Pipeline::new(None, tracker, gate),
        from,
        to,
        ticks,
        pace: options.speed.map(Pace::new),
        past: false,
        ended: false,
    };
    let mut inputs = Vec::new();
    let mut interrupted = false;
    let mut step = Step::More;
    while step != Step::Done && !replay.past && !interrupted {
        inputs.clear();
        step = recording.next(&mut inputs)?;
        interrupted = end.reached_within(Duration::ZERO).await;
        for input in &inputs {
            if replay.past || interrupted {
                break;
            }
            let wait = replay.wait(input);
            if !wait.is_zero() {
                if !replay.pipeline.pause().context(WRITE)? {
                    return Ok(ExitCode::SUCCESS);
                }
                interrupted = end.reached_within(wait).await;
            }
            replay.feed(input).context(WRITE)?;
        }
        if !replay.pipeline.pause().context(WRITE)? {
            return Ok(ExitCode::SUCCESS);
        }
    }
    let missing = recording.missing();
    for note in notes(missing) {
        options.look.terminal.notice(&note);
        let note = Definition::Note(Arc::from(note));
        replay.pipeline.feed(&Input::Define(note)).context(WRITE)?;
    }
    replay.end().context(WRITE)?;
    let (tracker, mut gate, _) = replay.pipeline.into_parts();
    let mut summary = tracker.summary();
    summary.completeness.unread_bytes = missing.bytes;
    summary.completeness.gaps = missing.gaps;
    gate.screen
        .summary(&summary, tracker.now())
        .context(WRITE)?;
    Ok(match options.strict && !summary.completeness.complete() {
        true => ExitCode::from(EXIT_INCOMPLETE),
        false => ExitCode::SUCCESS,
    })
}

fn tracker_options(
    options: &Replay,
    capture: &Capture,
    states: StateSet,
    transitions: StateSet,
) -> Options {
    Options {
        filter: Filter {
            states,
            min_age_ns: options.min_age_ns.unwrap_or(capture.min_age_ns),
            ..options.filter.clone()
        },
        transitions,
        by: options.by.clone(),
        // As a live run with these states would have it.
        minisockets: match start::watches_minisockets(states.union(transitions)) {
            true => capture.minisockets,
            false => Minisockets::Ignored,
        },
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

/// A replay on its way.
struct Running {
    pipeline: Pipeline<Gate>,
    /// What was before is taken in silence; `None`: the beginning, or it is past.
    from: Option<Mono>,
    to: Option<Mono>,
    /// Ticks are owed that are not in the recording.
    ticks: bool,
    pace: Option<Pace>,
    /// What follows was not asked for.
    past: bool,
    /// The tracker knows that nothing follows.
    ended: bool,
}

impl Running {
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
            self.ticks_before(at)?;
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
        self.pipeline.sink().open = true;
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

/// The screen, which may be closed.
struct Gate {
    screen: Screen,
    open: bool,
}

impl Sink for Gate {
    fn change(&mut self, change: &Change) -> io::Result<()> {
        match self.open {
            true => self.screen.change(change),
            false => Ok(()),
        }
    }

    fn pause(&mut self, tracker: &Tracker, recorded: Option<Progress>) -> io::Result<bool> {
        self.screen.pause(tracker, recorded)
    }
}

/// Keeps the time of the recording, so many times as fast.
struct Pace {
    times: f64,
    began: Option<(Instant, Mono)>,
}

impl Pace {
    fn new(times: f64) -> Pace {
        Pace { times, began: None }
    }

    fn wait(&mut self, at: Mono) -> Duration {
        /// Waits that are shorter are not worth it.
        const LEAST: Duration = Duration::from_millis(2);
        let now = Instant::now();
        let (began, first) = *self.began.get_or_insert((now, at));
        let seconds = at.since(first) as f64 / 1e9 / self.times;
        let due = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        let wait = due.saturating_sub(now.duration_since(began));
        match wait < LEAST {
            true => Duration::ZERO,
            false => wait,
        }
    }
}

//! A recording through the pipeline: what `replay`, `report`, `diff` and `export` share.

use std::io::{self, IsTerminal as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tcptrace_core::filter::Filter;
use tcptrace_core::input::{Definition, Input, Sweep};
use tcptrace_core::recording::Capture;
use tcptrace_core::report::summary::Summary;
use tcptrace_core::time::Mono;
use tcptrace_core::tracker::{LATE_NS, Options, Tracker};

use super::trace::WRITE;
use crate::end::End;
use crate::moment::Moment;
use crate::options::{Excerpt, Terminal};
use crate::pace::Pace;
use crate::pipeline::{Pipeline, Sink};
use crate::source::replay::{Missing, Recording, Step};
use crate::status::{StatusLine, size_text};

/// What a replay fills.
pub(super) trait Shown: Sink {
    /// What comes from here on was asked for; `at`: where that begins.
    fn open(&mut self, at: Mono);

    /// A part of the recording is missing here.
    fn gap(&mut self);

    /// Whether it prints before the end: a status line on the same terminal would disturb.
    fn prints_meanwhile(&self) -> bool {
        true
    }
}

/// What is left of a replay when it has ended.
pub(super) struct Played<S> {
    pub(super) tracker: Tracker,
    pub(super) sink: S,
    missing: Missing,
}

impl<S> Played<S> {
    /// The totals, and what of the recording is missing.
    pub(super) fn summary(&self) -> Summary {
        let mut summary = self.tracker.summary();
        summary.completeness.unread_bytes = self.missing.bytes;
        summary.completeness.gaps = self.missing.gaps;
        summary
    }
}

/// Replays what was asked for; `None`: whoever read the output went away.
///
/// # Errors
/// If the recording cannot be read, or the output not be written.
pub(super) fn play<S: Shown>(
    recording: Recording,
    excerpt: &Excerpt,
    tracker: Options,
    terminal: &Terminal,
    sink: S,
) -> anyhow::Result<Option<Played<S>>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    runtime.block_on(run(recording, excerpt, tracker, terminal, sink))
}

async fn run<S: Shown>(
    mut recording: Recording,
    excerpt: &Excerpt,
    tracker: Options,
    terminal: &Terminal,
    sink: S,
) -> anyhow::Result<Option<Played<S>>> {
    let mut end = End::new()?;
    let session = recording.session();
    let ticks = !ticks_fit(&session.capture, &tracker.filter);
    let mut tracker = Tracker::new(tracker);
    tracker.lost_before(session.lost_before);
    let of = |moment: &Moment| moment.of(session.anchor, &excerpt.zone);
    let mut replay = Running {
        ticks,
        dumping: false,
        pipeline: Pipeline::new(None, tracker, sink),
        from: excerpt.from.as_ref().map(of),
        to: excerpt.to.as_ref().map(of),
        pace: excerpt.speed.map(Pace::new),
        late_until: None,
        past: false,
        ended: false,
    };
    let mut status = status(terminal, excerpt, replay.pipeline.sink().prints_meanwhile());
    let began = Instant::now();
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
        if end.reached_within(Duration::ZERO).await {
            break;
        }
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
            replay.feed(input);
        }
        if !replay.pipeline.pause().context(WRITE)? {
            return Ok(None);
        }
        status.renew(|_| progress_text(recording.progress(), began.elapsed()));
    }
    drop(status);
    let missing = recording.missing();
    for note in notes(missing) {
        terminal.notice(&note);
        let note = Definition::Note(Arc::from(note));
        replay.pipeline.feed(&Input::Define(note));
    }
    replay.end();
    if !replay.pipeline.pause().context(WRITE)? {
        return Ok(None);
    }
    let (tracker, sink, _) = replay.pipeline.into_parts();
    Ok(Some(Played {
        tracker,
        sink,
        missing,
    }))
}

/// A line that tells how far a replay is which takes its time, unless that is meant.
fn status(terminal: &Terminal, excerpt: &Excerpt, prints_meanwhile: bool) -> StatusLine {
    let in_the_way = prints_meanwhile && io::stdout().is_terminal();
    let wanted = !terminal.quiet && excerpt.speed.is_none() && !in_the_way;
    StatusLine::new(wanted && io::stderr().is_terminal())
}

/// `replaying: 34 %, 12.0 MiB of 35.2 MiB, 3 s left`.
fn progress_text((read, length): (u64, Option<u64>), elapsed: Duration) -> String {
    let Some(length) = length.filter(|length| *length > 0 && read > 0) else {
        return format!("replaying: {}", size_text(read));
    };
    let done = read.min(length) as f64 / length as f64;
    let left = elapsed.as_secs_f64() * (1.0 - done) / done;
    format!(
        "replaying: {:.0} %, {} of {}, {left:.0} s left",
        100.0 * done,
        size_text(read),
        size_text(length)
    )
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
    /// What follows was not asked for, but for threads that were told of late: until here.
    late_until: Option<Mono>,
    /// Nothing that follows was asked for.
    past: bool,
    /// The tracker knows that nothing follows.
    ended: bool,
}

impl<S: Shown> Running<S> {
    /// How long to wait before an input.
    fn wait(&mut self, input: &Input) -> Duration {
        match (&mut self.pace, input.at(), self.from) {
            (Some(pace), Some(at), None) if self.late_until.is_none() => pace.wait(at),
            _ => Duration::ZERO,
        }
    }

    fn feed(&mut self, input: &Input) {
        if let Some(to) = self.to
            && (self.late_until.is_some() || input.at().is_some_and(|at| at > to))
        {
            return self.feed_late(input, to);
        }
        if let Some(at) = input.at() {
            match input {
                Input::Sweep(sweep) => self.dumping = matches!(sweep, Sweep::Begin { .. }),
                // What is looked up for a socket follows its row.
                Input::Socket(_) => {}
                _ if self.dumping => {}
                _ => self.ticks_before(at),
            }
            if self.from.is_some_and(|from| at >= from) {
                self.begin();
            }
        }
        self.ended |= matches!(input, Input::End(_));
        self.pipeline.feed(input);
    }

    /// Takes an input that comes behind `to`, which is the end: threads are told of some time after they
    /// were seen.
    fn feed_late(&mut self, input: &Input, to: Mono) {
        let until = match self.late_until {
            Some(until) => until,
            None => {
                self.ticks_before(to);
                *self.late_until.insert(to.plus(LATE_NS))
            }
        };
        match input {
            Input::Stack(seen) if seen.at <= to => self.pipeline.feed(input),
            Input::Define(Definition::Stack(_)) => self.pipeline.feed(input),
            _ => self.past = input.at().is_some_and(|at| at > until),
        }
    }

    /// What is shown begins here.
    fn begin(&mut self) {
        let Some(from) = self.from.take() else {
            return;
        };
        self.pipeline.restart(from);
        self.pipeline.sink().open(from);
        self.pipeline.feed(&Input::Tick(from));
    }

    fn ticks_before(&mut self, at: Mono) {
        while self.ticks
            && let Some(owed) = self.pipeline.tracker().next_deadline()
            && owed < at
        {
            self.pipeline.feed(&Input::Tick(owed));
        }
    }

    /// Nothing follows. A recording that has an end has said so itself.
    fn end(&mut self) {
        self.begin();
        if !self.ended {
            let to = self.to.filter(|_| self.late_until.is_some());
            let end = to.unwrap_or_else(|| self.pipeline.tracker().now());
            self.pipeline.feed(&Input::End(end));
        }
    }
}

#[cfg(test)]
mod tests {
    use tcptrace_core::change::Change;
    use tcptrace_core::input::{Event, EventBody, StateChange};
    use tcptrace_core::stack::{Point, Seen, Stack, StackId};
    use tcptrace_core::state::TcpState;
    use tcptrace_core::tuple::Tuple;

    use super::*;
    use crate::recorder::Progress;

    struct Nothing;

    impl Shown for Nothing {
        fn open(&mut self, _: Mono) {}

        fn gap(&mut self) {}
    }

    impl Sink for Nothing {
        fn change(&mut self, _: &Change) -> io::Result<()> {
            Ok(())
        }

        fn pause(&mut self, _: &Tracker, _: Option<Progress>) -> io::Result<bool> {
            Ok(true)
        }
    }

    fn second(n: u64) -> Mono {
        Mono(n * 1_000_000_000)
    }

    fn connects(cookie: u64, at: Mono) -> Input {
        let ends = ([10, 0, 0, 1], 1_000).into();
        let tuple = Tuple::new(ends, ([10, 0, 0, 2], 443).into(), Some(1));
        let change = StateChange::new(tuple, TcpState::Close, TcpState::SynSent);
        Input::Kernel(Event::new(at, cookie, EventBody::State(change)))
    }

    fn seen(cookie: u64, at: Mono) -> Input {
        Input::Stack(Seen {
            at,
            cookie,
            point: Point::Connect,
            pid: 7,
            tid: 7,
            stack: StackId(3),
        })
    }

    #[test]
    fn threads_are_told_of_after_the_end_that_was_asked_for() {
        let tracker = Tracker::new(Options {
            stacks: true,
            ledgers: true,
            ..Options::default()
        });
        let mut replay = Running {
            ticks: true,
            dumping: false,
            pipeline: Pipeline::new(None, tracker, Nothing),
            from: None,
            to: Some(second(2)),
            pace: None,
            late_until: None,
            past: false,
            ended: false,
        };
        let stack = Stack {
            id: StackId(3),
            frames: [].into(),
            cut: None,
        };
        for input in [
            connects(1, second(1)),
            connects(2, second(3)),
            Input::Define(Definition::Stack(stack)),
            seen(1, second(1)),
            seen(2, second(3)),
            Input::Tick(second(7)),
        ] {
            replay.feed(&input);
            assert!(!replay.past, "{input:?}");
        }
        replay.feed(&Input::Tick(second(8)));
        assert!(replay.past);
        replay.end();
        let tracker = replay.pipeline.tracker();
        let ledger = tracker.ledger(StackId(3)).map(|ledger| ledger.acquired);
        assert_eq!(ledger, Some(1));
        assert_eq!(tracker.now(), second(2));
        assert_eq!(tracker.stacks_refused(), 0);
    }

    #[test]
    fn progress_says_what_is_known() {
        let text = |read, length| progress_text((read, length), Duration::from_secs(2));
        let (read, length) = (12 << 20, 36 << 20);
        assert_eq!(
            text(read, Some(length)),
            "replaying: 33 %, 12.0 MiB of 36.0 MiB, 4 s left"
        );
        assert_eq!(text(read, None), "replaying: 12.0 MiB");
        assert_eq!(text(0, Some(length)), "replaying: 0 B");
        // It grows while it is read.
        let more = text(length, Some(read));
        assert_eq!(more, "replaying: 100 %, 36.0 MiB of 12.0 MiB, 0 s left");
    }
}

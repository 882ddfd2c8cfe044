//! Open sockets over time: a bounded number of points, however long it takes.

use crate::input::Input;
use crate::state::{StateSet, TcpState};
use crate::time::Mono;
use crate::tracker::Tracker;

/// More points than this are made half as many.
const MAX_POINTS: usize = 240;

/// Time between two points at first, ns.
const FIRST_STEP_NS: u64 = 250_000_000;

/// As many sockets as may be counted in [`FIRST_STEP_NS`]: of more, points are rarer.
const MAX_COUNTED: u64 = 100_000;

/// Open sockets by state, and what was lost, over time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// The states that are counted.
    pub states: Vec<TcpState>,
    /// Where it begins: at the first input, or where it was asked to.
    pub began: Mono,
    /// Where it ends.
    pub ended: Mono,
    /// Time between two points, ns. The last one stands at the end.
    pub step_ns: u64,
    /// The points, the first of them one step after the beginning.
    pub points: Vec<Point>,
    /// What has come since the last point.
    now: Point,
    has_begun: bool,
    lost: u64,
}

/// What was so at a moment, and what came since the one before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Point {
    /// Open sockets, of each of [`Series::states`].
    pub open: Vec<u64>,
    /// Events that were lost.
    pub lost: u64,
    /// Gaps in the recording.
    pub gaps: u64,
}

impl Series {
    /// Of these states nothing is known yet.
    pub fn new(states: StateSet) -> Series {
        Series {
            states: states.iter().collect(),
            began: Mono(0),
            ended: Mono(0),
            step_ns: FIRST_STEP_NS,
            points: Vec::new(),
            now: Point::default(),
            has_begun: false,
            lost: 0,
        }
    }

    /// Begins here.
    pub fn begin(&mut self, at: Mono) {
        (self.began, self.ended, self.has_begun) = (at, at, true);
        // The tracker counts from here on, too.
        self.lost = 0;
    }

    /// Takes an input, before the tracker does.
    pub fn input(&mut self, input: &Input, tracker: &Tracker) {
        let Some(at) = input.at() else {
            return;
        };
        if !self.has_begun {
            self.begin(at);
        }
        if at < self.next() {
            return;
        }
        let open = self.count(tracker);
        self.take_loss(tracker);
        while self.next() <= at && self.next() < Mono(u64::MAX) {
            let point = Point {
                open: open.clone(),
                ..std::mem::take(&mut self.now)
            };
            self.points.push(point);
            if self.points.len() >= MAX_POINTS {
                self.halve();
            }
        }
        let counted: u64 = open.iter().sum();
        while counted.saturating_mul(FIRST_STEP_NS) > MAX_COUNTED.saturating_mul(self.step_ns) {
            self.halve();
        }
    }

    /// A part of the recording is missing here.
    pub fn gap(&mut self) {
        self.now.gaps += 1;
    }

    /// Nothing follows.
    pub fn end(&mut self, tracker: &Tracker) {
        self.take_loss(tracker);
        self.ended = tracker.now().max(self.began);
        let open = self.count(tracker);
        let point = Point {
            open,
            ..std::mem::take(&mut self.now)
        };
        self.points.push(point);
    }

    /// When the point was, counted from the beginning, ns.
    pub fn offset_ns(&self, index: usize) -> u64 {
        let whole = (index as u64 + 1).saturating_mul(self.step_ns);
        whole.min(self.ended.since(self.began))
    }

    /// Events that were lost in all.
    pub fn lost(&self) -> u64 {
        let each = self.points.iter().map(|point| point.lost);
        each.fold(0, u64::saturating_add)
    }

    /// Open sockets of one of the states, point by point.
    pub fn open(&self, state: TcpState) -> Vec<u64> {
        let index = self.states.iter().position(|s| *s == state);
        let of = |point: &Point| index.and_then(|i| point.open.get(i).copied()).unwrap_or(0);
        self.points.iter().map(of).collect()
    }

    fn next(&self) -> Mono {
        let points = self.points.len() as u64 + 1;
        self.began.plus(points.saturating_mul(self.step_ns))
    }

    fn count(&self, tracker: &Tracker) -> Vec<u64> {
        let census = tracker.census();
        let counts = self.states.iter().map(|state| census.of(*state).count);
        counts.collect()
    }

    fn take_loss(&mut self, tracker: &Tracker) {
        let lost = tracker.loss().total();
        let more = lost.saturating_sub(self.lost);
        self.now.lost = self.now.lost.saturating_add(more);
        self.lost = lost;
    }

    /// Twice the step; what has no partner yet goes on.
    fn halve(&mut self) {
        self.step_ns = self.step_ns.saturating_mul(2);
        let mut points = std::mem::take(&mut self.points).into_iter();
        while let Some(first) = points.next() {
            match points.next() {
                Some(second) => self.points.push(Point {
                    open: second.open,
                    lost: first.lost.saturating_add(second.lost),
                    gaps: first.gaps + second.gaps,
                }),
                None => {
                    self.now.lost = self.now.lost.saturating_add(first.lost);
                    self.now.gaps += first.gaps;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;

    use super::*;
    use crate::input::{Loss, SocketSnapshot, Sweep};
    use crate::report::snapshot::tests::{S, snapshot};
    use crate::tracker::Options;

    const STATES: [TcpState; 2] = [TcpState::Established, TcpState::CloseWait];

    struct Run {
        series: Series,
        tracker: Tracker,
    }

    impl Run {
        fn new() -> Run {
            let mut options = Options::default();
            options.filter.states = StateSet::of(&STATES);
            Run {
                series: Series::new(options.filter.states),
                tracker: Tracker::new(options),
            }
        }

        fn feed(&mut self, input: &Input) {
            self.series.input(input, &self.tracker);
            self.tracker.apply(input, &mut Vec::new());
        }

        /// A dump that finds these.
        fn dump(&mut self, at: u64, cookies: RangeInclusive<u64>) {
            self.feed(&Input::Sweep(Sweep::Begin { at: Mono(at) }));
            for cookie in cookies {
                self.feed(&Input::Socket(SocketSnapshot {
                    at: Mono(at),
                    cookie,
                    ..snapshot(TcpState::CloseWait, "10.0.0.1:4000", "10.0.0.9:443")
                }));
            }
            self.feed(&Input::Sweep(Sweep::End {
                at: Mono(at),
                netns: Vec::new(),
                partly: Vec::new(),
                hidden: 0,
            }));
        }

        fn lose(&mut self, ring_full: u64) {
            self.feed(&Input::Lost(Loss {
                ring_full,
                ..Loss::default()
            }));
        }

        fn end(mut self, at: u64) -> Series {
            self.feed(&Input::End(Mono(at)));
            self.series.end(&self.tracker);
            self.series
        }
    }

    #[test]
    fn a_point_tells_what_was_open_and_what_was_lost_before_it() {
        let mut run = Run::new();
        run.dump(S, 1..=1);
        run.dump(S + S / 8, 2..=2);
        run.lose(3);
        run.dump(S + S / 2, 3..=3);
        run.series.gap();
        let series = run.end(S + S / 2 + 1);
        assert_eq!(series.open(TcpState::CloseWait), [2, 2, 3]);
        assert_eq!(series.open(TcpState::Established), [0, 0, 0]);
        let lost: Vec<u64> = series.points.iter().map(|p| p.lost).collect();
        assert_eq!(lost, [3, 0, 0]);
        assert_eq!(series.points[2].gaps, 1);
        let at: Vec<u64> = (0..3).map(|i| series.offset_ns(i)).collect();
        assert_eq!(at, [S / 4, S / 2, S / 2 + 1]);
    }

    #[test]
    fn a_long_time_takes_no_more_points() {
        for end in [100 * S, 86_400 * S, u64::MAX / 2, u64::MAX] {
            let mut run = Run::new();
            run.dump(S, 1..=1);
            run.lose(5);
            let series = run.end(end);
            assert!(series.points.len() <= MAX_POINTS, "{end}");
            assert_eq!(series.lost(), 5);
            let last = series.points.len() - 1;
            assert_eq!(series.offset_ns(last), end - S, "{end}");
        }
    }

    #[test]
    fn many_sockets_are_counted_less_often() {
        let mut run = Run::new();
        run.dump(S, 1..=MAX_COUNTED + 1);
        run.dump(2 * S, MAX_COUNTED + 2..=MAX_COUNTED + 2);
        assert_eq!(run.series.step_ns, 2 * FIRST_STEP_NS);
        let series = run.end(2 * S);
        assert_eq!(
            series.open(TcpState::CloseWait),
            [MAX_COUNTED + 1, MAX_COUNTED + 1, MAX_COUNTED + 2]
        );
    }
}

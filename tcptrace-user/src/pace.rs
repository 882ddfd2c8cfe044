//! How fast a recording is replayed.

use std::time::{Duration, Instant};

use tcptrace_core::time::Mono;

/// Keeps the time of the recording, so many times as fast.
pub(crate) struct Pace {
    times: f64,
    began: Option<(Instant, Mono)>,
}

impl Pace {
    /// As many times as fast as it happened, from the first input on.
    pub(crate) fn new(times: f64) -> Pace {
        Pace { times, began: None }
    }

    /// How long to wait before what happened at `at`.
    pub(crate) fn wait(&mut self, at: Mono) -> Duration {
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

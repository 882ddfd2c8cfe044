//! What makes a recorder write what it holds: a condition that comes to hold, and SIGUSR1.

use std::future;
use std::mem;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tcptrace_core::condition::Condition;
use tcptrace_core::tracker::Tracker;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::clock;

/// How often the condition is looked at, and how many times the cost of a look is waited before the
/// next: it takes at most 5 % of one CPU.
const EVERY: Duration = Duration::from_secs(1);
const COST: u32 = 20;

/// Fires when somebody wants a dump.
pub(crate) struct Trigger {
    condition: Option<Condition>,
    signal: Signal,
    /// It held at the last look, and does not fire before it did not.
    held: bool,
    next: Instant,
}

impl Trigger {
    /// A trigger that fires at SIGUSR1 and, if there is one, when the condition comes to hold.
    ///
    /// # Errors
    /// If the kernel refuses, which it has no reason to.
    pub(crate) fn new(condition: Option<Condition>) -> anyhow::Result<Trigger> {
        Ok(Trigger {
            condition,
            signal: signal(SignalKind::user_defined1()).context("cannot wait for signals")?,
            held: false,
            next: Instant::now(),
        })
    }

    /// Why a dump is wanted, if it is. While one is being written, only a signal fires; what comes to
    /// hold meanwhile and still does afterwards, fires then.
    pub(crate) async fn fires(&mut self, tracker: &Tracker, dumping: bool) -> Option<String> {
        if self.signalled().await {
            return Some("SIGUSR1".to_owned());
        }
        let condition = self.condition.as_ref()?;
        let began = Instant::now();
        if began < self.next {
            return None;
        }
        let why = condition.why(&tracker.numbers(condition, clock::mono()));
        self.next = began + EVERY.max(began.elapsed() * COST);
        if dumping {
            self.held &= why.is_some();
            return None;
        }
        let held = mem::replace(&mut self.held, why.is_some());
        why.filter(|_| !held)
    }

    async fn signalled(&mut self) -> bool {
        tokio::select! {
            biased;
            _ = self.signal.recv() => true,
            () = future::ready(()) => false,
        }
    }
}

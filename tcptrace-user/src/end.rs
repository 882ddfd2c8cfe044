//! What ends a run.

use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What ends a run: ^C, SIGTERM, or time.
pub(crate) struct End {
    interrupt: Signal,
    terminate: Signal,
    at: Option<tokio::time::Instant>,
}

impl End {
    /// Waits for signals from now on.
    ///
    /// # Errors
    /// If the kernel refuses, which it has no reason to.
    pub(crate) fn new() -> anyhow::Result<End> {
        let on = |kind| signal(kind).context("cannot wait for signals");
        Ok(End {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            at: None,
        })
    }

    /// From now on it takes so long, if it ends by itself.
    pub(crate) fn after(&mut self, duration_ns: Option<u64>) {
        self.at = duration_ns.map(|ns| tokio::time::Instant::now() + Duration::from_nanos(ns));
    }

    /// Whether the end has come.
    pub(crate) async fn is_reached(&mut self) -> bool {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => true,
            _ = self.terminate.recv() => true,
            () = tokio::task::yield_now() => false,
        }
    }

    /// Waits that long, or until the end.
    pub(crate) async fn reached_within(&mut self, pause: Duration) -> bool {
        let wake = tokio::time::Instant::now() + pause;
        let (until, ends) = match self.at {
            Some(at) if at <= wake => (at, true),
            _ => (wake, false),
        };
        tokio::select! {
            _ = self.interrupt.recv() => true,
            _ = self.terminate.recv() => true,
            () = tokio::time::sleep_until(until) => ends,
        }
    }
}

//! The only place that reads the clocks.

use rustix::time::{ClockId, Timespec, clock_gettime};
use tcptrace_core::time::{Mono, WallAnchor};

/// CLOCK_MONOTONIC, now.
pub(crate) fn mono() -> Mono {
    Mono(nanos(clock_gettime(ClockId::Monotonic)).max(0) as u64)
}

/// Both clocks, now: the date of a [`Mono`]. The wall clock is read between two readings of the
/// other, whose middle is taken.
pub(crate) fn anchor() -> WallAnchor {
    let before = mono();
    let wall_ns = nanos(clock_gettime(ClockId::Realtime));
    let after = mono();
    WallAnchor {
        mono: before.plus(after.since(before) / 2),
        wall_ns,
    }
}

fn nanos(t: Timespec) -> i64 {
    t.tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(t.tv_nsec)
}

//! What the running kernel guarantees about its timers.

use rustix::time::clock_getres;

const SEC: u64 = 1_000_000_000;

/// One jiffy, ns: the step of the coarse clock.
pub fn jiffy_ns() -> u64 {
    let step = clock_getres(rustix::time::ClockId::MonotonicCoarse);
    step.tv_sec as u64 * SEC + step.tv_nsec as u64
}

/// The step of the timer wheel for a timer of `ns`: it fires up to one step late, never early.
/// Level n of the wheel holds timers below 63·8ⁿ jiffies with a step of 8ⁿ jiffies.
pub fn wheel_step_ns(ns: u64) -> u64 {
    let ticks = ns / jiffy_ns();
    let mut step = 1;
    while ticks >= 63 * step {
        step *= 8;
    }
    step * jiffy_ns()
}

/// When a timer armed for `ns` fires: not before (less the jiffy that was running), and at most
/// an eighth late, which is the coarsest step of the wheel, and two jiffies.
pub fn timer_span(ns: u64) -> crate::truth::Span {
    crate::truth::Span {
        min: ns - jiffy_ns(),
        max: ns + ns / 8 + 2 * jiffy_ns(),
    }
}

//! What the programs cost on this host now: attached as `watch` attaches them, timed by the kernel.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use aya::sys::{Stats, enable_stats};
use serde_json::{Value, json};
use tcptrace_common::config::Config;
use tcptrace_core::state::{StateSet, TcpState};

use super::start::{self, RING_BYTES, Scope};
use crate::kernel::inspect::Kernel;
use crate::kernel::plan::{Plan, PlanOptions};
use crate::kernel::probes::{Probes, Spent};

/// How often the ring is emptied: 16 MiB have room for 100,000 events.
const DRAIN: Duration = Duration::from_millis(20);
/// So many records are taken at a time.
const BATCH: usize = 4_096;

/// What it cost.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cost {
    /// For so long it was measured.
    pub(crate) span: Duration,
    /// What was watched.
    pub(crate) states: StateSet,
    /// The programs, the one that took most time first.
    pub(crate) programs: Vec<Spent>,
    /// Records that they wrote.
    pub(crate) events: u64,
    /// Bytes of those.
    pub(crate) bytes: u64,
    /// Records that found no room.
    pub(crate) ring_full: u64,
}

impl Cost {
    /// Time that all programs took, of one processor's.
    pub(crate) fn share(&self) -> f64 {
        let all: Duration = self.programs.iter().map(|p| p.time).sum();
        self.of(all.as_secs_f64())
    }

    /// So much in each second.
    pub(crate) fn of(&self, amount: f64) -> f64 {
        amount / self.span.as_secs_f64()
    }

    /// As `doctor --json` has it.
    pub(crate) fn json(&self) -> Value {
        let program = |spent: &Spent| {
            json!({
                "name": spent.name,
                "runs": spent.runs,
                "run_time_ns": spent.time.as_nanos() as u64,
            })
        };
        let programs: Vec<Value> = self.programs.iter().map(program).collect();
        json!({
            "span_ns": self.span.as_nanos() as u64,
            "states": self.states.iter().map(|state| state.name()).collect::<Vec<_>>(),
            "programs": programs,
            "events": self.events,
            "bytes": self.bytes,
            "ring_full": self.ring_full,
        })
    }
}

/// Attaches what the plan chose for these states, and measures for `span`.
///
/// # Errors
/// A sentence, if the kernel takes no time of programs, to us at least, or refuses them.
pub(crate) fn measure(
    kernel: &mut Kernel,
    plan: &Plan,
    asked: &PlanOptions,
    states: StateSet,
    span: Duration,
) -> Result<Cost, String> {
    let scope = Scope {
        states,
        closes: states.contains(TcpState::Close),
        config: Config::ZERO,
        ring_bytes: RING_BYTES,
        selected_max: 1,
    };
    let _statistics = enable_stats(Stats::RunTime).map_err(|e| match e.io_error.kind() {
        io::ErrorKind::PermissionDenied => {
            "taking the time of programs needs CAP_SYS_ADMIN: run it as root".to_owned()
        }
        _ => format!(
            "the kernel takes no time of programs (BPF_ENABLE_STATS): {}",
            e.io_error
        ),
    })?;
    let started = start::start(kernel, plan.clone(), asked, &scope);
    let (_, mut probes) = started.map_err(|e| format!("{e:#}"))?;
    drain(&mut probes);
    let ring_full = |probes: &Probes| match probes.loss() {
        Ok(loss) => Ok(loss.ring_full),
        Err(error) => Err(format!("the loss counters cannot be read: {error}")),
    };
    let (before, full_before) = (probes.spent(), ring_full(&probes)?);
    let began = Instant::now();
    let (mut events, mut bytes) = (0, 0);
    while began.elapsed() < span {
        thread::sleep(DRAIN.min(span.saturating_sub(began.elapsed())));
        let (more, of_them) = drain(&mut probes);
        events += more;
        bytes += of_them;
    }
    let (after, span) = (probes.spent(), began.elapsed());
    let since = |after: Spent| {
        let before = before.iter().find(|before| before.name == after.name);
        let before = before.cloned().unwrap_or_default();
        Spent {
            runs: after.runs.saturating_sub(before.runs),
            time: after.time.saturating_sub(before.time),
            ..after
        }
    };
    let mut programs: Vec<Spent> = after.into_iter().map(since).collect();
    programs.sort_by(|a, b| b.time.cmp(&a.time).then_with(|| a.name.cmp(&b.name)));
    Ok(Cost {
        span,
        states,
        programs,
        events,
        bytes,
        ring_full: ring_full(&probes)?.saturating_sub(full_before),
    })
}

/// Empties the ring: records, and their bytes.
fn drain(probes: &mut Probes) -> (u64, u64) {
    let (mut records, mut bytes) = (0, 0);
    while probes.drain(BATCH, |record| {
        records += 1;
        bytes += record.len() as u64;
    }) {}
    (records, bytes)
}

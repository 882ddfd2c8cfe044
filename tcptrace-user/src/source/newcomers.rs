//! Processes that were not seen acting before: they are looked up in /proc while they live.

use tcptrace_core::input::EventBody;
use tcptrace_core::owner::Actor;

/// How many are looked up between two drains of the ring.
const AT_ONCE: usize = 16;

/// Of how many processes the youngest thread is remembered.
const MOST: usize = 65_536;

/// Those that wait to be looked up, and those that were.
#[derive(Default)]
pub(super) struct Newcomers {
    /// Processes with a thread that was not seen before.
    waiting: Vec<u32>,
    /// The youngest thread that was seen of each process: a younger one may be of another
    /// process with the same id.
    seen: foldhash::HashMap<u32, u64>,
}

impl Newcomers {
    /// Remembers who acts in an event, if that thread is new.
    pub(super) fn note(&mut self, body: &EventBody) {
        let Some(actor) = acting(body) else { return };
        if self.seen.len() >= MOST {
            self.seen.clear();
        }
        let youngest = self.seen.entry(actor.pid).or_default();
        if actor.start_ns > *youngest {
            *youngest = actor.start_ns;
            self.waiting.push(actor.pid);
        }
    }

    /// The next that are to be looked up.
    pub(super) fn take(&mut self) -> Vec<u32> {
        let mut pids = std::mem::take(&mut self.waiting);
        pids.sort_unstable();
        pids.dedup();
        self.waiting = pids.split_off(pids.len().min(AT_ONCE));
        pids
    }

    /// Takes all for new again: they exec, and the tracker forgets those to which no socket leads.
    pub(super) fn forget(&mut self) {
        self.seen.clear();
    }
}

/// Who is taken for the owner of what happened.
fn acting(body: &EventBody) -> Option<&Actor> {
    match body {
        EventBody::State(change) => change.actor.as_ref(),
        EventBody::Accept { actor, .. }
        | EventBody::Close { actor, .. }
        | EventBody::Eof { actor } => Some(actor),
        EventBody::Mini { .. } | EventBody::LeftOut => None,
    }
}

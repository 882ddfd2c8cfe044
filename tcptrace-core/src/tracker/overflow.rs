//! Listeners whose accept queue was full, and what they dropped for it.

use std::collections::BTreeMap;

use crate::change::{Change, View};
use crate::input::{Overflow, SocketSnapshot};
use crate::owner::Owner;
use crate::report::summary::OverflowLine;
use crate::state::TcpState;
use crate::time::{Age, Mono};
use crate::tuple::{ConnId, Tuple};

use super::conn::World;
use super::{Tracker, Wanted};

/// A listener that goes on dropping is told again after this, ns.
const TELL_EVERY: u64 = 10_000_000_000;

/// What is known of all listeners that dropped something.
#[derive(Clone, Debug, Default)]
pub(super) struct Overflows {
    listeners: BTreeMap<u64, Overflowing>,
}

/// A listener that dropped something.
#[derive(Clone, Debug)]
struct Overflowing {
    /// Totals since the trace began.
    last: Overflow,
    /// How many of these were before the tracker's last restart.
    before: u64,
    /// Its owner, as far as it was known when it was last told.
    owner: Owner,
    /// How many of these were told, and when.
    told: u64,
    told_at: Option<Mono>,
}

impl Overflowing {
    /// When it is to be told; `None`: nothing is new.
    fn due(&self) -> Option<Mono> {
        let due = match self.told_at {
            Some(at) => at.plus(TELL_EVERY),
            None => self.last.at,
        };
        (self.last.dropped > self.told).then_some(due)
    }
}

impl Overflows {
    pub(super) fn next_due(&self) -> Option<Mono> {
        self.listeners.values().filter_map(Overflowing::due).min()
    }

    /// The listeners that a tick at `now` will tell of; their holders are wanted.
    pub(super) fn wanted(&self, now: Mono) -> impl Iterator<Item = Wanted> {
        let due = move |l: &&Overflowing| l.due().is_some_and(|at| at <= now);
        self.listeners.values().filter(due).map(|l| Wanted {
            cookie: l.last.cookie,
            tuple: l.last.tuple,
            mini: false,
            unaccepted: true,
            pid: None,
        })
    }

    /// How much all of them have dropped.
    pub(super) fn dropped(&self) -> u64 {
        let dropped = |l: &Overflowing| l.last.dropped.saturating_sub(l.before);
        let all = self.listeners.values().map(dropped);
        all.fold(0, u64::saturating_add)
    }

    /// What was dropped so far is not counted any more.
    pub(super) fn restart(&mut self) {
        for listener in self.listeners.values_mut() {
            (listener.before, listener.told) = (listener.last.dropped, listener.last.dropped);
            listener.told_at = None;
        }
    }

    fn take(&mut self, total: &Overflow) {
        let known = self.listeners.entry(total.cookie);
        let listener = known.or_insert_with(|| Overflowing {
            last: *total,
            before: 0,
            owner: Owner::default(),
            told: 0,
            told_at: None,
        });
        let fresh = listener.before == listener.last.dropped;
        let first = if fresh { total.at } else { listener.last.first };
        listener.last = Overflow { first, ..*total };
    }
}

impl Tracker {
    /// What the programs counted.
    pub(super) fn overflow(&mut self, total: &Overflow) {
        if self.options.filter.selects_tuple(&total.tuple) {
            self.overflows.take(total);
        }
    }

    /// A listener as a dump shows it, where nothing else tells; it had dropped so much `before` it
    /// was first met.
    pub(super) fn overflow_sampled(&mut self, socket: &SocketSnapshot, before: Option<u32>) {
        let (Some(drops), Some(before)) = (socket.drops, before) else {
            return;
        };
        let seen = self.options.overflows_seen;
        if seen || !self.options.filter.selects_tuple(&socket.tuple) {
            return;
        }
        let dropped = u64::from(drops.wrapping_sub(before));
        let known = self.overflows.listeners.get(&socket.cookie);
        if dropped > known.map_or(0, |known| known.last.dropped) {
            self.overflows.take(&Overflow {
                at: socket.at,
                first: known.map_or(socket.at, |known| known.last.first),
                cookie: socket.cookie,
                tuple: socket.tuple,
                dropped,
                queue: socket.recv_q,
                limit: socket.send_q,
            });
        }
    }

    /// Tells of the listeners that have dropped something since they were last told.
    pub(super) fn show_overflows(&mut self, now: Mono, changes: &mut Vec<Change>) {
        for listener in self.overflows.listeners.values_mut() {
            if listener.due().is_none_or(|at| at > now) {
                continue;
            }
            let view = view(&listener.last, &self.world);
            let dropped = listener.last.dropped - listener.told;
            (listener.told, listener.told_at) = (listener.last.dropped, Some(now));
            listener.owner = view.owner.clone();
            if self.options.filter.selects(&view) {
                let estimated = !self.options.overflows_seen;
                changes.push(Change::Overflow {
                    view,
                    dropped,
                    estimated,
                });
            }
        }
    }

    /// Every listener that was asked for, with its queue as it was last seen.
    pub fn listeners(&self) -> impl Iterator<Item = View> {
        let all = self.world.listeners.values().flatten();
        let views = all.filter(|listener| !listener.gone).map(|listener| {
            let (cookie, tuple) = (listener.cookie, listener.tuple);
            listener_view(self.now, cookie, tuple, listener.queue, &self.world)
        });
        views.filter(|view| self.options.filter.selects(view))
    }

    /// How many SYNs and last ACKs this listener has dropped since the trace began, for whatever
    /// reason; `None`: no dump told.
    pub fn listener_drops(&self, cookie: u64) -> Option<u64> {
        let mut all = self.world.listeners.values().flatten();
        let (first, last) = all.find(|listener| listener.cookie == cookie)?.drops?;
        Some(u64::from(last.wrapping_sub(first)))
    }

    /// The totals of the listeners that dropped something, the greatest first.
    pub fn overflow_lines(&self) -> Vec<OverflowLine> {
        let line = |listener: &Overflowing| {
            let mut view = view(&listener.last, &self.world);
            // The listener may be gone, and with it what was known of it.
            if view.owner.pid.is_none() {
                view.owner = listener.owner.clone();
            }
            let wanted = self.options.filter.selects(&view);
            let dropped = listener.last.dropped.saturating_sub(listener.before);
            (wanted && dropped > 0).then_some(OverflowLine {
                view,
                first: listener.last.first,
                dropped,
                estimated: !self.options.overflows_seen,
            })
        };
        let mut lines: Vec<_> = self.overflows.listeners.values().filter_map(line).collect();
        lines.sort_by_key(|line| std::cmp::Reverse(line.dropped));
        lines
    }
}

/// The listener as it was when it last dropped something.
fn view(last: &Overflow, world: &World) -> View {
    let queue = Some((last.queue, last.limit));
    listener_view(last.at, last.cookie, last.tuple, queue, world)
}

/// A listener as it is shown: `recv_q` is its queue, `send_q` the limit.
fn listener_view(
    at: Mono,
    cookie: u64,
    tuple: Tuple,
    queue: Option<(u32, u32)>,
    world: &World,
) -> View {
    View {
        at,
        id: ConnId {
            cookie,
            generation: 0,
        },
        tuple,
        role: None,
        state: TcpState::Listen,
        age: Age::Unknown,
        mini: false,
        owner: world.owner_of_listener(&tuple, cookie),
        recv_q: queue.map(|(waiting, _)| waiting),
        send_q: queue.map(|(_, limit)| limit),
        keepalive: None,
        verdict: None,
        acquired_at: None,
        eof_at: None,
    }
}

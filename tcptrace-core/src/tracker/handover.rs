//! What one who comes in the middle has to know: a replay that begins there, and the next file of a
//! recording.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::change::View;
use crate::input::{Definition, Loss};
use crate::owner::Holder;
use crate::time::Mono;

use super::Tracker;
use super::stats::Stats;

impl Tracker {
    /// Begins anew at `at` with what is known of the connections: nothing has been counted, told or
    /// lost yet, and every connection in a watched state was there before.
    pub fn restart(&mut self, at: Mono) {
        self.began = Some(at);
        self.stats = Stats::default();
        self.lost_before = self.loss;
        self.overflows.restart();
        for listener in self.world.listeners.values_mut().flatten() {
            listener.drops = listener.drops.map(|(_, last)| (last, last));
        }
        self.world.stacks.restart();
        self.world.host.restart();
        (self.reconciled, self.anomalies, self.no_port) = (0, 0, 0);
        let mut due = Vec::new();
        #[expect(
            clippy::iter_over_hash_type,
            reason = "sorted before anything comes of it"
        )]
        for (cookie, conn) in &mut self.conns {
            conn.found = true;
            conn.shown = false;
            if self.options.filter.states.contains(conn.state) {
                due.push((
                    conn.entered.latest.plus(self.options.filter.min_age_ns),
                    *cookie,
                ));
            }
        }
        due.sort_unstable();
        for (at, cookie) in due {
            self.due.insert(at, cookie);
        }
    }

    /// What was lost before the inputs that follow is not missing from them.
    pub fn lost_before(&mut self, lost: Loss) {
        self.lost_before = lost;
    }

    /// What was learned of the world, for one who has not heard of it.
    pub fn definitions(&self) -> Vec<Definition> {
        self.world.definitions()
    }

    /// Who holds which connection, as far as that was looked up, in the order of cookies.
    pub fn holders(&self) -> Vec<Definition> {
        let mut known: Vec<(u64, Vec<Holder>)> = Vec::new();
        #[expect(
            clippy::iter_over_hash_type,
            reason = "sorted before anything comes of it"
        )]
        for (cookie, conn) in &self.conns {
            let facts = conn.facts.as_deref().filter(|f| f.held_at.is_some());
            known.extend(facts.map(|f| (*cookie, f.holders.clone())));
        }
        known.sort_unstable_by_key(|(cookie, _)| *cookie);
        let define = |(cookie, holders)| Definition::Holders { cookie, holders };
        known.into_iter().map(define).collect()
    }

    /// The processes with the most sockets, and those with listeners, at most so many.
    pub fn busiest(&self, most: usize) -> Vec<u32> {
        let mut counts: BTreeMap<u32, u64> = BTreeMap::new();
        #[expect(clippy::iter_over_hash_type, reason = "counted into an ordered map")]
        for conn in self.conns.values() {
            let holders = conn
                .facts
                .as_deref()
                .map_or(&[][..], |facts| &facts.holders);
            let acquirer = conn.acquired.as_deref().map(|a| a.actor.pid);
            let pid = holders.first().map(|h| h.pid).or(acquirer);
            if let Some(pid) = pid.filter(|_| conn.closer.is_none()) {
                *counts.entry(pid).or_default() += 1;
            }
        }
        for listener in self.world.listeners.values().flatten() {
            for holder in &listener.holders {
                counts.entry(holder.pid).or_default();
            }
        }
        let mut counts: Vec<(u32, u64)> = counts.into_iter().collect();
        counts.sort_by_key(|(_, count)| Reverse(*count));
        counts.into_iter().take(most).map(|(pid, _)| pid).collect()
    }

    /// Every connection that was asked for, whatever its state, as it is now, in the order of
    /// cookies.
    pub fn connections(&self) -> impl Iterator<Item = View> {
        let mut keys: Vec<u64> = self.conns.keys().copied().collect();
        keys.sort_unstable();
        let all = keys.into_iter().filter_map(|key| {
            let conn = self.conns.get(&key)?;
            Some(conn.view(key, self.now, &self.world))
        });
        all.filter(|view| self.options.filter.selects(view))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Options;
    use super::*;
    use crate::input::Input;

    #[test]
    fn what_was_lost_before_is_not_missing() {
        let mut tracker = Tracker::new(Options::default());
        let lost = |ring_full| Loss {
            ring_full,
            ..Loss::default()
        };
        tracker.lost_before(lost(5));
        // What a file begins with tells it again.
        for (total, missing) in [(5, 0), (7, 2)] {
            tracker.apply(&Input::Lost(lost(total)), &mut Vec::new());
            assert_eq!(tracker.summary().completeness.ring_full, missing);
        }
    }
}

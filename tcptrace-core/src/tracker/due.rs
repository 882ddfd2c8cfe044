//! What is due when: an ordered set, made for times that mostly ascend.

use std::collections::{BTreeSet, VecDeque};

use crate::time::Mono;

/// A connection is nearly always looked for among the newest so many.
const NEWEST: usize = 64;
/// Fewer removed entries than this are not worth the work of getting rid of them.
const FEW: usize = 1_024;

/// Keys with their times, each pair once, in the order of times and then keys.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// In order. What is removed from the midst stays for a while, as one that is not there.
    queue: VecDeque<Entry>,
    removed: usize,
    /// What came too late for the queue.
    late: BTreeSet<(Mono, u64)>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    what: (Mono, u64),
    there: bool,
}

impl Due {
    pub(super) fn insert(&mut self, at: Mono, key: u64) {
        let what = (at, key);
        if self.late.contains(&what) {
            return;
        }
        if self.queue.back().is_none_or(|last| last.what < what) {
            let there = true;
            self.queue.push_back(Entry { what, there });
            return;
        }
        match self.find(what) {
            Some(entry) if entry.there => {}
            Some(entry) => {
                entry.there = true;
                self.removed -= 1;
            }
            None => {
                self.late.insert(what);
            }
        }
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, at: Mono, key: u64) -> bool {
        let what = (at, key);
        let Some(entry) = self.find(what) else {
            return self.late.remove(&what);
        };
        let there = std::mem::replace(&mut entry.there, false);
        self.removed += usize::from(there);
        self.tidy();
        there
    }

    pub(super) fn first(&self) -> Option<(Mono, u64)> {
        let queue = self.queue.front().map(|entry| entry.what);
        queue.into_iter().chain(self.late.first().copied()).min()
    }

    pub(super) fn pop_first(&mut self) -> Option<(Mono, u64)> {
        let first = self.first()?;
        self.remove(first.0, first.1);
        Some(first)
    }

    /// All that is due by then, in order.
    pub(super) fn by(&self, now: Mono) -> Vec<(Mono, u64)> {
        let by_then = |what: &(Mono, u64)| what.0 <= now;
        let queue = self.queue.iter().filter(|entry| entry.there);
        let queue = queue.map(|entry| entry.what).take_while(by_then);
        let late = self.late.iter().copied().take_while(by_then);
        let mut all: Vec<_> = queue.chain(late).collect();
        all.sort_unstable();
        all
    }

    fn find(&mut self, what: (Mono, u64)) -> Option<&mut Entry> {
        // What was due before the first is no longer here.
        if self.queue.front().is_none_or(|first| what < first.what) {
            return None;
        }
        let newest = self.queue.len().saturating_sub(NEWEST);
        let place = match self.queue.get(newest) {
            Some(entry) if entry.what <= what => {
                let newest = self.queue.range(newest..);
                self.queue.len() - newest.rev().take_while(|e| e.what >= what).count()
            }
            _ => self.queue.partition_point(|entry| entry.what < what),
        };
        self.queue.get_mut(place).filter(|entry| entry.what == what)
    }

    /// The first is always there, and most of the others.
    fn tidy(&mut self) {
        while self.queue.front().is_some_and(|entry| !entry.there) {
            self.queue.pop_front();
            self.removed -= 1;
        }
        if self.removed > FEW && self.removed > self.queue.len() / 2 {
            self.queue.retain(|entry| entry.there);
            self.removed = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_an_ordered_set_that_often_runs_empty(
            steps in prop::collection::vec((0u8..4, 0u64..9, 0u64..2), 0..200),
        ) {
            let (mut due, mut set) = (Due::default(), BTreeSet::new());
            for (what, at, key) in steps {
                let at = Mono(at);
                if what < 2 {
                    due.insert(at, key);
                    set.insert((at, key));
                } else if let Some((at, key)) = set.range((at, key)..).next().copied() {
                    prop_assert!(due.remove(at, key));
                    set.remove(&(at, key));
                }
                let all: Vec<_> = set.iter().copied().collect();
                prop_assert_eq!(due.by(Mono(u64::MAX)), all);
                prop_assert_eq!(due.first(), set.first().copied());
            }
        }

        #[test]
        fn it_is_an_ordered_set(steps in prop::collection::vec((0u8..8, 0u64..40, 0u64..3), 0..400)) {
            let (mut due, mut set) = (Due::default(), BTreeSet::new());
            for (number, (what, at, key)) in steps.into_iter().enumerate() {
                // Most ascend.
                let at = Mono(if what < 3 { number as u64 } else { at });
                match what {
                    0..=4 => {
                        due.insert(at, key);
                        set.insert((at, key));
                    }
                    5 | 6 => prop_assert_eq!(due.remove(at, key), set.remove(&(at, key))),
                    _ => prop_assert_eq!(due.pop_first(), set.pop_first()),
                }
                prop_assert_eq!(due.first(), set.first().copied());
                let by: Vec<_> = set.range(..=(at, u64::MAX)).copied().collect();
                prop_assert_eq!(due.by(at), by);
            }
        }
    }

    #[test]
    fn what_came_too_late_stands_once_when_the_queue_has_run_empty() {
        let mut due = Due::default();
        due.insert(Mono(5), 1);
        due.insert(Mono(9), 2);
        due.insert(Mono(7), 3);
        assert!(due.remove(Mono(5), 1));
        assert!(due.remove(Mono(9), 2));
        due.insert(Mono(7), 3);
        assert_eq!(due.by(Mono(9)), [(Mono(7), 3)]);
        assert!(due.remove(Mono(7), 3));
        assert_eq!(due.first(), None);
    }

    #[test]
    fn what_is_removed_takes_no_room_for_long() {
        let mut due = Due::default();
        due.insert(Mono(0), 0);
        for at in 1..100_000 {
            due.insert(Mono(at), at);
            assert!(due.remove(Mono(at), at));
            assert!(due.queue.len() <= 2 * FEW);
        }
        assert_eq!(due.by(Mono(u64::MAX)), [(Mono(0), 0)]);
    }
}

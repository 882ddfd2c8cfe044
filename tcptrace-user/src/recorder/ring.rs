//! The parts of a recording that are held in memory until somebody wants them. Each begins with all
//! that a reader has to know who has nothing else, so the oldest can be dropped.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What a block takes beside its bytes: its place in the list, twice where that has just grown, and
/// the allocator's.
const BLOCK_COST: usize = 64;

/// A part lasts so long at least, and so many times as long as it took to tell what it begins with,
/// which takes at most 2 % of one CPU then.
const LEAST: Duration = Duration::from_secs(1);
const COST: u32 = 50;

/// How long nothing is held where what a part begins with has no room.
const RETRY: Duration = Duration::from_secs(10);

/// Parts of a recording, the newest last.
#[derive(Debug)]
pub(super) struct Ring {
    /// Bytes that it may take.
    size: usize,
    /// What is older is not wanted; `None`: as much as there is room for.
    window: Option<Duration>,
    parts: VecDeque<Part>,
    bytes: usize,
    /// What a part begins with has no room: nothing is held.
    too_small: bool,
}

#[derive(Debug)]
struct Part {
    since: Instant,
    blocks: Vec<Box<[u8]>>,
    bytes: usize,
    /// Of these, what it began with.
    introduction: usize,
    /// How long that took.
    took: Duration,
    /// Inputs, when it has ended.
    records: u64,
}

/// What is taken out of a ring.
pub(super) struct Held {
    pub(super) blocks: Vec<Box<[u8]>>,
    /// Inputs of the parts that have ended.
    pub(super) records: u64,
    /// When the oldest part began.
    pub(super) since: Instant,
}

impl Ring {
    /// An empty ring.
    pub(super) fn new(size: usize, window: Option<Duration>) -> Ring {
        Ring {
            size,
            window,
            parts: VecDeque::new(),
            bytes: 0,
            too_small: false,
        }
    }

    /// A part ends with so many inputs, if there is one.
    pub(super) fn end(&mut self, records: u64) {
        if let Some(part) = self.parts.back_mut() {
            part.records = records;
        }
    }

    /// Another begins at `now`.
    pub(super) fn begin(&mut self, now: Instant) {
        if std::mem::take(&mut self.too_small) {
            // Of that part nothing is held.
            self.parts.clear();
        }
        self.parts.push_back(Part {
            since: now,
            blocks: Vec::new(),
            bytes: 0,
            introduction: 0,
            took: Duration::ZERO,
            records: 0,
        });
        self.forget(now);
    }

    /// All that the newest part begins with has come. False: it has no room.
    pub(super) fn introduced(&mut self) -> bool {
        if let Some(part) = self.parts.back_mut() {
            part.introduction = part.bytes;
            part.took = part.since.elapsed();
            // What follows needs room, too.
            self.too_small |= part.bytes > self.size / 4 * 3;
        }
        if self.too_small {
            while self.parts.len() > 1 {
                self.drop_oldest();
            }
            self.empty_newest();
        }
        !self.too_small
    }

    /// Takes blocks of the newest part. The oldest parts make room.
    pub(super) fn push(&mut self, blocks: &[u8]) {
        let Some(part) = self.parts.back_mut().filter(|_| !self.too_small) else {
            return;
        };
        let cost = blocks.len() + BLOCK_COST;
        part.blocks.push(Box::from(blocks));
        part.bytes += cost;
        self.bytes += cost;
        while self.bytes > self.size && self.parts.len() > 1 {
            self.drop_oldest();
        }
        if self.bytes > self.size {
            self.too_small = true;
            self.empty_newest();
        }
    }

    /// Whether it is time for another part, with so many bytes of this one still to come.
    pub(super) fn is_due(&self, pending: usize) -> bool {
        let Some(part) = self.parts.back() else {
            return true;
        };
        let age = part.since.elapsed();
        if self.too_small {
            return age >= RETRY;
        }
        let eighth = self.size / 8;
        let bytes = part.bytes + pending;
        let own = bytes.saturating_sub(part.introduction);
        let least = LEAST.max(part.took * COST);
        own >= part.introduction.max(eighth)
            || bytes >= self.size - eighth
            || self.window.is_some_and(|w| age >= least.max(w / 4))
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes as u64
    }

    /// When what it holds began; `None`: it holds nothing.
    pub(super) fn since(&self) -> Option<Instant> {
        let oldest = self.parts.front().filter(|_| !self.too_small)?;
        Some(oldest.since)
    }

    /// Empties it; `None`: it holds nothing.
    pub(super) fn take(&mut self) -> Option<Held> {
        self.forget(Instant::now());
        let since = self.since()?;
        let parts = std::mem::take(&mut self.parts);
        self.bytes = 0;
        Some(Held {
            since,
            records: parts.iter().map(|part| part.records).sum(),
            blocks: parts.into_iter().flat_map(|part| part.blocks).collect(),
        })
    }

    /// Drops the parts that the window does not reach into.
    fn forget(&mut self, now: Instant) {
        let Some(window) = self.window else {
            return;
        };
        while self.parts.len() > 1 && now.duration_since(self.parts[1].since) >= window {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(part) = self.parts.pop_front() {
            self.bytes -= part.bytes;
        }
    }

    fn empty_newest(&mut self) {
        if let Some(part) = self.parts.back_mut() {
            self.bytes -= part.bytes;
            part.blocks = Vec::new();
            part.bytes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1 << 10;

    /// A part that begins with `introduction` and goes on with `more` bytes.
    fn part(ring: &mut Ring, since: Instant, introduction: usize, more: usize) -> bool {
        ring.begin(since);
        ring.push(&vec![1; introduction - BLOCK_COST]);
        let fits = ring.introduced();
        for _ in 0..more / KIB {
            ring.push(&[2; KIB - BLOCK_COST]);
        }
        ring.end(10);
        fits
    }

    #[test]
    fn it_never_takes_more_than_its_size() {
        let mut ring = Ring::new(64 * KIB, None);
        let now = Instant::now();
        for round in 0..20 {
            assert!(part(&mut ring, now, 4 * KIB, (1 + round) * KIB));
            assert!(ring.bytes() <= 64 << 10);
        }
        assert!(ring.bytes() > 40 << 10, "{}", ring.bytes());
        let held = ring.take().expect("parts");
        // Whole parts, of which each begins with its introduction.
        assert_eq!(held.blocks[0][0], 1);
        assert_eq!(held.records % 10, 0);
        assert_eq!((ring.bytes(), ring.since()), (0, None));
    }

    #[test]
    fn what_has_no_room_is_not_held() {
        let mut ring = Ring::new(64 * KIB, None);
        let now = Instant::now();
        assert!(part(&mut ring, now, 4 * KIB, 4 * KIB));
        for introduction in [49 * KIB, 70 * KIB] {
            assert!(!part(&mut ring, now, introduction, 40 * KIB));
            assert_eq!((ring.bytes(), ring.since()), (0, None));
            assert!(ring.take().is_none() && !ring.is_due(0));
        }
        let later = now + Duration::from_secs(10);
        assert!(part(&mut ring, later, 4 * KIB, 4 * KIB));
        assert_eq!(ring.take().map(|held| held.since), Some(later));
    }

    #[test]
    fn what_the_window_does_not_reach_into_is_dropped() {
        let second = Duration::from_secs(1);
        let Some(began) = Instant::now().checked_sub(60 * second) else {
            return;
        };
        let mut ring = Ring::new(64 * KIB, Some(10 * second));
        for age in [60, 40, 30, 8, 4] {
            part(&mut ring, began + (60 - age) * second, KIB, 0);
        }
        // That of 30 s ago is the last that covers what was 10 s ago.
        let held = ring.take().expect("parts");
        assert_eq!(held.since, began + 30 * second);
        assert_eq!(held.records, 30);
    }

    #[test]
    fn another_part_is_due_by_size_and_by_time() {
        let mut ring = Ring::new(64 * KIB, Some(Duration::from_secs(40)));
        assert!(ring.is_due(0), "there is none");
        let now = Instant::now();
        part(&mut ring, now, KIB, 4 * KIB);
        assert!(!ring.is_due(0));
        assert!(ring.is_due(4 * KIB));
        // A long introduction pays when more follows it.
        part(&mut ring, now, 20 * KIB, 10 * KIB);
        assert!(!ring.is_due(0));
        assert!(ring.is_due(10 * KIB));
        // And at the latest when there is hardly room.
        assert!(part(&mut ring, now, 40 * KIB, 10 * KIB));
        assert!(!ring.is_due(0));
        assert!(ring.is_due(6 * KIB));
    }
}

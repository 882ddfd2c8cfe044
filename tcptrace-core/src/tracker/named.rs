//! Stacks by their numbers, as many as there is room for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::stack::{Stack, StackId};

/// More stacks than these are not kept: a program that makes up functions has no end of them.
pub(super) const MAX_STACKS: usize = 65_536;

/// More bytes than these are not kept, whoever chose the names.
const MAX_BYTES: usize = 256 << 20;

/// So much is to be free after room was made. Where it is not, so many stacks are refused before it is
/// tried again.
const ROOM: usize = 16;

/// Stacks with their names.
#[derive(Debug, Default)]
pub(super) struct Named {
    stacks: BTreeMap<StackId, Arc<Stack>>,
    bytes: usize,
    /// Nearly all are in use: so many more are refused before room is made again.
    crowded: usize,
}

impl Named {
    pub(super) fn get(&self, id: StackId) -> Option<&Arc<Stack>> {
        self.stacks.get(&id)
    }

    /// Whether it is not known, and there may be room for it.
    pub(super) fn wants(&self, id: StackId) -> bool {
        self.crowded == 0 && !self.stacks.contains_key(&id)
    }

    /// A stack is not known where it was needed.
    pub(super) fn missed(&mut self) {
        self.crowded = self.crowded.saturating_sub(1);
    }

    /// Keeps a stack if there is room, which those make that are not `used`.
    pub(super) fn define(&mut self, stack: &Stack, used: impl FnOnce() -> BTreeSet<StackId>) {
        if self.stacks.contains_key(&stack.id) {
            return;
        }
        let bytes = stack.bytes();
        if !self.has_room(1, bytes) && self.crowded == 0 {
            self.make_room(&used());
        }
        if !self.has_room(1, bytes) {
            return self.missed();
        }
        self.bytes += bytes;
        self.stacks.insert(stack.id, Arc::new(stack.clone()));
    }

    fn has_room(&self, stacks: usize, bytes: usize) -> bool {
        self.stacks.len() + stacks <= MAX_STACKS && self.bytes + bytes <= MAX_BYTES
    }

    fn make_room(&mut self, used: &BTreeSet<StackId>) {
        self.stacks.retain(|id, _| used.contains(id));
        self.bytes = self.stacks.values().map(|stack| stack.bytes()).sum();
        if !self.has_room(MAX_STACKS / ROOM, MAX_BYTES / ROOM) {
            self.crowded = MAX_STACKS / ROOM;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::Frame;

    fn stack(id: u32, text: usize) -> Stack {
        let frame = Frame {
            function: Some(Arc::from("f".repeat(text))),
            ..Frame::default()
        };
        Stack {
            id: StackId(id),
            frames: Arc::new([frame]),
            cut: None,
        }
    }

    #[test]
    fn what_is_not_used_makes_room() {
        let mut named = Named::default();
        let used = BTreeSet::from([StackId(7)]);
        for id in 0..10 * MAX_STACKS as u32 {
            named.define(&stack(id, 1), || used.clone());
            assert!(named.get(StackId(id)).is_some());
            assert!(named.stacks.len() <= MAX_STACKS);
        }
        assert!(named.get(StackId(7)).is_some());
        assert!(named.wants(StackId(8)));
    }

    #[test]
    fn names_take_room_too() {
        let mut named = Named::default();
        let text = 256 << 10;
        for id in 0..4 * (MAX_BYTES / text) as u32 {
            named.define(&stack(id, text), BTreeSet::new);
            assert!(named.get(StackId(id)).is_some());
            assert!(named.bytes <= MAX_BYTES);
        }
    }

    #[test]
    fn where_all_are_used_it_is_seldom_looked_at() {
        let mut named = Named::default();
        let all: BTreeSet<StackId> = (0..MAX_STACKS as u32).map(StackId).collect();
        let mut looks = 0;
        for id in 0..2 * MAX_STACKS as u32 {
            named.define(&stack(id, 1), || {
                looks += 1;
                all.clone()
            });
        }
        assert_eq!(named.stacks.len(), MAX_STACKS);
        assert!(named.get(StackId(MAX_STACKS as u32)).is_none());
        assert!((1..=ROOM + 1).contains(&looks), "{looks}");
    }
}

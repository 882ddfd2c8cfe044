//! Numbers for stacks: the same for the same frames.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Weak};

use tcptrace_core::stack::{Frame, Stack, StackId};
use tcptrace_stacks::Trace;

use super::Answer;

/// Stacks whose numbers are remembered, and bytes of these stacks, which whoever takes the answers keeps
/// as long.
const MAX_STACKS: usize = 65_536;
const MAX_BYTES: usize = 128 << 20;
/// What was seen of them, of up to 70 words, some 12 MiB.
const MAX_SEEN: usize = 16_384;

/// Gives stacks their numbers.
#[derive(Default)]
pub(super) struct StackIds {
    next: u32,
    /// By what they are: two hashes with random keys, so that nobody makes two stacks look like one.
    by_content: HashMap<[u64; 2], StackId>,
    /// Bytes of all these.
    bytes: usize,
    keys: [RandomState; 2],
    /// By what was seen, which takes no names to compare. A trace may keep its number and get names that
    /// were missing, so it has to be the very same one.
    by_sight: HashMap<Box<[u64]>, (Weak<Trace>, StackId)>,
}

impl StackIds {
    /// The number of what was seen before: `sight` has everything but the trace that decides.
    pub(super) fn known(&self, sight: &[u64], trace: &Arc<Trace>) -> Option<StackId> {
        let (seen, id) = self.by_sight.get(sight)?;
        std::ptr::eq(seen.as_ptr(), Arc::as_ptr(trace)).then_some(*id)
    }

    /// Remembers what a stack was seen by.
    pub(super) fn remember(&mut self, sight: &[u64], trace: &Arc<Trace>, id: StackId) {
        if self.by_sight.len() >= MAX_SEEN {
            self.by_sight.clear();
        }
        let seen = (Arc::downgrade(trace), id);
        self.by_sight.insert(Box::from(sight), seen);
    }

    /// The number of a stack, which is defined if it has to be.
    pub(super) fn number(
        &mut self,
        frames: Vec<Frame>,
        cut: Option<Arc<str>>,
        out: &mut Vec<Answer>,
    ) -> StackId {
        let content = (&frames, &cut);
        let key = self.keys.each_ref().map(|key| key.hash_one(content));
        if let Some(id) = self.by_content.get(&key) {
            return *id;
        }
        let id = StackId(self.next);
        let frames = frames.into();
        let stack = Stack { id, frames, cut };
        self.bytes += stack.bytes();
        if self.by_content.len() >= MAX_STACKS || self.bytes > MAX_BYTES {
            // A stack may then come to have two numbers, which only groups it worse.
            self.by_content.clear();
            self.by_sight.clear();
            self.bytes = stack.bytes();
            out.push(Answer::Forget);
        }
        self.next = self.next.wrapping_add(1);
        self.by_content.insert(key, id);
        out.push(Answer::Define(stack));
        id
    }
}

#[cfg(test)]
mod tests {
    use tcptrace_stacks::{End, TraceId};

    use super::*;

    fn frames(names: &[&str]) -> Vec<Frame> {
        let frame = |name: &&str| Frame {
            function: Some(Arc::from(*name)),
            ..Frame::default()
        };
        names.iter().map(frame).collect()
    }

    #[test]
    fn the_same_frames_have_the_same_number() {
        let mut ids = StackIds::default();
        let mut out = Vec::new();
        let first = ids.number(frames(&["connect", "main"]), None, &mut out);
        let Some(Answer::Define(defined)) = out.pop() else {
            panic!("it is new");
        };
        assert_eq!(defined.id, first);
        assert_eq!(*defined.frames, *frames(&["connect", "main"]));
        let again = ids.number(frames(&["connect", "main"]), None, &mut out);
        assert!(again == first && out.is_empty());
        let others = [
            (frames(&["connect"]), None),
            (frames(&["connect", "main"]), Some(Arc::from("cut"))),
            (frames(&["connectmain"]), None),
            (frames(&[]), None),
        ];
        for (frames, cut) in others {
            let other = ids.number(frames, cut, &mut out);
            assert!(other != first && matches!(out.pop(), Some(Answer::Define(_))));
        }
    }

    #[test]
    fn memory_is_bounded_and_numbers_are_new_then() {
        let mut ids = StackIds::default();
        let mut out = Vec::new();
        for line in 0..=MAX_STACKS as u32 {
            let frame = Frame {
                line: Some(line),
                ..Frame::default()
            };
            assert_eq!(ids.number(vec![frame], None, &mut out), StackId(line));
            assert!(matches!(out.pop(), Some(Answer::Define(_))));
        }
        assert_eq!(ids.by_content.len(), 1);
        assert!(matches!(out[..], [Answer::Forget]));
        // The same with few stacks of long names.
        let long = "f".repeat(MAX_BYTES / 16);
        for number in 0..32 {
            let name = format!("{number}{long}");
            ids.number(frames(&[&name]), None, &mut out);
            assert!(ids.bytes <= MAX_BYTES && ids.by_content.len() <= 16);
        }
    }

    #[test]
    fn a_trace_that_got_names_is_not_known() {
        let trace = |end| {
            Arc::new(Trace {
                id: TraceId(7),
                frames: Vec::new(),
                end,
            })
        };
        let (one, other) = (trace(End::Root), trace(End::Chain));
        let mut ids = StackIds::default();
        ids.remember(&[7], &one, StackId(3));
        assert_eq!(ids.known(&[7], &one), Some(StackId(3)));
        assert_eq!(ids.known(&[7], &other), None);
        assert_eq!(ids.known(&[8], &one), None);
        for word in 0..2 * MAX_SEEN as u64 {
            ids.remember(&[word], &one, StackId(0));
            assert!(ids.by_sight.len() <= MAX_SEEN);
        }
    }
}

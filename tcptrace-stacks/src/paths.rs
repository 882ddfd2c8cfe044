//! Call paths seen before, by what their walks looked at.
//!
//! A walk is decided by its first address and by what it saw where it looked. So the walks of a process
//! make a tree: at each node is where to look next, on each edge what was seen, and at the leaf the
//! trace. Going down the tree looks at a word or two for each frame; it finds the trace that a walk
//! would find, or nothing.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use crate::trace::TraceId;
use crate::unwind::{Read, Seen, View};

/// The walks of one process.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    first: HashMap<u64, u32, FixedState>,
    next: HashMap<(u32, Seen), u32, FixedState>,
    nodes: Vec<Node>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Look(Read),
    Found(TraceId),
}

impl Paths {
    /// The trace of a walk that looked at the same. `look` is told what that is.
    pub(crate) fn find(&self, view: View<'_>, mut look: impl FnMut(Read, Seen)) -> Option<TraceId> {
        let mut at = *self.first.get(&view.regs.ip)?;
        loop {
            match *self.nodes.get(at as usize)? {
                Node::Found(id) => return Some(id),
                Node::Look(read) => {
                    let seen = view.see(read);
                    look(read, seen);
                    at = *self.next.get(&(at, seen))?;
                }
            }
        }
    }

    /// Remembers the trace of a walk.
    pub(crate) fn insert(&mut self, ip: u64, reads: &[(Read, Seen)], id: TraceId) {
        let wanted = |i: usize| {
            reads
                .get(i)
                .map_or(Node::Found(id), |(r, _)| Node::Look(*r))
        };
        let mut at = match self.first.get(&ip) {
            Some(at) => *at,
            None => {
                let at = self.add(wanted(0));
                self.first.insert(ip, at);
                at
            }
        };
        for (i, (_, seen)) in reads.iter().enumerate() {
            let next = self.next.get(&(at, *seen)).copied();
            at = next.unwrap_or_else(|| {
                let added = self.add(wanted(i + 1));
                self.next.insert((at, *seen), added);
                added
            });
            let node = &mut self.nodes[at as usize];
            match (*node, wanted(i + 1)) {
                (Node::Found(_), Node::Found(id)) => *node = Node::Found(id),
                (old, new) if old == new => {}
                // The code has changed since: nothing of the old is true.
                _ => {
                    self.clear();
                    return;
                }
            }
        }
    }

    fn add(&mut self, node: Node) -> u32 {
        self.nodes.push(node);
        u32::try_from(self.nodes.len() - 1).unwrap_or(u32::MAX)
    }

    /// How many words it looks at.
    pub(crate) fn words(&self) -> usize {
        self.nodes.len()
    }

    /// Forgets all, and gives the memory back.
    pub(crate) fn clear(&mut self) {
        *self = Paths::default();
    }

    /// Bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        // A hash table has a byte beside each place, and an eighth of its places free.
        let table = |capacity: usize, entry: usize| capacity * 8 / 7 * (entry + 1);
        table(self.first.capacity(), size_of::<(u64, u32)>())
            + table(self.next.capacity(), size_of::<((u32, Seen), u32)>())
            + self.nodes.capacity() * size_of::<Node>()
    }
}

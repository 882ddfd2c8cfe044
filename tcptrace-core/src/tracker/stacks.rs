//! Where in their code processes acted on the connections.

use std::collections::BTreeMap;

use crate::stack::{Seen, Stack, StackId};

/// The stacks of a trace, and what was seen with them.
#[derive(Debug, Default)]
pub(super) struct Stacks {
    named: BTreeMap<StackId, Stack>,
    /// By cookie: where it was connected or accepted.
    acquired: BTreeMap<u64, Seen>,
}

impl Stacks {
    pub(super) fn define(&mut self, stack: &Stack) {
        self.named.insert(stack.id, stack.clone());
    }

    pub(super) fn seen(&mut self, seen: &Seen) {
        self.acquired.insert(seen.cookie, *seen);
    }
}

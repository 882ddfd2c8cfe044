//! Stacks, from the kernel's ring to the one who names them, and from there to the tracker.
//!
//! A stack is defined before a thread is seen with it, once in every part of a recording that needs it.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tcptrace_core::input::{Definition, Input};
use tcptrace_core::stack::{Seen, Stack, StackId};

use crate::kernel::probes::Probes;
use crate::pipeline::{Pipeline, Sink};
use crate::stacks::{Answer, Namer};

/// Stacks on their way.
pub(crate) struct Stacks {
    namer: Namer,
    /// Named, and not told yet: what they are about may still be in the ring.
    named: Vec<Answer>,
    defined: Defined,
    dropped: u64,
}

impl Stacks {
    pub(crate) fn new(namer: Namer) -> Stacks {
        Stacks {
            namer,
            named: Vec::new(),
            defined: Defined::default(),
            dropped: 0,
        }
    }

    /// A process that may take part is known.
    pub(super) fn look(&mut self, pid: u32) {
        self.namer.look(pid);
    }

    /// Takes what has been named. Whatever happened before is in the ring by now, or was there.
    pub(super) fn collect(&mut self) {
        self.named.extend(self.namer.answers());
    }

    /// Tells what was collected before the ring was emptied.
    pub(super) fn tell<S: Sink>(&mut self, probes: &mut Probes, pipeline: &mut Pipeline<S>) {
        for answer in self.named.drain(..) {
            match answer {
                Answer::Define(stack) => self.defined.define(stack),
                Answer::Seen(seen) => self.defined.see(seen, pipeline),
                Answer::Forget => self.defined.forget(),
                // Without room its frames are read from outside, and are of a later moment.
                Answer::Python { tgid, walk } => drop(probes.find_python(tgid, walk)),
                Answer::NotPython { tgid } => probes.forget_python(tgid),
                // Without room it is copied.
                Answer::Path { seen, next } => drop(probes.know_path(seen, next)),
                Answer::NoPath(seen) => probes.forget_path(seen),
            }
        }
    }

    /// Tells anew where the connections that there are were acquired.
    pub(super) fn introduce<S: Sink>(&mut self, pipeline: &mut Pipeline<S>) {
        self.defined.introduce(pipeline);
    }

    /// Gives the kernel's ring to the one who names.
    pub(super) fn take(&mut self, probes: &mut Probes) {
        let Stacks { namer, dropped, .. } = self;
        probes.drain_stacks(|record| *dropped += u64::from(!namer.take(record)));
    }

    /// Waits for what was taken, at most so long. Whether all of it is named.
    pub(super) fn wait(&mut self, limit: Duration) -> bool {
        self.namer.wait(limit)
    }

    /// Nothing more is named.
    pub(super) fn finish(&mut self) {
        self.dropped += self.namer.finish();
    }

    /// How many were taken and not named.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped + self.namer.malformed()
    }
}

/// The stacks that threads may be seen with.
#[derive(Default)]
struct Defined {
    stacks: HashMap<StackId, Stack>,
    /// Those that the part of the recording at hand has.
    told: HashSet<StackId>,
}

impl Defined {
    fn define(&mut self, stack: Stack) {
        self.stacks.insert(stack.id, stack);
    }

    /// Those that come have new numbers.
    fn forget(&mut self) {
        self.stacks.clear();
        self.told.clear();
    }

    /// A thread was seen.
    fn see<S: Sink>(&mut self, seen: Seen, pipeline: &mut Pipeline<S>) {
        let id = seen.stack;
        if self.told.insert(id) || pipeline.tracker().wants_stack(id) {
            let known = pipeline
                .tracker()
                .stack(id)
                .map(|stack| Stack::clone(stack));
            if let Some(stack) = known.or_else(|| self.stacks.get(&id).cloned()) {
                pipeline.feed(&Input::Define(Definition::Stack(stack)));
            }
        }
        pipeline.feed(&Input::Stack(seen));
    }

    /// Another part begins.
    fn introduce<S: Sink>(&mut self, pipeline: &mut Pipeline<S>) {
        self.told.clear();
        for seen in pipeline.tracker().threads_seen() {
            self.see(seen, pipeline);
        }
    }
}

#[cfg(test)]
mod tests;

//! Stacks, from the kernel's ring to the one who names them, and from there to the tracker.

use std::time::Duration;

use tcptrace_core::input::{Definition, Input};

use crate::kernel::probes::Probes;
use crate::pipeline::{Pipeline, Sink};
use crate::stacks::{Answer, Namer};

/// How long the end waits for what is not named yet.
const PATIENCE: Duration = Duration::from_secs(5);

/// Stacks on their way.
pub(crate) struct Stacks {
    namer: Namer,
    /// Named, and not told yet: what they are about may still be in the ring.
    named: Vec<Answer>,
    dropped: u64,
}

impl Stacks {
    pub(crate) fn new(namer: Namer) -> Stacks {
        Stacks {
            namer,
            named: Vec::new(),
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
                Answer::Define(stack) => pipeline.feed(&Input::Define(Definition::Stack(stack))),
                Answer::Seen(seen) => pipeline.feed(&Input::Stack(seen)),
                // Without room its frames are read from outside, and are of a later moment.
                Answer::Python { tgid, walk } => drop(probes.find_python(tgid, walk)),
                Answer::NotPython { tgid } => probes.forget_python(tgid),
            }
        }
    }

    /// Gives the kernel's ring to the one who names.
    pub(super) fn take(&mut self, probes: &mut Probes) {
        let Stacks { namer, dropped, .. } = self;
        probes.drain_stacks(|record| *dropped += u64::from(!namer.take(record)));
    }

    /// Waits for what was taken.
    pub(super) fn finish(&mut self) {
        self.dropped += self.namer.finish(PATIENCE);
        self.collect();
    }

    /// How many were taken and not named.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped + self.namer.malformed()
    }
}

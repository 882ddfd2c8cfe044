//! What full accept queues dropped, as the programs count it in their map.

use std::collections::{BTreeMap, BTreeSet};

use aya::maps::MapError;
use tcptrace_core::decode;
use tcptrace_core::input::Overflow;

use crate::kernel::probes::Probes;

/// The totals as they were last told.
#[derive(Default)]
pub(super) struct Overflows {
    told: BTreeMap<u64, Overflow>,
    undecodable: BTreeSet<u64>,
}

impl Overflows {
    /// The totals that have grown since they were last told, and how many are new that cannot be
    /// decoded.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub(super) fn grown(&mut self, probes: &Probes) -> Result<(Vec<Overflow>, u64), MapError> {
        let (mut grown, mut undecodable) = (Vec::new(), 0);
        for (key, value) in probes.overflows()? {
            match decode::overflow(key, &value) {
                Ok(total)
                    if self
                        .told
                        .get(&key)
                        .is_some_and(|t| t.dropped == total.dropped) => {}
                Ok(total) => {
                    self.told.insert(key, total);
                    grown.push(total);
                }
                Err(_) => undecodable += u64::from(self.undecodable.insert(key)),
            }
        }
        Ok((grown, undecodable))
    }

    /// All that were told.
    pub(super) fn told(&self) -> impl Iterator<Item = Overflow> {
        self.told.values().copied()
    }
}

//! What a format keeps of the connections that have not ended.

use std::collections::BTreeMap;

use crate::tracker::Tracker;
use crate::tuple::ConnId;

/// Below this many there is nothing to gain.
const FEW: usize = 4_096;

/// Something about each connection that has not ended, in the order of their ids.
///
/// The end of a connection is not always told: a filter may let go of it. So what the tracker has
/// forgotten is forgotten here whenever there is twice as much as there was.
#[derive(Clone, Debug)]
pub struct Lives<T> {
    all: BTreeMap<ConnId, T>,
    /// With so many it is time to look.
    enough: usize,
}

impl<T> Default for Lives<T> {
    fn default() -> Lives<T> {
        Lives {
            all: BTreeMap::new(),
            enough: FEW,
        }
    }
}

impl<T> Lives<T> {
    /// What is kept of this connection.
    pub fn get_mut(&mut self, id: ConnId) -> Option<&mut T> {
        self.all.get_mut(&id)
    }

    /// What is kept of the newest connection of this socket.
    pub fn newest_of(&mut self, cookie: u64) -> Option<(ConnId, &mut T)> {
        let id = |generation| ConnId { cookie, generation };
        let mut all = self.all.range_mut(id(0)..=id(u32::MAX));
        all.next_back().map(|(id, life)| (*id, life))
    }

    /// Keeps this of a connection.
    pub fn insert(&mut self, id: ConnId, life: T) {
        self.all.insert(id, life);
    }

    /// The connection has ended.
    pub fn remove(&mut self, id: ConnId) -> Option<T> {
        self.all.remove(&id)
    }

    /// Those that the tracker has forgotten; none while there are few.
    pub fn forgotten(&mut self, tracker: &Tracker) -> Vec<(ConnId, T)> {
        if self.all.len() < self.enough {
            return Vec::new();
        }
        let gone = self.all.extract_if(.., |id, _| !tracker.knows(id.cookie));
        let gone = gone.collect();
        self.enough = FEW.max(self.all.len().saturating_mul(2));
        gone
    }

    /// All that are left, and none is any more.
    pub fn take(&mut self) -> BTreeMap<ConnId, T> {
        std::mem::take(&mut self.all)
    }
}

//! What a format keeps of the connections that have not ended.

use std::collections::BTreeMap;

use crate::tuple::ConnId;

/// Below this many there is nothing to gain.
const FEW: usize = 4_096;

/// Something about each connection that has not ended, by its id or by its ends, in that order.
///
/// The end of a connection is not always told: a filter may let go of it. So what the tracker has
/// forgotten is forgotten here whenever there is twice as much as there was.
#[derive(Clone, Debug)]
pub struct Lives<K, T> {
    all: BTreeMap<K, T>,
    /// With so many it is time to look.
    enough: usize,
}

impl<K, T> Default for Lives<K, T> {
    fn default() -> Lives<K, T> {
        Lives {
            all: BTreeMap::new(),
            enough: FEW,
        }
    }
}

impl<K: Ord, T> Lives<K, T> {
    /// What is kept of this connection.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut T> {
        self.all.get_mut(key)
    }

    /// Keeps this of a connection.
    pub fn insert(&mut self, key: K, life: T) {
        self.all.insert(key, life);
    }

    /// The connection has ended.
    pub fn remove(&mut self, key: &K) -> Option<T> {
        self.all.remove(key)
    }

    /// Those that are not known any more; none while there are few.
    pub fn forgotten(&mut self, known: impl Fn(&K, &T) -> bool) -> Vec<(K, T)> {
        if self.all.len() < self.enough {
            return Vec::new();
        }
        let gone = self.all.extract_if(.., |key, life| !known(key, life));
        let gone = gone.collect();
        self.enough = FEW.max(self.all.len().saturating_mul(2));
        gone
    }

    /// All that are left, and none is any more.
    pub fn take(&mut self) -> BTreeMap<K, T> {
        std::mem::take(&mut self.all)
    }
}

impl<T> Lives<ConnId, T> {
    /// What is kept of the newest connection of this socket.
    pub fn newest_of(&mut self, cookie: u64) -> Option<(ConnId, &mut T)> {
        let id = |generation| ConnId { cookie, generation };
        let mut all = self.all.range_mut(id(0)..=id(u32::MAX));
        all.next_back().map(|(id, life)| (*id, life))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_ends_is_not_kept_for_ever() {
        let mut lives = Lives::default();
        let (mut most, mut gone) = (0, 0);
        for n in 0..100_000u64 {
            lives.insert(n, ());
            gone += lives.forgotten(|key, ()| *key + 10 > n).len();
            most = most.max(lives.all.len());
        }
        assert_eq!(most, FEW - 1);
        assert_eq!(gone + lives.take().len(), 100_000);
    }

    #[test]
    fn the_newest_connection_of_a_socket_is_found() {
        let mut lives = Lives::default();
        for (cookie, generation) in [(1, 0), (2, 0), (2, 1), (3, 0)] {
            lives.insert(ConnId { cookie, generation }, (cookie, generation));
        }
        let newest = |lives: &mut Lives<ConnId, (u64, u32)>, cookie| {
            lives.newest_of(cookie).map(|(_, life)| *life)
        };
        assert_eq!(newest(&mut lives, 2), Some((2, 1)));
        assert_eq!(newest(&mut lives, 4), None);
    }
}

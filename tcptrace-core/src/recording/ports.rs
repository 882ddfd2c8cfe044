//! The ports that a block told last: most come again soon, at the other end or at another socket.

/// How many are remembered.
const RECENT: usize = 16;

/// The ports that were told last.
#[derive(Debug, Default)]
pub(super) struct Ports {
    recent: [u16; RECENT],
    /// How many were told.
    told: usize,
}

impl Ports {
    /// How many places it stands behind the newest, which is 1.
    pub(super) fn back(&self, port: u16) -> Option<u8> {
        let known = 1..=self.told.min(RECENT);
        let mut known = known.map(|back| back as u8);
        known.find(|back| self.at(*back) == Some(port))
    }

    /// The one that stands so many places behind the newest.
    pub(super) fn at(&self, back: u8) -> Option<u16> {
        let back = usize::from(back);
        let known = (1..=self.told.min(RECENT)).contains(&back);
        known.then(|| self.recent[(self.told - back) % RECENT])
    }

    /// A port that is not among them was told.
    pub(super) fn push(&mut self, port: u16) {
        self.recent[self.told % RECENT] = port;
        self.told += 1;
    }
}

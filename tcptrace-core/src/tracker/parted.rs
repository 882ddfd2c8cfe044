//! Minisockets whose full socket has connected again meanwhile. Both have the same cookie, so the
//! minisocket is kept under a key of its own.

use std::collections::BTreeMap;

use super::Tracker;
use crate::change::Change;
use crate::state::TcpState;
use crate::tuple::Tuple;

/// The keys' highest bit, then a number, then the cookie. The kernel counts cookies up from 1, a
/// batch of them per CPU: they never come near 48 bits.
const PARTED: u64 = 1 << 63;
const COOKIE: u64 = (1 << 48) - 1;

/// The cookie of a connection's key.
pub(super) fn cookie_of(key: u64) -> u64 {
    match key & PARTED != 0 {
        true => key & COOKIE,
        false => key,
    }
}

/// The keys of the parted minisockets.
#[derive(Debug, Default)]
pub(super) struct Parted {
    by_cookie: BTreeMap<u64, Vec<u64>>,
    last: u64,
}

impl Parted {
    fn keys(&self, cookie: u64) -> &[u64] {
        self.by_cookie.get(&cookie).map_or(&[], Vec::as_slice)
    }

    pub(super) fn knows(&self, cookie: u64) -> bool {
        self.by_cookie.contains_key(&cookie)
    }

    fn new_key(&mut self, cookie: u64) -> u64 {
        self.last = (self.last + 1) & 0x7fff;
        let key = PARTED | self.last << 48 | (cookie & COOKIE);
        self.by_cookie.entry(cookie).or_default().push(key);
        key
    }

    pub(super) fn ended(&mut self, key: u64) {
        if key & PARTED == 0 {
            return;
        }
        let cookie = cookie_of(key);
        if let Some(keys) = self.by_cookie.get_mut(&cookie) {
            keys.retain(|k| *k != key);
            if keys.is_empty() {
                self.by_cookie.remove(&cookie);
            }
        }
    }
}

impl Tracker {
    /// The full socket of a minisocket connects again: the minisocket gets a key of its own.
    pub(super) fn part(&mut self, cookie: u64, changes: &mut Vec<Change>) {
        if let Some((at, cause)) = self.conns.get(&cookie).and_then(|conn| conn.dying) {
            self.end(cookie, at, TcpState::Close, cause, changes);
        }
        let Some(conn) = self.conns.remove(&cookie) else {
            return;
        };
        let key = self.parted.new_key(cookie);
        let due = self.due_at(&conn);
        if self.due.remove(due, cookie) {
            self.due.insert(due, key);
        }
        self.conns.insert(key, conn);
    }

    /// The key under which the minisocket with these ends is kept, or is to be kept.
    pub(super) fn minisocket_key(&mut self, cookie: u64, tuple: &Tuple) -> u64 {
        let is_it = |key: &u64| self.conns.get(key).is_some_and(|conn| conn.tuple == *tuple);
        if let Some(key) = self.parted.keys(cookie).iter().copied().find(is_it) {
            return key;
        }
        match self.conns.get(&cookie) {
            Some(conn) if conn.tuple != *tuple => self.parted.new_key(cookie),
            _ => cookie,
        }
    }
}

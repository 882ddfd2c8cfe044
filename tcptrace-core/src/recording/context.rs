//! What a block has said already: the time of its last record, and the addresses, sockets and tasks
//! that came up in it. A reference counts back from the newest.

use std::hash::Hash;
use std::net::IpAddr;

use super::varint::{Bad, Cursor, put};
use crate::owner::Actor;
use crate::tuple::Tuple;

/// A socket as events name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Socket {
    pub(super) cookie: u64,
    pub(super) sk: u64,
    pub(super) tuple: Option<Tuple>,
}

/// The writer's side.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The times of the records, in their order.
    pub(super) times: Vec<u8>,
    pub(super) at: u64,
    pub(super) cookie: u64,
    pub(super) kernel_addresses: Told<u64>,
    pub(super) ips: Told<IpAddr>,
    pub(super) namespaces: Told<Option<u32>>,
    pub(super) sockets: Told<Socket>,
    pub(super) actors: Told<Actor>,
}

impl Known {
    /// Forgets everything: a new block begins.
    pub(super) fn clear(&mut self) {
        self.times.clear();
        self.at = 0;
        self.cookie = 0;
        self.kernel_addresses.0.clear();
        self.ips.0.clear();
        self.namespaces.0.clear();
        self.sockets.0.clear();
        self.actors.0.clear();
    }
}

/// Values with the order in which they were told.
#[derive(Debug)]
pub(super) struct Told<T>(std::collections::HashMap<T, usize, foldhash::fast::FixedState>);

impl<T> Default for Told<T> {
    fn default() -> Told<T> {
        Told(Default::default())
    }
}

impl<T: Copy + Eq + Hash> Told<T> {
    /// Writes a reference, from `first` on; where the value is new, `first` itself, and true: the
    /// value is to follow.
    pub(super) fn refer(&mut self, value: T, first: u64, out: &mut Vec<u8>) -> bool {
        let told = self.0.len();
        let place = *self.0.entry(value).or_insert(told);
        put(out, first + (told - place) as u64);
        place == told
    }
}

/// The reader's side.
#[derive(Debug, Default)]
pub(super) struct Heard<'a> {
    /// The times of the records that follow.
    pub(super) times: Cursor<'a>,
    pub(super) at: u64,
    pub(super) cookie: u64,
    pub(super) kernel_addresses: Vec<u64>,
    pub(super) ips: Vec<IpAddr>,
    pub(super) namespaces: Vec<Option<u32>>,
    pub(super) sockets: Vec<Socket>,
    pub(super) actors: Vec<Actor>,
}

/// Reads a reference; `None`: the value follows.
pub(super) fn referred<T: Copy>(list: &[T], cursor: &mut Cursor<'_>) -> Result<Option<T>, Bad> {
    look_back(list, cursor.number()?)
}

/// What is so many places back from the end of the list, the last being 1; `None` at 0.
pub(super) fn look_back<T: Copy>(list: &[T], back: u64) -> Result<Option<T>, Bad> {
    let place = usize::try_from(back)
        .ok()
        .and_then(|back| list.len().checked_sub(back))
        .ok_or(Bad::Malformed)?;
    Ok(list.get(place).copied())
}

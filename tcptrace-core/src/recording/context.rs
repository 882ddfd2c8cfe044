//! What a block has said already: the time of its last record, and the shapes, sockets, addresses
//! and tasks that came up in it.

use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::columns::{Column, Columns};
use super::ports::Ports;
use super::times;
use crate::owner::Actor;
use crate::tuple::Tuple;

type Map<K, V> = std::collections::HashMap<K, V, foldhash::fast::FixedState>;

/// A socket as records name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Socket {
    pub(super) cookie: u64,
    pub(super) sk: u64,
    pub(super) tuple: Tuple,
}

/// In what a new socket differs from the one that it is like.
pub(super) mod differs {
    pub(in super::super) const COOKIE: u8 = 1;
    pub(in super::super) const ADDRESS: u8 = 2;
    pub(in super::super) const LOCAL_IP: u8 = 4;
    pub(in super::super) const LOCAL_PORT: u8 = 8;
    pub(in super::super) const REMOTE_IP: u8 = 16;
    pub(in super::super) const REMOTE_PORT: u8 = 32;
    pub(in super::super) const NAMESPACE: u8 = 64;
    /// The cookie is 0: not known.
    pub(in super::super) const NO_COOKIE: u8 = 128;
}

impl Socket {
    /// One of which nothing is known.
    pub(super) const NONE: Socket = Socket {
        cookie: 0,
        sk: 0,
        tuple: Tuple {
            local: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
            remote: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
            netns: None,
        },
    };

    /// In what another one differs.
    pub(super) fn difference(&self, other: &Socket) -> u8 {
        let (a, b) = (&self.tuple, &other.tuple);
        let cookie = match other.cookie {
            0 => differs::NO_COOKIE,
            _ => differs::COOKIE,
        };
        [
            (self.cookie != other.cookie, cookie),
            (self.sk != other.sk, differs::ADDRESS),
            (a.local.ip() != b.local.ip(), differs::LOCAL_IP),
            (a.local.port() != b.local.port(), differs::LOCAL_PORT),
            (a.remote.ip() != b.remote.ip(), differs::REMOTE_IP),
            (a.remote.port() != b.remote.port(), differs::REMOTE_PORT),
            (a.netns != b.netns, differs::NAMESPACE),
        ]
        .into_iter()
        .fold(0, |bits, (differs, bit)| {
            bits | if differs { bit } else { 0 }
        })
    }
}

/// The writer's side.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) columns: Columns,
    pub(super) times: times::Writer,
    /// The cookie and the address that were told last.
    pub(super) cookie: u64,
    pub(super) address: u64,
    /// The numbers of shapes, by their descriptions.
    pub(super) shapes: Map<Box<[u8]>, u64>,
    pub(super) sockets: Sockets,
    pub(super) ports: Ports,
    pub(super) ips: Numbered<IpAddr>,
    pub(super) namespaces: Numbered<Option<u32>>,
    pub(super) tasks: Numbered<Actor>,
    /// Room for a description.
    pub(super) scratch: Vec<u8>,
}

impl Known {
    /// The payload of the block; a new one begins.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        self.times.finish(self.columns.of(Column::Times));
        let payload = self.columns.payload();
        self.clear();
        payload
    }

    fn clear(&mut self) {
        self.columns.clear();
        (self.cookie, self.address) = (0, 0);
        self.ports = Ports::default();
        self.shapes.clear();
        self.sockets.clear();
        self.ips.0.clear();
        self.namespaces.0.clear();
        self.tasks.0.clear();
    }

    /// The socket of a record that does not say between which ends it is.
    pub(super) fn without_ends(&self, cookie: u64, sk: u64) -> Socket {
        let known = self.sockets.newest(cookie, sk);
        let tuple = known.map_or(Socket::NONE.tuple, |socket| socket.tuple);
        Socket { cookie, sk, tuple }
    }
}

/// Values with the numbers that they were given, from 1.
#[derive(Debug)]
pub(super) struct Numbered<T>(Map<T, u64>);

impl<T> Default for Numbered<T> {
    fn default() -> Numbered<T> {
        Numbered(Default::default())
    }
}

impl<T: Eq + Hash> Numbered<T> {
    /// The number of a value, and whether it is new.
    pub(super) fn number(&mut self, value: T) -> (u64, bool) {
        let next = self.0.len() as u64 + 1;
        let number = *self.0.entry(value).or_insert(next);
        (number, number == next)
    }
}

/// The sockets that were told, in their order.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    told: Vec<Socket>,
    /// The place of the newest with an address, or with a cookie where it has no address.
    newest: Map<u64, usize>,
    by_cookie: Map<u64, usize>,
    /// That of the last record.
    last: Option<usize>,
}

impl Sockets {
    pub(super) fn told(&self) -> usize {
        self.told.len()
    }

    fn key(cookie: u64, sk: u64) -> u64 {
        if sk == 0 { cookie } else { sk }
    }

    fn newest(&self, cookie: u64, sk: u64) -> Option<&Socket> {
        let place = self.newest.get(&Self::key(cookie, sk))?;
        self.told.get(*place)
    }

    /// Its place, if it was told.
    pub(super) fn find(&mut self, socket: &Socket) -> Option<usize> {
        let place = *self.newest.get(&Self::key(socket.cookie, socket.sk))?;
        let same = self.told.get(place) == Some(socket);
        same.then(|| {
            self.last = Some(place);
            place
        })
    }

    /// The one that a new socket is likely to have most in common with, and how many places it
    /// stands back; 0: none was told.
    pub(super) fn like(&self, socket: &Socket) -> (u64, Socket) {
        let newest = self.newest.get(&Self::key(socket.cookie, socket.sk));
        let place = newest
            .or_else(|| self.by_cookie.get(&socket.cookie))
            .copied()
            .or(self.last);
        let like = place.and_then(|place| self.told.get(place).map(|like| (place, *like)));
        like.map_or((0, Socket::NONE), |(place, like)| {
            ((self.told.len() - place) as u64, like)
        })
    }

    pub(super) fn push(&mut self, socket: Socket) {
        let place = self.told.len();
        self.newest
            .insert(Self::key(socket.cookie, socket.sk), place);
        if socket.cookie != 0 {
            self.by_cookie.insert(socket.cookie, place);
        }
        self.last = Some(place);
        self.told.push(socket);
    }

    fn clear(&mut self) {
        self.told.clear();
        self.newest.clear();
        self.by_cookie.clear();
        self.last = None;
    }
}

//! The columns of a block: what is alike stands together, since it compresses much better so.

use super::varint::{Bad, Cursor, put, put_bytes};

/// Which column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    /// Of each record: the number of its shape.
    Shapes,
    /// When.
    Times,
    /// On which CPU.
    Cpus,
    /// Of each record that is about a socket: which.
    Sockets,
    /// Of each new socket: which one it is like, and what differs.
    Likes,
    /// Cookies that differ.
    Cookies,
    /// Kernel addresses that differ.
    Addresses,
    /// IP addresses and namespaces that differ.
    Places,
    /// Ports that differ.
    Ports,
    /// Numbers that seldom come twice.
    Numbers,
    /// What sockets' timers have left.
    Timers,
    /// New shapes, and records without one.
    Records,
    /// New tasks, IP addresses and namespaces.
    Names,
}

const COLUMNS: usize = Column::Names as usize + 1;

/// The columns of a block that is being written.
#[derive(Debug, Default)]
pub(super) struct Columns([Vec<u8>; COLUMNS]);

impl Columns {
    pub(super) fn of(&mut self, column: Column) -> &mut Vec<u8> {
        &mut self.0[column as usize]
    }

    /// How many bytes they have together.
    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }

    pub(super) fn clear(&mut self) {
        self.0.iter_mut().for_each(Vec::clear);
    }

    /// The payload of the block.
    pub(super) fn payload(&self) -> Vec<u8> {
        let mut payload = Vec::with_capacity(self.bytes() + 4 * COLUMNS);
        put(&mut payload, COLUMNS as u64);
        for column in &self.0 {
            put_bytes(&mut payload, column);
        }
        payload
    }
}

/// The columns of a block that is being read.
#[derive(Debug, Default)]
pub(super) struct Rest<'a>([Cursor<'a>; COLUMNS]);

impl<'a> Rest<'a> {
    /// Those behind the last that is known are of a later version.
    ///
    /// # Errors
    /// If there are fewer.
    pub(super) fn of(payload: &'a [u8]) -> Result<Rest<'a>, Bad> {
        let mut payload = Cursor::new(payload);
        if payload.count(1)? < COLUMNS {
            return Err(Bad::Malformed);
        }
        let mut rest = Rest::default();
        for column in &mut rest.0 {
            *column = Cursor::new(payload.bytes()?);
        }
        Ok(rest)
    }

    pub(super) fn at(&mut self, column: Column) -> &mut Cursor<'a> {
        &mut self.0[column as usize]
    }
}

//! Memory of another process, and a reader of it that does a bounded amount of work.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;

use crate::Unreadable;

/// How often one stack may read the target's memory.
const MAX_READS: u32 = 16_384;
/// How many bytes one stack may read of the target's memory.
const MAX_BYTES: usize = 8 << 20;

/// Memory that can be read by its address: a process, or what a test puts in its place.
pub(crate) trait Memory {
    /// Fills `into` with what is at `address`, or says why it cannot.
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Unreadable>;
}

/// The memory of a process, read through `/proc/PID/mem`.
///
/// The open file belongs to one address space. When the process ends, or executes another program,
/// every read says [`Unreadable::Gone`]: it never reads the memory of a later process of that number.
#[derive(Debug)]
pub(crate) struct ProcessMemory {
    file: File,
}

impl ProcessMemory {
    /// Opens the memory of a process. The kernel asks for the right to trace it.
    pub(crate) fn open(pid: u32) -> io::Result<ProcessMemory> {
        Ok(ProcessMemory {
            file: File::open(format!("/proc/{pid}/mem"))?,
        })
    }
}

impl Memory for ProcessMemory {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Unreadable> {
        match self.file.read_at(into, address) {
            Ok(0) if !into.is_empty() => Err(Unreadable::Gone),
            Ok(n) if n == into.len() => Ok(()),
            Ok(_) => Err(Unreadable::Fault { address }),
            Err(e) if e.kind() == ErrorKind::PermissionDenied => Err(Unreadable::Denied),
            Err(_) => Err(Unreadable::Fault { address }),
        }
    }
}

/// Reads a memory, and stops when it was asked for too much.
pub(crate) struct Reader<'m> {
    memory: &'m dyn Memory,
    reads: Cell<u32>,
    bytes: Cell<usize>,
}

impl<'m> Reader<'m> {
    pub(crate) fn new(memory: &'m dyn Memory) -> Reader<'m> {
        Reader {
            memory,
            reads: Cell::new(0),
            bytes: Cell::new(0),
        }
    }

    /// How many reads were made so far.
    pub(crate) fn reads(&self) -> u32 {
        self.reads.get()
    }

    pub(crate) fn fill(&self, address: u64, into: &mut [u8]) -> Result<(), Unreadable> {
        let (reads, bytes) = (self.reads.get() + 1, self.bytes.get() + into.len());
        if reads > MAX_READS || bytes > MAX_BYTES {
            return Err(Unreadable::TooMuch);
        }
        self.reads.set(reads);
        self.bytes.set(bytes);
        // Address 0 and what the kernel keeps for itself are never the target's data.
        if address < 4096
            || address
                .checked_add(into.len() as u64)
                .is_none_or(|end| end >> 63 != 0)
        {
            return Err(Unreadable::Fault { address });
        }
        self.memory.read(address, into)
    }

    /// Reads `len` bytes. The caller has bounded `len`.
    pub(crate) fn bytes(&self, address: u64, len: usize) -> Result<Vec<u8>, Unreadable> {
        if len > MAX_BYTES {
            return Err(Unreadable::TooMuch);
        }
        let mut bytes = vec![0; len];
        self.fill(address, &mut bytes)?;
        Ok(bytes)
    }

    pub(crate) fn u64(&self, address: u64) -> Result<u64, Unreadable> {
        let mut bytes = [0; 8];
        self.fill(address, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

/// The `u64` at `offset`, or 0 beyond the end.
pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    bytes
        .get(offset..)
        .and_then(|b| b.first_chunk())
        .map_or(0, |b| u64::from_le_bytes(*b))
}

/// The `u32` at `offset`, or 0 beyond the end.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    bytes
        .get(offset..)
        .and_then(|b| b.first_chunk())
        .map_or(0, |b| u32::from_le_bytes(*b))
}

/// The `u16` at `offset`, or 0 beyond the end.
pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    bytes
        .get(offset..)
        .and_then(|b| b.first_chunk())
        .map_or(0, |b| u16::from_le_bytes(*b))
}

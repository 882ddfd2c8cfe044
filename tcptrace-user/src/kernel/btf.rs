//! The kernel's own description of its types (BTF), read from bytes.
//!
//! Enough of it to answer three questions: at which byte a field lies, whether a function exists
//! and how many parameters it has, and what a tracepoint passes. The format is
//! `Documentation/bpf/btf.rst` and `include/uapi/linux/btf.h`. Nothing here panics, whatever the
//! bytes are, and nothing is allocated from a number that was not checked against their length.

use std::hash::BuildHasher as _;
use std::ops::Range;

use foldhash::fast::FixedState;
use thiserror::Error;

/// Types of one BTF blob; type ids count from 1, 0 is `void`.
pub(crate) struct Btf {
    bytes: Vec<u8>,
    strings: Range<usize>,
    /// Where each type's record begins in `bytes`; id 1 first.
    records: Vec<u32>,
    names: Names,
}

/// The number of a type in its BTF.
pub(crate) type TypeId = u32;

/// Why bytes are not BTF that we can read.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum BtfError {
    /// The first two bytes are not the magic number of this byte order.
    #[error("not BTF: starts with {found:#06x} instead of 0xeb9f")]
    Magic {
        /// What is there.
        found: u16,
    },
    /// A version this parser does not know.
    #[error("BTF version {0} is not known (1 is); please report the kernel")]
    Version(u8),
    /// Something reaches past the end of its section.
    #[error("BTF is cut off: {what} at byte {at} needs {need} bytes, {have} are there")]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// Where it starts.
        at: usize,
        /// Bytes needed.
        need: usize,
        /// Bytes left.
        have: usize,
    },
    /// A kind whose size is not known, so that nothing behind it can be read.
    #[error(
        "BTF type {id} is of the unknown kind {kind}; this kernel's BTF is newer than tcptrace"
    )]
    UnknownKind {
        /// The type.
        id: TypeId,
        /// Its kind.
        kind: u8,
    },
}

/// The kinds that are looked up by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Struct,
    Typedef,
    Func,
}

/// A parameter of a function or a tracepoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Param {
    /// Its name; tracepoints of older kernels have none.
    pub(crate) name: String,
    /// Its type in C's words without qualifiers: `struct sock *`, `int`.
    pub(crate) ty: String,
}

impl Btf {
    /// Walks the type section once and indexes the names.
    ///
    /// # Errors
    /// When `bytes` is not whole, well-formed BTF of this machine's byte order.
    pub(crate) fn parse(bytes: Vec<u8>) -> Result<Btf, BtfError> {
        let header = Header::read(&bytes)?;
        let mut btf = Btf {
            strings: header.strings,
            records: Vec::with_capacity(header.types.len() / 40),
            names: Names::default(),
            bytes,
        };
        let hasher = FixedState::with_seed(0);
        let mut names = Vec::with_capacity(header.types.len() / 48);
        let mut at = header.types.start;
        while at < header.types.end {
            let id = btf.records.len() as TypeId + 1;
            let record = read_record(&btf.bytes[..header.types.end], at, id)?;
            // A section's offsets are u32, so this is too.
            btf.records.push(at as u32);
            if matches!(record.kind, STRUCT | UNION | TYPEDEF | FUNC) && record.name != 0 {
                let name = btf.string(record.name);
                let hash = hasher.hash_one(name) & UPPER_HALF;
                names.push(hash | u64::from(id));
            }
            at += record.len();
        }
        btf.names = Names::of(&names);
        Ok(btf)
    }

    /// How many types there are, `void` not counted.
    pub(crate) fn types(&self) -> usize {
        self.records.len()
    }

    /// The first type of this kind and name. A union is found as a struct.
    pub(crate) fn find(&self, kind: Kind, name: &str) -> Option<TypeId> {
        self.find_all(kind, name).next()
    }

    /// Every type of this kind and name, since a name need not be unique.
    pub(super) fn find_all(&self, kind: Kind, name: &str) -> impl Iterator<Item = TypeId> {
        let hash = FixedState::with_seed(0).hash_one(name.as_bytes()) & UPPER_HALF;
        let candidates = self.names.bucket(hash).iter();
        candidates
            .filter(move |entry| *entry & UPPER_HALF == hash)
            .map(|entry| *entry as TypeId)
            .filter(move |id| {
                self.record(*id).is_some_and(|r| {
                    self.string(r.name) == name.as_bytes()
                        && match kind {
                            Kind::Struct => r.kind == STRUCT || r.kind == UNION,
                            Kind::Typedef => r.kind == TYPEDEF,
                            Kind::Func => r.kind == FUNC,
                        }
                })
            })
    }

    /// The parameters of a kernel function, `None` if there is no such function.
    pub(crate) fn function(&self, name: &str) -> Option<Vec<Param>> {
        let func = self.record(self.find(Kind::Func, name)?)?;
        self.prototype(func.size_or_type)
    }

    /// The type id to attach a tp_btf program to, and what that tracepoint passes (without the
    /// `void *__data` in front); `None` if there is no such tracepoint.
    ///
    /// `include/trace/bpf_probe.h` leaves a `typedef void (*btf_trace_NAME)(void *__data, …)`.
    pub(crate) fn tracepoint(&self, name: &str) -> Option<(TypeId, Vec<Param>)> {
        let id = self.find(Kind::Typedef, &format!("btf_trace_{name}"))?;
        let pointer = self.record(self.record(id)?.size_or_type)?;
        let mut params = self.prototype(pointer.size_or_type)?;
        if pointer.kind != PTR || params.is_empty() {
            return None;
        }
        params.remove(0);
        Some((id, params))
    }

    fn prototype(&self, id: TypeId) -> Option<Vec<Param>> {
        let proto = self.record(id).filter(|r| r.kind == FUNC_PROTO)?;
        let param = |i| {
            let at = proto.body + 8 * i;
            let name = String::from_utf8_lossy(self.string(self.u32(at))).into_owned();
            Param {
                name,
                ty: self.type_text(self.u32(at + 4)),
            }
        };
        Some((0..proto.vlen).map(param).collect())
    }

    /// A type in C's words, without qualifiers and typedefs resolved only where they have no name.
    fn type_text(&self, id: TypeId) -> String {
        let Some(r) = self.skip(id, QUALIFIERS).and_then(|id| self.record(id)) else {
            return "void".into();
        };
        let name = String::from_utf8_lossy(self.string(r.name));
        match r.kind {
            STRUCT => format!("struct {name}"),
            FWD => format!("struct {name}"),
            UNION => format!("union {name}"),
            ENUM | ENUM64 => format!("enum {name}"),
            PTR => {
                let Some(to) = self.skip(r.size_or_type, QUALIFIERS) else {
                    return "void *".into();
                };
                match self.record(to).map(|r| r.kind) {
                    // Nothing that we look for is a pointer to a pointer or to a function.
                    Some(PTR) => "** ".into(),
                    Some(FUNC_PROTO) => "(*)()".into(),
                    _ => format!("{} *", self.type_text(to)),
                }
            }
            _ => name.into_owned(),
        }
    }

    /// Follows types of the given kinds to what they stand for; `None` for `void` and for a chain
    /// without end.
    pub(super) fn skip(&self, mut id: TypeId, kinds: &[u8]) -> Option<TypeId> {
        for _ in 0..MAX_CHAIN {
            let record = self.record(id)?;
            if !kinds.contains(&record.kind) {
                return Some(id);
            }
            id = record.size_or_type;
        }
        None
    }

    pub(super) fn record(&self, id: TypeId) -> Option<Record> {
        let at = *self.records.get((id as usize).checked_sub(1)?)? as usize;
        read_record(&self.bytes, at, id).ok()
    }

    /// The members of a struct or union.
    pub(super) fn members(&self, record: Record) -> impl Iterator<Item = Member> {
        let count = if matches!(record.kind, STRUCT | UNION) {
            record.vlen
        } else {
            0
        };
        (0..count).map(move |i| {
            let at = record.body + 12 * i;
            let offset = self.u32(at + 8);
            // With the kind flag the offset's top byte is the width of a bit-field.
            let (bits, bitfield) = match record.flag {
                true => (offset & 0x00ff_ffff, offset >> 24 != 0),
                false => (offset, false),
            };
            Member {
                name: self.u32(at),
                ty: self.u32(at + 4),
                bits,
                bitfield,
            }
        })
    }

    /// The string at an offset of the string section, without its zero; empty if it lies outside,
    /// cut off where it is longer than any name.
    pub(super) fn string(&self, offset: u32) -> &[u8] {
        let all = &self.bytes[self.strings.clone()];
        let tail = all.get(offset as usize..).unwrap_or_default();
        let tail = &tail[..tail.len().min(MAX_NAME)];
        let end = tail.iter().position(|b| *b == 0).unwrap_or(tail.len());
        &tail[..end]
    }

    /// A word of a record whose length was checked when it was read.
    pub(super) fn u32(&self, at: usize) -> u32 {
        read_u32(&self.bytes, at).unwrap_or_default()
    }
}

/// Everything that is looked up by name: the hash of its name in the upper half, its id in the lower
/// one. Few of them are ever asked for, so they are put into buckets, and not sorted.
#[derive(Default)]
struct Names {
    /// Bucket by bucket, and in each by id.
    entries: Vec<u64>,
    /// Where each bucket begins in `entries`, and the last one ends.
    starts: Vec<u32>,
}

impl Names {
    /// About as many buckets as entries; they are a type's each, so an `u32` counts them.
    fn of(unordered: &[u64]) -> Names {
        let buckets = unordered.len().next_power_of_two().max(2);
        let mut names = Names {
            entries: vec![0; unordered.len()],
            starts: vec![0; buckets + 1],
        };
        for entry in unordered {
            let bucket = names.bucket_of(*entry);
            names.starts[bucket] += 1;
        }
        let mut end = 0;
        for start in &mut names.starts {
            end += *start;
            *start = end;
        }
        // From the end of each to its beginning.
        for entry in unordered.iter().rev() {
            let bucket = names.bucket_of(*entry);
            names.starts[bucket] -= 1;
            names.entries[names.starts[bucket] as usize] = *entry;
        }
        names
    }

    /// By the highest bits of the hash.
    fn bucket_of(&self, entry: u64) -> usize {
        let buckets = self.starts.len() - 1;
        (entry >> (u64::BITS - buckets.ilog2())) as usize
    }

    /// Where an entry with this hash is.
    fn bucket(&self, hash: u64) -> &[u64] {
        let bucket = self.bucket_of(hash);
        &self.entries[self.starts[bucket] as usize..self.starts[bucket + 1] as usize]
    }
}

/// The sections of a blob.
struct Header {
    types: Range<usize>,
    strings: Range<usize>,
}

impl Header {
    fn read(bytes: &[u8]) -> Result<Header, BtfError> {
        if bytes.len() < HEADER {
            return Err(BtfError::Truncated {
                what: "header",
                at: 0,
                need: HEADER,
                have: bytes.len(),
            });
        }
        let found = u16::from_ne_bytes([bytes[0], bytes[1]]);
        if found != MAGIC {
            return Err(BtfError::Magic { found });
        }
        if bytes[2] != VERSION {
            return Err(BtfError::Version(bytes[2]));
        }
        let word = |at| read_u32(bytes, at).unwrap_or_default() as usize;
        let section = |what, offset: usize, len: usize| {
            let start = word(4) + offset;
            match start.checked_add(len).filter(|end| *end <= bytes.len()) {
                Some(end) => Ok(start..end),
                None => Err(BtfError::Truncated {
                    what,
                    at: start,
                    need: len,
                    have: bytes.len().saturating_sub(start),
                }),
            }
        };
        Ok(Header {
            types: section("type section", word(8), word(12))?,
            strings: section("string section", word(16), word(20))?,
        })
    }
}

/// One type: `struct btf_type`, and where what follows it lies.
#[derive(Clone, Copy)]
pub(super) struct Record {
    pub(super) name: u32,
    pub(super) kind: u8,
    pub(super) vlen: usize,
    flag: bool,
    /// The size in bytes of data, the type that a modifier, pointer or function stands for.
    pub(super) size_or_type: u32,
    /// Where the members, parameters and the like begin in the bytes.
    pub(super) body: usize,
    body_len: usize,
}

impl Record {
    fn len(&self) -> usize {
        RECORD + self.body_len
    }
}

/// A member of a struct or union.
pub(super) struct Member {
    /// Its name's offset; 0 if it has none.
    pub(super) name: u32,
    pub(super) ty: TypeId,
    /// Its place in bits.
    pub(super) bits: u32,
    pub(super) bitfield: bool,
}

pub(super) const MAGIC: u16 = 0xeb9f;
pub(super) const VERSION: u8 = 1;
/// Bytes of `struct btf_header`, and of `struct btf_type`.
pub(super) const HEADER: usize = 24;
const RECORD: usize = 12;
const UPPER_HALF: u64 = !0 << 32;
/// `KSYM_NAME_LEN`: the kernel takes no longer names. Without a bound, bytes without a zero would
/// be read anew for every type.
const MAX_NAME: usize = 512;
/// More modifiers in a row than any compiler emits.
const MAX_CHAIN: usize = 32;

pub(super) const INT: u8 = 1;
pub(super) const PTR: u8 = 2;
pub(super) const ARRAY: u8 = 3;
pub(super) const STRUCT: u8 = 4;
pub(super) const UNION: u8 = 5;
pub(super) const ENUM: u8 = 6;
const FWD: u8 = 7;
pub(super) const TYPEDEF: u8 = 8;
const VOLATILE: u8 = 9;
pub(super) const CONST: u8 = 10;
const RESTRICT: u8 = 11;
pub(super) const FUNC: u8 = 12;
const FUNC_PROTO: u8 = 13;
const VAR: u8 = 14;
const DATASEC: u8 = 15;
const FLOAT: u8 = 16;
const DECL_TAG: u8 = 17;
const TYPE_TAG: u8 = 18;
pub(super) const ENUM64: u8 = 19;

const QUALIFIERS: &[u8] = &[VOLATILE, CONST, RESTRICT, TYPE_TAG];
/// Everything that only renames or qualifies a type.
pub(super) const MODIFIERS: &[u8] = &[TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG];

fn read_record(bytes: &[u8], at: usize, id: TypeId) -> Result<Record, BtfError> {
    let have = bytes.len().saturating_sub(at);
    let truncated = |need| BtfError::Truncated {
        what: "type",
        at,
        need,
        have,
    };
    let head = bytes.get(at..at + RECORD).ok_or(truncated(RECORD))?;
    let word = |i: usize| u32::from_ne_bytes([head[i], head[i + 1], head[i + 2], head[i + 3]]);
    let info = word(4);
    let kind = (info >> 24 & 0x1f) as u8;
    let vlen = (info & 0xffff) as usize;
    let body_len = match kind {
        INT | VAR | DECL_TAG => 4,
        ARRAY => 12,
        STRUCT | UNION | DATASEC | ENUM64 => 12 * vlen,
        ENUM | FUNC_PROTO => 8 * vlen,
        PTR | FWD | TYPEDEF | VOLATILE | CONST | RESTRICT | FUNC | FLOAT | TYPE_TAG => 0,
        kind => return Err(BtfError::UnknownKind { id, kind }),
    };
    if have < RECORD + body_len {
        return Err(truncated(RECORD + body_len));
    }
    let (name, size_or_type) = (word(0), word(8));
    Ok(Record {
        name,
        kind,
        vlen,
        flag: info >> 31 == 1,
        size_or_type,
        body: at + RECORD,
        body_len,
    })
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*word))
}

#[cfg(test)]
#[path = "btf_tests.rs"]
mod tests;

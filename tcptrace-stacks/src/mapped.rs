//! Opening the very file that a process has mapped.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{self, FileType, Mode, OFlags, Stat};

use crate::elf::Source;
use crate::maps::{self, Mapping};

/// Bytes of the vdso.
const VDSO: u64 = 64 * 1024;

/// A file that a process has mapped, open.
pub(crate) struct Opened {
    pub(crate) identity: Identity,
    pub(crate) source: Source,
    /// Who alone may have written it; `None` if anybody may, or it is no file.
    pub(crate) owner: Option<u32>,
}

/// What tells a file, and a version of it, from others.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Identity {
    File {
        device: u64,
        inode: u64,
        size: u64,
        modified: (i64, u64),
        changed: (i64, u64),
    },
    Bytes(u32, usize),
}

impl Opened {
    /// What is in no file.
    pub(crate) fn of(bytes: Vec<u8>) -> Opened {
        Opened {
            identity: Identity::Bytes(crc32fast::hash(&bytes), bytes.len()),
            source: Source::Bytes(bytes),
            owner: None,
        }
    }
}

/// The file of `mapping`, which is one of process `pid`. `None` if it cannot be had, or may be
/// another file than the one that is mapped.
pub(crate) fn open(pid: u32, mapping: &Mapping) -> Option<Opened> {
    match mapping.path.as_deref() {
        Some("[vdso]") => vdso(pid, mapping),
        _ if mapping.inode == 0 => None,
        path => by_link(pid, mapping).or_else(|| by_path(pid, mapping, path?)),
    }
}

/// Whether the file is still what it was: what was read from it is of one version.
pub(crate) fn unchanged(identity: &Identity, source: &Source) -> bool {
    match source {
        Source::Bytes(_) => true,
        Source::File(file) => fs::fstat(file).is_ok_and(|stat| self::identity(&stat) == *identity),
    }
}

/// By `/proc/PID/map_files`, which leads to the mapped file whatever its name has become.
fn by_link(pid: u32, mapping: &Mapping) -> Option<Opened> {
    let (start, end) = (mapping.start, mapping.end);
    let (stat, source) = regular(&format!("/proc/{pid}/map_files/{start:x}-{end:x}"))?;
    // Some file systems (overlayfs, btrfs) tell another device here than in maps. Then it is the mapped
    // file if the mapping is still the one that we know.
    let same =
        is(&stat, mapping) || maps::read(pid, u64::MAX).is_ok_and(|maps| maps.contains(mapping));
    same.then(|| opened(&stat, source))
}

/// By its path in the process's file system, if there is still the same file.
fn by_path(pid: u32, mapping: &Mapping, path: &str) -> Option<Opened> {
    let (stat, source) = regular(&format!("/proc/{pid}/root{path}"))?;
    is(&stat, mapping).then(|| opened(&stat, source))
}

/// The file of the program that a process runs.
pub(crate) fn executable(pid: u32) -> Option<Source> {
    regular(&format!("/proc/{pid}/exe")).map(|(_, source)| source)
}

/// Opens a regular file. Nothing else is opened: a device or a pipe may do anything then.
fn regular(path: &str) -> Option<(Stat, Source)> {
    let found = fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let stat = fs::fstat(&found).ok()?;
    Some((stat, Source::File(File::from(reopen(&found, &stat)?))))
}

/// Opens for reading what was found, if it is a regular file.
pub(crate) fn reopen(found: &OwnedFd, stat: &Stat) -> Option<OwnedFd> {
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let path = format!("/proc/self/fd/{}", found.as_fd().as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    fs::open(path, flags, Mode::empty()).ok()
}

fn is(stat: &Stat, mapping: &Mapping) -> bool {
    let device = (fs::major(stat.st_dev), fs::minor(stat.st_dev));
    device == mapping.device && stat.st_ino == mapping.inode
}

fn opened(stat: &Stat, source: Source) -> Opened {
    let others = Mode::from_raw_mode(stat.st_mode).contains(Mode::WOTH);
    Opened {
        identity: identity(stat),
        source,
        owner: (!others).then_some(stat.st_uid),
    }
}

fn identity(stat: &Stat) -> Identity {
    Identity::File {
        device: stat.st_dev,
        inode: stat.st_ino,
        size: stat.st_size.cast_unsigned(),
        modified: (stat.st_mtime, stat.st_mtime_nsec),
        changed: (stat.st_ctime, stat.st_ctime_nsec),
    }
}

/// The kernel's code in every process, which is in no file.
fn vdso(pid: u32, mapping: &Mapping) -> Option<Opened> {
    let size = mapping
        .end
        .checked_sub(mapping.start)
        .filter(|s| *s <= VDSO)?;
    let mut bytes = vec![0; usize::try_from(size).ok()?];
    let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
    memory.read_exact_at(&mut bytes, mapping.start).ok()?;
    Some(Opened::of(bytes))
}

//! Names of generated code, as its runtime writes them: `/tmp/perf-PID.map`.
//!
//! Anybody may write to /tmp. So a map is read only if it is a regular file of the process's user, found
//! without following a link, and not too large.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use rustix::fs::{self, CWD, Mode, OFlags, ResolveFlags};

use crate::mapped;
use crate::text;

/// How often a map is looked at again.
const PAUSE: Duration = Duration::from_secs(1);
/// Bytes that a name costs besides its text.
const ENTRY: usize = 64;

/// The functions that a process's map names.
#[derive(Debug, Default)]
pub(crate) struct PerfMap {
    /// By their first address: the end, and the name.
    functions: BTreeMap<u64, (u64, Box<str>)>,
    bytes: usize,
    looked: Option<Instant>,
    file: u64,
    read: u64,
}

/// A map that is not to be trusted, or is too large.
#[derive(Debug)]
pub(crate) struct Refused;

impl PerfMap {
    /// The name of what was generated at `address`.
    pub(crate) fn name(&self, address: u64) -> Option<&str> {
        let (_, (end, name)) = self.functions.range(..=address).next_back()?;
        (address < *end).then_some(name)
    }

    /// Whether there is one: names that are missing may come.
    pub(crate) fn is_there(&self) -> bool {
        self.file != 0
    }

    /// Reads what the process wrote since the last time, if that is a while ago. Whether there was
    /// anything.
    pub(crate) fn refresh(&mut self, pid: u32, limit: u64) -> Result<bool, Refused> {
        if self.looked.is_some_and(|looked| looked.elapsed() < PAUSE) {
            return Ok(false);
        }
        self.looked = Some(Instant::now());
        let Some(status) = Status::read(pid) else {
            return Ok(false);
        };
        let Some((file, inode, size)) = open(pid, &status)? else {
            return Ok(false);
        };
        if size > limit {
            return Err(Refused);
        }
        if inode != self.file || size < self.read {
            *self = PerfMap {
                looked: self.looked,
                file: inode,
                ..PerfMap::default()
            };
        }
        let Ok(length) = usize::try_from(size - self.read) else {
            return Err(Refused);
        };
        let mut bytes = vec![0; length];
        if file.read_exact_at(&mut bytes, self.read).is_err() {
            return Ok(false);
        }
        // A line that is not whole yet is read the next time.
        let whole = bytes
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(0, |at| at + 1);
        self.read += whole as u64;
        self.add(
            &bytes[..whole],
            usize::try_from(limit).unwrap_or(usize::MAX),
        )?;
        Ok(whole > 0)
    }

    /// Bytes of memory, about.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds lines `start size name`, the numbers hexadecimal. What comes later was generated later.
    fn add(&mut self, bytes: &[u8], limit: usize) -> Result<(), Refused> {
        for line in bytes.split(|b| *b == b'\n') {
            let mut fields = line.splitn(3, |b| *b == b' ');
            let mut hex = || {
                let text = std::str::from_utf8(fields.next()?).ok()?;
                u64::from_str_radix(text.trim_start_matches("0x"), 16).ok()
            };
            let (Some(start), Some(size)) = (hex(), hex()) else {
                continue;
            };
            let Some(name) = fields.next().filter(|name| !name.is_empty()) else {
                continue;
            };
            self.insert(start, start.saturating_add(size), text::clean(name));
            if self.bytes > limit {
                return Err(Refused);
            }
        }
        Ok(())
    }

    fn insert(&mut self, start: u64, end: u64, name: Box<str>) {
        if start >= end {
            return;
        }
        while let Some((&at, _)) = self
            .functions
            .range(..end)
            .next_back()
            .filter(|(_, (old, _))| *old > start)
        {
            if let Some((_, old)) = self.functions.remove(&at) {
                self.bytes -= ENTRY + old.len();
            }
        }
        self.bytes += ENTRY + name.len();
        self.functions.insert(start, (end, name));
    }
}

/// Whether a process has a map that could be read.
pub(crate) fn exists(pid: u32) -> bool {
    let status = Status::read(pid);
    status.is_some_and(|status| matches!(open(pid, &status), Ok(Some(_))))
}

/// The map, its inode and its size; `None` if there is none.
fn open(pid: u32, status: &Status) -> Result<Option<(File, u64, u64)>, Refused> {
    let Ok(root) = fs::openat(
        CWD,
        format!("/proc/{pid}/root"),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    ) else {
        return Ok(None);
    };
    let found = fs::openat2(
        &root,
        format!("tmp/perf-{}.map", status.pid),
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    );
    let Ok(found) = found else {
        return Ok(None);
    };
    let stat = fs::fstat(&found).map_err(|_| Refused)?;
    if stat.st_uid != status.user {
        return Err(Refused);
    }
    let file = mapped::reopen(&found, &stat).ok_or(Refused)?;
    Ok(Some((
        file.into(),
        stat.st_ino,
        stat.st_size.cast_unsigned(),
    )))
}

/// What `/proc/PID/status` says.
struct Status {
    /// The effective user.
    user: u32,
    /// Its id in its own pid namespace.
    pid: u32,
}

impl Status {
    fn read(pid: u32) -> Option<Status> {
        let mut text = String::new();
        let file = File::open(format!("/proc/{pid}/status")).ok()?;
        file.take(16 * 1024).read_to_string(&mut text).ok()?;
        let line = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
        Some(Status {
            user: line("Uid:")?
                .split_ascii_whitespace()
                .nth(1)?
                .parse()
                .ok()?,
            pid: line("NSpid:")?
                .split_ascii_whitespace()
                .last()?
                .parse()
                .ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_lines_replace_what_they_overlap() {
        let mut map = PerfMap::default();
        map.add(
            b"1000 100 one\n0x1100 10 two\x1b[31m\nnonsense\n1 2\nffffffffffffffff 5 last\n10f0 20 three\n",
            1 << 20,
        )
        .unwrap();
        for (address, name) in [
            (0x1000, None),
            (0x10f0, Some("three")),
            (0x110f, Some("three")),
            (0x1110, None),
            (0xfff, None),
        ] {
            assert_eq!(map.name(address), name, "{address:#x}");
        }
        assert_eq!(
            map.bytes(),
            2 * ENTRY + "three".len() + "last".len() - ENTRY - "last".len()
        );
    }

    #[test]
    fn a_map_of_too_many_names_is_refused() {
        let lines = (0..1000_u64)
            .map(|i| format!("{:x} 1 f\n", i * 16))
            .collect::<String>();
        assert!(PerfMap::default().add(lines.as_bytes(), 1024).is_err());
    }
}

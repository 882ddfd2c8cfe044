//! The code that a process has mapped: `/proc/PID/maps`.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::sync::Arc;

use crate::text;

/// Mappings of code of one process.
const MAPPINGS: usize = 64 * 1024;

/// A mapping of code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Of `start` in the file.
    pub(crate) offset: u64,
    /// Major and minor number of the device.
    pub(crate) device: (u32, u32),
    /// 0: no file.
    pub(crate) inode: u64,
    /// As it is in the file, which may be deleted by now; `None` if it has no name.
    pub(crate) path: Option<Arc<str>>,
}

/// The mappings of code of a process, by address.
pub(crate) fn read(pid: u32, limit: u64) -> io::Result<Vec<Mapping>> {
    let mut bytes = Vec::new();
    let file = File::open(format!("/proc/{pid}/maps"))?;
    file.take(limit).read_to_end(&mut bytes)?;
    if bytes.is_empty() {
        // A zombie, or a kernel thread.
        return Err(ErrorKind::NotFound.into());
    }
    Ok(parse(&bytes))
}

fn parse(bytes: &[u8]) -> Vec<Mapping> {
    let lines = bytes.split(|b| *b == b'\n');
    let mut maps = lines.filter_map(mapping).take(MAPPINGS).collect::<Vec<_>>();
    maps.sort_by_key(|m| m.start);
    maps
}

/// `start-end perms offset major:minor inode   path`
fn mapping(line: &[u8]) -> Option<Mapping> {
    let mut fields = line.splitn(6, |b| *b == b' ');
    let mut field = || std::str::from_utf8(fields.next()?).ok();
    let (start, end) = field()?.split_once('-')?;
    if field()?.as_bytes().get(2) != Some(&b'x') {
        return None;
    }
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let offset = hex(field()?)?;
    let (major, minor) = field()?.split_once(':')?;
    let device = (
        u32::from_str_radix(major, 16).ok()?,
        u32::from_str_radix(minor, 16).ok()?,
    );
    let inode = field()?.parse().ok()?;
    let path = fields.next().unwrap_or_default().trim_ascii_start();
    let (start, end) = (hex(start)?, hex(end)?);
    (start < end).then(|| Mapping {
        start,
        end,
        offset,
        device,
        inode,
        path: (!path.is_empty()).then(|| text::clean(path).into()),
    })
}

/// The place in `maps` of the mapping that holds `address`.
pub(crate) fn find(maps: &[Mapping], address: u64) -> Option<usize> {
    let at = maps
        .partition_point(|m| m.start <= address)
        .checked_sub(1)?;
    (address < maps.get(at)?.end).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_is_kept() {
        let maps = parse(
            b"7f00-7f10 r--p 00000000 fe:00 42   /lib/x\n\
              7f10-7f20 r-xp 00001000 fe:0a 42   /lib/a name (deleted)\n\
              9000-9001 rwxp 00000000 00:00 0 \n\
              5000-5001 r-xp 00000000 00:00 0                          [vdso]\n\
              nonsense\n5-4 r-xp 0 0:0 0\n\xff-\xff r-xp 0 0:0 0\n",
        );
        assert_eq!(maps.len(), 3);
        assert_eq!(maps[0].path.as_deref(), Some("[vdso]"));
        assert_eq!(maps[1].device, (0xfe, 0x0a));
        assert_eq!(maps[1].path.as_deref(), Some("/lib/a name (deleted)"));
        assert_eq!(maps[2].path, None);
        for (address, at) in [
            (0x4fff, None),
            (0x5000, Some(0)),
            (0x5001, None),
            (0x7f1f, Some(1)),
            (0x7f20, None),
            (0x9000, Some(2)),
        ] {
            assert_eq!(find(&maps, address), at, "{address:#x}");
        }
    }
}

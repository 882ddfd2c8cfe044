//! Separate debug files, in directories of the tracer's own: what a target's file system says of a
//! file that others map too would be believed for them as well.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::elf::{Elf, Source, u32_at};

/// Bytes of a debug file whose checksum is computed.
const CHECKSUMMED: u64 = 1 << 30;

/// The debug file of `elf`, which is mapped as `path`: by its build id, else by the name and checksum
/// that it states. It is one only if build id or checksum are those of `elf`.
pub(crate) fn find(
    elf: &Elf<'_>,
    path: &str,
    directories: &[PathBuf],
) -> Option<(PathBuf, Source)> {
    if let Some(id) = elf.build_id() {
        return directories.iter().find_map(|directory| {
            let file = by_build_id(directory, &id)?;
            has_build_id(&file, &id)
        });
    }
    let link = elf.named(".gnu_debuglink", 4096)?;
    let (name, rest) = terminated(&link)?;
    let checksum = u32_at(&link, (link.len() - rest.len()).next_multiple_of(4))?;
    let name = Path::new(name).file_name()?;
    let home = Path::new(path).parent()?.strip_prefix("/").ok()?;
    directories.iter().find_map(|directory| {
        let file = directory.join(home).join(name);
        (crc32(&file)? == checksum).then_some(())?;
        Some((file.clone(), Source::File(File::open(file).ok()?)))
    })
}

/// The file that the debug file `elf` at `path` shares parts with, by its build id.
pub(crate) fn common(elf: &Elf<'_>, path: &Path) -> Option<Source> {
    let link = elf.named(".gnu_debugaltlink", 4096)?;
    let (name, id) = terminated(&link)?;
    Some(has_build_id(&path.parent()?.join(name), id)?.1)
}

fn by_build_id(directory: &Path, id: &[u8]) -> Option<PathBuf> {
    let digits = id.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let (first, rest) = digits.split_at_checked(2)?;
    Some(
        directory
            .join(".build-id")
            .join(first)
            .join(format!("{rest}.debug")),
    )
}

fn has_build_id(file: &Path, id: &[u8]) -> Option<(PathBuf, Source)> {
    let source = Source::File(File::open(file).ok()?);
    let same = Elf::parse(&source)?
        .build_id()
        .is_some_and(|own| *own == *id);
    same.then(|| (file.to_owned(), source))
}

/// The text before the first zero byte, and what is behind it.
fn terminated(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.iter().position(|b| *b == 0)?;
    let text = std::str::from_utf8(&bytes[..end]).ok()?;
    Some((text, &bytes[end + 1..]))
}

fn crc32(file: &Path) -> Option<u32> {
    let mut file = File::open(file).ok()?;
    let metadata = file.metadata().ok()?;
    if !metadata.is_file() || metadata.len() > CHECKSUMMED {
        return None;
    }
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer).ok()? {
            0 => return Some(hasher.finalize()),
            n => hasher.update(&buffer[..n]),
        }
    }
}

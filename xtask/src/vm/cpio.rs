//! Writes the archive that the kernel unpacks as its first file system ("newc").
//!
//! Everything in it belongs to root, who is also the only one that the guest knows.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

/// The contents of an archive, by path without a leading `/`.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
enum Entry {
    Directory,
    File {
        mode: u32,
        content: Vec<u8>,
    },
    /// A character device.
    Device {
        major: u32,
        minor: u32,
    },
}

impl Tree {
    /// A directory, and those above it.
    pub(crate) fn directory(&mut self, path: &str) {
        let ends = path.match_indices('/').map(|(end, _)| end);
        for end in ends.chain([path.len()]).filter(|end| *end > 0) {
            let above = self.entries.entry(path[..end].to_owned());
            above.or_insert(Entry::Directory);
        }
    }

    /// A file with that content.
    pub(crate) fn file(&mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) {
        let content = content.into();
        self.insert(path, Entry::File { mode, content });
    }

    /// A copy of a file of this machine, or of what it links to.
    pub(crate) fn copy(&mut self, path: &str, from: &Path) -> Result<()> {
        let read = || anyhow::Ok((fs::metadata(from)?.permissions().mode(), fs::read(from)?));
        let (mode, content) = read().with_context(|| from.display().to_string())?;
        self.file(path, mode & 0o777, content);
        Ok(())
    }

    /// A character device.
    pub(crate) fn device(&mut self, path: &str, major: u32, minor: u32) {
        self.insert(path, Entry::Device { major, minor });
    }

    fn insert(&mut self, path: &str, entry: Entry) {
        if let Some((above, _)) = path.rsplit_once('/') {
            self.directory(above);
        }
        self.entries.insert(path.to_owned(), entry);
    }

    /// The archive.
    pub(crate) fn to_cpio(&self) -> Vec<u8> {
        let mut archive = Vec::new();
        for (number, (path, entry)) in (1..).zip(&self.entries) {
            let (mode, content, device) = match entry {
                Entry::Directory => (0o040_755, &[][..], (0, 0)),
                Entry::File { mode, content } => (0o100_000 | mode, &content[..], (0, 0)),
                Entry::Device { major, minor } => (0o020_600, &[][..], (*major, *minor)),
            };
            append(&mut archive, number, mode, device, path, content);
        }
        append(&mut archive, 0, 0, (0, 0), "TRAILER!!!", &[]);
        archive
    }
}

fn append(
    archive: &mut Vec<u8>,
    inode: u32,
    mode: u32,
    device: (u32, u32),
    path: &str,
    content: &[u8],
) {
    let length = |bytes: usize| u32::try_from(bytes).expect("no file is larger than 4 GB");
    let fields = [
        inode,
        mode,
        0, // user
        0, // group
        1, // links
        0, // time
        length(content.len()),
        0, // device the file is on, major
        0, // and minor
        device.0,
        device.1,
        length(path.len() + 1),
        0, // checksum, which this format does not use
    ];
    archive.extend(b"070701");
    archive.extend(
        fields
            .iter()
            .flat_map(|field| format!("{field:08x}").into_bytes()),
    );
    archive.extend(path.as_bytes());
    archive.push(0);
    pad(archive);
    archive.extend(content);
    pad(archive);
}

/// Headers and contents begin at multiples of 4.
fn pad(archive: &mut Vec<u8>) {
    archive.resize(archive.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_come_before_what_is_in_them() {
        let mut tree = Tree::default();
        tree.file("a/b/c", 0o755, *b"hello");
        tree.device("dev/console", 5, 1);
        let archive = tree.to_cpio();
        assert_eq!(archive.len() % 4, 0);
        let text = String::from_utf8(archive).expect("ASCII");
        let names: Vec<&str> = text
            .split("070701")
            .skip(1)
            .map(|entry| entry[104..].split('\0').next().expect("a name"))
            .collect();
        let expected = ["a", "a/b", "a/b/c", "dev", "dev/console", "TRAILER!!!"];
        assert_eq!(names, expected);
        let file = text.split("070701").nth(3).expect("the file");
        assert_eq!(&file[8..16], "000081ed", "a regular file, rwxr-xr-x");
        assert_eq!(&file[48..56], "00000005", "of five bytes");
        assert!(file.ends_with("hello\0\0\0"));
    }
}

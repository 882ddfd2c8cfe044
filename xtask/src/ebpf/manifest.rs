//! The text file beside the committed object that says what it was built from, and with what.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use super::toolchain::{FLAGS, Toolchain};
use crate::workspace::Workspace;

/// What goes into the object. A directory stands for all files below it.
const SOURCES: &[&str] = &[
    "tcptrace-common/Cargo.toml",
    "tcptrace-common/src",
    "tcptrace-ebpf/Cargo.lock",
    "tcptrace-ebpf/Cargo.toml",
    "tcptrace-ebpf/src",
];

/// The manifest's lines.
#[derive(Debug, PartialEq)]
pub(super) struct Manifest {
    pub(super) object: String,
    pub(super) sources: String,
    pub(super) compiler: String,
    pub(super) linker: String,
    pub(super) flags: String,
}

impl Manifest {
    /// The manifest of an object that was just built.
    pub(super) fn describe(
        workspace: &Workspace,
        toolchain: &Toolchain,
        object: &[u8],
    ) -> Result<Self> {
        Ok(Self {
            object: hash(object),
            sources: hash_sources(workspace)?,
            compiler: toolchain.compiler.clone(),
            linker: toolchain.linker.clone(),
            flags: flags(),
        })
    }

    pub(super) fn parse(text: &str) -> Result<Self> {
        let value = |key: &str| {
            text.lines()
                .filter_map(|line| line.split_once(" = "))
                .find(|(found, _)| *found == key)
                .map(|(_, value)| value.to_owned())
                .with_context(|| format!("the manifest has no line `{key} = …`"))
        };
        Ok(Self {
            object: value("object-sha256")?,
            sources: value("sources-sha256")?,
            compiler: value("compiler")?,
            linker: value("linker")?,
            flags: value("flags")?,
        })
    }
}

impl fmt::Display for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# Written by `cargo xtask ebpf`.")?;
        writeln!(f, "object-sha256 = {}", self.object)?;
        writeln!(f, "sources-sha256 = {}", self.sources)?;
        writeln!(f, "compiler = {}", self.compiler)?;
        writeln!(f, "linker = {}", self.linker)?;
        writeln!(f, "flags = {}", self.flags)
    }
}

/// The flags as the manifest has them. Those that map paths away name paths, and are left out.
pub(super) fn flags() -> String {
    FLAGS.join(" ")
}

/// The SHA-256 of `bytes` in hexadecimal.
pub(super) fn hash(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// One hash over the names, lengths and contents of all sources.
pub(super) fn hash_sources(workspace: &Workspace) -> Result<String> {
    let mut files = Vec::new();
    for source in SOURCES {
        collect_files(&workspace.root.join(source), &mut files)?;
    }
    files.sort();
    let mut hasher = Sha256::new();
    for file in files {
        let contents = fs::read(&file).with_context(|| file.display().to_string())?;
        let name = workspace.relative(&file).to_string_lossy();
        hasher.update(format!("{name}\n{}\n", contents.len()));
        hasher.update(&contents);
    }
    Ok(format!("{:x}", hasher.finalize()))
}

fn collect_files(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path).with_context(|| path.display().to_string())? {
        collect_files(&entry?.path(), files)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_reads_back_as_written() {
        let manifest = Manifest {
            object: hash(b"object"),
            sources: hash(b"sources"),
            compiler: "rustc 1.96.0, LLVM 22.1.8".to_owned(),
            linker: "bpf-linker 0.10.3".to_owned(),
            flags: flags(),
        };
        let read = Manifest::parse(&manifest.to_string()).expect("parses");
        assert_eq!(read, manifest);
    }

    #[test]
    fn a_manifest_without_a_line_says_which() {
        let error = Manifest::parse("object-sha256 = 00\n").expect_err("incomplete");
        assert!(error.to_string().contains("sources-sha256"), "{error}");
    }

    #[test]
    fn the_sources_hash_follows_names_and_contents() {
        let root = std::env::temp_dir().join(format!("tcptrace-xtask-{}", std::process::id()));
        let workspace = Workspace {
            root: root.clone(),
            target: root.join("target"),
        };
        for source in SOURCES {
            let file = match *source {
                directory if directory.ends_with("src") => root.join(directory).join("main.rs"),
                file => root.join(file),
            };
            fs::create_dir_all(file.parent().expect("a parent")).expect("creates");
            fs::write(&file, "text").expect("writes");
        }
        let first = hash_sources(&workspace).expect("hashes");
        let main = root.join("tcptrace-ebpf/src/main.rs");
        fs::write(&main, "next").expect("writes");
        let second = hash_sources(&workspace).expect("hashes");
        fs::rename(&main, main.with_file_name("lib.rs")).expect("renames");
        let third = hash_sources(&workspace).expect("hashes");
        fs::remove_dir_all(&root).expect("removes");
        assert!(first != second && second != third && first != third);
    }
}

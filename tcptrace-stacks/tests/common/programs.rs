//! Programs that wait in accept(), compiled for the test.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

/// A compiled program, and the directory that it is in.
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    _directory: TempDir,
}

impl Program {
    /// Compiles `source` as `name`; `command` gets the source and `-o` and the program.
    pub(crate) fn compile(name: &str, source: &str, command: &[&str]) -> Program {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(name);
        fs::write(&file, source).unwrap();
        let path = directory.path().join("program");
        let mut compiler = Command::new(command[0]);
        compiler.args(&command[1..]).arg("-o").arg(&path).arg(&file);
        compiler.env("GOCACHE", directory.path().join("cache"));
        compiler.env("GOFLAGS", "-buildvcs=false");
        let output = compiler.output().unwrap();
        assert!(
            output.status.success(),
            "{compiler:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Program {
            path,
            _directory: directory,
        }
    }

    pub(crate) fn strip(self) -> Program {
        assert!(
            Command::new("strip")
                .arg(&self.path)
                .status()
                .unwrap()
                .success()
        );
        self
    }
}

pub(crate) const C: &str = include_str!("../programs/waits.c");
pub(crate) const CPP: &str = include_str!("../programs/waits.cc");
pub(crate) const RUST: &str = include_str!("../programs/waits.rs");
pub(crate) const GO: &str = include_str!("../programs/waits.go");

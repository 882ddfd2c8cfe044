//! Where things are, and how to start cargo.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

/// What a plain build of tcptrace leaves out, to be quick, and a release has.
pub(crate) const RELEASE_FEATURES: &str = "tcptrace-user/parquet";

/// The checkout and its build directory.
pub(crate) struct Workspace {
    /// The directory of the workspace's `Cargo.toml`.
    pub(crate) root: PathBuf,
    /// Where cargo builds: `CARGO_TARGET_DIR`, else `target` in the root.
    pub(crate) target: PathBuf,
}

impl Workspace {
    pub(crate) fn find() -> Result<Self> {
        // The variable, not what was compiled in: the checkout may have moved since.
        let xtask = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = xtask
            .parent()
            .context("xtask has no parent directory")?
            .canonicalize()?;
        let target = match env::var_os("CARGO_TARGET_DIR") {
            Some(path) => env::current_dir()?.join(path),
            None => root.join("target"),
        };
        Ok(Self { root, target })
    }

    /// The cargo that runs this task, in the root of the workspace.
    pub(crate) fn cargo(&self) -> Command {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.current_dir(&self.root);
        command.env("CARGO_TARGET_DIR", &self.target);
        command
    }

    /// The release binary of tcptrace.
    pub(crate) fn binary(&self) -> PathBuf {
        self.target.join("release/tcptrace")
    }

    /// The environment of the Python packages that tests use.
    pub(crate) fn python_environment(&self) -> PathBuf {
        self.target.join("python")
    }

    /// Its interpreter.
    pub(crate) fn python(&self) -> PathBuf {
        self.python_environment().join("bin/python")
    }

    /// The crate of the eBPF programs, a workspace of its own.
    pub(crate) fn ebpf(&self) -> PathBuf {
        self.root.join("tcptrace-ebpf")
    }

    /// `path` as it is called from the root, for messages.
    pub(crate) fn relative<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(&self.root).unwrap_or(path)
    }
}

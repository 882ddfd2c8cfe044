//! `cargo xtask run`: build, then become tcptrace.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, ensure};

use crate::apt;
use crate::workspace::{self, Workspace};

/// What a user sets to steer the program, and sudo would drop.
const KEPT_THROUGH_SUDO: &[&str] = &["COLUMNS", "NO_COLOR", "RUST_BACKTRACE", "RUST_LOG", "TZ"];

/// Builds tcptrace and replaces this process with it; returns only when that failed.
pub(crate) fn run(workspace: &Workspace, args: Vec<OsString>) -> Result<ExitCode> {
    // Cargo reports on stderr, so stdout carries nothing but the program's data.
    let status = workspace
        .cargo()
        .args([
            "build",
            "--release",
            "--package",
            "tcptrace-user",
            "--bin",
            "tcptrace",
            "--features",
            workspace::RELEASE_FEATURES,
        ])
        .status()
        .context("cannot start cargo")?;
    ensure!(status.success(), "tcptrace did not build");

    let binary = workspace.binary();
    let mut command = if rustix::process::geteuid().is_root() || apt::command("sudo").is_none() {
        Command::new(&binary)
    } else {
        through_sudo(binary.into())
    };
    for (name, _) in env::vars_os().filter(|(name, _)| is_cargos(name)) {
        command.env_remove(name);
    }
    let error = command.args(args).exec();
    Err(error).context("cannot start tcptrace")
}

fn through_sudo(binary: OsString) -> Command {
    let mut command = Command::new("sudo");
    command.args(["--", "env"]);
    for name in KEPT_THROUGH_SUDO {
        if let Some(value) = env::var_os(name) {
            let mut assignment = OsString::from(format!("{name}="));
            assignment.push(value);
            command.arg(assignment);
        }
    }
    command.arg(binary);
    command
}

/// Whether cargo or rustup set the variable for this task; LD_LIBRARY_PATH names their libraries.
fn is_cargos(name: &OsString) -> bool {
    let name = name.to_string_lossy();
    name == "CARGO"
        || name == "LD_LIBRARY_PATH"
        || name == "RUSTUP_TOOLCHAIN"
        || name.starts_with("CARGO_PKG_")
        || name.starts_with("CARGO_MANIFEST_")
}

//! The Python packages that read exports, in an environment of their own.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::apt::Package;
use crate::workspace::Workspace;

/// What a Debian's Python takes to make environments.
pub(crate) const VENV: Package = Package {
    name: "python3-venv",
    shown_by: "/usr/share/python-wheels",
    reason: "makes the environment of the packages that read exports",
};

/// Whether there is a Python, and it can make no environment.
pub(crate) fn lacks_venv() -> bool {
    let mut python = Command::new("python3");
    python.args(["-c", "import ensurepip, venv"]);
    let python = python.stdout(Stdio::null()).stderr(Stdio::null());
    !python.status().is_ok_and(|status| status.success())
}

/// Makes `target/python` with the packages of `tests/tools/requirements.txt`, unless they are there.
pub(crate) fn install(workspace: &Workspace) -> Result<()> {
    let wanted = workspace.root.join("tests/tools/requirements.txt");
    let directory = workspace.python_environment();
    let stamp = directory.join("requirements.txt");
    let requirements = fs::read(&wanted).context("tests/tools/requirements.txt")?;
    if fs::read(&stamp).is_ok_and(|installed| installed == requirements) {
        return Ok(());
    }
    eprintln!("installing the packages of tests/tools/requirements.txt");
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv", "--clear"]).arg(&directory);
    run(venv)?;
    let mut pip = Command::new(workspace.python());
    pip.args(["-m", "pip", "--quiet", "--disable-pip-version-check"])
        .args([
            "install",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--requirement",
        ])
        .arg(&wanted);
    run(pip)?;
    fs::write(&stamp, requirements).context("cannot write to target/python")
}

fn run(mut command: Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status();
    let status = status.with_context(|| format!("cannot start {command:?}"))?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(())
}

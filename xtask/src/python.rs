//! The Python packages that read exports, in an environment of their own; and the newest CPython, whose
//! stacks are read.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::apt::Package;
use crate::archive::{self, Archive};
use crate::process;
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

/// The newest CPython that Debian has, and what it is linked with: its C library is newer than ours.
const NEWEST: &[&str] = &[
    "python3.14-minimal",
    "libpython3.14-minimal",
    "libpython3.14-stdlib",
    "libc6",
    "libexpat1",
    "libffi8",
    "libssl3t64",
    "zlib1g",
];

/// Unpacks that CPython into `target/cpython/root`, and gives the program that runs it.
pub(crate) fn fetch_newest(workspace: &Workspace) -> Result<PathBuf> {
    let directory = workspace.target.join("cpython");
    let mut archive = Archive::open(directory.join("archive"), archive::NEXT)?;
    let packages = match fetch(&archive) {
        // The index may name what the archive has dropped since.
        Err(_) if archive.refresh()? => fetch(&archive),
        packages => packages,
    };
    let packages = packages.context(
        "the newest CPython cannot be fetched: xtask/src/python.rs says what its packages are called, and \
         xtask/src/archive.rs of which suite they are",
    )?;
    let root = directory.join("root");
    let python = root.join("usr/bin/python3.14");
    let stamp = directory.join("unpacked.txt");
    let wanted = format!("{packages:?}");
    if fs::read(&stamp).is_ok_and(|unpacked| unpacked == wanted.as_bytes()) {
        return Ok(python);
    }
    archive::unpack(&packages, &root)?;
    start_with(&root.join("usr/lib/x86_64-linux-gnu"), &python)?;
    fs::write(&stamp, wanted).context("cannot write to target/cpython")?;
    Ok(python)
}

fn fetch(archive: &Archive) -> Result<Vec<PathBuf>> {
    let file = |package: &&str| Ok(archive.fetch(package)?.0);
    NEWEST.iter().map(file).collect()
}

/// The program is started by the loader of these libraries, and finds no others.
fn start_with(libraries: &Path, program: &Path) -> Result<()> {
    let mut patch = Command::new("patchelf");
    patch.arg("--set-interpreter");
    patch.arg(libraries.join("ld-linux-x86-64.so.2"));
    // Also for what its modules are linked with.
    patch.arg("--force-rpath");
    patch.arg("--set-rpath").args([libraries, program]);
    process::succeed(&mut patch)
}

fn run(mut command: Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status();
    let status = status.with_context(|| format!("cannot start {command:?}"))?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(())
}

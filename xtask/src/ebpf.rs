//! `cargo xtask ebpf`: the committed eBPF object, its manifest, and the proof that they match.

mod manifest;
mod object;
mod toolchain;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::process;
use crate::workspace::Workspace;
use manifest::Manifest;
use toolchain::Lock;
pub(crate) use toolchain::Toolchain;

const OBJECT: &str = "tcptrace-user/bpf/tcptrace.bpf.o";
const MANIFEST: &str = "tcptrace-user/bpf/tcptrace.bpf.o.manifest";
const REMEDY: &str = "run `cargo xtask ebpf` and commit what it writes";

/// Rebuilds the committed object and its manifest.
pub(crate) fn commit(workspace: &Workspace) -> Result<()> {
    let toolchain = Toolchain::set_up(workspace)?;
    let object = build(workspace, &toolchain, Lock::MayChange)?;
    let manifest = Manifest::describe(workspace, &toolchain, &object)?;
    write(&workspace.root.join(OBJECT), &object)?;
    write(
        &workspace.root.join(MANIFEST),
        manifest.to_string().as_bytes(),
    )?;
    eprintln!(
        "wrote {OBJECT}: {} bytes, {}",
        object.len(),
        manifest.object
    );
    Ok(())
}

/// Builds the object from its sources into `path`.
pub(crate) fn write_to(workspace: &Workspace, path: &Path) -> Result<()> {
    let toolchain = Toolchain::set_up(workspace)?;
    let object = build(workspace, &toolchain, Lock::Fixed)?;
    write(path, &object)?;
    eprintln!("wrote {}: {} bytes", path.display(), object.len());
    Ok(())
}

/// Fails when the committed object is not what its sources give.
///
/// Byte equality can be asked only of the same compiler and linker. Debian moves its compiler
/// forward, and another compiler may order or choose instructions differently without anything
/// being wrong here; then the sources' hash still ties the object to its sources, and what differs
/// in the programs is told as a notice.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let read = |path: &str| fs::read(workspace.root.join(path)).context(path.to_owned());
    let committed = read(OBJECT).context(REMEDY)?;
    let manifest = Manifest::parse(&String::from_utf8(read(MANIFEST).context(REMEDY)?)?)?;

    let mut faults = Vec::new();
    if manifest.sources != manifest::hash_sources(workspace)? {
        faults.push("the sources changed after the object was built");
    }
    if manifest.object != manifest::hash(&committed) {
        faults.push("the object is not the one its manifest describes");
    }
    if manifest.flags != manifest::flags() {
        faults.push("the build flags changed after the object was built");
    }
    if !faults.is_empty() {
        bail!("{OBJECT}: {}; {REMEDY}", faults.join("; "));
    }

    let toolchain = Toolchain::set_up(workspace)?;
    let fresh = build(workspace, &toolchain, Lock::Fixed)?;
    if fresh == committed {
        eprintln!("{OBJECT} is what its sources give, byte for byte");
        return Ok(());
    }
    let differences = object::compare_programs(&committed, &fresh)?;
    if (&manifest.compiler, &manifest.linker) == (&toolchain.compiler, &toolchain.linker) {
        bail!(
            "{OBJECT} differs from what the same compiler and linker make of the same sources \
             ({differences}); {REMEDY}"
        );
    }
    eprintln!(
        "notice: {OBJECT} cannot be compared byte by byte, since it was built with\n  {}\n  {}\nand \
         here are\n  {}\n  {}\nPrograms: {differences}",
        manifest.compiler, manifest.linker, toolchain.compiler, toolchain.linker
    );
    Ok(())
}

/// Compiles and links the programs, and drops the DWARF that carries paths and serves nobody.
fn build(workspace: &Workspace, toolchain: &Toolchain, lock: Lock) -> Result<Vec<u8>> {
    process::succeed(&mut toolchain.fetch(workspace, lock))?;
    process::succeed(&mut toolchain.build(workspace, lock)?)?;
    let linked: PathBuf = toolchain.linked_object(workspace);
    let bytes = fs::read(&linked).with_context(|| linked.display().to_string())?;
    object::strip_debug_sections(&bytes).with_context(|| linked.display().to_string())
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

//! Kernel modules: which are wanted, what they need, and in which order they are loaded.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use object::{Object as _, ObjectSection as _};

use super::kernels::{files_below, module_directories};

/// What the tracer and the tests use and Debian builds as a module. The kernel would load it by
/// itself if the guest had a modprobe.
const WANTED: &[&str] = &["tcp_diag"];

/// A module: its name, and what is loaded.
pub(crate) type Module = (String, Vec<u8>);

/// The wanted modules and those they need, in the order in which they can be loaded. What is not
/// there is built in.
///
/// The packages hold no modules.dep, which is made where they are installed; but every module
/// says itself what it needs.
pub(crate) fn load_order(root: &Path) -> Result<Vec<Module>> {
    let directories = module_directories(root);
    let files = directories
        .iter()
        .flat_map(|directory| files_below(directory));
    let files: BTreeMap<String, PathBuf> = files
        .filter_map(|file| Some((module_name(&file)?, file)))
        .collect();
    let mut modules = Vec::new();
    for name in WANTED {
        add(&mut modules, &files, name)?;
    }
    Ok(modules)
}

fn add(modules: &mut Vec<Module>, files: &BTreeMap<String, PathBuf>, name: &str) -> Result<()> {
    let Some(file) = files.get(name) else {
        return Ok(());
    };
    if modules.iter().any(|(added, _)| added == name) {
        return Ok(());
    }
    let module = decompress(file)?;
    let needs = needs(&module).with_context(|| file.display().to_string())?;
    for need in needs {
        add(modules, files, &need)?;
    }
    modules.push((name.to_owned(), module));
    Ok(())
}

/// `tcp_diag` of `…/tcp_diag.ko.xz`; the kernel takes a dash for an underscore.
fn module_name(file: &Path) -> Option<String> {
    let name = file.file_name()?.to_str()?;
    let (name, end) = name.split_once(".ko")?;
    matches!(end, "" | ".xz" | ".zst").then(|| name.replace('-', "_"))
}

fn decompress(file: &Path) -> Result<Vec<u8>> {
    let program = match file.extension().and_then(|end| end.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return fs::read(file).with_context(|| file.display().to_string()),
    };
    let output = Command::new(program).arg("-dc").arg(file).output();
    let output = output.with_context(|| format!("cannot start {program}"))?;
    ensure!(output.status.success(), "{program} {}", file.display());
    Ok(output.stdout)
}

/// The names after `depends=` in the module's own description.
fn needs(module: &[u8]) -> Result<Vec<String>> {
    let file = object::File::parse(module)?;
    let section = file.section_by_name(".modinfo").context("no .modinfo")?;
    Ok(needs_of(section.data()?))
}

fn needs_of(description: &[u8]) -> Vec<String> {
    let lines = description.split(|byte| *byte == 0);
    let lines = lines.filter_map(|line| line.strip_prefix(b"depends="));
    let names = lines.flat_map(|line| line.split(|byte| *byte == b','));
    let names = names.map(|name| String::from_utf8_lossy(name).replace('-', "_"));
    names.filter(|name| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_say_what_they_need() {
        let description = b"alias=net-pf-16\0depends=inet_diag,a-b\0intree=Y\0name=tcp_diag\0";
        assert_eq!(needs_of(description), ["inet_diag", "a_b"]);
        assert!(needs_of(b"depends=\0intree=Y\0").is_empty());
    }

    #[test]
    fn names_are_those_that_the_kernel_uses() {
        let name = |path| module_name(Path::new(path));
        assert_eq!(name("/m/tcp-diag.ko.xz").as_deref(), Some("tcp_diag"));
        assert_eq!(name("/m/veth.ko").as_deref(), Some("veth"));
        assert_eq!(name("/m/modules.order"), None);
        assert_eq!(name("/m/x.ko.gz"), None);
    }
}

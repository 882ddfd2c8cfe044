//! The kernels that are booted: where each comes from, and what has to be known about it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;

use crate::archive::{self, Archive};

/// A series of kernels that is tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Series {
    /// Debian 11
    #[value(name = "5.10")]
    V5_10,
    /// Debian 12
    #[value(name = "6.1")]
    V6_1,
    /// Debian 13
    #[value(name = "6.12")]
    V6_12,
    /// The newest backport to Debian 13
    #[value(name = "7.x")]
    V7,
}

impl Series {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Series::V5_10 => "5.10",
            Series::V6_1 => "6.1",
            Series::V6_12 => "6.12",
            Series::V7 => "7.x",
        }
    }

    /// How the names of the packages begin and end. The cloud variants are small and boot fast.
    fn pattern(self) -> (&'static str, &'static str) {
        match self {
            Series::V5_10 => ("linux-image-5.10.0-", "-cloud-amd64-unsigned"),
            Series::V6_1 => ("linux-image-6.1.0-", "-cloud-amd64-unsigned"),
            Series::V6_12 => ("linux-image-6.12.", "-cloud-amd64-unsigned"),
            Series::V7 => ("linux-binary-7.", "-cloud-amd64"),
        }
    }
}

/// A kernel, unpacked.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// What it was asked for as: `6.1`, or a file's name.
    pub(crate) name: String,
    /// What `uname -r` says there.
    pub(crate) release: String,
    /// The package and its version, as precisely as is known.
    pub(crate) version: String,
    /// What is booted.
    pub(crate) image: PathBuf,
    /// Where its packages are unpacked.
    pub(crate) root: PathBuf,
}

impl Kernel {
    /// The newest kernel of the series that the archive still has.
    pub(crate) fn of_series(series: Series, archive: &mut Archive, into: &Path) -> Result<Self> {
        loop {
            let faults = match fetch_newest(series, archive) {
                Ok((packages, version)) => {
                    let root = into.join(version.replace(' ', "_"));
                    return Self::unpack(series.name(), &version, &packages, root);
                }
                Err(faults) => faults,
            };
            // The index may name what the archive has dropped since.
            if !archive.refresh()? {
                return Err(faults);
            }
        }
    }

    /// The kernel in package files of the user's.
    pub(crate) fn of_files(files: &[PathBuf], into: &Path) -> Result<Self> {
        let first = files.first().context("no package file")?;
        let stem = first.file_stem().context("no file name")?.to_string_lossy();
        // Another file of that name may have been unpacked there before.
        let root = into.join(format!("file_{stem}"));
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        Self::unpack(&stem, &stem, files, root)
    }

    fn unpack(name: &str, version: &str, packages: &[PathBuf], root: PathBuf) -> Result<Self> {
        if !root.exists() {
            archive::unpack(packages, &root)?;
        }
        let (image, release) = find_image(&root)?;
        Ok(Self {
            name: name.to_owned(),
            release,
            version: version.to_owned(),
            image,
            root,
        })
    }

    /// What tests may need and this kernel is known not to have, by the tests' names for it.
    pub(crate) fn lacks(&self) -> &'static [&'static str] {
        match self.is("5.10") {
            // MPTCP is not built in, and SOCK_DESTROY of minisockets came later.
            true => &["mptcp", "sock_destroy_mini"],
            false => &[],
        }
    }

    /// Whether the release is one of that series.
    pub(crate) fn is(&self, series: &str) -> bool {
        let rest = self.release.strip_prefix(series);
        rest.is_some_and(|rest| rest.starts_with(['.', '-']))
    }
}

/// The package files of the newest kernel that can be had, and what they are. Archives drop old
/// files a while before the index, and some new ones are not there yet.
fn fetch_newest(series: Series, archive: &Archive) -> Result<(Vec<PathBuf>, String)> {
    let (prefix, suffix) = series.pattern();
    let packages = archive.packages(prefix, suffix)?;
    let mut faults = Vec::new();
    // Backports to older suites have names of the same pattern.
    for package in packages.iter().filter(|name| !name.contains(".deb11.")) {
        match fetch(package, archive) {
            Ok((files, version)) => {
                for fault in &faults {
                    eprintln!("notice: {fault}");
                }
                return Ok((files, format!("{package} {version}")));
            }
            Err(error) => faults.push(format!("{error:#}")),
        }
    }
    ensure!(!faults.is_empty(), "no package {prefix}*{suffix}");
    bail!("{}", faults.join("\n"))
}

/// The package, and the one with its modules where that is another.
fn fetch(package: &str, archive: &Archive) -> Result<(Vec<PathBuf>, String)> {
    let (file, version) = archive.fetch(package)?;
    let mut files = vec![file];
    if let Some(rest) = package.strip_prefix("linux-binary-") {
        files.push(archive.fetch(&format!("linux-modules-{rest}"))?.0);
    }
    Ok((files, version))
}

/// The image, and the release that its path names.
fn find_image(root: &Path) -> Result<(PathBuf, String)> {
    for file in files_below(&root.join("boot")) {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        if let Some(release) = name.strip_prefix("vmlinuz-") {
            return Ok((file.clone(), release.to_owned()));
        }
    }
    for modules in module_directories(root) {
        let image = modules.join("vmlinuz");
        if let Some(release) = modules.file_name().filter(|_| image.exists()) {
            return Ok((image, release.to_string_lossy().into_owned()));
        }
    }
    bail!("no kernel image in {}", root.display())
}

/// `lib/modules/RELEASE`, wherever it lies.
pub(crate) fn module_directories(root: &Path) -> Vec<PathBuf> {
    let places = ["lib/modules", "usr/lib/modules"];
    places
        .iter()
        .flat_map(|place| entries(&root.join(place)))
        .collect()
}

/// All files below a directory, sorted.
pub(crate) fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in entries(directory) {
        match entry.is_dir() && !entry.is_symlink() {
            true => files.extend(files_below(&entry)),
            false => files.push(entry),
        }
    }
    files
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let found = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = found.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

//! Debian's archive, read with an apt configuration of our own: other suites than the machine's,
//! and nothing of the machine changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};

use crate::process;
use crate::vm::version::newest_first;

/// A suite, and whether it is of the security archive.
type Suite = (&'static str, bool);

/// The suites that the kernels come from.
pub(crate) const KERNELS: &[Suite] = &[
    ("bullseye", false),
    ("bullseye-security", true),
    ("bookworm", false),
    ("bookworm-security", true),
    ("trixie", false),
    ("trixie-security", true),
    ("trixie-backports", false),
];
/// The next release: programs that no machine has yet.
pub(crate) const NEXT: &[Suite] = &[("forky", false)];
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// How the mirrors' addresses end, main and security, and which they are where the machine names
/// none.
const MIRRORS: [(&str, &str); 2] = [
    ("/debian", "http://deb.debian.org/debian"),
    ("/debian-security", "http://deb.debian.org/debian-security"),
];
/// An index of yesterday is not asked.
const FRESH: Duration = Duration::from_secs(24 * 60 * 60);

/// The archive, and what was fetched from it.
pub(crate) struct Archive {
    directory: PathBuf,
    /// Whether the index was fetched by this run, so that fetching it again is of no use.
    refreshed: bool,
}

impl Archive {
    /// Opens the cache in `directory`; fetches the index if there is none of today.
    pub(crate) fn open(directory: PathBuf, suites: &[Suite]) -> Result<Self> {
        for part in ["lists/partial", "cache/archives/partial", "packages"] {
            fs::create_dir_all(directory.join(part))?;
        }
        let sources = sources(suites, &mirrors(Path::new("/etc/apt")));
        fs::write(directory.join("sources.list"), sources)?;
        let mut archive = Self {
            directory,
            refreshed: false,
        };
        let modified = fs::metadata(archive.stamp()).and_then(|stamp| stamp.modified());
        let age = modified.map(|time| SystemTime::now().duration_since(time).unwrap_or_default());
        match age {
            Ok(age) if age < FRESH => {}
            // An old index and the packages that were fetched by it are better than none.
            Ok(_) => {
                if let Err(error) = archive.refresh() {
                    eprintln!("notice: going on with an old index: {error:#}");
                }
            }
            Err(_) => {
                archive.refresh()?;
            }
        }
        Ok(archive)
    }

    /// Packages whose name begins and ends like that, newest first.
    pub(crate) fn packages(&self, prefix: &str, suffix: &str) -> Result<Vec<String>> {
        let names = self.ask(&["pkgnames", prefix])?;
        let names = names.lines().filter(|name| name.ends_with(suffix));
        Ok(newest_first(names.map(str::to_owned).collect()))
    }

    /// The package file, from the cache if it is there; and its version.
    pub(crate) fn fetch(&self, package: &str) -> Result<(PathBuf, String)> {
        let version = self.version(package)?;
        let encoded = version.replace(':', "%3a");
        let packages = self.directory.join("packages");
        let file = packages.join(format!("{package}_{encoded}_amd64.deb"));
        if !file.exists() {
            eprintln!("fetching {package} {version}");
            // Apt compares what it fetched with the signed index.
            let mut download = self.apt("apt-get");
            download.args(["download", package]).current_dir(&packages);
            run(&mut download)?;
            ensure!(file.exists(), "apt-get made no {}", file.display());
        }
        Ok((file, version))
    }

    /// Fetches the index, unless this run did so already; says whether anything may be new.
    pub(crate) fn refresh(&mut self) -> Result<bool> {
        if self.refreshed {
            return Ok(false);
        }
        eprintln!("fetching the indices of Debian's suites");
        run(self.apt("apt-get").args(["update", "--error-on=any"]))?;
        fs::write(self.stamp(), "")?;
        self.refreshed = true;
        Ok(true)
    }

    fn version(&self, package: &str) -> Result<String> {
        let record = self.ask(&["show", "--no-all-versions", package])?;
        let version = record.lines().find_map(|l| l.strip_prefix("Version: "));
        Ok(version.context("a package without a version")?.to_owned())
    }

    fn ask(&self, args: &[&str]) -> Result<String> {
        let mut command = self.apt("apt-cache");
        let output = command.args(args).stderr(Stdio::inherit()).output()?;
        ensure!(output.status.success(), "apt-cache {}", args.join(" "));
        Ok(String::from_utf8(output.stdout)?)
    }

    fn stamp(&self) -> PathBuf {
        self.directory.join("updated")
    }

    fn apt(&self, program: &str) -> Command {
        let directory = self.directory.display();
        let mut command = Command::new(program);
        for option in [
            format!("Dir::Etc::sourcelist={directory}/sources.list"),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            format!("Dir::State::Lists={directory}/lists"),
            format!("Dir::Cache={directory}/cache"),
            "Acquire::Languages=none".to_owned(),
            "Acquire::Retries=3".to_owned(),
            // What the machine prefers says nothing of these suites.
            "APT::Default-Release=".to_owned(),
            "Dir::Etc::preferences=/dev/null".to_owned(),
            "Dir::Etc::preferencesparts=/dev/null".to_owned(),
            // Component metadata for software centres.
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            // The user that apt else drops to may not enter a checkout.
            "APT::Sandbox::User=".to_owned() + &user(),
        ] {
            command.args(["--option", &option]);
        }
        command.arg("--quiet").stdin(Stdio::null());
        command
    }
}

/// Makes `root` of what these packages hold.
pub(crate) fn unpack(packages: &[PathBuf], root: &Path) -> Result<()> {
    // Under another name until it is complete.
    let partial = root.with_extension("partial");
    for old in [&*partial, root] {
        if old.exists() {
            fs::remove_dir_all(old).with_context(|| format!("cannot remove {}", old.display()))?;
        }
    }
    fs::create_dir_all(&partial)?;
    for package in packages {
        let mut unpack = Command::new("dpkg-deb");
        process::succeed(unpack.arg("-x").args([package, &partial]))?;
    }
    fs::rename(&partial, root).with_context(|| format!("cannot make {}", root.display()))
}

/// The name of who runs this.
fn user() -> String {
    let own = rustix::process::geteuid().as_raw().to_string();
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let fields = |line: &str| -> Vec<String> { line.split(':').map(str::to_owned).collect() };
    let mine = users.lines().map(fields).find(|f| f.get(2) == Some(&own));
    mine.map_or_else(|| "root".to_owned(), |fields| fields[0].clone())
}

/// Runs apt, whose output is of interest only when it fails.
fn run(command: &mut Command) -> Result<()> {
    let output = command.output().context("cannot start apt-get")?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("apt-get: {}", error.trim());
    }
    Ok(())
}

fn sources(suites: &[Suite], mirrors: &[String; 2]) -> String {
    suites
        .iter()
        .map(|(suite, security)| {
            let mirror = &mirrors[usize::from(*security)];
            format!("deb [arch=amd64 signed-by={KEYRING}] {mirror} {suite} main\n")
        })
        .collect()
}

/// The mirrors that the machine's own configuration names, main and security.
fn mirrors(configuration: &Path) -> [String; 2] {
    let parts = fs::read_dir(configuration.join("sources.list.d"));
    let mut files: Vec<PathBuf> = parts
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .collect();
    files.sort();
    files.insert(0, configuration.join("sources.list"));
    let texts = files
        .iter()
        .map(|f| fs::read_to_string(f).unwrap_or_default());
    let text: String = texts.collect();
    MIRRORS.map(|(end, default)| mirror(&text, end).unwrap_or_else(|| default.to_owned()))
}

/// The first address in `deb` lines and `URIs:` fields with that end.
fn mirror(text: &str, end: &str) -> Option<String> {
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|l| l.starts_with("deb ") || l.starts_with("URIs:"));
    lines
        .flat_map(str::split_whitespace)
        .map(|word| word.trim_end_matches('/'))
        .find(|word| word.contains("://") && word.ends_with(end))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_come_from_both_forms_of_sources() {
        let old = "# deb http://old.example/debian x main\n\
                   deb [signed-by=/k.gpg] https://a.example/debian/ bookworm main\n";
        assert_eq!(
            mirror(old, "/debian").as_deref(),
            Some("https://a.example/debian")
        );
        assert_eq!(mirror(old, "/debian-security"), None);
        let new = "Types: deb\n# http://snapshot.example/debian\n\
                   URIs: http://b.example/debian-security\nSuites: s\n";
        assert_eq!(
            mirror(new, "/debian-security").as_deref(),
            Some("http://b.example/debian-security")
        );
    }

    #[test]
    fn security_suites_come_from_the_security_archive() {
        let mirrors = ["http://m/debian".to_owned(), "http://m/security".to_owned()];
        let text = sources(KERNELS, &mirrors);
        assert!(text.contains("http://m/debian bullseye main\n"));
        assert!(text.contains("http://m/security bullseye-security main\n"));
        assert_eq!(text.lines().count(), KERNELS.len());
        assert!(text.lines().all(|line| line.contains(KEYRING)));
    }
}

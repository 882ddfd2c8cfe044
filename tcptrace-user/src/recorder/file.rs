//! Where recordings go: files that only their owner can read, or standard output.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::Access;

use crate::error::Usage;

/// Where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// `-`: standard output.
    pub(crate) path: PathBuf,
    /// Overwrite what is there.
    pub(crate) force: bool,
    /// Numbered files, of which so many are kept; `None`: one file.
    pub(crate) numbered: Option<Option<u32>>,
    /// Whose the files shall be: who called sudo.
    pub(crate) owner: Option<(u32, u32)>,
}

/// An open file, and how to come by the next.
pub(crate) struct Destination {
    place: Place,
    file: File,
    name: PathBuf,
    number: u64,
    /// Older files, the oldest first.
    older: VecDeque<PathBuf>,
}

impl Destination {
    /// Opens the first file.
    ///
    /// # Errors
    /// [`Usage`] if there is something already, or the place is a terminal; else what failed.
    pub(crate) fn open(place: Place) -> anyhow::Result<Destination> {
        if place.path == Path::new("-") {
            return standard_output(place);
        }
        Destination::create(place).map_err(|(name, error)| cannot_create(&name, &error))
    }

    /// Opens the first file, which is the next where they are numbered.
    ///
    /// # Errors
    /// What failed, and at which name.
    pub(super) fn create(place: Place) -> Result<Destination, (PathBuf, io::Error)> {
        let mut older = VecDeque::new();
        let mut number = 0;
        if place.numbered.is_some() {
            for (found, path) in numbered_files(&place.path) {
                number = found;
                older.push_back(path);
            }
            number += 1;
        }
        let name = name_of(&place, number);
        let file = match new_file(&name, &place) {
            Ok(file) => file,
            Err(error) => return Err((name, error)),
        };
        let mut destination = Destination {
            place,
            file,
            name,
            number,
            older,
        };
        match destination.remove_oldest() {
            Ok(()) => Ok(destination),
            Err(error) => Err((destination.name, error)),
        }
    }

    /// Ends the file and opens the next.
    pub(super) fn next(&mut self) -> io::Result<()> {
        self.sync()?;
        self.number += 1;
        let name = name_of(&self.place, self.number);
        self.file = new_file(&name, &self.place)?;
        self.older
            .push_back(std::mem::replace(&mut self.name, name));
        self.remove_oldest()
    }

    /// Appends whole blocks to the file, which has `length` bytes. Where there is not room for all of
    /// them, there will be none of them.
    pub(super) fn write(&mut self, blocks: &[u8], length: u64) -> io::Result<()> {
        self.file.write_all(blocks).inspect_err(|_| {
            // A pipe cannot be shortened; its reader finds the torn block by itself.
            let _ = self.file.set_len(length);
        })
    }

    /// Waits until the file is on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        match self.file.sync_data() {
            // Not a file that can be: a pipe.
            Err(e) if e.kind() == ErrorKind::InvalidInput => Ok(()),
            other => other,
        }
    }

    /// What the user calls it.
    pub(crate) fn name(&self) -> Arc<str> {
        match self.place.path == Path::new("-") {
            true => Arc::from("standard output"),
            false => Arc::from(self.name.to_string_lossy()),
        }
    }

    fn remove_oldest(&mut self) -> io::Result<()> {
        let Some(Some(keep)) = self.place.numbered else {
            return Ok(());
        };
        while self.older.len() >= keep as usize {
            let Some(oldest) = self.older.pop_front() else {
                break;
            };
            match fs::remove_file(&oldest) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }
}

fn standard_output(place: Place) -> anyhow::Result<Destination> {
    let stdout = io::stdout();
    if stdout.is_terminal() {
        return Err(Usage::new(
            "a recording is not for a terminal",
            "give a file with -O, or pipe it on: tcptrace record -O - | tcptrace replay -",
        )
        .into());
    }
    let file = File::from(stdout.as_fd().try_clone_to_owned()?);
    let name = place.path.clone();
    Ok(Destination {
        place,
        file,
        name,
        number: 0,
        older: VecDeque::new(),
    })
}

/// Whether files can be made there later on.
///
/// # Errors
/// [`Usage`] if not.
pub(crate) fn check(place: &Place) -> anyhow::Result<()> {
    let directory = directory_of(&place.path);
    rustix::fs::access(directory, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|error| cannot_create(&name_of(place, 1), &error.into()))
}

/// What is no recording goes to standard output, or to a new file.
///
/// # Errors
/// As of [`create`].
pub(crate) fn output(place: &Place) -> anyhow::Result<File> {
    match place.path == Path::new("-") {
        true => Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?)),
        false => create(&place.path, place),
    }
}

/// A new file of mode 0600. What a link leads to is not touched.
///
/// # Errors
/// [`Usage`] if it cannot be made, or there is one already.
pub(crate) fn create(name: &Path, place: &Place) -> anyhow::Result<File> {
    new_file(name, place).map_err(|e| cannot_create(name, &e))
}

fn new_file(name: &Path, place: &Place) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options.custom_flags(libc::O_NOFOLLOW);
    match place.force {
        true => options.create(true).truncate(true),
        false => options.create_new(true),
    };
    let file = options.open(name)?;
    // A device stays whose it is.
    if file.metadata()?.is_file() {
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        if let Some((uid, gid)) = place.owner {
            fchown(&file, Some(uid), Some(gid))?;
        }
    }
    Ok(file)
}

fn cannot_create(name: &Path, error: &io::Error) -> anyhow::Error {
    let name = name.display();
    let fix = match error.kind() {
        ErrorKind::AlreadyExists => "give another name, or --force to overwrite it",
        ErrorKind::NotFound => "its directory does not exist: make it, or give another name",
        _ => "give another name",
    };
    Usage::new(format!("cannot create {name}: {error}"), fix).into()
}

fn name_of(place: &Place, number: u64) -> PathBuf {
    match place.numbered {
        None => place.path.clone(),
        Some(_) => {
            let mut name = place.path.clone().into_os_string();
            name.push(format!(".{number:05}"));
            name.into()
        }
    }
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// The files `PATH.NUMBER` that there are, in the order of their numbers.
fn numbered_files(path: &Path) -> Vec<(u64, PathBuf)> {
    let directory = directory_of(path);
    let (Some(name), Ok(entries)) = (path.file_name(), fs::read_dir(directory)) else {
        return Vec::new();
    };
    let name = name.to_string_lossy();
    let number = |file: &str| {
        let digits = file.strip_prefix(&*name)?.strip_prefix('.')?;
        let all_digits = digits.len() >= 5 && digits.bytes().all(|b| b.is_ascii_digit());
        digits.parse::<u64>().ok().filter(|_| all_digits)
    };
    let mut files: Vec<(u64, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| Some((number(&entry.file_name().to_string_lossy())?, entry.path())))
        .collect();
    files.sort_unstable();
    files
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::error::{EXIT_USAGE, exit_code};

    fn place(path: PathBuf) -> Place {
        Place {
            path,
            force: false,
            numbered: None,
            owner: None,
        }
    }

    #[test]
    fn only_the_owner_reads_it_and_nothing_is_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.rec");
        let mut first = Destination::open(place(path.clone())).unwrap();
        first.write(b"whole", 0).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        let error = Destination::open(place(path.clone())).err().unwrap();
        assert_eq!(exit_code(&error), EXIT_USAGE);
        let forced = Place {
            force: true,
            ..place(path.clone())
        };
        Destination::open(forced).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");
    }

    #[test]
    fn a_link_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (target, link) = (
            directory.path().join("target"),
            directory.path().join("link"),
        );
        fs::write(&target, "precious").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        for force in [false, true] {
            let place = Place {
                force,
                ..place(link.clone())
            };
            assert!(Destination::open(place).is_err());
        }
        assert_eq!(fs::read(&target).unwrap(), b"precious");
    }

    #[test]
    fn numbered_files_go_on_and_the_oldest_go() {
        let directory = tempfile::tempdir().unwrap();
        let files = || {
            let entries = fs::read_dir(directory.path()).unwrap();
            let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
            let mut names: Vec<String> = names.collect();
            names.sort();
            names
        };
        let numbered = Place {
            numbered: Some(Some(2)),
            ..place(directory.path().join("r"))
        };
        fs::write(directory.path().join("r.x"), "").unwrap();
        let mut destination = Destination::open(numbered.clone()).unwrap();
        destination.next().unwrap();
        assert_eq!(files(), ["r.00001", "r.00002", "r.x"]);
        destination.next().unwrap();
        assert_eq!(files(), ["r.00002", "r.00003", "r.x"]);
        drop(destination);
        Destination::open(numbered).unwrap();
        assert_eq!(files(), ["r.00003", "r.00004", "r.x"]);
    }
}

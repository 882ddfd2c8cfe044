//! Names of things in the running system, turned into what the filter compares.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{CannotRun, Usage};

/// `NSFS_MAGIC`: the file system of /proc/PID/ns.
const NSFS_MAGIC: i64 = 0x6e73_6673;

/// No process id is above this (`PID_MAX_LIMIT`), every namespace's number is.
const PID_MAX: u32 = 4 << 20;

/// Refuses a process that is not there.
pub(crate) fn pid(pid: u32) -> anyhow::Result<()> {
    let status = match fs::read_to_string(format!("/proc/{pid}/status")) {
        Ok(status) => status,
        Err(e) if e.kind() == ErrorKind::PermissionDenied => return Ok(()),
        Err(_) => return Err(no_process(pid).into()),
    };
    let tgid = status.lines().find_map(|l| l.strip_prefix("Tgid:"));
    match tgid.and_then(|t| t.trim().parse::<u32>().ok()) {
        Some(process) if process != pid => Err(Usage::new(
            format!("{pid} is not a process but a thread of process {process}"),
            format!("use --pid {process}"),
        )
        .into()),
        _ => Ok(()),
    }
}

/// The inode number of a network namespace: given as a file, as the pid of a process in it, as its
/// number (`4026531840`, `net:[4026531840]`), or as a name of `ip netns`.
pub(crate) fn netns(text: &str) -> anyhow::Result<u32> {
    let bare = text.strip_prefix("net:[").and_then(|t| t.strip_suffix(']'));
    match bare.unwrap_or(text).parse::<u32>() {
        Ok(inode) if bare.is_some() || inode > PID_MAX => Ok(inode),
        Ok(pid) => namespace_of(text, Path::new(&format!("/proc/{pid}/ns/net"))),
        Err(_) if text.contains('/') => namespace_of(text, Path::new(text)),
        Err(_) => namespace_of(text, &Path::new("/run/netns").join(text)),
    }
}

/// A network namespace of a recording: given as its number (`4026531840`, `net:[4026531840]`).
pub(crate) fn netns_number(text: &str) -> Result<u32, Usage> {
    let bare = text.strip_prefix("net:[").and_then(|t| t.strip_suffix(']'));
    bare.unwrap_or(text).parse().map_err(|_| {
        Usage::new(
            format!("'{text}' is not the number of a network namespace"),
            "a recording knows namespaces by their numbers, as --json shows them",
        )
    })
}

fn no_process(pid: u32) -> Usage {
    Usage::new(
        format!("no process {pid}"),
        "`ps -e` lists the processes; sockets of one that is gone are found by --comm or --port",
    )
}

fn namespace_of(text: &str, file: &Path) -> anyhow::Result<u32> {
    let inode = match namespace_inode(file) {
        Ok(inode) => inode,
        Err(e) if e.kind() == ErrorKind::PermissionDenied => {
            return Err(CannotRun {
                what: format!("look at network namespace '{text}'"),
                why: format!("{}: no permission", file.display()),
                fix: "run it with sudo, or give its number".to_owned(),
            }
            .into());
        }
        Err(_) => None,
    };
    inode.ok_or_else(|| {
        Usage::new(
            format!("no network namespace '{text}'"),
            "give a file like /proc/4711/ns/net, a pid, a number of `lsns -t net`, or a name of \
             `ip netns`",
        )
        .into()
    })
}

/// `None`: the file is not a namespace.
fn namespace_inode(file: &Path) -> io::Result<Option<u32>> {
    let inode = fs::metadata(file)?.ino();
    let magic = rustix::fs::statfs(file)?.f_type;
    Ok(u32::try_from(inode).ok().filter(|_| magic == NSFS_MAGIC))
}

/// A cgroup to filter by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cgroup {
    /// A path as /proc/PID/cgroup has it, or a container id or its beginning.
    pub(crate) wanted: String,
    /// Its v2 id and those of the cgroups below it; empty where there is no such directory.
    pub(crate) ids: Vec<u64>,
}

/// A cgroup: given by its path, below /sys/fs/cgroup or not, or by the id of its container.
pub(crate) fn cgroup(text: &str) -> anyhow::Result<Cgroup> {
    match cgroup_root() {
        Some(root) => Ok(cgroup_in(root, text)?),
        // cgroup v1 alone: there are as many trees as controllers, so the path is taken as it is.
        None => Ok(Cgroup {
            wanted: text.to_owned(),
            ids: Vec::new(),
        }),
    }
}

/// Where the one tree of cgroup v2 is: alone, or beside those of version 1.
pub(crate) fn cgroup_root() -> Option<&'static Path> {
    ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .map(Path::new)
        .into_iter()
        .find(|root| root.join("cgroup.procs").exists())
}

fn cgroup_in(root: &Path, text: &str) -> Result<Cgroup, Usage> {
    let below = Path::new(text)
        .strip_prefix(root)
        .unwrap_or(Path::new(text));
    let below = below.strip_prefix("/").unwrap_or(below);
    let directory = root.join(below);
    if directory.is_dir() {
        return Ok(Cgroup {
            wanted: PathBuf::from("/").join(below).display().to_string(),
            ids: ids_below(&directory),
        });
    }
    let is_id = text.len() >= 4 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if is_id {
        return Ok(Cgroup {
            wanted: text.to_ascii_lowercase(),
            ids: Vec::new(),
        });
    }
    Err(Usage::new(
        format!("no cgroup '{text}' in {}", root.display()),
        "give a path as in /proc/PID/cgroup or `systemd-cgls`, or the id of a container",
    ))
}

/// The ids (inode numbers) of a cgroup and of all below it.
fn ids_below(directory: &Path) -> Vec<u64> {
    let mut ids = Vec::from_iter(fs::metadata(directory).map(|m| m.ino()));
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            ids.extend(ids_below(&entry.path()));
        }
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{EXIT_USAGE, exit_code};

    #[test]
    fn a_process_that_is_not_there_is_refused() {
        assert!(pid(std::process::id()).is_ok());
        let error = pid(PID_MAX + 1).unwrap_err();
        assert_eq!(error.to_string(), "no process 4194305");
        assert_eq!(exit_code(&error), EXIT_USAGE);
    }

    #[test]
    fn a_namespace_has_many_names() {
        let own = namespace_inode(Path::new("/proc/self/ns/net"))
            .unwrap()
            .unwrap();
        for text in [
            "/proc/self/ns/net".to_owned(),
            std::process::id().to_string(),
            own.to_string(),
            format!("net:[{own}]"),
        ] {
            assert_eq!(netns(&text).unwrap(), own, "{text}");
        }
        for text in ["/etc/passwd", "no-such-name", "4194303", ""] {
            assert_eq!(exit_code(&netns(text).unwrap_err()), EXIT_USAGE, "{text}");
        }
    }

    #[test]
    fn a_cgroup_is_a_path_or_a_container() {
        let root = tempfile::tempdir().unwrap();
        let child = root.path().join("system.slice/shop.service");
        fs::create_dir_all(&child).unwrap();
        let of = |text: &str| cgroup_in(root.path(), text);
        let leaf = of("/system.slice/shop.service").unwrap();
        assert_eq!(leaf.wanted, "/system.slice/shop.service");
        assert_eq!(leaf.ids, [fs::metadata(&child).unwrap().ino()]);
        assert_eq!(of("system.slice/shop.service/").unwrap().ids, leaf.ids);
        assert_eq!(of(child.to_str().unwrap()).unwrap(), leaf);
        assert_eq!(of("/system.slice").unwrap().ids.len(), 2);
        assert!(of("/system.slice").unwrap().ids.contains(&leaf.ids[0]));
        assert_eq!(of("F00DCAFE").unwrap().wanted, "f00dcafe");
        assert!(of("/no/such").is_err());
    }
}

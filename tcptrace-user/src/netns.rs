//! Network namespaces: which there are, and a look into them from outside.
//!
//! A namespace that only an open descriptor or a socket keeps alive has no name that leads to
//! it; sockets in there are not seen.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::netlink::{Diag, DiagError};
use crate::proc::readings;

const OWN: &str = "/proc/self/ns/net";
/// Where `ip netns` keeps its namespaces.
const NAMED: &str = "/run/netns";
const FIN_TIMEOUT: &str = "/proc/sys/net/ipv4/tcp_fin_timeout";

/// Why a namespace could not be looked into.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetnsError {
    /// Its file cannot be opened or asked for its number.
    #[error("cannot open the network namespace {}: {error}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// setns() was refused.
    #[error(
        "cannot enter the network namespace {} ({inode}): {error}; it takes CAP_SYS_ADMIN: run as \
         root",
        path.display()
    )]
    Enter {
        /// The file.
        path: PathBuf,
        /// Its number.
        inode: u32,
        /// Why.
        error: io::Error,
    },
    /// sock_diag does not work in there.
    #[error("network namespace {} ({inode}): {error}", path.display())]
    Diag {
        /// The file.
        path: PathBuf,
        /// Its number.
        inode: u32,
        /// Why.
        error: DiagError,
    },
}

/// A network namespace, held open: it lives as long as this value.
#[derive(Debug)]
pub(crate) struct Netns {
    /// Inode number, as `ls -l /proc/PID/ns/net` shows it.
    pub(crate) inode: u32,
    /// Where it was found.
    path: PathBuf,
    file: File,
}

/// Every namespace that could be found.
#[derive(Debug)]
pub(crate) struct Found {
    /// Sorted by inode number, each once.
    pub(crate) namespaces: Vec<Netns>,
    /// Processes whose namespace could not be asked for: those of other users, without root.
    pub(crate) hidden_processes: usize,
}

/// A namespace, ready to be asked. It lives as long as the socket in it: drop this when done.
#[derive(Debug)]
pub(crate) struct Inside {
    /// sock_diag of that namespace.
    pub(crate) diag: Diag,
    /// Its `tcp_fin_timeout`, ns; `None` where it could not be read.
    pub(crate) fin_timeout_ns: Option<u64>,
}

/// The namespace of this process.
pub(crate) fn own() -> Result<Netns, NetnsError> {
    let path = PathBuf::from(OWN);
    Netns::open(path.clone()).map_err(|error| NetnsError::Open { path, error })
}

/// The namespaces with these numbers, as far as they are found; all, if no number is given.
pub(crate) fn wanted(inodes: &[u32]) -> Result<Found, NetnsError> {
    let own = own()?;
    // The only one that is found without looking at any process.
    if inodes == [own.inode] {
        return Ok(Found {
            namespaces: vec![own],
            hidden_processes: 0,
        });
    }
    let mut found = all()?;
    let is_wanted = |n: &Netns| inodes.is_empty() || inodes.contains(&n.inode);
    found.namespaces.retain(is_wanted);
    Ok(found)
}

/// Our own namespace, those of `ip netns`, and those of every process that we may ask.
pub(crate) fn all() -> Result<Found, NetnsError> {
    let own = own()?;
    let device = own.file.metadata().map(|m| m.dev()).ok();
    let mut by_inode = BTreeMap::from([(own.inode, own)]);
    let mut hidden_processes = 0;
    for name in names_in(Path::new(NAMED)) {
        let path = Path::new(NAMED).join(name);
        // A leftover file on which no namespace is mounted lies on another device.
        let mounted = path.metadata().is_ok_and(|m| Some(m.dev()) == device);
        if mounted && let Ok(netns) = Netns::open(path) {
            by_inode.entry(netns.inode).or_insert(netns);
        }
    }
    for name in names_in(Path::new("/proc")) {
        if !name.bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        let path = Path::new("/proc").join(name).join("ns/net");
        match inode_of(&path).map(|inode| by_inode.contains_key(&inode)) {
            Ok(true) => {}
            Ok(false) => {
                // If it fails, the process is gone since, and its namespace as good as gone.
                if let Ok(netns) = Netns::open(path) {
                    by_inode.insert(netns.inode, netns);
                }
            }
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => hidden_processes += 1,
            // It is gone, or a zombie.
            Err(_) => {}
        }
    }
    Ok(Found {
        namespaces: by_inode.into_values().collect(),
        hidden_processes,
    })
}

impl Netns {
    fn open(path: PathBuf) -> io::Result<Netns> {
        let file = File::open(&path)?;
        let inode = inode_number(&file.metadata()?)?;
        Ok(Netns { inode, path, file })
    }

    /// Opens sock_diag for our own namespace, or for another one by going there with a thread
    /// that does nothing else: the socket stays there when the thread is gone.
    ///
    /// Another namespace takes CAP_SYS_ADMIN.
    pub(crate) fn look_inside(&self) -> Result<Inside, NetnsError> {
        self.visit(|| self.look_around())
    }

    /// Its settings and counters, by name.
    pub(crate) fn readings(&self) -> Result<Vec<(&'static str, String)>, NetnsError> {
        self.visit(|| Ok(readings::readings()))
    }

    /// Runs something inside: in our own namespace right here, in another one in a thread that does
    /// nothing else.
    fn visit<T: Send>(
        &self,
        look: impl FnOnce() -> Result<T, NetnsError> + Send,
    ) -> Result<T, NetnsError> {
        if own().is_ok_and(|own| own.inode == self.inode) {
            return look();
        }
        let refused = |error| NetnsError::Enter {
            path: self.path.clone(),
            inode: self.inode,
            error,
        };
        let visit = || {
            move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|e| refused(e.into()))?;
            look()
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("tcptrace-netns".to_owned());
            let handle = thread.spawn_scoped(scope, visit).map_err(refused)?;
            match handle.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// What there is to see in the namespace of the calling thread. `/proc/sys/net` shows the
    /// namespace of who reads it.
    fn look_around(&self) -> Result<Inside, NetnsError> {
        let diag = Diag::open(self.inode).map_err(|error| NetnsError::Diag {
            path: self.path.clone(),
            inode: self.inode,
            error,
        })?;
        Ok(Inside {
            diag,
            fin_timeout_ns: fin_timeout_ns(),
        })
    }
}

fn fin_timeout_ns() -> Option<u64> {
    let text = std::fs::read_to_string(FIN_TIMEOUT).ok()?;
    let seconds: u64 = text.trim().parse().ok()?;
    seconds.checked_mul(1_000_000_000)
}

fn inode_of(path: &Path) -> io::Result<u32> {
    inode_number(&path.metadata()?)
}

/// Inode numbers of namespaces are `unsigned int` in the kernel (`ns_common.inum`).
fn inode_number(metadata: &Metadata) -> io::Result<u32> {
    let inode = metadata.ino();
    u32::try_from(inode).map_err(|_| io::Error::other(format!("inode {inode} is no namespace's")))
}

fn names_in(dir: &Path) -> Vec<String> {
    let Ok(entries) = dir.read_dir() else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_namespace_is_among_all() {
        let own = own().expect("own namespace");
        let found = all().expect("namespaces");
        assert!(found.namespaces.iter().any(|n| n.inode == own.inode));
        assert!(found.namespaces.is_sorted_by(|a, b| a.inode < b.inode));
    }

    #[test]
    fn our_own_namespace_alone_takes_no_look_at_processes() {
        let own = own().expect("own namespace").inode;
        let found = wanted(&[own]).expect("namespaces");
        assert_eq!(found.hidden_processes, 0);
        let inodes: Vec<u32> = found.namespaces.iter().map(|n| n.inode).collect();
        assert_eq!(inodes, [own]);
        assert!(wanted(&[1]).expect("namespaces").namespaces.is_empty());
    }

    #[test]
    fn what_is_no_namespace_is_named() {
        let no_namespace = Netns {
            inode: 1,
            path: PathBuf::from("/dev/null"),
            file: File::open("/dev/null").expect("/dev/null"),
        };
        let error = no_namespace.look_inside().expect_err("not a namespace");
        assert!(error.to_string().contains("/dev/null"), "{error}");
    }
}

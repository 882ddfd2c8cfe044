//! Who holds which socket, from `/proc/PID/fd`.
//!
//! Sees descriptors of processes, not of threads with a table of their own
//! (`clone` without `CLONE_FILES`), and not sockets that lie in a queue (SCM_RIGHTS) or in an
//! io_uring as direct descriptors.

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use foldhash::HashMap;
use rustix::fs::{CWD, Mode, OFlags, RawDir, openat, readlinkat_raw};
use rustix::io::Errno;
use tcptrace_core::owner::{Comm, Holder};

/// Bytes of directory entries that are read at once.
const ENTRIES: usize = 32 * 1024;
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// /proc could not be listed.
#[derive(Debug, thiserror::Error)]
#[error("cannot list the processes in /proc: {0}; is it mounted?")]
pub(crate) struct OwnersError(#[from] io::Error);

/// Who holds which socket.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    by_inode: HashMap<u32, Vec<Holder>>,
    /// Processes whose descriptors may not be looked at: those of other users, without root.
    pub(crate) hidden_processes: usize,
}

impl Owners {
    /// Everyone who has the socket with this inode open, sorted by pid and descriptor.
    pub(crate) fn of(&self, inode: u32) -> &[Holder] {
        self.by_inode.get(&inode).map_or(&[], Vec::as_slice)
    }
}

/// Looks at every descriptor of every process of our pid namespace.
///
/// Without CAP_SYS_PTRACE only the processes of the same user can be seen; the others are
/// counted.
pub(crate) fn holders() -> Result<Owners, OwnersError> {
    let proc = openat(CWD, c"/proc", DIRECTORY, Mode::empty()).map_err(io::Error::from)?;
    let mut owners = Owners::default();
    let mut buffer = [MaybeUninit::uninit(); ENTRIES];
    let mut inner = [MaybeUninit::uninit(); ENTRIES];
    let mut entries = RawDir::new(&proc, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(io::Error::from)?;
        let Some(pid) = number(entry.file_name()) else {
            continue;
        };
        match fds(&proc, entry.file_name(), pid, &mut owners, &mut inner) {
            Ok(()) => {}
            Err(Errno::ACCESS | Errno::PERM) => owners.hidden_processes += 1,
            // It is gone.
            Err(_) => {}
        }
    }
    #[expect(clippy::iter_over_hash_type, reason = "each list is sorted by itself")]
    for holders in owners.by_inode.values_mut() {
        holders.sort_unstable();
    }
    Ok(owners)
}

fn fds(
    proc: &OwnedFd,
    name: &CStr,
    pid: u32,
    owners: &mut Owners,
    buffer: &mut [MaybeUninit<u8>],
) -> rustix::io::Result<()> {
    let process = openat(proc, name, DIRECTORY | OFlags::PATH, Mode::empty())?;
    let dir = openat(&process, c"fd", DIRECTORY, Mode::empty())?;
    let mut comm = None;
    let mut link = [MaybeUninit::uninit(); 64];
    let mut entries = RawDir::new(&dir, buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let Some(fd) = number(entry.file_name()) else {
            continue;
        };
        // A descriptor that was closed since is no error.
        let Ok((target, _)) = readlinkat_raw(&dir, entry.file_name(), &mut link) else {
            continue;
        };
        if let Some(inode) = socket_inode(target) {
            let comm = *comm.get_or_insert_with(|| read_comm(process.as_fd()));
            owners
                .by_inode
                .entry(inode)
                .or_default()
                .push(Holder { pid, fd, comm });
        }
    }
    Ok(())
}

fn read_comm(process: BorrowedFd<'_>) -> Comm {
    let mut name = [0; 64];
    let read = openat(
        process,
        c"comm",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .and_then(|file| rustix::io::read(file, &mut name));
    Comm::from_bytes(&name[..read.unwrap_or(0)])
}

/// The inode of `socket:[123]`.
fn socket_inode(link: &[u8]) -> Option<u32> {
    let digits = link.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn number(name: &CStr) -> Option<u32> {
    let bytes = name.to_bytes();
    if !bytes.first()?.is_ascii_digit() {
        return None;
    }
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn every_descriptor_of_a_socket_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let twin = listener.try_clone().expect("a second descriptor");
        let link = format!("/proc/self/fd/{}", listener.as_raw_fd());
        let inode = std::fs::metadata(link).expect("the socket").ino() as u32;
        let owners = holders().expect("/proc");
        let found: Vec<(u32, u32)> = owners.of(inode).iter().map(|h| (h.pid, h.fd)).collect();
        let pid = std::process::id();
        let mut wanted = [listener.as_raw_fd(), twin.as_raw_fd()].map(|fd| (pid, fd as u32));
        wanted.sort_unstable();
        assert_eq!(found, wanted);
        assert!(!owners.of(inode)[0].comm.as_bytes().is_empty());
        assert!(owners.of(0).is_empty());
    }

    #[test]
    fn links_to_anything_else_are_no_sockets() {
        assert_eq!(socket_inode(b"socket:[4711]"), Some(4711));
        for link in [
            &b"pipe:[4711]"[..],
            b"socket:[]",
            b"socket:[47",
            b"/tmp/socket:[1]",
            b"",
        ] {
            assert_eq!(socket_inode(link), None);
        }
    }
}

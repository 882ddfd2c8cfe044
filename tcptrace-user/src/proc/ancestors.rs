//! The processes that this one runs under, and what connects them to the world.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};

use super::process::parent;

/// Bytes of `/proc/PID/environ` that are read.
const ENVIRON: u64 = 1024 * 1024;

/// This process, its parent, and so on, as far as this pid namespace goes.
pub(crate) fn ancestors() -> Vec<u32> {
    let mut found = vec![std::process::id()];
    // A pid that comes again is not an ancestor but another process of that number.
    while let Some(pid) = found.last().and_then(|pid| parent(*pid))
        && pid != 0
        && !found.contains(&pid)
    {
        found.push(pid);
    }
    found
}

/// Inodes of the sockets that a process has open.
///
/// # Errors
/// If its descriptors may not be looked at, or it is gone.
pub(crate) fn sockets(pid: u32) -> io::Result<BTreeSet<u32>> {
    let mut inodes = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let link = entry.and_then(|entry| fs::read_link(entry.path()));
        // A descriptor that was closed since is none.
        let target = link
            .ok()
            .and_then(|link| link.into_os_string().into_string().ok());
        let inode = target.as_deref().and_then(|target| {
            let number = target.strip_prefix("socket:[")?.strip_suffix(']')?;
            number.parse::<u32>().ok()
        });
        inodes.extend(inode);
    }
    Ok(inodes)
}

/// The two ends that SSH_CONNECTION names in what a process was started with.
pub(crate) fn ssh_connection(pid: u32) -> Option<(SocketAddr, SocketAddr)> {
    let environ = super::process::read(pid, "environ", ENVIRON)?;
    let mut variables = environ.split(|byte| *byte == 0);
    let value = variables.find_map(|v| v.strip_prefix(b"SSH_CONNECTION="))?;
    ends(std::str::from_utf8(value).ok()?)
}

/// `10.0.0.9 51234 10.0.0.1 22`: the client's end and the server's.
fn ends(text: &str) -> Option<(SocketAddr, SocketAddr)> {
    let mut words = text.split_whitespace();
    let mut end = || {
        // An address of one link has the link behind it.
        let address = words.next()?.split('%').next()?;
        let address: IpAddr = address.parse().ok()?;
        Some(SocketAddr::new(
            address.to_canonical(),
            words.next()?.parse().ok()?,
        ))
    };
    Some((end()?, end()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_of_parents_begins_with_us() {
        let found = ancestors();
        assert_eq!(found[0], std::process::id());
        assert_eq!(
            found.get(1).copied(),
            parent(found[0]).filter(|pid| *pid != 0)
        );
    }

    #[test]
    fn our_own_sockets_are_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
        let before = sockets(std::process::id()).expect("our descriptors");
        drop(listener);
        assert!(!before.is_empty());
        assert!(sockets(u32::MAX).is_err());
    }

    #[test]
    fn both_ends_are_read_from_the_environment() {
        let pair = |a: &str, b: &str| Some((a.parse().expect("a"), b.parse().expect("b")));
        assert_eq!(
            ends("10.0.0.9 51234 10.0.0.1 22"),
            pair("10.0.0.9:51234", "10.0.0.1:22")
        );
        assert_eq!(
            ends("::ffff:10.0.0.9 1 ::1 22"),
            pair("10.0.0.9:1", "[::1]:22")
        );
        assert_eq!(
            ends("fe80::1%eth0 1 fe80::2%eth0 22"),
            pair("[fe80::1]:1", "[fe80::2]:22")
        );
        for text in [
            "",
            "10.0.0.9",
            "10.0.0.9 1 10.0.0.1",
            "a 1 b 2",
            "10.0.0.9 x 10.0.0.1 22",
        ] {
            assert_eq!(ends(text), None, "{text}");
        }
    }
}

//! The root of the cgroup v2 hierarchy, be it mounted or not.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};

use super::mount;

/// Where it is mounted.
pub(super) fn mount_point() -> Option<String> {
    cgroup2(&fs::read_to_string("/proc/self/mountinfo").ok()?)
}

/// Opens the root: the mounted one, else one that only this descriptor sees.
///
/// # Errors
/// When neither works.
pub(super) fn root() -> io::Result<OwnedFd> {
    if let Some(path) = mount_point() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        return Ok(rustix::fs::open(path, flags, Mode::empty())?);
    }
    mount::detached("cgroup2")
}

/// The mount point of cgroup v2 in the lines of mountinfo, whose 5th field it is; the type is the
/// first field behind the lone dash.
fn cgroup2(mountinfo: &str) -> Option<String> {
    mountinfo.lines().find_map(|line| {
        let (head, tail) = line.split_once(" - ")?;
        let v2 = tail.split(' ').next() == Some("cgroup2");
        v2.then(|| head.split(' ').nth(4).map(str::to_owned))
            .flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup_v2_is_found_by_its_type() {
        let mounts = "30 24 0:26 / /sys/fs/cgroup ro shared:9 - tmpfs tmpfs ro\n\
                      31 30 0:27 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw\n";
        assert_eq!(cgroup2(mounts).as_deref(), Some("/sys/fs/cgroup/unified"));
        assert_eq!(
            cgroup2("30 24 0:26 / /cgroup2 rw - tmpfs cgroup2 rw\n"),
            None
        );
        assert_eq!(cgroup2("garbage\n"), None);
    }
}

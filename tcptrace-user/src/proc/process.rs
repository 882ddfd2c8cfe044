//! Who a process is: name, arguments, cgroup, container.

use std::fs::{self, File};
use std::io::Read;
use std::sync::Arc;

use tcptrace_core::owner::{Comm, Process};

use super::container::container;

/// Every process that /proc shows.
pub(crate) fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Bytes of the arguments that are kept.
const CMDLINE: u64 = 4 * 1024;
/// Bytes of `/proc/PID/cgroup` that are read: a line per hierarchy, of which v1 has a dozen.
const CGROUP: u64 = 64 * 1024;

/// What /proc says of a process now; `None` if there is none with that id, or it is hidden.
/// Facts that cannot be read are `None`.
pub(crate) fn process(pid: u32) -> Option<Process> {
    let comm = Comm::from_bytes(&read(pid, "comm", 64)?);
    let cmdline = read(pid, "cmdline", CMDLINE).and_then(|bytes| cmdline_text(&bytes));
    let cgroup = read(pid, "cgroup", CGROUP)
        .and_then(|bytes| cgroup_path(&String::from_utf8_lossy(&bytes)).map(Arc::from));
    let container = cgroup.as_deref().and_then(container).map(Arc::from);
    let start_ns = read(pid, "stat", 4096)
        .and_then(|bytes| start_time(&bytes))
        .unwrap_or(0);
    Some(Process {
        pid,
        start_ns,
        comm,
        cmdline,
        cgroup,
        container,
    })
}

pub(super) fn read(pid: u32, name: &str, limit: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(format!("/proc/{pid}/{name}")).ok()?;
    file.take(limit).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// By what a process and the program that it runs are told from later ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// Nanoseconds from boot to the start of the process, in steps of a hundredth of a second.
    pub(crate) start_ns: u64,
    /// Where its stack starts; 0 or 1 for who may not know.
    pub(crate) start_stack: u64,
}

/// What a process runs now; `None` if there is none with that id.
pub(crate) fn program(pid: u32) -> Option<Program> {
    let stat = read(pid, "stat", 4096)?;
    Some(Program {
        start_ns: start_time(&stat)?,
        start_stack: field(&stat, 28)?,
    })
}

/// The process that started it, or that took it over; 0: one outside of this pid namespace, or none.
pub(super) fn parent(pid: u32) -> Option<u32> {
    field(&read(pid, "stat", 4096)?, 4)?.try_into().ok()
}

/// Field 22 of `/proc/PID/stat`, in hundredths of a second (USER_HZ) since boot.
fn start_time(stat: &[u8]) -> Option<u64> {
    const TICK_NS: u64 = 10_000_000;
    field(stat, 22)?.checked_mul(TICK_NS)
}

/// A field of `/proc/PID/stat` behind the second. That is the name, which may hold anything,
/// parentheses too, so fields are counted from the last one.
fn field(stat: &[u8], number: usize) -> Option<u64> {
    let behind = stat.iter().rposition(|b| *b == b')')? + 1;
    let text = std::str::from_utf8(&stat[behind..]).ok()?;
    text.split_ascii_whitespace().nth(number - 3)?.parse().ok()
}

/// Arguments separated by blanks; `None` where there are none (a kernel thread, a zombie).
fn cmdline_text(bytes: &[u8]) -> Option<Arc<str>> {
    let end = bytes.iter().rposition(|b| *b != 0)? + 1;
    let text = String::from_utf8_lossy(&bytes[..end]).replace('\0', " ");
    Some(Arc::from(text))
}

/// The path in the v2 hierarchy (`0::/…`) unless that is the root, else the longest of the v1
/// hierarchies, else `/`. `None` for a text without any.
fn cgroup_path(text: &str) -> Option<&str> {
    let paths = || {
        text.lines().filter_map(|line| {
            let (number, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            Some((number == "0" && controllers.is_empty(), path))
        })
    };
    let v2 = paths().find(|(v2, _)| *v2).map(|(_, path)| path);
    if let Some(path) = v2.filter(|path| *path != "/") {
        return Some(path);
    }
    let mut longest: Option<&str> = None;
    for (_, path) in paths() {
        if longest.is_none_or(|l| path.len() > l.len()) {
            longest = Some(path);
        }
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_know_ourselves() {
        let me = process(std::process::id()).expect("this process");
        assert!(!me.comm.as_bytes().is_empty());
        assert!(me.cmdline.is_some_and(|c| !c.contains('\0')));
        assert!(me.cgroup.is_some());
        assert_eq!(process(u32::MAX), None);
        let ours = program(std::process::id()).expect("this process");
        assert_eq!(ours.start_ns, me.start_ns);
        assert!(ours.start_stack > 1);
        assert_eq!(program(u32::MAX), None);
    }

    #[test]
    fn the_hierarchy_that_says_most_is_taken() {
        for (text, path) in [
            (
                "0::/system.slice/nginx.service\n",
                Some("/system.slice/nginx.service"),
            ),
            ("4:memory:/a/b\n1:cpu:/\n0::/\n", Some("/a/b")),
            (
                "4:memory:/a:b\n1:name=systemd:/user.slice\n",
                Some("/user.slice"),
            ),
            ("4:memory:/long/enough\n0::/x\n", Some("/x")),
            ("0::/\n", Some("/")),
            (
                "2:cpu,cpuacct:/docker/1\n1:name=systemd:/docker/2\n",
                Some("/docker/1"),
            ),
            ("", None),
            ("nonsense\n", None),
        ] {
            assert_eq!(cgroup_path(text), path, "{text:?}");
        }
    }

    #[test]
    fn arguments_are_one_line() {
        assert_eq!(cmdline_text(b"a\0-b c\0\0").as_deref(), Some("a -b c"));
        assert_eq!(cmdline_text(b"\xff\0").as_deref(), Some("\u{fffd}"));
        assert_eq!(cmdline_text(b""), None);
        assert_eq!(cmdline_text(b"\0\0"), None);
    }
}

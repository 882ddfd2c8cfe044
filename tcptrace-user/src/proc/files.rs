//! How many descriptors a process has, and how many it may have.

use std::fs;

/// Its open descriptors; `None`: it is gone, or may not be looked at.
pub(crate) fn open(pid: u32) -> Option<u64> {
    let path = format!("/proc/{pid}/fd");
    // The kernel tells since 6.2 (`proc_fd_getattr`).
    match fs::metadata(&path).ok()?.len() {
        0 => Some(fs::read_dir(path).ok()?.count() as u64),
        known => Some(known),
    }
}

/// The soft RLIMIT_NOFILE; `None`: there is none, or it is not known.
pub(crate) fn limit(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let (soft, _) = limits(&text)?;
    soft.parse().ok()
}

/// The soft and the hard RLIMIT_NOFILE of a `/proc/PID/limits`.
pub(crate) fn limits(text: &str) -> Option<(&str, &str)> {
    let mut lines = text.lines();
    let rest = lines.find_map(|line| line.strip_prefix("Max open files"))?;
    let mut words = rest.split_whitespace();
    words.next().zip(words.next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_have_some_and_may_have_more() {
        let pid = std::process::id();
        let (open, limit) = (open(pid).expect("ours"), limit(pid).expect("a limit"));
        assert!(open > 2 && open < limit);
        assert_eq!(super::open(u32::MAX), None);
    }

    #[test]
    fn soft_and_hard_limits() {
        let text =
            "Limit   Soft Limit   Hard Limit   Units\nMax open files   1024   unlimited   files\n";
        assert_eq!(limits(text), Some(("1024", "unlimited")));
        assert_eq!(limits("Max file size   1   2   bytes\n"), None);
    }
}

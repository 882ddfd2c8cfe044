//! What the kernel knows of a process: its processor time, its memory, its BPF programs and maps.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};

/// Programs take their own time as long as this lives, and no longer, however this process ends.
pub(crate) struct Statistics {
    _enabled: OwnedFd,
}

impl Statistics {
    /// Asks for them.
    pub(crate) fn enable() -> Result<Statistics> {
        const BPF_ENABLE_STATS: libc::c_long = 32;
        const BPF_STATS_RUN_TIME: u32 = 0;
        let kind = BPF_STATS_RUN_TIME;
        // SAFETY: this command reads the four bytes of `kind`.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_ENABLE_STATS,
                &raw const kind,
                size_of_val(&kind),
            )
        };
        let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0);
        let fd = fd.ok_or_else(io::Error::last_os_error);
        let fd = fd.context("the kernel takes no time of BPF programs: be root, from 5.8 on")?;
        Ok(Statistics {
            // SAFETY: the call has made this descriptor, and nobody else knows it.
            _enabled: unsafe { OwnedFd::from_raw_fd(fd) },
        })
    }
}

/// Processor time of a process and all its threads, those that ended included, ns.
pub(crate) fn cpu_ns(pid: u32) -> Option<u64> {
    let pid = libc::pid_t::try_from(pid).ok()?;
    let mut clock = 0;
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: both write into what they are given and read nothing else.
    let known = unsafe {
        libc::clock_getcpuclockid(pid, &mut clock) == 0
            && libc::clock_gettime(clock, &mut time) == 0
    };
    known.then_some(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// Memory of a process that is resident, bytes.
pub(crate) fn resident(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    kibibytes(&status, "VmRSS:")
}

/// Memory of the machine that is free to be taken, bytes.
pub(crate) fn available() -> Option<u64> {
    kibibytes(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")
}

fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let count: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(count * 1024)
}

/// The BPF programs and maps that a process has open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bpf {
    /// By id: how long it ran, ns, and how often, while statistics were taken.
    pub(crate) programs: BTreeMap<u64, (u64, u64)>,
    /// By id: bytes.
    pub(crate) maps: BTreeMap<u64, u64>,
}

impl Bpf {
    /// Of a process; nothing where it is gone.
    pub(crate) fn of(pid: u32) -> Bpf {
        let mut bpf = Bpf::default();
        let files = fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter();
        for file in files.flatten().flatten() {
            if let Ok(text) = fs::read_to_string(file.path()) {
                bpf.take(&text);
            }
        }
        bpf
    }

    /// Takes the kernel's words about one descriptor.
    fn take(&mut self, text: &str) {
        let number = |name: &str| {
            let mut lines = text.lines();
            let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(":"));
            value.and_then(|value| value.trim().parse::<u64>().ok())
        };
        if let (Some(id), Some(bytes)) = (number("map_id"), number("memlock")) {
            self.maps.insert(id, bytes);
        }
        let run = number("run_time_ns").zip(number("run_cnt"));
        if let (Some(id), Some(run)) = (number("prog_id"), run) {
            self.programs.insert(id, run);
        }
    }

    /// How long all programs ran, ns, and how often, since `before`.
    pub(crate) fn ran_since(&self, before: &Bpf) -> (u64, u64) {
        let mut all = (0, 0);
        for (id, (ns, runs)) in &self.programs {
            let (ns_before, runs_before) = before.programs.get(id).copied().unwrap_or_default();
            all.0 += ns.saturating_sub(ns_before);
            all.1 += runs.saturating_sub(runs_before);
        }
        all
    }

    /// Bytes of all maps.
    pub(crate) fn map_bytes(&self) -> u64 {
        self.maps.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_tell_of_programs_and_maps_once() {
        let mut bpf = Bpf::default();
        let program = "pos:\t0\nprog_type:\t26\nprog_id:\t33\nrun_time_ns:\t900\nrun_cnt:\t3\n";
        // A link names the program, too.
        for text in [program, "link_id:\t5\nprog_id:\t33\n", program] {
            bpf.take(text);
        }
        bpf.take("map_type:\t27\nmemlock:\t4096\nmap_id:\t9\n");
        bpf.take("pos:\t0\nflags:\t02\n");
        assert_eq!(bpf.programs.len(), 1);
        assert_eq!((bpf.programs[&33], bpf.map_bytes()), ((900, 3), 4096));
        let mut later = bpf.clone();
        later.programs.insert(33, (1_900, 8));
        assert_eq!(later.ran_since(&bpf), (1_000, 5));
    }

    #[test]
    fn a_process_has_memory_and_time() {
        let me = std::process::id();
        assert!(resident(me).expect("some") > 1 << 16);
        assert!(cpu_ns(me).expect("some") > 0);
        assert!(available().expect("some") > 1 << 20);
        assert_eq!(resident(u32::MAX), None);
    }
}

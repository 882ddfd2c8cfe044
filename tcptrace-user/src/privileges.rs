//! What the process may do once everything is attached: only what it needs from then on.
//!
//! What that is was found by running without each, on 6.18:
//!
//! - CAP_SYS_ADMIN to enter other network namespaces (setns(2)), for their dumps;
//! - CAP_SYS_PTRACE to learn of the namespaces of other users' processes (`/proc/PID/ns/net`), and,
//!   where there is no iterator, of their descriptors (`/proc/PID/fd`);
//! - CAP_DAC_READ_SEARCH to list `/proc/PID/fd`, where there is no iterator;
//! - CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH and CAP_CHECKPOINT_RESTORE (before 5.9 CAP_SYS_ADMIN) to
//!   name stacks: to read the files that a process has mapped (`/proc/PID/map_files`), and the memory
//!   of a Python;
//! - CAP_NET_ADMIN to be told by sock_diag which sockets are subflows of MPTCP;
//! - CAP_BPF where the kernel refuses to read maps and to open iterators without it. Up to 5.18
//!   `kernel.unprivileged_bpf_disabled` forbade every bpf(2) call; later it forbids to load and to
//!   create;
//! - CAP_DAC_OVERRIDE, CAP_CHOWN and CAP_FOWNER where recordings are rotated (new files appear in
//!   somebody's directory, are made his, and old ones are removed), and where a command got a cgroup
//!   of its own, which is removed.
//!
//! Landlock is no help: its domain may not look at processes outside of it, whatever the rules, so
//! that `/proc/PID/ns/net` is closed to it.

use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

use crate::kernel::capability::Capability;

/// What the rest of the run takes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Needs {
    /// Sockets of other network namespaces are dumped.
    pub(crate) other_netns: bool,
    /// Holders come from `/proc/PID/fd`.
    pub(crate) proc_fd: bool,
    /// Files are made and removed.
    pub(crate) new_files: bool,
    /// Stacks are named.
    pub(crate) stacks: bool,
}

impl Needs {
    /// The capabilities that these needs take; CAP_BPF is judged by trying.
    pub(crate) fn capabilities(self) -> CapabilitySet {
        let mut needed = CapabilitySet::NET_ADMIN;
        if self.other_netns {
            needed |= CapabilitySet::SYS_ADMIN | CapabilitySet::SYS_PTRACE;
        }
        if self.proc_fd {
            needed |= CapabilitySet::SYS_PTRACE | CapabilitySet::DAC_READ_SEARCH;
        }
        if self.stacks {
            needed |= CapabilitySet::SYS_PTRACE
                | CapabilitySet::DAC_READ_SEARCH
                | CapabilitySet::CHECKPOINT_RESTORE;
        }
        if self.new_files {
            needed |= CapabilitySet::DAC_OVERRIDE | CapabilitySet::CHOWN | CapabilitySet::FOWNER;
        }
        needed
    }
}

/// Whether other users' processes show their namespaces.
pub(crate) fn sees_all_processes() -> bool {
    capabilities(None).is_ok_and(|held| held.effective.contains(CapabilitySet::SYS_PTRACE))
}

/// Whether sockets may be destroyed.
pub(crate) fn may_administer_network() -> bool {
    capabilities(None).is_ok_and(|held| held.effective.contains(CapabilitySet::NET_ADMIN))
}

/// Those that a `watch` of all namespaces keeps, of those that it has.
pub(crate) fn kept(held: &[Capability], proc_fd: bool) -> Vec<Capability> {
    let needs = Needs {
        other_netns: true,
        proc_fd,
        ..Needs::default()
    };
    let needed = needs.capabilities().bits();
    let kept = held.iter().filter(|c| needed >> (**c as u8) & 1 == 1);
    kept.copied().collect()
}

/// Gives up all other capabilities of this thread and of those that it starts, for good, and sets
/// `no_new_privs`. `bpf_works` is asked whether the loaded programs can be used without CAP_BPF.
///
/// # Errors
/// If the kernel refuses, which it has no reason to.
pub(crate) fn give_up(needs: Needs, mut bpf_works: impl FnMut() -> bool) -> io::Result<()> {
    set_no_new_privs(true)?;
    let held = capabilities(None)?;
    let mut kept = held.permitted & needs.capabilities();
    effective(held, kept)?;
    if !bpf_works() {
        kept |= held.permitted & CapabilitySet::BPF;
    }
    empty_bounding_set(held, kept)?;
    clear_ambient_capability_set()?;
    set_capabilities(
        None,
        CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: CapabilitySet::empty(),
        },
    )?;
    Ok(())
}

/// Lowers what is in effect, and nothing for good.
fn effective(held: CapabilitySets, effective: CapabilitySet) -> io::Result<()> {
    Ok(set_capabilities(
        None,
        CapabilitySets { effective, ..held },
    )?)
}

/// Nothing that is executed from here on can gain anything; that takes CAP_SETPCAP, and
/// `no_new_privs` says the same where it is missing.
fn empty_bounding_set(held: CapabilitySets, kept: CapabilitySet) -> io::Result<()> {
    if !held.permitted.contains(CapabilitySet::SETPCAP) {
        return Ok(());
    }
    effective(held, kept | CapabilitySet::SETPCAP)?;
    for number in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << number);
        match remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            // The kernel's last one was the one before.
            Err(rustix::io::Errno::INVAL) => break,
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_needed_is_kept() {
        let kept = |other_netns, proc_fd| {
            Needs {
                other_netns,
                proc_fd,
                ..Needs::default()
            }
            .capabilities()
                - CapabilitySet::NET_ADMIN
        };
        assert_eq!(kept(false, false), CapabilitySet::empty());
        assert_eq!(
            kept(true, false),
            CapabilitySet::SYS_ADMIN | CapabilitySet::SYS_PTRACE
        );
        assert_eq!(
            kept(false, true),
            CapabilitySet::SYS_PTRACE | CapabilitySet::DAC_READ_SEARCH
        );
    }

    #[test]
    fn what_is_not_held_cannot_be_kept() {
        use Capability::{CapBpf, CapSysAdmin, CapSysPtrace};
        let held = [CapSysPtrace, CapSysAdmin, CapBpf];
        assert_eq!(kept(&held, false), [CapSysPtrace, CapSysAdmin]);
        assert_eq!(kept(&[CapBpf], true), []);
    }

    /// Capabilities belong to threads, so that this one can lose them without harm to others.
    #[test]
    fn a_thread_that_gave_up_has_nothing_left() {
        let needs = Needs::default();
        let run = move || {
            give_up(needs, || true)?;
            let status = std::fs::read_to_string("/proc/thread-self/status")?;
            io::Result::Ok((capabilities(None)?, status))
        };
        let (after, status) = std::thread::spawn(run).join().unwrap().unwrap();
        assert_eq!(
            after.permitted - CapabilitySet::NET_ADMIN,
            CapabilitySet::empty()
        );
        assert_eq!(after.effective, after.permitted);
        assert_eq!(after.inheritable, CapabilitySet::empty());
        assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    }
}

//! What this kernel can do for us, asked of the kernel itself.
//!
//! A version number answers nothing: distributions backport, and administrators forbid. So each
//! fact is an attempt (a program is loaded, a file is read) with one of three answers.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::capability::Capability;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", content = "why", rename_all = "snake_case")]
pub(crate) enum Fact {
    /// It was tried, and works.
    Yes,
    /// It was tried, and does not, for this reason.
    No(String),
    /// It could not be tried, for this reason.
    Unknown(String),
}

impl Fact {
    /// Whether the answer is yes.
    pub(crate) fn is_yes(&self) -> bool {
        matches!(self, Fact::Yes)
    }

    /// Whether the answer is no.
    pub(crate) fn is_no(&self) -> bool {
        matches!(self, Fact::No(_))
    }

    /// Why the answer is not yes.
    pub(crate) fn why_not(&self) -> Option<&str> {
        match self {
            Fact::Yes => None,
            Fact::No(why) | Fact::Unknown(why) => Some(why),
        }
    }
}

impl<E: fmt::Display> From<Result<(), E>> for Fact {
    fn from(result: Result<(), E>) -> Fact {
        match result {
            Ok(()) => Fact::Yes,
            Err(e) => Fact::No(e.to_string()),
        }
    }
}

/// Everything that the plan depends on, and what explains it. Holds no kernel address, so that
/// it can be shown and stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// `uname -r`; for people only.
    pub(crate) release: String,
    /// Timer interrupts per second (`CONFIG_HZ`); timers run out on a multiple of 1/HZ s.
    pub(crate) hz: Option<u64>,
    /// The capabilities that this process has in effect, of those that matter.
    pub(crate) capabilities: Vec<Capability>,
    /// Settings that restrict tracing.
    pub(crate) settings: Settings,
    /// Where cgroup v2 is mounted.
    pub(crate) cgroup2: Option<String>,
    /// The kernel's own type information can be read. Its type ids are what tp_btf programs,
    /// iterators and fentry programs are attached by.
    pub(crate) btf: Fact,
    /// Every field that the programs read was found, in it or in the BTF of `--btf`.
    pub(crate) offsets: Fact,
    /// By name: it exists, and passes what we need. Of [`super::prototypes::TRACEPOINTS`].
    pub(crate) tracepoints: BTreeMap<String, Fact>,
    /// Programs on BTF-typed tracepoints can be loaded.
    pub(crate) tp_btf: Fact,
    /// Programs on raw tracepoints can be loaded.
    pub(crate) raw_tp: Fact,
    /// Programs on perf tracepoints can be loaded.
    pub(crate) tracepoint: Fact,
    /// Programs on function entries (BPF trampolines) can be loaded.
    pub(crate) fentry: Fact,
    /// Programs on kprobes can be loaded and attached.
    pub(crate) kprobe: Fact,
    /// `kfree_skb` says which socket a dropped segment was for (6.11 and later).
    pub(crate) drop_socket: Fact,
    /// By name: the kernel has it as a function of its own, and it takes what we read. Of
    /// [`super::prototypes::FUNCTIONS`].
    pub(crate) functions: BTreeMap<String, Fact>,
    /// The memory of programs and maps is charged to the memory cgroup (5.11 and later), not to the
    /// limit of locked memory.
    pub(crate) memory_by_cgroup: Fact,
    /// Programs on the root cgroup can make socket cookies.
    pub(crate) cgroup_cookie: Fact,
    /// `BPF_MAP_TYPE_RINGBUF`.
    pub(crate) ring_buffer: Fact,
    /// `bpf_get_socket_cookie` in a tp_btf program.
    pub(crate) socket_cookie: Fact,
    /// `bpf_skc_to_tcp_sock` in a tp_btf program.
    pub(crate) skc_to_tcp_sock: Fact,
    /// The iterator over the open files of all tasks can be loaded and opened.
    pub(crate) iter_task_file: Fact,
    /// tracefs can be read, mounted or not.
    pub(crate) tracefs: Fact,
    /// `syscalls:sys_exit_accept` and `sys_exit_accept4` exist.
    pub(crate) accept_tracepoints: Fact,
    /// `/proc/kallsyms` gives the address of `tw_timer_handler`.
    pub(crate) timer_address: Fact,
    /// The kernel answers sock_diag requests for TCP.
    pub(crate) sock_diag: Fact,
}

impl Facts {
    /// Whether this capability is in effect.
    pub(crate) fn has(&self, capability: Capability) -> bool {
        self.capabilities.contains(&capability)
    }

    /// Whether the kernel lets this process load tracing programs, as far as capabilities go.
    pub(crate) fn may_load(&self) -> bool {
        self.has(Capability::CapSysAdmin)
            || self.has(Capability::CapBpf) && self.has(Capability::CapPerfmon)
    }

    /// The fact about one of [`super::prototypes::FUNCTIONS`].
    pub(crate) fn has_function(&self, name: &str) -> Fact {
        let unknown = || Fact::Unknown(format!("{name} was not looked for"));
        self.functions.get(name).cloned().unwrap_or_else(unknown)
    }

    /// The fact about one of [`super::prototypes::TRACEPOINTS`].
    pub(crate) fn has_tracepoint(&self, name: &str) -> Fact {
        let unknown = || Fact::Unknown(format!("{name} was not looked for"));
        self.tracepoints.get(name).cloned().unwrap_or_else(unknown)
    }
}

/// Values of sysctls and the like; `None` where there is no such setting.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// 0: anyone may load some programs; 1 and 2: nobody without CAP_BPF.
    pub(crate) unprivileged_bpf_disabled: Option<i64>,
    /// Above 1: kernel addresses take CAP_SYSLOG.
    pub(crate) perf_event_paranoid: Option<i64>,
    /// 1: kernel addresses take CAP_SYSLOG; 2: nobody gets them.
    pub(crate) kptr_restrict: Option<i64>,
    /// `none`, `integrity` or `confidentiality`, which forbids BPF to read kernel memory.
    pub(crate) lockdown: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_told_with_its_reason() {
        let json = |fact| serde_json::to_string(&fact).unwrap();
        assert_eq!(json(Fact::Yes), r#"{"answer":"yes"}"#);
        assert_eq!(
            json(Fact::No("EPERM".into())),
            r#"{"answer":"no","why":"EPERM"}"#
        );
        assert_eq!(Fact::Unknown("x".into()).why_not(), Some("x"));
    }
}

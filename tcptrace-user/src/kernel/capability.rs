//! The privileges of this process, and what each is for.

use serde::{Deserialize, Serialize};

use super::facts::Facts;

/// A capability that matters here; the numbers are those of `include/uapi/linux/capability.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[repr(u8)]
#[expect(
    clippy::enum_variant_names,
    reason = "the kernel's names, as they are written"
)]
pub(crate) enum Capability {
    /// Reading what others keep closed.
    CapDacReadSearch = 2,
    /// SOCK_DESTROY, and some attributes of sock_diag.
    CapNetAdmin = 12,
    /// Other processes' descriptors and namespaces.
    CapSysPtrace = 19,
    /// Mounts, other namespaces; and BPF before 5.8.
    CapSysAdmin = 21,
    /// Lifting resource limits.
    CapSysResource = 24,
    /// Kernel addresses.
    CapSyslog = 34,
    /// perf events and tracing programs.
    CapPerfmon = 38,
    /// Loading programs and maps.
    CapBpf = 39,
}

use Capability::*;

const ALL: [Capability; 8] = [
    CapDacReadSearch,
    CapNetAdmin,
    CapSysPtrace,
    CapSysAdmin,
    CapSysResource,
    CapSyslog,
    CapPerfmon,
    CapBpf,
];

impl Capability {
    /// `CAP_BPF`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            CapDacReadSearch => "CAP_DAC_READ_SEARCH",
            CapNetAdmin => "CAP_NET_ADMIN",
            CapSysPtrace => "CAP_SYS_PTRACE",
            CapSysAdmin => "CAP_SYS_ADMIN",
            CapSysResource => "CAP_SYS_RESOURCE",
            CapSyslog => "CAP_SYSLOG",
            CapPerfmon => "CAP_PERFMON",
            CapBpf => "CAP_BPF",
        }
    }
}

/// The effective set out of `/proc/self/status`, of those that matter here; empty if the line is
/// missing.
pub(super) fn effective(status: &str) -> Vec<Capability> {
    let set = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or_default();
    ALL.into_iter()
        .filter(|cap| set >> *cap as u8 & 1 == 1)
        .collect()
}

/// What one capability is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Privilege {
    /// The capability.
    pub(crate) capability: Capability,
    /// Nothing is traced without it.
    pub(crate) required: bool,
    /// What it gives.
    #[serde(rename = "for")]
    pub(crate) purpose: &'static str,
}

/// What tracing takes. Each was found by running with it and without it.
pub(crate) const PRIVILEGES: [Privilege; 8] = [
    Privilege {
        capability: CapBpf,
        required: true,
        purpose: "loads programs and maps",
    },
    Privilege {
        capability: CapPerfmon,
        required: true,
        purpose: "lets programs trace and read kernel memory",
    },
    Privilege {
        capability: CapSyslog,
        required: false,
        purpose: "shows the address of the minisockets' timer: without it, FIN_WAIT_2 and \
                  TIME_WAIT of closed sockets are sampled",
    },
    Privilege {
        capability: CapNetAdmin,
        required: false,
        purpose: "makes socket cookies with programs on the root cgroup, where tracing programs \
                  cannot (before 5.12): nothing is traced there without it",
    },
    Privilege {
        capability: CapSysResource,
        required: false,
        purpose: "lifts the limit of locked memory, as which programs and maps count before 5.11: \
                  without it, `ulimit -l unlimited` is to be set",
    },
    Privilege {
        capability: CapDacReadSearch,
        required: false,
        purpose: "opens tracefs: without it, accept() is looked for in every system call; and, \
                  with CAP_SYS_PTRACE, the descriptors of other users' processes",
    },
    Privilege {
        capability: CapSysPtrace,
        required: false,
        purpose: "shows descriptors and namespaces of other users' processes",
    },
    Privilege {
        capability: CapSysAdmin,
        required: false,
        purpose: "enters other network namespaces, and opens tracefs where it is not mounted",
    },
];

/// What people grant with setcap(8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    /// All that exact durations take here, and nothing else.
    pub(crate) least: String,
    /// The same with what widens the view: all of [`PRIVILEGES`] that this kernel has a use for.
    pub(crate) all: String,
}

/// What is to be granted on this kernel, where `cgroup_cookies` says whether socket cookies come
/// from programs on the root cgroup.
pub(crate) fn grant(facts: &Facts, cgroup_cookies: bool) -> Grant {
    let locks = facts.memory_by_cgroup.is_no();
    let list = |wanted: &dyn Fn(Capability) -> bool| {
        let capabilities = PRIVILEGES.map(|p| p.capability).into_iter();
        let names = capabilities
            .filter(|cap| wanted(*cap))
            .map(Capability::name);
        names.collect::<Vec<_>>().join(",").to_lowercase() + "+ep"
    };
    let of_use = |cap| match cap {
        CapSysResource => locks,
        CapNetAdmin => cgroup_cookies,
        CapBpf | CapPerfmon | CapSyslog => true,
        _ => false,
    };
    Grant {
        least: list(&of_use),
        all: list(&|cap| cap != CapSysResource || locks),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_set_is_read() {
        let root = "Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t000001ffffffffff\n";
        assert_eq!(effective(root), ALL);
        assert_eq!(
            effective("CapEff:\t000000c000000000\n"),
            [CapPerfmon, CapBpf]
        );
        assert_eq!(effective("CapEff:\tzz\n"), []);
        assert_eq!(effective(""), []);
    }

    #[test]
    fn names_are_the_same_in_text_and_json() {
        for capability in ALL {
            let json = serde_json::to_string(&capability).unwrap();
            assert_eq!(json, format!("\"{}\"", capability.name()));
        }
    }
}

//! The running kernel: what it is, what it can do, and what that allows us to trace.

mod bpf;
pub(crate) mod btf;
mod candidates;
pub(crate) mod capability;
mod cgroup;
pub(crate) mod facts;
pub(crate) mod inspect;
pub(crate) mod kallsyms;
#[cfg(test)]
pub(crate) mod known;
pub(crate) mod layout;
mod member;
mod mount;
pub(crate) mod plan;
pub(crate) mod probes;
pub(crate) mod programs;
mod prototypes;
pub(crate) mod sysctl;
pub(crate) mod targets;
pub(crate) mod tracefs;
pub(crate) mod value;

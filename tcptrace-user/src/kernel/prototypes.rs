//! What this kernel's tracepoints and functions pass, as its BTF has it, against what the programs
//! read.

use std::collections::BTreeMap;

use super::btf::{Btf, Kind, Param};
use super::facts::Fact;

/// The tracepoints that we use, with the types of the parameters that we read; `""` is one that
/// we pass over.
pub(super) const TRACEPOINTS: &[(&str, &[&str])] = &[
    ("inet_sock_set_state", &["struct sock *", "int", "int"]),
    ("timer_start", &["struct timer_list *"]),
    ("timer_cancel", &["struct timer_list *"]),
    ("timer_expire_entry", &["struct timer_list *"]),
    ("kfree_skb", &["struct sk_buff *"]),
    ("sock_recv_length", &["struct sock *", "int", "int"]),
    ("tcp_destroy_sock", &["struct sock *"]),
];

/// The functions that we enter or see return: the types of the parameters that we read, and how
/// many there may be where that tells what they are.
pub(super) const FUNCTIONS: &[(&str, &[&str], &[usize])] = &[
    (
        "__inet_twsk_schedule",
        &["struct inet_timewait_sock *", "int"],
        &[],
    ),
    ("inet_twsk_kill", &["struct inet_timewait_sock *"], &[]),
    ("tw_timer_handler", &["struct timer_list *"], &[]),
    ("tcp_close", &["struct sock *"], &[]),
    ("inet_csk_accept", &["struct sock *"], &[2, 4]),
    ("tcp_recvmsg", &["struct sock *"], &[4, 5, 6]),
    ("tcp_conn_request", &["", "", "struct sock *"], &[]),
    ("tcp_v4_syn_recv_sock", &["struct sock *"], &[]),
    (
        "tcp_v6_syn_recv_sock",
        &["struct sock *", "struct sk_buff *"],
        &[],
    ),
];

/// Why what BTF would tell is not known.
pub(super) const NO_BTF: &str = "not tried, without BTF";

/// How many arguments functions take, of those whose number changed.
#[derive(Debug)]
pub(crate) struct Arguments(Vec<(&'static str, u32)>);

impl Arguments {
    pub(super) fn count(btf: Option<&Btf>) -> Arguments {
        let names = FUNCTIONS.iter().filter(|(_, _, counts)| !counts.is_empty());
        let count = |name| Some((name, btf?.function(name)?.len() as u32));
        Arguments(names.filter_map(|(name, ..)| count(*name)).collect())
    }

    /// How many this function takes; 0 if there is no such function.
    pub(crate) fn of(&self, function: &str) -> u32 {
        let found = self.0.iter().find(|(name, _)| *name == function);
        found.map_or(0, |(_, count)| *count)
    }
}

/// By name: it exists, and passes what we need.
pub(super) fn tracepoints(btf: Option<&Btf>) -> BTreeMap<String, Fact> {
    TRACEPOINTS
        .iter()
        .map(|(name, wanted)| ((*name).to_owned(), tracepoint(btf, name, wanted)))
        .collect()
}

/// Whether `kfree_skb` passes the socket that a segment was for.
pub(super) fn drop_socket(btf: Option<&Btf>) -> Fact {
    tracepoint(btf, "kfree_skb", &["", "", "", "struct sock *"])
}

fn tracepoint(btf: Option<&Btf>, name: &str, wanted: &[&str]) -> Fact {
    let Some(btf) = btf else {
        return Fact::Unknown(NO_BTF.into());
    };
    match btf.tracepoint(name) {
        None => Fact::No(format!("this kernel has no tracepoint {name}")),
        Some((_, params)) => passes(name, &params, wanted),
    }
}

/// By name: it exists, and takes what we read.
pub(super) fn functions(btf: Option<&Btf>) -> BTreeMap<String, Fact> {
    FUNCTIONS
        .iter()
        .map(|(name, wanted, counts)| ((*name).to_owned(), function(btf, name, wanted, counts)))
        .collect()
}

fn function(btf: Option<&Btf>, name: &str, wanted: &[&str], counts: &[usize]) -> Fact {
    let Some(btf) = btf else {
        return Fact::Unknown(NO_BTF.into());
    };
    match btf.function(name) {
        None => Fact::No(format!("this kernel has no function {name}")),
        Some(params) if !counts.is_empty() && !counts.contains(&params.len()) => {
            Fact::No(format!("{name} takes {} arguments here", params.len()))
        }
        Some(params) => passes(name, &params, wanted),
    }
}

/// Whether the memory of programs and maps is charged to the memory cgroup.
pub(super) fn memory_by_cgroup(btf: Option<&Btf>) -> Fact {
    match btf.map(|btf| btf.find(Kind::Struct, "bpf_map_memory")) {
        None => Fact::Unknown(NO_BTF.into()),
        Some(None) => Fact::Yes,
        Some(Some(_)) => Fact::No("programs and maps count as locked memory here".into()),
    }
}

/// Whether the parameters have the types that we take them for.
fn passes(name: &str, params: &[Param], wanted: &[&str]) -> Fact {
    let read = wanted.iter().enumerate().filter(|(_, ty)| !ty.is_empty());
    for (i, wanted) in read {
        let n = i + 1;
        match params.get(i).map(|param| &param.ty) {
            Some(ty) if ty == wanted => {}
            Some(ty) => {
                return Fact::No(format!("{name} passes {ty} instead of {wanted} as {n}."));
            }
            None => {
                let count = params.len();
                return Fact::No(format!(
                    "{name} passes {count} values, and no {wanted} as {n}."
                ));
            }
        }
    }
    Fact::Yes
}

//! Which of the tracer's mechanisms are tried: the one table of what `--hooks` gets.

use clap::ValueEnum;

use super::kernels::Series;

/// A choice of mechanisms, as kernels and administrators leave them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Chain {
    /// Functions by trampolines, states by tracepoints with BTF
    Fentry,
    /// Functions by breakpoints, states by raw tracepoints
    Kprobe,
    /// No functions, only tracepoints
    Tracepoint,
    /// As fentry, run by nobody with the capabilities that doctor names and no other
    Nobody,
}

impl Chain {
    /// What the tracer's `--hooks` gets. The mechanisms that tell of states and of owners differ
    /// in what a kernel needs for them: raw_tp and proc stand in where it is too old for the
    /// others.
    pub(crate) fn hooks(self) -> &'static str {
        match self {
            Chain::Fentry | Chain::Nobody => "fentry,tp_btf,raw_tp,iter,proc",
            Chain::Kprobe => "kprobe,raw_tp,iter,proc,accept=kprobe",
            Chain::Tracepoint => "tp_btf,raw_tp,tracepoint,iter,proc",
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Chain::Fentry => "fentry",
            Chain::Kprobe => "kprobe",
            Chain::Tracepoint => "tracepoint",
            Chain::Nobody => "nobody",
        }
    }

    /// What the tests run as the tracer: init makes a script that gives up all but what doctor
    /// names.
    pub(crate) fn tracer(self) -> &'static str {
        match self {
            Chain::Nobody => "/bin/tcptrace-as-nobody",
            _ => "/bin/tcptrace",
        }
    }

    /// Those that are run on a kernel where none is asked for. One kernel is enough to see that
    /// the capabilities are: which are there, and what they allow, has not changed since 5.9.
    pub(crate) fn usual(kernel: &str) -> Vec<Chain> {
        let usual = |chain: &&Chain| **chain != Chain::Nobody || kernel == Series::V6_12.name();
        Chain::value_variants()
            .iter()
            .filter(usual)
            .copied()
            .collect()
    }
}

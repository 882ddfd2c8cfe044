//! Which of the tracer's mechanisms are tried: the one table of what `--hooks` gets.

use clap::ValueEnum;

/// A choice of mechanisms, as kernels and administrators leave them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Chain {
    /// Functions by trampolines, states by tracepoints with BTF
    Fentry,
    /// Functions by breakpoints, states by raw tracepoints
    Kprobe,
    /// No functions, only tracepoints
    Tracepoint,
}

impl Chain {
    /// What the tracer's `--hooks` gets. The mechanisms that tell of states and of owners differ
    /// in what a kernel needs for them: raw_tp and proc stand in where it is too old for the
    /// others.
    pub(crate) fn hooks(self) -> &'static str {
        match self {
            Chain::Fentry => "fentry,tp_btf,raw_tp,iter,proc",
            Chain::Kprobe => "kprobe,raw_tp,iter,proc,accept=kprobe",
            Chain::Tracepoint => "tp_btf,raw_tp,tracepoint,iter,proc",
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Chain::Fentry => "fentry",
            Chain::Kprobe => "kprobe",
            Chain::Tracepoint => "tracepoint",
        }
    }
}

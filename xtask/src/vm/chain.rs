//! Which of the tracer's mechanisms are tried: the one table of what `--hooks` gets.

use clap::ValueEnum;

/// A choice of mechanisms, as kernels and administrators leave them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Chain {
    /// Functions by trampolines; state changes, and what else is left, by BTF-typed tracepoints
    Fentry,
    /// Functions by breakpoints, state changes by raw tracepoints; no BTF-typed programs at all
    Kprobe,
    /// Tracepoints only
    Tracepoint,
}

impl Chain {
    /// What the tracer's `--hooks` gets.
    pub(crate) fn hooks(self) -> Option<&'static str> {
        Some(match self {
            Chain::Fentry => "fentry,tp_btf,raw_tp,iter,proc",
            Chain::Kprobe => "kprobe,raw_tp,proc",
            Chain::Tracepoint => "tp_btf,raw_tp,tracepoint,iter,proc",
        })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Chain::Fentry => "fentry",
            Chain::Kprobe => "kprobe",
            Chain::Tracepoint => "tracepoint",
        }
    }
}

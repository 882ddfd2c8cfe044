//! Which of the tracer's mechanisms are tried: the one table of what `--hooks` gets.

use clap::ValueEnum;

/// A choice of mechanisms, as kernels and administrators leave them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Chain {
    /// Everything, trampolines first
    Fentry,
    /// No trampolines
    Kprobe,
    /// Tracepoints only
    Tracepoint,
}

impl Chain {
    /// What the tracer's `--hooks` gets; `None` leaves the choice to the tracer.
    pub(crate) fn hooks(self) -> Option<&'static str> {
        match self {
            // The mechanisms of these two come with the hooks on functions.
            Chain::Fentry | Chain::Kprobe => None,
            Chain::Tracepoint => None,
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

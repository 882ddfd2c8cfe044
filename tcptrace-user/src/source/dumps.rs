//! Which sockets dumps show.

use tcptrace_core::state::{StateSet, TcpState};
use tcptrace_core::tracker::Minisockets;

/// What dumps ask for.
pub(crate) struct Dumps {
    /// How minisockets are followed.
    pub(crate) minisockets: Minisockets,
    /// Only these network namespaces; empty: all.
    pub(crate) netns: Vec<u32>,
    /// Nothing else tells of sockets: a dump every so many ns.
    pub(crate) polled_ns: Option<u64>,
}

impl Dumps {
    /// All but sockets that are only bound, and minisockets that nobody asks for.
    pub(super) fn states(&self) -> StateSet {
        let left_out = match self.minisockets {
            Minisockets::Ignored => StateSet::of(&[TcpState::BoundInactive, TcpState::TimeWait]),
            _ => StateSet::of(&[TcpState::BoundInactive]),
        };
        let asked = StateSet::all().iter().filter(|s| !left_out.contains(*s));
        asked.fold(StateSet::EMPTY, StateSet::with)
    }
}

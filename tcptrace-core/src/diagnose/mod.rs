//! What is wrong with the connections of a host, who does it, and what to do: verdicts with their
//! evidence.
//!
//! Each room finds what its name says in a `Case`: everything that the tracker knows at the end of
//! a trace, and what [`Tally`] counted on the way. The same inputs give the same findings.

mod accept;
mod blocked;
mod case;
mod close_wait;
mod fail;
mod files;
mod fin_wait2;
mod finding;
mod growth;
mod idle;
mod keepalive;
mod object;
mod places;
mod ports;
mod resets;
mod subflows;
mod syn_queue;
mod tally;
mod text;
mod time_wait;
mod words;

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::report::summary::Completeness;
use crate::state::TcpState;
use crate::time::{Mono, WallAnchor};
use crate::tracker::Tracker;

use case::Case;
pub use fail::{FailOn, Named};
pub use finding::{Finding, IDS, Id, Label, Severity};
pub use object::DiagnosisLine;
pub use tally::Tally;
pub use text::{Style, to_text};

/// All that was found.
#[derive(Clone, Debug)]
pub struct Diagnosis {
    /// When the trace began.
    pub from: Mono,
    /// When it ended.
    pub to: Mono,
    /// The name of the host.
    pub host: String,
    /// The release of its kernel.
    pub kernel: String,
    /// Connections by state, as they are at the end.
    pub states: BTreeMap<TcpState, u64>,
    /// The gravest first.
    pub findings: Vec<Finding>,
    /// What of the truth is missing.
    pub completeness: Completeness,
    /// Gives instants their date.
    pub anchor: WallAnchor,
}

/// Where a trace was made.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// The name of the host.
    pub name: String,
    /// The release of its kernel.
    pub kernel: String,
    /// Gives instants their date.
    pub anchor: WallAnchor,
}

impl Diagnosis {
    /// Of what a tracker has seen. A socket counts as stuck after `min_age_ns`. `completeness`: as
    /// the summary has it.
    pub fn new(
        tracker: &Tracker,
        tally: &Tally,
        min_age_ns: u64,
        completeness: Completeness,
        host: Host,
    ) -> Diagnosis {
        let case = Case::new(tracker, tally, min_age_ns);
        let rooms: [fn(&Case<'_>) -> Vec<Finding>; 11] = [
            close_wait::find,
            accept::find,
            syn_queue::find,
            blocked::find,
            ports::find,
            time_wait::find,
            fin_wait2::find,
            files::find,
            keepalive::find,
            resets::find,
            subflows::find,
        ];
        let mut findings: Vec<Finding> = rooms.iter().flat_map(|find| find(&case)).collect();
        findings.sort_by_key(|f| (Reverse(f.severity), Reverse(f.sockets)));
        let mut states = BTreeMap::new();
        for socket in &case.sockets {
            *states.entry(socket.view.state).or_default() += 1;
        }
        Diagnosis {
            from: case.from,
            to: tracker.now(),
            host: host.name,
            kernel: host.kernel,
            states,
            findings,
            completeness,
            anchor: host.anchor,
        }
    }

    /// All connections that there are.
    pub fn sockets(&self) -> u64 {
        self.states.values().sum()
    }
}

#[cfg(test)]
mod tests;

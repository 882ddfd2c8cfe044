//! What others say about the same sockets.

use std::collections::BTreeMap;

pub mod netstat;
pub mod proc_net;
pub mod ss;
pub mod tcpstates;
pub mod tracefs;

/// How many there are of each state.
fn count(states: impl Iterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for state in states {
        *counts.entry(state).or_default() += 1;
    }
    counts
}

/// The kernel's name of a state (`TCP_CLOSE_WAIT`, `CLOSE-WAIT`) as the tracer writes it.
pub fn state_name(theirs: &str) -> String {
    let name = theirs.trim_start_matches("TCP_").replace('-', "_");
    match name.to_ascii_lowercase().as_str() {
        "estab" => "established",
        "unconn" => "close",
        "fin_wait_1" => "fin_wait1",
        "fin_wait_2" => "fin_wait2",
        other => other,
    }
    .to_owned()
}

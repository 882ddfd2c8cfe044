//! MPTCP: its subflows look like connections of their own, and are none.

use super::case::Case;
use super::finding::{Finding, Id, Label, Severity};
use crate::report::snapshot::thousands;

/// A word on what was left out.
pub(super) fn find(case: &Case<'_>) -> Vec<Finding> {
    let n = case.tracker.loss().mptcp;
    if n == 0 {
        return Vec::new();
    }
    let headline = format!(
        "{} events of MPTCP subflows were left out of all counts",
        thousands(n)
    );
    let mut finding = Finding::new(Id::MptcpNoise, Severity::Info, n, headline);
    let text = "a subflow that others list in CLOSE_WAIT without a process belongs to the kernel's MPTCP \
                socket, which closes it; no program can";
    finding.say(Label::Kernel, text.to_owned());
    finding.number("events", n);
    vec![finding]
}

//! Pools that notice late that the peer has closed.

use serde_json::Value;

use super::case::Case;
use super::finding::{Finding, Id, Label, Severity};
use super::tally::{Closes, Service};
use crate::report::snapshot::thousands;
use crate::time::duration_text;
use crate::tuple::Role;

/// Fewer than this may be chance.
const LEAST: u64 = 3;

/// Who closes sooner than this after the peer has done so at once, ns.
const LATE_NS: u64 = 1_000_000_000;

/// A finding for each service whose connections we closed, and late.
pub(super) fn find(case: &Case<'_>) -> Vec<Finding> {
    let services = case.tally.services.iter();
    services
        .filter_map(|(service, closes)| late(service, closes))
        .collect()
}

fn late(service: &Service, closes: &Closes) -> Option<Finding> {
    let half = closes.late.quantile_ns(0.5)?;
    let n = closes.late.len();
    if service.role != Some(Role::Active) || n < LEAST || half < LATE_NS {
        return None;
    }
    let headline = format!(
        "connections to {} are closed {} after the peer has closed them (median of {})",
        service.text(),
        duration_text(half),
        thousands(n)
    );
    let severity = Severity::Notice;
    let mut finding = Finding::new(Id::IdleTimeoutMismatch, severity, n, headline);
    let text = "a pool keeps connections for longer than the peer does; who takes one from it meanwhile \
                gets a RST, or an error on his first write";
    finding.say(Label::What, text.to_owned());
    let fix = "make the pool's idle timeout shorter than the peer's keep-alive timeout";
    finding.say(Label::Fix, fix.to_owned());
    let not =
        "TCP keepalive: it is another thing than HTTP keep-alive, and the peer has closed already";
    finding.say(Label::Not, not.to_owned());
    finding.number("service", service.text());
    finding.number("count", n);
    finding.number("close_wait_p50_ns", half);
    let most: Value = closes.late.quantile_ns(0.99).into();
    finding.number("close_wait_p99_ns", most);
    Some(finding)
}

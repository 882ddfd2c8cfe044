//! Connections that end by RST.

use super::case::Case;
use super::finding::{Finding, Id, Label, Severity};
use super::tally::{Closes, Service};
use super::words::{percent, rate};
use crate::report::snapshot::thousands;
use crate::tuple::Role;

/// Fewer than this, or a smaller share of all that ended, is everyday life.
const LEAST: u64 = 20;
const SHARE: u64 = 10;

/// A finding for each service with many of them.
pub(super) fn find(case: &Case<'_>) -> Vec<Finding> {
    let services = case.tally.services.iter();
    services
        .filter_map(|(service, closes)| aborted(case, service, closes))
        .collect()
}

fn aborted(case: &Case<'_>, service: &Service, closes: &Closes) -> Option<Finding> {
    let n = closes.reset_by_us + closes.reset_by_peer;
    let ended = n.max(closes.by_us + closes.by_peer);
    if n < LEAST || n * 100 < ended * SHARE {
        return None;
    }
    let side = match service.role {
        Some(Role::Active) => "connections to",
        _ => "connections from clients to",
    };
    let headline = format!(
        "{} {side} {} ended by RST ({} of those that ended, {})",
        thousands(n),
        service.text(),
        percent(n, ended),
        rate(n as f64 * 1e9 / case.span_ns.max(1) as f64)
    );
    let mut finding = Finding::new(Id::AbortedCloses, Severity::Notice, n, headline);
    let text = format!(
        "{} were sent by us, {} by the peer",
        thousands(closes.reset_by_us),
        thousands(closes.reset_by_peer)
    );
    finding.say(Label::What, text);
    let text = "sends a RST for close() with unread data, for SO_LINGER 0, and for segments to a socket \
                that is closed";
    finding.say(Label::Kernel, text.to_owned());
    let fix = match closes.reset_by_us > closes.reset_by_peer {
        true => "read what the peer has sent before close(), and do without SO_LINGER 0",
        false => "look at the peer: it closes with unread data, by SO_LINGER 0, or ends",
    };
    finding.say(Label::Fix, fix.to_owned());
    finding.number("service", service.text());
    finding.number("reset_by_us", closes.reset_by_us);
    finding.number("reset_by_peer", closes.reset_by_peer);
    finding.number("ended", ended);
    Some(finding)
}

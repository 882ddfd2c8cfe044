//! FIN_WAIT_2: of closed sockets, and of those that were only shut down.

use std::collections::BTreeMap;

use super::case::{Case, Who, ages};
use super::finding::{Finding, Id, Label, Severity};
use super::time_wait::Buckets;
use super::words::{percent, sockets, who};
use crate::report::snapshot::thousands;
use crate::state::TcpState;
use crate::tracker::Outstanding;
use crate::verdict::Verdict;

/// So many orphans are worth a word.
const MANY: u64 = 1_000;

/// A share of tcp_max_orphans, in percent.
const NEAR: u64 = 50;

/// Findings about both.
pub(super) fn find(case: &Case<'_>) -> Vec<Finding> {
    let mut findings = orphans(case);
    findings.extend(half_closed(case));
    findings
}

fn orphans(case: &Case<'_>) -> Vec<Finding> {
    let orphan = Some(Verdict::OrphanTimer);
    let by_netns = case.by_netns(|view| view.state == TcpState::FinWait2 && view.verdict == orphan);
    by_netns
        .iter()
        .filter_map(|(netns, orphans)| orphans_of(case, *netns, orphans))
        .collect()
}

fn orphans_of(case: &Case<'_>, netns: Option<u32>, orphans: &[&Outstanding]) -> Option<Finding> {
    let n = orphans.len() as u64;
    let full = orphans.iter().filter(|s| !s.view.mini).count() as u64;
    let most = max_orphans(case);
    let timeout = case
        .tracker
        .setting_number(netns, "net.ipv4.tcp_fin_timeout");
    let near = most.is_some_and(|most| full * 100 >= most * NEAR);
    let buckets = Buckets::of(case, netns);
    // Else it is TIME_WAIT that fills the table.
    let mainly = buckets.fin_wait2 > buckets.time_wait;
    let severity = match buckets.severity().filter(|_| mainly) {
        _ if near => Severity::Warning,
        Some(severity) => severity,
        None if n < MANY => return None,
        None if buckets.most.is_none() || (full > 0 && most.is_none()) => Severity::Notice,
        None => Severity::Info,
    };
    let headline = format!(
        "{} that we closed wait in FIN_WAIT_2 for peers that do not close",
        sockets(n)
    );
    let mut finding = Finding::new(Id::FinWait2Orphans, severity, n, headline);
    let text = format!(
        "{} are minisockets, {} full sockets that count against tcp_max_orphans{}",
        thousands(n - full),
        thousands(full),
        most.map_or(String::new(), |most| format!(
            " ({} of {})",
            percent(full, most),
            thousands(most)
        ))
    );
    finding.say(Label::What, text);
    if severity == Severity::Info {
        let text = "harmless as they are: no limit is near, and each ends by itself";
        finding.say(Label::What, text.to_owned());
    }
    let text = buckets.most.map(|most| {
        let used = buckets.used();
        format!(
            "{} of net.ipv4.tcp_max_tw_buckets ({}) are used by minisockets, {} of them in TIME_WAIT; \
             beyond it what is closed gets neither FIN_WAIT_2 nor TIME_WAIT",
            percent(used, most),
            thousands(most),
            thousands(buckets.time_wait)
        )
    });
    finding.say(Label::Kernel, text);
    let text = match timeout {
        Some(s @ 61..) => format!(
            "net.ipv4.tcp_fin_timeout = {s}: above 60 s such a socket stays full for {} s, and then a \
             minisocket for as long again",
            s - 60
        ),
        Some(s) => format!("net.ipv4.tcp_fin_timeout = {s}: each ends after that many seconds"),
        None => "each ends after net.ipv4.tcp_fin_timeout".to_owned(),
    };
    finding.say(Label::Kernel, text);
    let fix = "the peers do not close what we have closed: they have the CLOSE_WAIT, look there";
    finding.say(Label::Fix, fix.to_owned());
    let not = "tcp_max_orphans = 0 or TCP_LINGER2 < 0: peers that are only slow get a RST instead of our data";
    finding.say(Label::Not, not.to_owned());
    finding.number("count", n);
    finding.number("full", full);
    finding.number("max_orphans", most);
    finding.number("time_wait", buckets.time_wait);
    finding.number("max_tw_buckets", buckets.most);
    finding.number("fin_timeout_s", timeout);
    Some(finding)
}

/// The limit is that of the whole machine, which shows it in its first namespace only.
fn max_orphans(case: &Case<'_>) -> Option<u64> {
    let namespaces = case.tracker.namespaces_read();
    let setting = |netns| {
        case.tracker
            .setting_number(Some(netns), "net.ipv4.tcp_max_orphans")
    };
    namespaces.into_iter().find_map(setting)
}

fn half_closed(case: &Case<'_>) -> Vec<Finding> {
    let mut by_owner: BTreeMap<Who, Vec<&Outstanding>> = BTreeMap::new();
    for socket in case.stuck(TcpState::FinWait2) {
        if socket.view.verdict == Some(Verdict::HalfClosed) {
            let owner = Who::of(&socket.view);
            by_owner.entry(owner).or_default().push(socket);
        }
    }
    let one = |(owner, sockets): (Who, Vec<&Outstanding>)| half_closed_by(case, &owner, &sockets);
    by_owner.into_iter().map(one).collect()
}

fn half_closed_by(case: &Case<'_>, owner: &Who, half: &[&Outstanding]) -> Finding {
    const MANY: u64 = 10;
    let n = half.len() as u64;
    let (oldest, _) = ages(half);
    let severity = match n {
        MANY.. => Severity::Warning,
        _ => Severity::Notice,
    };
    let headline = format!(
        "{} in FIN_WAIT_2 were shut down and not closed, oldest {oldest}",
        sockets(n)
    );
    let mut finding = Finding::new(Id::HalfClosed, severity, n, headline);
    finding.say(Label::Who, who(owner));
    let text =
        "our side called shutdown(SHUT_WR) and keeps the descriptor; the peer has not closed";
    finding.say(Label::What, text.to_owned());
    let text = "never ends these: tcp_fin_timeout counts from close(), not from shutdown()";
    finding.say(Label::Kernel, text.to_owned());
    super::places::tell(case, half, &mut finding);
    let fix = "after shutdown() read to the end with a time limit, and then close()";
    finding.say(Label::Fix, fix.to_owned());
    let not = "a smaller tcp_fin_timeout: these sockets are open";
    finding.say(Label::Not, not.to_owned());
    finding.owner(owner);
    finding.number("count", n);
    finding.number("oldest_age_ns", oldest.at_least());
    finding
}

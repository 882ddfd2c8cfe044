//! Listeners with more half-open requests than there is room for.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::accept;
use super::case::{Case, Who, tally};
use super::finding::{Finding, Id, Label, Severity};
use super::words::{list, rate, who};
use crate::change::View;
use crate::report::snapshot::thousands;
use crate::state::TcpState;
use crate::time::duration_text;

/// Listeners that are told of.
const TOLD: usize = 3;

/// The setting that makes the kernel count every SYN as one that found no room.
const ALWAYS: &str = "2";

/// A finding for each namespace in which SYNs found no room.
pub(super) fn find(case: &Case<'_>) -> Vec<Finding> {
    let namespaces = case.tracker.namespaces_read().into_iter();
    namespaces
        .filter_map(|netns| {
            let counts = Counts::of(case, netns);
            let queues = Queue::all(case, netns);
            let unproven = counts.unproven(case, netns, &queues);
            full(case, netns, &counts, unproven, &queues)
        })
        .collect()
}

/// What the kernel counted, of all listeners of a namespace.
struct Counts {
    /// SYNs that were dropped, as there was no room.
    dropped: u64,
    /// SYNs that were to get a cookie instead.
    cookies: u64,
    /// Cookies that went out, and that came back.
    sent: Option<u64>,
    returned: Option<u64>,
    /// Drops that have no counter of their own.
    other: u64,
}

impl Counts {
    fn of(case: &Case<'_>, netns: u32) -> Counts {
        let counted = |name| case.tracker.counted(netns, name);
        let mode = case.tracker.setting(Some(netns), "net.ipv4.tcp_syncookies");
        let dropped = counted("TcpExt.TCPReqQFullDrop").unwrap_or(0);
        let accept = counted("TcpExt.ListenOverflows").unwrap_or(0);
        let drops = counted("TcpExt.ListenDrops").unwrap_or(0);
        Counts {
            dropped,
            cookies: match mode {
                Some(ALWAYS) => 0,
                _ => counted("TcpExt.TCPReqQFullDoCookies").unwrap_or(0),
            },
            sent: counted("TcpExt.SyncookiesSent"),
            returned: counted("TcpExt.SyncookiesRecv"),
            other: drops.saturating_sub(accept + dropped),
        }
    }

    /// Without cookies the last quarter of tcp_max_syn_backlog is kept for peers that are known. What
    /// is dropped for that is counted among other drops only.
    fn unproven(&self, case: &Case<'_>, netns: u32, queues: &[Queue]) -> u64 {
        let setting = |name| case.tracker.setting_number(Some(netns), name);
        let off = setting("net.ipv4.tcp_syncookies") == Some(0);
        let most = setting("net.ipv4.tcp_max_syn_backlog").unwrap_or(u64::MAX);
        let reached = queues.iter().any(|q| q.requests >= most - most / 4);
        if off && reached { self.other } else { 0 }
    }

    /// Whether clients answered what they got: real ones do.
    fn answered(&self) -> Option<bool> {
        let (sent, returned) = self.sent.zip(self.returned)?;
        (sent > 0).then_some(returned * 2 >= sent)
    }
}

/// The half-open requests of a listener, or of several that share an address.
struct Queue {
    listener: View,
    requests: u64,
    /// Where they come from.
    peers: Vec<(IpAddr, u64)>,
    /// What it dropped, but not for a full accept queue. Repeated SYNs of open requests are among it.
    drops: Option<u64>,
}

impl Queue {
    /// Those of a namespace, the fullest first.
    fn all(case: &Case<'_>, netns: u32) -> Vec<Queue> {
        let netns = Some(netns);
        let here = case.tracker.listeners().filter(|l| l.tuple.netns == netns);
        let listeners: BTreeMap<u64, View> = here.map(|l| (l.id.cookie, l)).collect();
        let half_open = |view: &View| view.state == TcpState::SynRecv && view.tuple.netns == netns;
        let mut requests = case.by_listener(half_open);
        let queue = |listener: View| {
            let requests = requests.remove(&listener.tuple).unwrap_or_default();
            Queue {
                drops: drops(case, &listener),
                listener,
                requests: requests.len() as u64,
                peers: tally(requests.iter().map(|s| s.view.tuple.remote.ip())),
            }
        };
        let mut queues: Vec<Queue> = listeners.into_values().map(queue).collect();
        queues.retain(|q| q.requests > 0 || q.drops.is_some_and(|n| n > 0));
        queues.sort_by_key(|q| Reverse((q.is_full(), q.drops, q.requests)));
        queues
    }

    /// The limit is that of the accept queue.
    fn is_full(&self) -> bool {
        let limit = self.listener.send_q.map(u64::from);
        limit.is_some_and(|limit| self.requests >= limit)
    }

    fn text(&self) -> String {
        let limit = self.listener.send_q.map(|n| u64::from(n) + 1);
        let fit = limit.map_or(String::new(), |n| format!(", {} fit", thousands(n)));
        let drops = self.drops.filter(|n| *n > 0);
        let drops = drops.map_or(String::new(), |n| format!(", ~{} dropped", thousands(n)));
        format!(
            "{} of {}: {} half-open{fit}{drops}",
            self.listener.tuple.local,
            who(&Who::of(&self.listener)),
            thousands(self.requests)
        )
    }

    fn object(&self) -> Value {
        let owner = &self.listener.owner;
        json!({
            "listener": self.listener.tuple.local.to_string(),
            "pid": owner.pid,
            "comm": owner.comm.map(|comm| comm.to_text()),
            "requests": self.requests,
            "limit": self.listener.send_q,
            "drops": self.drops,
        })
    }
}

fn drops(case: &Case<'_>, listener: &View) -> Option<u64> {
    let all = case.tracker.listener_drops(listener.id.cookie)?;
    let netns = listener.tuple.netns?;
    if case.tracker.counted(netns, "TcpExt.ListenOverflows") == Some(0) {
        return Some(all);
    }
    let mut accept = case.tracker.overflow_lines().into_iter();
    match accept.find(|line| line.view.id == listener.id) {
        // All its drops are taken for those of the accept queue.
        Some(line) if line.estimated => None,
        Some(line) => Some(all.saturating_sub(line.dropped)),
        None => Some(all),
    }
}

fn full(
    case: &Case<'_>,
    netns: u32,
    counts: &Counts,
    unproven: u64,
    queues: &[Queue],
) -> Option<Finding> {
    let dropped = counts.dropped + unproven;
    let n = dropped + counts.cookies;
    if n == 0 {
        return None;
    }
    let answered = counts.answered();
    let severity = match (dropped, answered) {
        (1.., _) => Severity::Critical,
        (0, Some(true)) => Severity::Notice,
        (0, _) => Severity::Warning,
    };
    let who = match queues {
        [only] => only.listener.tuple.local.to_string(),
        [first, second, ..] if first.is_full() && !second.is_full() => {
            first.listener.tuple.local.to_string()
        }
        _ => format!("a listener of network namespace {netns}"),
    };
    let does = match dropped {
        0 => "answers SYNs with cookies",
        _ => "drops SYNs",
    };
    let headline = format!(
        "{who} {does}: {} in {} ({}) found no room for a half-open request",
        thousands(n),
        duration_text(case.span_ns),
        rate(n as f64 * 1e9 / case.span_ns.max(1) as f64)
    );
    let requests: u64 = queues.iter().map(|q| q.requests).sum();
    let mut finding = Finding::new(Id::SynQueueFull, severity, requests.max(1), headline);
    for queue in queues.iter().take(TOLD) {
        finding.say(Label::Who, queue.text());
    }
    if queues.is_empty() {
        let text = "which listener is not known: none has half-open requests any more";
        finding.say(Label::Who, text.to_owned());
    }
    finding.say(Label::What, peers(queues));
    finding.say(Label::What, cookies(counts));
    finding.say(Label::Also, accept_full(queues));
    kernel(case, queues, dropped, &mut finding);
    advice(dropped, answered, &mut finding);
    finding.number("netns", netns);
    finding.number("dropped", counts.dropped);
    finding.number("dropped_unproven", unproven);
    finding.number("cookies", counts.cookies);
    finding.number("cookies_sent", counts.sent);
    finding.number("cookies_returned", counts.returned);
    let told: Vec<Value> = queues.iter().take(TOLD).map(Queue::object).collect();
    finding.number("listeners", told);
    Some(finding)
}

/// Whose requests are open.
fn peers(queues: &[Queue]) -> Option<String> {
    let mut by_peer: BTreeMap<IpAddr, u64> = BTreeMap::new();
    for (ip, n) in queues.iter().flat_map(|queue| &queue.peers) {
        *by_peer.entry(*ip).or_default() += n;
    }
    let mut by_peer: Vec<(String, u64)> = by_peer
        .into_iter()
        .map(|(ip, n)| (ip.to_string(), n))
        .collect();
    by_peer.sort_by_key(|(_, n)| Reverse(*n));
    (!by_peer.is_empty()).then(|| {
        format!(
            "half-open requests wait for the last ACK of the handshake, or with TCP_DEFER_ACCEPT for the \
             first data: from {}",
            list(&by_peer)
        )
    })
}

/// Whether the clients are real.
fn cookies(counts: &Counts) -> Option<String> {
    let answered = counts.answered()?;
    let (sent, returned) = counts.sent.zip(counts.returned)?;
    let (sent, returned) = (thousands(sent), thousands(returned));
    Some(match answered {
        true => format!("of {sent} cookies {returned} came back: the clients are real"),
        false => format!(
            "of {sent} cookies {returned} came back: a SYN flood, or clients that our answers do not \
             reach"
        ),
    })
}

fn accept_full(queues: &[Queue]) -> Option<String> {
    let both = queues.iter().find(|queue| {
        let listener = &queue.listener;
        let lengths = listener.recv_q.zip(listener.send_q);
        lengths.is_some_and(|(n, most)| n > most)
    })?;
    Some(format!(
        "the accept queue of {} is full, too: last ACKs are dropped, and their requests stay half-open; \
         look there first",
        both.listener.tuple.local
    ))
}

fn kernel(case: &Case<'_>, queues: &[Queue], dropped: u64, finding: &mut Finding) {
    let text = match dropped {
        0 => {
            "keeps nothing of a SYN that it answers with a cookie: such a connection works, but without \
             window scaling and SACK unless the client sends timestamps"
        }
        _ => {
            "drops such SYNs without an answer, as tcp_syncookies is 0: clients try again after 1 s, 3 s, \
             7 s, and see a slow connect() or ETIMEDOUT"
        }
    };
    finding.say(Label::Kernel, text.to_owned());
    let limit = queues.first().and_then(|queue| {
        let by = accept::limit_by(case, &queue.listener)?;
        Some(format!(
            "has one limit for half-open requests and for the accept queue, which comes from {by}"
        ))
    });
    finding.say(Label::Kernel, limit);
}

fn advice(dropped: u64, answered: Option<bool>, finding: &mut Finding) {
    if dropped > 0 {
        let text = "sysctl -w net.ipv4.tcp_syncookies=1  (in the namespace of the listener)";
        finding.say(Label::Now, text.to_owned());
    }
    let fix = match answered {
        Some(false) => {
            "leave cookies on, they carry the service through it; stop the flood before it comes here, or \
             mend the way back to the clients"
        }
        _ => {
            "a greater backlog, in listen() and in net.core.somaxconn, so that bursts of clients fit; with \
             TCP_DEFER_ACCEPT clients that say nothing take its room: do without it"
        }
    };
    finding.say(Label::Fix, fix.to_owned());
    let not = match dropped {
        0 => {
            "tcp_max_syn_backlog: with cookies on it is not looked at; accepting faster: these are no \
             connections yet"
        }
        _ => {
            "tcp_max_syn_backlog alone: listen()'s backlog limits half-open requests, too; accepting \
             faster: these are no connections yet"
        }
    };
    finding.say(Label::Not, not.to_owned());
}

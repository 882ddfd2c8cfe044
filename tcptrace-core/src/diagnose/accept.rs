//! Listeners whose queue nobody empties.

use std::collections::BTreeMap;

use super::case::{Case, Who};
use super::finding::{Finding, Id, Label, Severity};
use super::words::{rate, sockets, who};
use crate::change::View;
use crate::report::snapshot::thousands;
use crate::state::TcpState;
use crate::time::{Age, duration_text};
use crate::tracker::Outstanding;
use crate::tuple::{Role, Tuple};

/// A finding for each listener whose queue is or was full, and one for each in whose queue there are
/// connections that the client has given up.
pub(super) fn find(case: &Case<'_>) -> Vec<Finding> {
    let listeners: Vec<View> = case.tracker.listeners().collect();
    let waiting = case.by_listener(|view| view.role == Some(Role::Unaccepted));
    let full = full(case, &listeners, &waiting);
    let given_up = waiting.iter().filter_map(|(tuple, sockets)| {
        let listener = listeners.iter().find(|l| l.tuple == *tuple)?;
        given_up(case, listener, sockets)
    });
    full.into_iter().chain(given_up).collect()
}

fn full(
    case: &Case<'_>,
    listeners: &[View],
    waiting: &BTreeMap<Tuple, Vec<&Outstanding>>,
) -> Vec<Finding> {
    let mut dropping = case.tracker.overflow_lines();
    // Where all drops of a listener are taken for those of its queue, the kernel knows better.
    dropping.retain(|line| {
        let netns = line.view.tuple.netns;
        let counted = netns.and_then(|n| case.tracker.counted(n, "TcpExt.ListenOverflows"));
        !line.estimated || counted != Some(0)
    });
    let now_full = |l: &&View| l.recv_q.zip(l.send_q).is_some_and(|(n, most)| n > most);
    let only_full = listeners.iter().filter(now_full);
    let only_full = only_full.filter(|l| dropping.iter().all(|d| d.view.tuple != l.tuple));
    let dropped = dropping.iter().map(|line| {
        // What it has now says more than what it had then.
        let now = listeners.iter().find(|l| l.tuple == line.view.tuple);
        (now.unwrap_or(&line.view), line.dropped, line.estimated)
    });
    let all = dropped.chain(only_full.map(|l| (l, 0, false)));
    all.map(|(listener, dropped, estimated)| {
        let none = Vec::new();
        let queue = waiting.get(&listener.tuple).unwrap_or(&none);
        one_full(case, listener, (dropped, estimated), queue)
    })
    .collect()
}

fn one_full(
    case: &Case<'_>,
    listener: &View,
    (dropped, estimated): (u64, bool),
    queue: &[&Outstanding],
) -> Finding {
    let severity = match dropped {
        0 => Severity::Warning,
        _ => Severity::Critical,
    };
    let local = listener.tuple.local;
    let now = listener.recv_q.zip(listener.send_q);
    let queue_text = match now {
        Some((n, most)) => format!(
            "{} wait to be accepted, {} fit",
            thousands(u64::from(n)),
            thousands(u64::from(most) + 1)
        ),
        None => "how many wait is not known".to_owned(),
    };
    let mark = if estimated { "~" } else { "" };
    let headline = match dropped {
        0 => format!("the accept queue of {local} is full: {queue_text}"),
        n => format!(
            "{local} drops connections: {mark}{} in {} ({}), {queue_text}",
            thousands(n),
            duration_text(case.span_ns),
            rate(n as f64 * 1e9 / case.span_ns.max(1) as f64)
        ),
    };
    let n = now.map_or(0, |(n, _)| u64::from(n));
    let mut finding = Finding::new(Id::AcceptQueueFull, severity, n.max(1), headline);
    let owner = Who::of(listener);
    let cmdline = listener.owner.cmdline.as_deref();
    finding.say(Label::Who, who(&owner));
    if let Some(pid) = owner.pid {
        finding.say(Label::What, doing(case, pid));
    }
    let given_up = queue.iter().filter(|s| s.view.state == TcpState::CloseWait);
    let given_up = given_up.count() as u64;
    if given_up > 0 {
        let text = format!(
            "of those that wait, {} clients have gone already (CLOSE_WAIT that belongs to no process yet)",
            thousands(given_up)
        );
        finding.say(Label::Also, text);
    }
    finding.say(Label::Kernel, limit(case, listener));
    let fix = "accept faster: look at what the process waits for instead, and let no slow work run in \
               the thread that accepts";
    finding.say(Label::Fix, fix.to_owned());
    let not = "a greater backlog (net.core.somaxconn and listen()) helps against bursts only; \
               tcp_max_syn_backlog and tcp_syncookies are about another queue";
    finding.say(Label::Not, not.to_owned());
    finding.number("listener", local.to_string());
    finding.owner(&owner);
    finding.number("cmdline", cmdline);
    finding.number("dropped", dropped);
    finding.number("dropped_estimated", estimated);
    finding.number("waiting", now.map(|(n, _)| n));
    finding.number("limit", now.map(|(_, most)| most));
    finding.number("given_up", given_up);
    finding
}

/// What threads of the process wait for, if they wait at sockets.
fn doing(case: &Case<'_>, pid: u32) -> Option<String> {
    let activity = case.tracker.activity(pid)?;
    let blocked = activity.blocked.len();
    (blocked > 0).then(|| {
        let thread = &activity.blocked[0];
        format!(
            "{blocked} of its {} threads wait at sockets: {} in {}(fd {})",
            activity.threads, thread.comm, thread.call, thread.fd
        )
    })
}

fn limit(case: &Case<'_>, listener: &View) -> Option<String> {
    limit_by(case, listener).map(|by| {
        format!(
            "drops SYNs and last ACKs without an answer while the queue is full, so clients see timeouts; \
             its limit comes from {by}"
        )
    })
}

/// Where the limit comes from: listen()'s argument, and no more than net.core.somaxconn.
pub(super) fn limit_by(case: &Case<'_>, listener: &View) -> Option<String> {
    let limit = u64::from(listener.send_q?);
    let most = case
        .tracker
        .setting_number(listener.tuple.netns, "net.core.somaxconn");
    Some(match most {
        Some(most) if most <= limit => format!("net.core.somaxconn = {most}"),
        Some(most) => format!("listen()'s argument; net.core.somaxconn is {most}"),
        None => "listen()'s argument and net.core.somaxconn".to_owned(),
    })
}

fn given_up(case: &Case<'_>, listener: &View, waiting: &[&Outstanding]) -> Option<Finding> {
    let least = case.min_age_ns;
    let old = |age: Age| age.at_least().unwrap_or(0) >= least;
    let gone: Vec<&&Outstanding> = waiting
        .iter()
        .filter(|s| s.view.state == TcpState::CloseWait && old(s.view.age))
        .collect();
    let n = gone.len() as u64;
    let oldest = gone.iter().map(|s| s.view.age);
    let oldest = oldest.max_by_key(|age| age.at_least())?;
    let local = listener.tuple.local;
    let headline = format!(
        "{} in CLOSE_WAIT that nobody has accepted, in the queue of {local}, oldest {oldest}",
        sockets(n)
    );
    let mut finding = Finding::new(Id::CloseWaitUnaccepted, Severity::Warning, n, headline);
    let owner = Who::of(listener);
    finding.say(Label::Who, format!("the listener is of {}", who(&owner)));
    let all = waiting.len() as u64;
    let text = format!(
        "the clients connected and have closed again; {} wait in that queue in all",
        thousands(all)
    );
    finding.say(Label::What, text);
    let unread = gone.iter().filter(|s| s.view.recv_q.is_some_and(|q| q > 1));
    let unread = unread.count() as u64;
    if unread > 0 {
        let text = format!(
            "{} of them brought requests that nobody has read",
            thousands(unread)
        );
        finding.say(Label::App, text);
    }
    if let Some(pid) = owner.pid {
        finding.say(Label::Also, doing(case, pid));
    }
    let text = "no process has these sockets: lsof and netstat show no owner, and killing them helps \
                nobody while the acceptor stands still";
    finding.say(Label::Kernel, text.to_owned());
    let fix = "find out why the process does not accept: it is stopped, busy, or waits for something else";
    finding.say(Label::Fix, fix.to_owned());
    let not = "closing more in the code: no code has these connections yet";
    finding.say(Label::Not, not.to_owned());
    finding.number("listener", local.to_string());
    finding.owner(&owner);
    finding.number("count", n);
    finding.number("waiting", all);
    finding.number("unread", unread);
    finding.number("oldest_age_ns", oldest.at_least());
    Some(finding)
}

//! Threads that wait in a write to a peer that does not read.

use std::collections::{BTreeMap, BTreeSet};

use super::case::{Case, Who};
use super::finding::{Finding, Id, Label, Severity};
use super::words::who;
use crate::change::View;
use crate::host::{Activity, Blocked};
use crate::report::snapshot::thousands;
use crate::time::{Mono, duration_text};
use crate::tuple::ConnId;

/// The calls that write.
const WRITES: [&str; 6] = [
    "write", "writev", "sendto", "sendmsg", "sendmmsg", "sendfile",
];

/// A finding for each process with such threads.
pub(super) fn find(case: &Case<'_>) -> Vec<Finding> {
    let activities = || case.tracker.activities();
    let threads = activities().flat_map(|activity| &activity.blocked);
    let views = case
        .tracker
        .by_inodes(&threads.map(|thread| thread.inode).collect());
    let ids: BTreeSet<ConnId> = views.values().map(|view| view.id).collect();
    let known = case.sockets.iter().filter(|s| ids.contains(&s.view.id));
    let sockets = Sockets {
        sent: known
            .filter_map(|s| Some((s.view.id, s.sent_at?)))
            .collect(),
        views,
    };
    activities()
        .filter_map(|activity| blocked(case, activity, &sockets))
        .collect()
}

/// The sockets at which threads wait.
struct Sockets {
    /// By inode.
    views: BTreeMap<u32, View>,
    /// When data was last sent.
    sent: BTreeMap<ConnId, Mono>,
}

fn blocked(case: &Case<'_>, activity: &Activity, sockets: &Sockets) -> Option<Finding> {
    let writes = |thread: &&Blocked| WRITES.contains(&&*thread.call);
    let threads = activity.blocked.iter().filter(writes);
    let waits = threads.filter_map(|thread| Wait::of(activity, thread, sockets));
    let mut waits: Vec<Wait<'_>> = waits.filter(|wait| wait.ns >= case.min_age_ns).collect();
    waits.sort_by_key(|wait| std::cmp::Reverse(wait.ns));
    let first = waits.first()?;
    let n = waits.len() as u64;
    let all = waits.len() as u32 >= activity.threads;
    let severity = match all {
        true => Severity::Critical,
        false => Severity::Warning,
    };
    let headline = format!(
        "{n} of {} threads of pid {} wait in {}() for {}: the peer does not read",
        activity.threads,
        activity.pid,
        first.thread.call,
        first.time()
    );
    let mut finding = Finding::new(Id::BlockedWriter, severity, n, headline);
    finding.say(Label::Who, who(&Who::of(first.view)));
    for wait in waits.iter().take(3) {
        let thread = wait.thread;
        let text = format!(
            "thread {} ({}) in {}(fd {} -> {}), Send-Q {}, for {}",
            thread.tid,
            thread.comm,
            thread.call,
            thread.fd,
            wait.view.tuple.remote,
            thousands(u64::from(wait.view.send_q.unwrap_or(0))),
            wait.time()
        );
        finding.say(Label::What, text);
    }
    let text =
        "waits until the peer's window opens; while the peer answers window probes this has no end";
    finding.say(Label::Kernel, text.to_owned());
    if all {
        let text = "no thread is left to accept, to read or to close: that is why other connections wait \
                    at 0 % CPU";
        finding.say(Label::Also, text.to_owned());
    }
    let fix = "write without blocking (O_NONBLOCK and EPOLLOUT), or with SO_SNDTIMEO or TCP_USER_TIMEOUT, \
               and close what takes too long";
    finding.say(Label::Fix, fix.to_owned());
    let not = "greater buffers (tcp_wmem): they fill up as well; TCP keepalive: the peer lives and answers";
    finding.say(Label::Not, not.to_owned());
    finding.number("pid", activity.pid);
    finding.number("threads", activity.threads);
    finding.number("blocked", n);
    finding.number("call", &*first.thread.call);
    finding.number("fd", first.thread.fd);
    finding.number("peer", first.view.tuple.remote.to_string());
    finding.number("send_q", first.view.send_q);
    finding.number("blocked_ns", first.ns);
    Some(finding)
}

/// A thread that waits in a write.
struct Wait<'a> {
    thread: &'a Blocked,
    view: &'a View,
    /// For about so long.
    ns: u64,
}

impl<'a> Wait<'a> {
    /// `None`: there is nothing that it could wait to send. It was seen to wait for some time; how long
    /// before, the socket tells: no data has gone out since about when the wait began.
    fn of(activity: &Activity, thread: &'a Blocked, sockets: &'a Sockets) -> Option<Wait<'a>> {
        let view = sockets.views.get(&thread.inode)?;
        view.send_q.filter(|bytes| *bytes > 0)?;
        let seen = activity.at.since(thread.since);
        let sent = sockets.sent.get(&view.id);
        let silent = sent.map_or(0, |at| activity.at.since(*at));
        Some(Wait {
            thread,
            view,
            ns: seen.max(silent),
        })
    }

    fn time(&self) -> String {
        format!("~{}", duration_text(self.ns))
    }
}

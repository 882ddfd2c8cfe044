//! Sockets that the peer has closed, and their owner has not.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::case::{Case, Who, ages, tally};
use super::finding::{Finding, Id, Label, Severity};
use super::idle::{self, Silence, Verdict as Closed};
use super::words::{list, of, sockets, who};
use super::{files, places};
use crate::report::snapshot::thousands;
use crate::report::summary::Key;
use crate::state::TcpState;
use crate::text::escape;
use crate::time::{Age, duration_text};
use crate::tracker::Outstanding;
use crate::tuple::Role;
use crate::verdict::Verdict;

/// So many are no accident.
const MANY: u64 = 100;

/// So many are no accident if there are more than there were.
const SOME: u64 = 10;

/// So many, and more than there were, are a catastrophe on its way.
const VERY_MANY: u64 = 1_000;

/// Processes and peers that are told of in numbers.
const TOLD: usize = 10;

const CLIENT_FIX: &str = "close the connection when its response has been read, also on errors, or \
                          give it back to a pool that drops idle ones";

const END_READ_FIX: &str = "close the socket when a read returns 0: EPOLLIN with EPOLLRDHUP is the end, \
                            EPOLLHUP does not come before both sides have closed";

const SERVER_FIX: &str = "read from the client while working for it, or watch for EPOLLRDHUP, and close \
                          when it has gone; give the work a time limit";

const OTHER_STATES: &str = "tcp_tw_reuse, tcp_fin_timeout and tcp_max_tw_buckets: they are about \
                            TIME_WAIT and FIN_WAIT_2, and CLOSE_WAIT has no time limit";

/// A finding for each program, and for what it connected and accepted: its processes do the same.
pub(super) fn find(case: &Case<'_>) -> Vec<Finding> {
    let mut groups: BTreeMap<_, Vec<&Outstanding>> = BTreeMap::new();
    for socket in case.stuck(TcpState::CloseWait) {
        if socket.view.role != Some(Role::Unaccepted) {
            let client = socket.view.role == Some(Role::Active);
            let program = program(socket);
            groups.entry((program, client)).or_default().push(socket);
        }
    }
    let groups = groups.into_iter();
    groups
        .map(|((_, client), sockets)| Group::new(client, sockets).finding(case))
        .collect()
}

/// What processes of one program have in common. Of one whose arguments are not known nobody can say
/// what it runs: it stands for itself.
fn program(socket: &Outstanding) -> (Who, Option<Arc<str>>) {
    let who = Who::of(&socket.view);
    match socket.view.owner.cmdline.clone() {
        Some(cmdline) => (Who { pid: None, ..who }, Some(cmdline)),
        None => (who, None),
    }
}

/// Sockets of one program.
struct Group<'a> {
    client: bool,
    stuck: Vec<&'a Outstanding>,
    who: Who,
    /// The processes, the one with the most first.
    pids: Vec<(u32, u64)>,
}

impl<'a> Group<'a> {
    fn new(client: bool, stuck: Vec<&'a Outstanding>) -> Group<'a> {
        Group {
            client,
            who: stuck.first().map(|s| Who::of(&s.view)).unwrap_or_default(),
            pids: tally(stuck.iter().filter_map(|s| s.view.owner.pid)),
            stuck,
        }
    }

    fn n(&self) -> u64 {
        self.stuck.len() as u64
    }

    fn finding(&self, case: &Case<'_>) -> Finding {
        let n = self.n();
        let growth = case.growth(&self.stuck, self.client);
        let (oldest, half) = ages(&self.stuck);
        let grows = growth.more().is_some_and(|more| more > 0);
        let severity = match n {
            VERY_MANY.. if grows => Severity::Critical,
            MANY.. => Severity::Warning,
            SOME.. if grows => Severity::Warning,
            _ => Severity::Notice,
        };
        let headline = format!(
            "{} stuck in CLOSE_WAIT{}, oldest {oldest}",
            sockets(n),
            growth.text()
        );
        let id = match self.client {
            true => Id::CloseWaitClient,
            false => Id::CloseWaitServer,
        };
        let mut finding = Finding::new(id, severity, n, headline);
        self.owner(case, &mut finding);
        let timeout = self.closed_first(&mut finding);
        let read = app(&self.stuck, &mut finding);
        let keepalive = kernel(case, &self.stuck, &mut finding);
        places::tell(case, &self.stuck, &mut finding);
        let (pid, _) = self.pids.first().copied().unzip();
        // How it is shared between several is not known.
        if self.pids.len() == 1
            && let Some(room) = files::room(case, pid)
            && let Some(left) = growth.time_left(room)
        {
            let text = format!("at this rate the limit of descriptors is reached in {left}");
            finding.say(Label::Also, text);
        }
        self.advice(half, timeout, &read, keepalive, &mut finding);
        finding.number("count", n);
        growth.tell(&mut finding);
        finding.number("oldest_age_ns", oldest.at_least());
        finding.number("median_age_ns", half.at_least());
        let estimated = self.stuck.iter().filter(|s| s.view.age.is_estimated());
        finding.number("ages_estimated", estimated.count());
        finding
    }

    fn owner(&self, case: &Case<'_>, finding: &mut Finding) {
        let (pid, _) = self.pids.first().copied().unzip();
        let first = Who {
            pid,
            ..self.who.clone()
        };
        let cmdline = self
            .stuck
            .first()
            .and_then(|s| s.view.owner.cmdline.as_deref());
        let mut text = who(&first);
        text.push_str(&cmdline.map(command).unwrap_or_default());
        match self.pids.len().checked_sub(1) {
            None | Some(0) => {
                let files = files::text(case, pid);
                text.push_str(&files.map(|files| format!(" · {files}")).unwrap_or_default());
            }
            Some(more) => text.push_str(&format!(" and {more} more processes of it")),
        }
        let peers = tally(
            self.stuck
                .iter()
                .filter_map(|s| Key::Peer.of(&s.view, None)),
        );
        let told: Vec<(String, u64)> = peers.iter().map(|(p, n)| (escape(p), *n)).collect();
        finding.say(Label::Who, format!("{text} · with {}", list(&told)));
        let process = |(pid, count): &(u32, u64)| {
            let activity = case.tracker.activity(*pid);
            json!({
                "pid": pid,
                "count": count,
                "files": activity.and_then(|a| a.files),
                "files_max": activity.and_then(|a| a.files_max),
            })
        };
        let processes: Vec<Value> = self.pids.iter().take(TOLD).map(process).collect();
        finding.number("processes", processes);
        finding.number("comm", self.who.comm.map(|comm| comm.to_text()));
        finding.number("container", self.who.container.clone());
        finding.number("cmdline", cmdline);
        let peer = |(peer, count): &(String, u64)| json!({"peer": peer, "count": count});
        let peers: Vec<Value> = peers.iter().take(TOLD).map(peer).collect();
        finding.number("peers", peers);
    }

    /// The idle timeouts of the peers, where not all are the same: that of most connections first.
    fn timeouts(&self) -> Vec<(String, Silence)> {
        let mut by_peer: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for socket in &self.stuck {
            let peer = Key::Peer.of(&socket.view, None);
            if let (Some(peer), Some(silence)) = (peer, silence(socket)) {
                by_peer.entry(peer).or_default().push(silence);
            }
        }
        let judged = by_peer.into_iter();
        let judged = judged.filter_map(|(peer, samples)| match idle::judge(samples)? {
            Closed::Timeout(silence) => Some((peer, silence)),
            _ => None,
        });
        let mut timeouts: Vec<(String, Silence)> = judged.collect();
        timeouts.sort_by_key(|(_, silence)| Reverse(silence.n));
        let differs = |pair: &[(String, Silence)]| pair[0].1.timeout() != pair[1].1.timeout();
        match timeouts.windows(2).any(differs) {
            true => timeouts,
            false => Vec::new(),
        }
    }

    /// Who closed, and after how long a silence. The shortest idle timeout that shows, if one does.
    fn closed_first(&self, finding: &mut Finding) -> Option<Silence> {
        let closed = idle::judge(self.stuck.iter().filter_map(|s| silence(s)).collect());
        let timeouts = match closed {
            Some(Closed::Timeout(silence)) if silence.n == silence.of => Vec::new(),
            _ if !self.client => Vec::new(),
            _ => self.timeouts(),
        };
        let n = self.n();
        let (we, they, timeout) = match self.client {
            true => ("we connected", "the peer", "the peer's idle timeout is"),
            false => ("they connected", "the client", "the client gives up after"),
        };
        let after = match closed {
            _ if !timeouts.is_empty() => format!(" -> {}", idle::by_peer_text(&timeouts)),
            Some(Closed::Timeout(silence)) => {
                let (about, sample) = (silence.timeout(), silence.sample());
                format!(", {about} after the last byte ({sample}) -> {timeout} ≈ {about}")
            }
            Some(Closed::AtOnce(_)) => ", right after the last byte".to_owned(),
            Some(Closed::Various(silence)) if silence.of > 1 => {
                let half = silence.median();
                format!(", after silences of no common length (median {half})")
            }
            Some(Closed::Various(silence)) => {
                format!(", {} after the last byte", silence.median())
            }
            None => String::new(),
        };
        let all = match n {
            1 => String::new(),
            n => format!(" ({})", of(n, n)),
        };
        let text = format!("{we}, {they} closed first{all}{after}");
        finding.say(Label::What, text);
        finding.number("closed_first", if self.client { "peer" } else { "client" });
        finding.number("silence", idle::object(closed));
        let timeout = |(peer, silence): &(String, Silence)| {
            let Silence {
                early_ns, n, of, ..
            } = silence;
            json!({"peer": peer, "timeout_ns": early_ns, "n": n, "of": of})
        };
        let told: Vec<Value> = timeouts.iter().take(TOLD).map(timeout).collect();
        finding.number("timeouts", told);
        let shortest = timeouts.into_iter().map(|(_, silence)| silence);
        shortest.min_by_key(|s| s.early_ns).or(match closed {
            Some(Closed::Timeout(silence)) => Some(silence),
            _ => None,
        })
    }

    fn advice(
        &self,
        half: Age,
        timeout: Option<Silence>,
        read: &Read,
        keepalive: Keepalive,
        finding: &mut Finding,
    ) {
        let pids: Vec<String> = self.pids.iter().map(|(pid, _)| pid.to_string()).collect();
        if !pids.is_empty() {
            let text = format!(
                "tcptrace kill -p {} -s close_wait --min-age {}  (a dry run; --yes keeps the evidence)",
                pids[..pids.len().min(TOLD)].join(","),
                handy(half)
            );
            finding.say(Label::Now, text);
        }
        let fix = match (self.client, timeout) {
            (true, Some(silence)) => format!(
                "close what is not reused; let the pool drop idle connections before the peer does, after \
                 less than {}, and check one before it is used again",
                silence.timeout()
            ),
            (true, _) => CLIENT_FIX.to_owned(),
            (false, _) if read.end_read > 0 => END_READ_FIX.to_owned(),
            (false, _) => SERVER_FIX.to_owned(),
        };
        finding.say(Label::Fix, fix);
        let probes = match keepalive.on == 0 && keepalive.off > 0 {
            true => "; tcp_keepalive_time: it counts only where the program sets SO_KEEPALIVE",
            false => "",
        };
        finding.say(Label::Not, format!("{OTHER_STATES}{probes}"));
    }
}

/// ` (python3 /srv/app/worker.py …)`.
fn command(cmdline: &str) -> String {
    const SHOWN: usize = 60;
    let text = escape(cmdline);
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!(" ({}…)", &text[..end]),
        None => format!(" ({text})"),
    }
}

/// How long the peer was silent before its FIN, ns. A TLS peer says goodbye first: then what we sent
/// last counts.
pub(super) fn silence(socket: &Outstanding) -> Option<u64> {
    let idle = socket.idle;
    match socket.view.verdict {
        Some(Verdict::CloseNotifyUnread) => idle.sent_ns,
        _ => idle.received_ns.into_iter().chain(idle.sent_ns).min(),
    }
}

/// How much of it the application has read.
#[derive(Clone, Copy, Debug, Default)]
struct Read {
    fin_unread: u64,
    notify_unread: u64,
    data_unread: u64,
    end_read: u64,
    drained: u64,
}

fn app(stuck: &[&Outstanding], finding: &mut Finding) -> Read {
    let mut read = Read::default();
    let mut notify_q = None;
    let mut most_unread = 0;
    for socket in stuck {
        match socket.view.verdict {
            Some(Verdict::FinUnread) => read.fin_unread += 1,
            Some(Verdict::CloseNotifyUnread) => {
                read.notify_unread += 1;
                notify_q = socket.view.recv_q;
            }
            Some(Verdict::DataUnread) => {
                read.data_unread += 1;
                most_unread = most_unread.max(socket.view.recv_q.unwrap_or(0));
            }
            Some(Verdict::EofRead) => read.end_read += 1,
            Some(Verdict::Drained) => read.drained += 1,
            _ => {}
        }
    }
    let notify = notify_q.map_or(String::new(), |q| format!(" (Recv-Q {q})"));
    let most = thousands(u64::from(most_unread));
    let told = [
        (read.fin_unread, "never read the FIN: Recv-Q 1".to_owned()),
        (
            read.notify_unread,
            format!("never read the TLS close_notify{notify} and the FIN"),
        ),
        (
            read.data_unread,
            format!("never read data and the FIN (Recv-Q up to {most})"),
        ),
        (read.end_read, "read the end and ignored it".to_owned()),
        (
            read.drained,
            "left nothing unread, maybe not even the end: Recv-Q 0".to_owned(),
        ),
    ];
    let told = told.into_iter().filter(|(n, _)| *n > 0);
    let told = told.map(|(n, text)| format!("{text} ×{}", thousands(n)));
    let told: Vec<String> = told.collect();
    if !told.is_empty() {
        finding.say(Label::App, told.join(" · "));
    }
    finding.number(
        "unread",
        json!({
            "fin": read.fin_unread,
            "close_notify": read.notify_unread,
            "data": read.data_unread,
            "nothing_end_read": read.end_read,
            "nothing": read.drained,
        }),
    );
    read
}

/// Whether keepalive is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Keepalive {
    on: u64,
    off: u64,
}

/// Whether the kernel will ever end them.
fn kernel(case: &Case<'_>, stuck: &[&Outstanding], finding: &mut Finding) -> Keepalive {
    let n = stuck.len() as u64;
    let with = |on| stuck.iter().filter(move |s| s.view.keepalive == Some(on));
    let keepalive = Keepalive {
        on: with(true).count() as u64,
        off: with(false).count() as u64,
    };
    let off = match keepalive.off {
        0 => None,
        off => Some(format!(
            "never ends these: SO_KEEPALIVE is off on {}, so tcp_keepalive_* has no effect on them",
            of(off, n)
        )),
    };
    finding.say(Label::Kernel, off);
    if keepalive.on > 0 {
        let next = with(true).filter_map(|s| s.probe_ns).max();
        let netns = stuck.first().and_then(|s| s.view.tuple.netns);
        let probes = probes(case, netns);
        let text = format!(
            "probes {} (SO_KEEPALIVE): one whose peer has gone ends at its next probe, {}; one whose \
             peer does not answer at all takes {probes} more",
            of(keepalive.on, n),
            next.map_or("the time of which is not known".to_owned(), |ns| format!(
                "within ~{}",
                duration_text(ns)
            )),
        );
        finding.say(Label::Kernel, text);
        finding.number("next_probe_within_ns", next);
    }
    finding.number(
        "keepalive",
        json!({"on": keepalive.on, "off": keepalive.off}),
    );
    keepalive
}

/// How long unanswered probes are repeated.
fn probes(case: &Case<'_>, netns: Option<u32>) -> String {
    let setting = |name| case.tracker.setting_number(netns, name);
    let every = setting("net.ipv4.tcp_keepalive_intvl");
    let times = setting("net.ipv4.tcp_keepalive_probes");
    match every.zip(times) {
        Some((every, times)) => {
            let ns = every.saturating_mul(times).saturating_mul(1_000_000_000);
            format!(
                "~{} (unless it set its own TCP_KEEPINTVL)",
                duration_text(ns)
            )
        }
        None => "tcp_keepalive_intvl × tcp_keepalive_probes".to_owned(),
    }
}

/// An age that is easily typed, and that half of them have: what is younger may yet be closed.
fn handy(half: Age) -> &'static str {
    let seconds = half.at_least().unwrap_or(0) / 1_000_000_000;
    match seconds {
        600.. => "10m",
        60.. => "1m",
        10.. => "10s",
        _ => "1s",
    }
}

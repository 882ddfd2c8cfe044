//! TIME_WAIT: whose it is, whether it hurts, and what would help.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::{Value, json};

use super::case::{Case, Who, tally};
use super::finding::{Finding, Id, Label, Severity};
use super::ports;
use super::tally::{Closes, Destination, Service};
use super::words::{list, percent, rate, who};
use crate::change::View;
use crate::report::leaks::greatest_first;
use crate::report::snapshot::thousands;
use crate::state::TcpState;
use crate::time::duration_text;
use crate::tracker::Outstanding;
use crate::tuple::Role;

/// So many are worth a word, however far the limits are.
const MANY: u64 = 10_000;

/// Shares of tcp_max_tw_buckets, in percent.
const NEAR: u64 = 50;
const FULL: u64 = 90;

/// `TCP_TIMEWAIT_LEN`, seconds.
const TIME_WAIT_S: f64 = 60.0;

/// Services that are told.
const SERVICES: usize = 3;

/// Clients of each that are told in numbers.
const CLIENTS: usize = 10;

/// A finding for each namespace with very many, and one for each in which the table was full.
pub(super) fn find(case: &Case<'_>) -> Vec<Finding> {
    let by_netns = case.by_netns(|view| view.state == TcpState::TimeWait);
    let pressure = by_netns
        .iter()
        .filter_map(|(netns, sockets)| pressure(case, *netns, sockets));
    let namespaces = case.tracker.namespaces_read().into_iter();
    let overflow = namespaces.filter_map(|netns| overflow(case, netns));
    pressure.chain(overflow).collect()
}

/// What is said of very many where nothing was found.
pub(super) fn harmless(n: u64) -> Option<String> {
    (n >= MANY).then(|| {
        format!(
            "{} in TIME_WAIT are harmless: neither tcp_max_tw_buckets nor the local ports of a destination \
             are near their end",
            thousands(n)
        )
    })
}

/// The minisockets of a namespace: those in FIN_WAIT_2 and those in TIME_WAIT have one limit.
pub(super) struct Buckets {
    pub(super) fin_wait2: u64,
    pub(super) time_wait: u64,
    /// tcp_max_tw_buckets, if it was read.
    pub(super) most: Option<u64>,
}

impl Buckets {
    pub(super) fn of(case: &Case<'_>, netns: Option<u32>) -> Buckets {
        let here = case.sockets.iter().map(|s| &s.view);
        let here = here.filter(|view| view.mini && view.tuple.netns == netns);
        let (fin_wait2, time_wait): (Vec<_>, Vec<_>) =
            here.partition(|view| view.state == TcpState::FinWait2);
        Buckets {
            fin_wait2: fin_wait2.len() as u64,
            time_wait: time_wait.len() as u64,
            most: case
                .tracker
                .setting_number(netns, "net.ipv4.tcp_max_tw_buckets"),
        }
    }

    pub(super) fn used(&self) -> u64 {
        self.fin_wait2 + self.time_wait
    }

    /// How grave it is that so many are used.
    pub(super) fn severity(&self) -> Option<Severity> {
        match self.used() * 100 / self.most?.max(1) {
            FULL.. => Some(Severity::Warning),
            NEAR.. => Some(Severity::Notice),
            _ => None,
        }
    }
}

fn pressure(case: &Case<'_>, netns: Option<u32>, sockets: &[&Outstanding]) -> Option<Finding> {
    let n = sockets.len() as u64;
    let buckets = Buckets::of(case, netns);
    let most = buckets.most;
    // Else it is not TIME_WAIT that fills the table.
    let mainly = buckets.time_wait >= buckets.fin_wait2;
    let severity = match buckets.severity().filter(|_| mainly) {
        Some(severity) => severity,
        None if n >= MANY && (most.is_none() || ports::any_short(case, netns)) => Severity::Notice,
        None => return None,
    };
    let of = match most {
        Some(most) => format!(
            ", {} of net.ipv4.tcp_max_tw_buckets ({})",
            percent(n, most),
            thousands(most)
        ),
        None => String::new(),
    };
    let headline = format!("{} connections in TIME_WAIT{of}", thousands(n));
    let mut finding = Finding::new(Id::TimeWaitPressure, severity, n, headline);
    let services = tally(sockets.iter().map(|s| Service::of(&s.view)));
    let (mut told, mut all_clients) = (Vec::new(), Vec::new());
    for (service, count) in services.iter().take(SERVICES) {
        let closes = case.tally.services.get(service);
        let clients = Clients::of(case, service, sockets);
        if count * 100 >= n {
            let text = served(case, service, (*count, n), closes);
            finding.say(Label::What, text + &clients.text());
        }
        told.push(service_object(service, *count, closes, &clients));
        all_clients.push(clients);
    }
    rates(case, netns, n, &mut finding);
    let text = "TIME_WAIT holds no descriptor and some 250 bytes each; it is the side that closes first \
                that keeps it, 60 s in every kernel";
    finding.say(Label::Kernel, text.to_owned());
    if buckets.fin_wait2 > 0 {
        let text = format!(
            "counts minisockets in FIN_WAIT_2 against tcp_max_tw_buckets, too: {}",
            thousands(buckets.fin_wait2)
        );
        finding.say(Label::Kernel, text);
    }
    let clients = sockets.iter().filter(|s| s.view.role == Some(Role::Active));
    let clients: Vec<&&Outstanding> = clients.collect();
    reusable(case, netns, clients, n, &mut finding);
    let first = services.first().map(|(service, _)| service);
    finding.say(
        Label::Fix,
        first.map(|service| fix(service, all_clients.first())),
    );
    let not = "tcp_fin_timeout: it ends FIN_WAIT_2, never TIME_WAIT; tcp_tw_recycle: gone since 4.12; \
               net.netfilter.nf_conntrack_tcp_timeout_time_wait: changes no TCP state";
    finding.say(Label::Not, not.to_owned());
    finding.number("count", n);
    finding.number("fin_wait2_minisockets", buckets.fin_wait2);
    finding.number("max_tw_buckets", most);
    finding.number("services", told);
    Some(finding)
}

/// What there would be less by, of the service with most.
fn fix(service: &Service, clients: Option<&Clients>) -> String {
    let here = clients.and_then(|clients| clients.local.first());
    match (service.role, here) {
        (Some(Role::Active), _) => {
            "reuse connections: keep-alive to the upstream, a pool; it is we who connect and close first"
                .to_owned()
        }
        (_, Some((client, _))) => format!(
            "reuse connections: keep-alive between {} and {}, a pool; both ends are of this host",
            who(client),
            service.text()
        ),
        _ => "let clients keep connections (keep-alive, which a proxy needs towards its upstream, too), or \
              let them close first; nothing breaks before tcp_max_tw_buckets is reached"
            .to_owned(),
    }
}

/// `:80 has 58,911 (98 %): we close first in 9,981 of 10,004 (nginx)`.
fn served(
    case: &Case<'_>,
    service: &Service,
    (count, all): (u64, u64),
    closes: Option<&Closes>,
) -> String {
    let side = match service.role {
        Some(Role::Active) => "our connections to",
        Some(_) => "what came to",
        None => "of",
    };
    let text = format!(
        "{} ({}) are {side} {}",
        thousands(count),
        percent(count, all),
        service.text()
    );
    let Some(closes) = closes else {
        return text;
    };
    let ended = closes.by_us + closes.by_peer;
    let owner = closes.owners.iter().max_by_key(|(_, n)| **n);
    let by = owner.map_or(String::new(), |(owner, _)| {
        format!(", {}", who(&Who::from(*owner)))
    });
    format!(
        "{text}: in the last {} we closed {} of {} first{by}",
        duration_text(case.span_ns),
        thousands(closes.by_us),
        thousands(ended)
    )
}

fn service_object(
    service: &Service,
    count: u64,
    closes: Option<&Closes>,
    clients: &Clients,
) -> Value {
    let peer = |(ip, count): &(IpAddr, u64)| json!({"peer": ip.to_string(), "count": count});
    let peers = clients.peers.iter().take(CLIENTS);
    let local = |(who, count): &(Who, u64)| {
        let comm = who.comm.map(|comm| comm.to_text());
        json!({"pid": who.pid, "comm": comm, "count": count})
    };
    let local_ones = clients.local.iter().take(CLIENTS);
    json!({
        "service": service.text(),
        "role": service.role.map(Role::name),
        "count": count,
        "closed_by_us": closes.map(|c| c.by_us),
        "closed_by_peer": closes.map(|c| c.by_peer),
        "clients": peers.map(peer).collect::<Vec<Value>>(),
        "clients_here": local_ones.map(local).collect::<Vec<Value>>(),
    })
}

/// Who connects to a service that we offer.
struct Clients {
    /// The addresses of those in TIME_WAIT, the one with most first.
    peers: Vec<(IpAddr, u64)>,
    /// Processes of this namespace that connected to it, and that it closed first.
    local: Vec<(Who, u64)>,
}

impl Clients {
    fn of(case: &Case<'_>, service: &Service, sockets: &[&Outstanding]) -> Clients {
        let offered = service.role == Some(Role::Passive);
        let ours = sockets
            .iter()
            .filter(|s| offered && Service::of(&s.view) == *service);
        let ours: Vec<&View> = ours.map(|s| &s.view).collect();
        let addresses: BTreeSet<IpAddr> = ours.iter().map(|v| v.tuple.local.ip()).collect();
        let used = case.tally.services.iter().filter(|(used, _)| {
            let there = used.address.is_some_and(|ip| addresses.contains(&ip));
            there && used.netns == service.netns && used.port == service.port
        });
        let mut local: BTreeMap<Who, u64> = BTreeMap::new();
        for (owner, n) in used.flat_map(|(_, closes)| &closes.left) {
            *local.entry(Who::from(*owner)).or_default() += n;
        }
        Clients {
            peers: tally(ours.iter().map(|v| v.tuple.remote.ip())),
            local: greatest_first(local),
        }
    }

    /// `; from 10.0.0.7 ×40, 10.0.0.8 ×2`, and which processes of this host.
    fn text(&self) -> String {
        let peers = self.peers.iter();
        let peers: Vec<(String, u64)> = peers.map(|(ip, n)| (ip.to_string(), *n)).collect();
        let local = self.local.iter();
        let local: Vec<(String, u64)> = local.map(|(w, n)| (who(w), *n)).collect();
        match (&peers[..], &local[..]) {
            ([], _) => String::new(),
            (_, []) => format!("; from {}", list(&peers)),
            _ => format!("; from {} (on this host {})", list(&peers), list(&local)),
        }
    }
}

/// What the present rate comes to.
fn rates(case: &Case<'_>, netns: Option<u32>, n: u64, finding: &mut Finding) {
    let services = case.tally.services.iter();
    let here = services.filter(|(service, _)| service.netns == netns);
    let by_us: u64 = here.map(|(_, closes)| closes.by_us).sum();
    let per_second = by_us as f64 * 1e9 / case.span_ns.max(1) as f64;
    let expected = (per_second * TIME_WAIT_S).round() as u64;
    let text = format!(
        "we close first {} × 60 s = {} expected at this rate, {} seen",
        rate(per_second),
        thousands(expected),
        thousands(n)
    );
    finding.say(Label::What, text);
    finding.number("closed_by_us_per_s", per_second);
    finding.number("expected", expected);
}

fn reusable(
    case: &Case<'_>,
    netns: Option<u32>,
    clients: Vec<&&Outstanding>,
    n: u64,
    finding: &mut Finding,
) {
    let value = case.tracker.setting(netns, "net.ipv4.tcp_tw_reuse");
    let applies = match value {
        Some("0") | None => 0,
        Some("2") => {
            let local = |s: &&&&Outstanding| s.view.tuple.remote.ip().is_loopback();
            clients.iter().filter(local).count()
        }
        Some(_) => clients.len(),
    } as u64;
    let of = clients.len() as u64;
    let text = match (of, clients.first()) {
        (0, _) | (_, None) => {
            "tcp_tw_reuse would do nothing: none of these is a connection that we made".to_owned()
        }
        (_, Some(first)) => format!(
            "tcp_tw_reuse can apply to the {} that we made: {}",
            percent(of, n),
            ports::reuse(case, &Destination::of(&first.view))
                .unwrap_or_else(|| "its value was not read".to_owned())
        ),
    };
    finding.say(Label::Kernel, text);
    finding.number("tw_reuse", value);
    finding.number("tw_reuse_applies", applies);
}

fn overflow(case: &Case<'_>, netns: u32) -> Option<Finding> {
    let n = case.tracker.counted(netns, "TcpExt.TCPTimeWaitOverflow")?;
    if n == 0 {
        return None;
    }
    let most = case
        .tracker
        .setting_number(Some(netns), "net.ipv4.tcp_max_tw_buckets");
    let most_text = most.map_or("?".to_owned(), thousands);
    let headline = format!(
        "{} closed connections found no room in TIME_WAIT (tcp_max_tw_buckets = {most_text})",
        thousands(n)
    );
    let mut finding = Finding::new(Id::TimeWaitOverflow, Severity::Warning, n, headline);
    let text = "ends such a connection at once: a late segment of it may reach a new one of the same \
                ports, and a lost last ACK becomes a RST for the peer";
    finding.say(Label::Kernel, text.to_owned());
    let text =
        "sysctl -w net.ipv4.tcp_max_tw_buckets=N with N above the connections closed in 60 s";
    finding.say(Label::Now, text.to_owned());
    let fix = "fewer connections that we close first: keep-alive";
    finding.say(Label::Fix, fix.to_owned());
    let not = "a smaller tcp_max_tw_buckets, 0 even, as some advise: it makes more of these";
    finding.say(Label::Not, not.to_owned());
    finding.number("overflows", n);
    finding.number("max_tw_buckets", most);
    Some(finding)
}

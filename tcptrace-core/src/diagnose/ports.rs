//! Local ports, of which every destination has its own supply.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::case::{Case, Who, tally};
use super::finding::{Finding, Id, Label, Severity};
use super::growth::Growth;
use super::tally::{Destination, Flow};
use super::words::{list, percent, who};
use crate::host;
use crate::report::snapshot::thousands;
use crate::state::TcpState;
use crate::text::escape;
use crate::tracker::Outstanding;
use crate::tuple::Role;

/// From this share on, in percent.
const NEAR: u64 = 80;

/// A finding for each destination that has nearly no ports left, and for those to which a connect()
/// found none.
pub(super) fn find(case: &Case<'_>) -> Vec<Finding> {
    let uses = uses(case);
    let mut failed: BTreeMap<Destination, &Flow> = BTreeMap::new();
    for (destination, flow) in &case.tally.flows {
        if !flow.no_port.is_empty() {
            failed.insert(*destination, flow);
        }
    }
    let mut ranges = BTreeMap::new();
    for destination in uses.keys() {
        let netns = destination.netns;
        ranges
            .entry(netns)
            .or_insert_with(|| Range::of(case, netns));
    }
    let mut findings = Vec::new();
    for (destination, sockets) in &uses {
        let all = failed.keys().copied().find(|f| {
            let any = f.local.is_unspecified() || f.local == destination.local;
            f.netns == destination.netns && f.remote == destination.remote && any
        });
        let flow = all.and_then(|key| failed.get(&key).copied());
        let range = ranges.get(&destination.netns).and_then(Option::as_ref);
        let supply = range.map(|range| Supply {
            range,
            used: range.used(sockets),
        });
        let short = supply.as_ref().is_some_and(Supply::is_short);
        // What fails without being short fails for another source address.
        if short || (flow.is_some() && supply.is_none()) {
            if let Some(key) = all {
                failed.remove(&key);
            }
            findings.push(finding(case, destination, sockets, supply, flow));
        }
    }
    let rest = failed.into_iter();
    findings.extend(rest.map(|(destination, flow)| unexplained(&destination, flow)));
    findings
}

/// Whether some destination of a namespace has nearly no ports left.
pub(super) fn any_short(case: &Case<'_>, netns: Option<u32>) -> bool {
    let Some(range) = Range::of(case, netns) else {
        return false;
    };
    let uses = uses(case);
    let mut here = uses.iter().filter(|(to, _)| to.netns == netns);
    here.any(|(_, sockets)| {
        let used = range.used(sockets);
        let range = &range;
        Supply { range, used }.is_short()
    })
}

/// Connections that we made, by what has its own supply of ports.
fn uses<'a>(case: &'a Case<'_>) -> BTreeMap<Destination, Vec<&'a Outstanding>> {
    let mut uses: BTreeMap<Destination, Vec<&Outstanding>> = BTreeMap::new();
    for socket in &case.sockets {
        if socket.view.role == Some(Role::Active) && socket.view.tuple.local.port() != 0 {
            let destination = Destination::of(&socket.view);
            uses.entry(destination).or_default().push(socket);
        }
    }
    uses
}

/// What connect() can take from in a namespace.
struct Range {
    low: u16,
    high: u16,
    /// Taken by what is reserved, and by listeners.
    barred: u64,
    usable: u64,
}

impl Range {
    /// `None`: it was not read.
    fn of(case: &Case<'_>, netns: Option<u32>) -> Option<Range> {
        let setting = |name| case.tracker.setting(netns, name);
        let (low, high) = host::port_range(setting("net.ipv4.ip_local_port_range")?)?;
        let reserved = setting("net.ipv4.ip_local_reserved_ports");
        let mut barred = reserved.map(host::reserved_ports).unwrap_or_default();
        let listeners = case.tracker.listeners();
        let here = listeners.filter(|l| l.tuple.netns == netns);
        barred.extend(here.map(|l| l.tuple.local.port()));
        let barred = barred.range(low..=high).count() as u64;
        Some(Range {
            low,
            high,
            barred,
            usable: u64::from(high - low) + 1 - barred,
        })
    }

    fn used(&self, sockets: &[&Outstanding]) -> u64 {
        let ports = sockets.iter().map(|s| s.view.tuple.local.port());
        let inside = ports.filter(|port| (self.low..=self.high).contains(port));
        inside.collect::<BTreeSet<u16>>().len() as u64
    }
}

/// The ports of one destination.
struct Supply<'a> {
    range: &'a Range,
    used: u64,
}

impl Supply<'_> {
    fn is_short(&self) -> bool {
        self.used * 100 >= self.range.usable * NEAR
    }
}

fn finding(
    case: &Case<'_>,
    to: &Destination,
    sockets: &[&Outstanding],
    supply: Option<Supply<'_>>,
    flow: Option<&Flow>,
) -> Finding {
    let refused: u64 = flow.map_or(0, |flow| flow.no_port.values().sum());
    let growth = growth(case, to);
    let states = tally(sockets.iter().map(|s| s.view.state));
    let holds = states.first().map(|(state, _)| *state);
    let free = supply
        .as_ref()
        .map(|s| s.range.usable.saturating_sub(s.used));
    let exhausted = refused > 0 || free == Some(0);
    let (id, severity) = match exhausted {
        true => (Id::PortsExhausted, Severity::Critical),
        false => (Id::PortsNear, Severity::Warning),
    };
    let state_list: Vec<String> = states
        .iter()
        .map(|(state, n)| format!("{} in {state}", thousands(*n)))
        .collect();
    let used = match &supply {
        Some(s) => format!(
            "{} of {} local ports used ({})",
            thousands(s.used),
            thousands(s.range.usable),
            percent(s.used, s.range.usable)
        ),
        None => "the local ports are used up".to_owned(),
    };
    let left = free.and_then(|free| growth.time_left(free));
    let until = match (exhausted, left) {
        (true, _) => ", none is left".to_owned(),
        (false, Some(left)) => format!(", none is left in {left}"),
        (false, None) => growth.text(),
    };
    let headline = format!(
        "{} -> {}: {used}{until}; held by {}",
        to.local,
        to.remote,
        state_list.join(", ")
    );
    let n = sockets.len() as u64;
    let mut finding = Finding::new(id, severity, n, headline);
    // Whose minisockets were, only a tracer knows that saw them closed.
    let known = sockets
        .iter()
        .filter(|s| !s.view.mini || s.view.owner.pid.is_some());
    let owners = tally(known.map(|s| Who::of(&s.view)));
    finding.say(Label::Who, owners_text(&owners, n));
    finding.say(Label::What, flow.map(|flow| refusals(flow, refused)));
    finding.say(Label::Kernel, supply.as_ref().map(|s| range_text(s.range)));
    advice(case, to, holds, &mut finding);
    let by_state: Map<String, Value> = states
        .iter()
        .map(|(state, n)| (state.name().to_owned(), json!(n)))
        .collect();
    finding.number("source", to.local.to_string());
    finding.number("destination", to.remote.to_string());
    finding.number("used", supply.as_ref().map(|s| s.used));
    finding.number("usable", supply.as_ref().map(|s| s.range.usable));
    finding.number("barred", supply.as_ref().map(|s| s.range.barred));
    finding.number(
        "range",
        supply.as_ref().map(|s| json!([s.range.low, s.range.high])),
    );
    finding.number("states", by_state);
    finding.number("held_by", holds.map(TcpState::name));
    finding.number("owners", owners_object(&owners));
    finding.number("eaddrnotavail", refused);
    growth.tell(&mut finding);
    finding
}

/// `pid 4711 python`, and how many there are of which nobody knows whose they were.
fn owners_text(owners: &[(Who, u64)], all: u64) -> String {
    let named: Vec<(String, u64)> = owners.iter().map(|(w, n)| (who(w), *n)).collect();
    let known: u64 = owners.iter().map(|(_, n)| n).sum();
    let unknown = "closed before the trace began: whose they were is not known";
    match (known, all - known) {
        (_, 0) => list(&named),
        (0, _) => unknown.to_owned(),
        (known, more) => format!(
            "{} of {}: {}; {} {unknown}",
            thousands(known),
            thousands(all),
            list(&named),
            thousands(more)
        ),
    }
}

fn owners_object(owners: &[(Who, u64)]) -> Vec<Value> {
    const TOLD: usize = 10;
    let object = |(owner, count): &(Who, u64)| {
        let comm = owner.comm.map(|comm| comm.to_text());
        json!({"pid": owner.pid, "comm": comm, "container": owner.container, "count": count})
    };
    owners.iter().take(TOLD).map(object).collect()
}

fn range_text(range: &Range) -> String {
    let barred = match range.barred {
        0 => String::new(),
        n => format!(", less {} that are reserved or listened on", thousands(n)),
    };
    format!(
        "net.ipv4.ip_local_port_range is {} to {}{barred}; every pair of source address and destination \
         has all of it for itself",
        range.low, range.high
    )
}

/// How many more ports are in use.
fn growth(case: &Case<'_>, to: &Destination) -> Growth {
    let end = case.from.plus(case.span_ns);
    let flow = case.tally.flows.get(to);
    flow.map_or(Growth::No, |flow| flow.held.growth(case.from, end))
}

fn refusals(flow: &Flow, refused: u64) -> String {
    let by = flow.no_port.iter();
    let mut by: Vec<(String, u64)> = by.map(|(owner, n)| (who(&Who::from(*owner)), *n)).collect();
    by.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    format!(
        "{} connect() failed with EADDRNOTAVAIL (99), Cannot assign requested address: {}",
        thousands(refused),
        list(&by)
    )
}

fn advice(case: &Case<'_>, to: &Destination, holds: Option<TcpState>, finding: &mut Finding) {
    match holds {
        Some(TcpState::CloseWait) => {
            let fix = "close these sockets: CLOSE_WAIT has no time limit and gives no port back (see the \
                       finding of their owner)";
            finding.say(Label::Fix, fix.to_owned());
            let not = "tcp_tw_reuse, tcp_tw_recycle, tcp_fin_timeout: no TIME_WAIT holds these ports; a \
                       wider ip_local_port_range only delays it";
            finding.say(Label::Not, not.to_owned());
        }
        Some(TcpState::TimeWait) => {
            let fix = "reuse connections (keep-alive, a pool), or let the other side close first; then \
                       more source addresses or a wider ip_local_port_range";
            finding.say(Label::Fix, fix.to_owned());
            finding.say(Label::Kernel, reuse(case, to));
            let not = "tcp_fin_timeout: TIME_WAIT is 60 s in every kernel; tcp_tw_recycle is gone since \
                       4.12; a small tcp_max_tw_buckets drops TIME_WAIT and with it what it protects from";
            finding.say(Label::Not, not.to_owned());
        }
        _ => {
            let fix = "fewer connections at once (a pool with a limit), more source addresses or \
                       destinations, or a wider ip_local_port_range";
            finding.say(Label::Fix, fix.to_owned());
            let not = "tcp_tw_reuse, tcp_fin_timeout: these ports are held by connections in use";
            finding.say(Label::Not, not.to_owned());
        }
    }
}

/// What tcp_tw_reuse does for this destination.
pub(super) fn reuse(case: &Case<'_>, to: &Destination) -> Option<String> {
    let reuse = case.tracker.setting(to.netns, "net.ipv4.tcp_tw_reuse")?;
    let loopback = |ip: IpAddr| ip.is_loopback();
    let stamps = case.tracker.setting(to.netns, "net.ipv4.tcp_timestamps");
    Some(match reuse {
        _ if stamps == Some("0") => {
            "tcp_tw_reuse does nothing here, as tcp_timestamps is 0".to_owned()
        }
        "0" => "tcp_tw_reuse = 0: connect() takes over no TIME_WAIT; 1 lets it take those older than \
                about 1 s, if both ends use timestamps"
            .to_owned(),
        "2" if !loopback(to.remote.ip()) => {
            "tcp_tw_reuse = 2 is for loopback only: 1 lets connect() take over a TIME_WAIT older than \
             about 1 s, if both ends use timestamps"
                .to_owned()
        }
        value => format!(
            "tcp_tw_reuse = {}: connect() takes over a TIME_WAIT older than about 1 s, so these ports \
             come back sooner",
            escape(value)
        ),
    })
}

/// No connection of ours to there is known that would hold the ports.
fn unexplained(to: &Destination, flow: &Flow) -> Finding {
    let refused: u64 = flow.no_port.values().sum();
    let headline = format!(
        "{} connect() to {} found no local port (EADDRNOTAVAIL)",
        thousands(refused),
        to.remote
    );
    let severity = Severity::Critical;
    let mut finding = Finding::new(Id::PortsExhausted, severity, refused, headline);
    finding.say(Label::What, refusals(flow, refused));
    let text = "the connections that are there do not explain it: sockets that called bind() before \
                connect() take a port for all destinations, unless they set IP_BIND_ADDRESS_NO_PORT";
    finding.say(Label::Kernel, text.to_owned());
    let fix = "bind to an address without a port only with IP_BIND_ADDRESS_NO_PORT, or not at all";
    finding.say(Label::Fix, fix.to_owned());
    finding.number("destination", to.remote.to_string());
    finding.number("eaddrnotavail", refused);
    finding
}

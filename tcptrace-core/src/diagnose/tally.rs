//! What is counted while a trace runs, since the tracker does not keep it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::growth::Course;
use crate::cause::Cause;
use crate::change::{Change, View};
use crate::histogram::Durations;
use crate::owner::Comm;
use crate::state::{StateSet, TcpState};
use crate::time::Mono;
use crate::tuple::Role;

/// More services and destinations than this are not told apart.
const MAX: usize = 4_096;

/// Counts of one trace.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub(super) services: BTreeMap<Service, Closes>,
    pub(super) flows: BTreeMap<Destination, Flow>,
    /// Sockets that were stuck in CLOSE_WAIT and are no longer, by owner and whether it had connected.
    pub(super) released: BTreeMap<(Option<u32>, bool), Course>,
    /// When the trace began.
    began: Mono,
    /// A socket counts as stuck after this.
    min_age_ns: u64,
    /// Services and destinations that found no room.
    pub(super) left_out: u64,
}

/// A service: what we offer, or what we use.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Service {
    pub(super) netns: Option<u32>,
    pub(super) role: Option<Role>,
    /// Where we connected to; of what we offer, only the port, which is ours.
    pub(super) address: Option<IpAddr>,
    pub(super) port: u16,
}

impl Service {
    /// The one that a connection belongs to.
    pub(super) fn of(view: &View) -> Service {
        let active = view.role == Some(Role::Active);
        let end = match active {
            true => view.tuple.remote,
            false => view.tuple.local,
        };
        Service {
            netns: view.tuple.netns,
            role: match view.role {
                Some(Role::Unaccepted) => Some(Role::Passive),
                role => role,
            },
            address: active.then_some(end.ip()),
            port: end.port(),
        }
    }

    /// `10.0.0.9:443`, `:80`.
    pub(super) fn text(&self) -> String {
        match self.address {
            Some(ip) => SocketAddr::new(ip, self.port).to_string(),
            None => format!(":{}", self.port),
        }
    }
}

/// How connections of a service ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Closes {
    /// We sent the first FIN.
    pub(super) by_us: u64,
    /// The peer did.
    pub(super) by_peer: u64,
    /// We sent a RST.
    pub(super) reset_by_us: u64,
    /// The peer did.
    pub(super) reset_by_peer: u64,
    /// Closed by its owner after the peer: how long it stayed in CLOSE_WAIT.
    pub(super) late: Durations,
    /// Who closed there, of those that we closed first.
    pub(super) owners: BTreeMap<(Option<u32>, Option<Comm>), u64>,
    /// Whose they were that the peer closed first.
    pub(super) left: BTreeMap<(Option<u32>, Option<Comm>), u64>,
}

/// Where connections go: what has its own supply of local ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Destination {
    pub(super) netns: Option<u32>,
    pub(super) local: IpAddr,
    pub(super) remote: SocketAddr,
}

impl Destination {
    pub(super) fn of(view: &View) -> Destination {
        Destination {
            netns: view.tuple.netns,
            local: view.tuple.local.ip(),
            remote: view.tuple.remote,
        }
    }
}

/// Connections to one destination.
#[derive(Clone, Debug, Default)]
pub(super) struct Flow {
    /// Those that were made, less those that gave their port back.
    pub(super) held: Course,
    /// That found no port, by who wanted them.
    pub(super) no_port: BTreeMap<(Option<u32>, Option<Comm>), u64>,
}

impl Tally {
    /// Of nothing yet. A socket counts as stuck after `min_age_ns`.
    pub fn new(min_age_ns: u64) -> Tally {
        Tally {
            min_age_ns,
            ..Tally::default()
        }
    }

    /// Forgets what was counted.
    pub fn restart(&mut self) {
        *self = Tally::new(self.min_age_ns);
    }

    /// Learns when the trace began, before anything is told of it.
    pub fn begun(&mut self, at: Mono) {
        self.began = at;
    }

    /// The states whose transitions it has to be told of.
    pub fn told() -> StateSet {
        use TcpState::{Close, CloseWait, FinWait1, SynSent};
        StateSet::of(&[SynSent, FinWait1, CloseWait, Close])
    }

    /// Takes what the tracker tells.
    pub fn change(&mut self, change: &Change) {
        if let Change::Transition { view, next, cause } = change {
            self.transition(view, *next, *cause);
        }
    }

    fn transition(&mut self, view: &View, next: TcpState, cause: Cause) {
        use TcpState::{Close, CloseWait, Established, FinWait1, SynSent};
        let owner = (view.owner.pid, view.owner.comm);
        if view.state == CloseWait && view.role != Some(Role::Unaccepted) {
            self.release(view);
        }
        match (view.state, next) {
            (Established | TcpState::SynRecv, FinWait1) => {
                if let Some(closes) = self.service(view) {
                    closes.by_us += 1;
                    *closes.owners.entry(owner).or_default() += 1;
                }
            }
            (_, CloseWait) => {
                if let Some(closes) = self.service(view) {
                    closes.by_peer += 1;
                    *closes.left.entry(owner).or_default() += 1;
                }
            }
            (CloseWait, TcpState::LastAck) => {
                let ns = view.age.at_least();
                if let (Some(closes), Some(ns)) = (self.service(view), ns) {
                    closes.late.record(ns);
                }
            }
            (_, Close) if matches!(cause, Cause::ResetSent | Cause::ResetReceived) => {
                if let Some(closes) = self.service(view) {
                    match cause {
                        Cause::ResetSent => closes.reset_by_us += 1,
                        _ => closes.reset_by_peer += 1,
                    }
                }
            }
            _ => {}
        }
        if view.role != Some(Role::Active) && view.state != SynSent {
            return;
        }
        if let Some(flow) = self.flow(view, cause == Cause::NoPort) {
            match (view.state, next) {
                (SynSent, _) if cause == Cause::NoPort => {
                    *flow.no_port.entry(owner).or_default() += 1;
                }
                (SynSent, Established) => flow.held.add(view.at, 1),
                (SynSent, _) => {}
                (_, Close) => flow.held.add(view.at, -1),
                _ => {}
            }
        }
    }

    /// It is not stuck any more, if it was.
    fn release(&mut self, view: &View) {
        let age = view.age.at_most().or(view.age.at_least());
        let Some(age) = age.filter(|age| *age >= self.min_age_ns) else {
            return;
        };
        // Who is stuck at first is known after the minimum age.
        let from = self.began.plus(self.min_age_ns);
        let key = (view.owner.pid, view.role == Some(Role::Active));
        if view.at < from || (self.released.len() >= MAX && !self.released.contains_key(&key)) {
            return;
        }
        let course = self.released.entry(key);
        let course = course.or_insert_with(|| Course::since(from));
        course.came(view.at.minus(age).plus(self.min_age_ns));
        course.add(view.at, -1);
    }

    fn service(&mut self, view: &View) -> Option<&mut Closes> {
        let service = Service::of(view);
        if self.services.len() >= MAX && !self.services.contains_key(&service) {
            self.left_out += 1;
            return None;
        }
        Some(self.services.entry(service).or_default())
    }

    /// Before a port is found the local address may be open, too: then it is that of no destination
    /// but of all.
    fn flow(&mut self, view: &View, portless: bool) -> Option<&mut Flow> {
        let mut destination = Destination::of(view);
        if portless {
            destination.local = match destination.remote {
                SocketAddr::V4(_) => IpAddr::from([0; 4]),
                SocketAddr::V6(_) => IpAddr::from([0; 16]),
            };
        }
        if self.flows.len() >= MAX && !self.flows.contains_key(&destination) {
            self.left_out += 1;
            return None;
        }
        Some(self.flows.entry(destination).or_default())
    }
}

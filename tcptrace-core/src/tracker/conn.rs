//! One connection as the tracker remembers it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::host::Host;
use super::stacks::Stacks;
use crate::cause::Cause;
use crate::change::View;
use crate::infer;
use crate::input::{Definition, SocketSnapshot, Timer};
use crate::owner::{Actor, Comm, Holder, Owner, Process};
use crate::state::TcpState;
use crate::time::{Age, Mono};
use crate::tuple::{ConnId, Role, Tuple};
use crate::verdict::{self, Evidence};

/// A connection. A million of these are kept at times: what is rare is boxed.
#[derive(Clone, Debug)]
pub(super) struct Conn {
    pub(super) tuple: Tuple,
    pub(super) generation: u32,
    pub(super) role: Option<Role>,
    pub(super) state: TcpState,
    pub(super) entered: Entered,
    /// The last event; a dump that began before it says nothing new.
    pub(super) touched: Mono,
    pub(super) mini: bool,
    /// A minisocket whose timer was stopped, when and why: dead unless it is armed again at once.
    pub(super) dying: Option<(Mono, Cause)>,
    /// Its owner called close() after shutdown(): the full socket ends by itself.
    pub(super) closed: bool,
    /// Reported as stuck in the present state.
    pub(super) shown: bool,
    /// In the present state since before the trace, or since an entry that was not seen.
    pub(super) found: bool,
    pub(super) eof_read: bool,
    /// The file is open although the connection is dead.
    pub(super) fd_open: bool,
    /// The sweep that saw it last, and how many missed it since.
    pub(super) seen_in: u32,
    pub(super) missed: u8,
    pub(super) acquired: Option<Box<Acquired>>,
    /// Who closed it, shut it down or exited.
    pub(super) closer: Option<Box<Actor>>,
    pub(super) facts: Option<Box<Facts>>,
}

/// The first that is heard of a socket that has no cookie yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Birth {
    pub(super) at: Mono,
    /// Who connects; `None` where it comes from a listener.
    pub(super) connected_by: Option<Actor>,
}

/// Who made the connection his.
#[derive(Clone, Copy, Debug)]
pub(super) struct Acquired {
    pub(super) actor: Actor,
    pub(super) fd: Option<u32>,
}

/// The last look at the socket and at who holds it.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// When the holders were listed, if they were.
    pub(super) held_at: Option<Mono>,
    pub(super) holders: Vec<Holder>,
    /// When the queues were read, if they were.
    pub(super) queues_at: Option<Mono>,
    pub(super) recv_q: u32,
    pub(super) send_q: u32,
    pub(super) keepalive: Option<bool>,
    /// The time until the next keepalive probe, ns.
    pub(super) probe_ns: Option<u64>,
    /// When we last sent data.
    pub(super) sent_at: Option<Mono>,
    /// How long the peer was silent before its FIN.
    pub(super) idle: Idle,
    pub(super) inode: u32,
}

/// From the last data of a connection to the peer's FIN, ns, exact to a jiffy; `None`: not known.
/// Where there was none, from its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Idle {
    /// Since data came. A TLS close_notify right before the FIN is data, too.
    pub received_ns: Option<u64>,
    /// Since we sent some.
    pub sent_ns: Option<u64>,
}

impl Idle {
    /// Of a socket in CLOSE_WAIT, which it entered then.
    fn of(socket: &SocketSnapshot, entered: Entered) -> Idle {
        let age = entered.age(socket.at).at_least();
        let before = |ms: Option<u32>| Some((u64::from(ms?) * 1_000_000).saturating_sub(age?));
        Idle {
            received_ns: before(socket.last_data_recv_ms),
            sent_ns: before(socket.last_data_sent_ms),
        }
    }
}

/// When the present state was entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entered {
    /// Not before this, if that is known.
    pub(super) earliest: Option<Mono>,
    /// Not after this.
    pub(super) latest: Mono,
    /// The entry was seen: both are its time.
    pub(super) exact: bool,
}

impl Entered {
    /// The entry was seen.
    pub(super) fn at(at: Mono) -> Entered {
        Entered {
            earliest: Some(at),
            latest: at,
            exact: true,
        }
    }

    /// All that is known is that it was in the state at `seen`.
    pub(super) fn before(seen: Mono) -> Entered {
        Entered {
            earliest: None,
            latest: seen,
            exact: false,
        }
    }

    /// It happened between these.
    pub(super) fn between(earliest: Option<Mono>, latest: Mono) -> Entered {
        Entered {
            earliest,
            latest,
            exact: false,
        }
    }

    /// It had this age at `seen`.
    pub(super) fn aged(age: Age, seen: Mono) -> Entered {
        match age {
            Age::Exact(ns) => Entered::at(seen.minus(ns)),
            Age::Between { min, max } => {
                Entered::between(max.map(|m| seen.minus(m)), seen.minus(min))
            }
            Age::Unknown => Entered::before(seen),
        }
    }

    /// The age now.
    pub(super) fn age(self, now: Mono) -> Age {
        let min = now.since(self.latest);
        match self.earliest {
            _ if self.exact => Age::Exact(min),
            Some(earliest) => Age::Between {
                min,
                max: Some(now.since(earliest)),
            },
            None if min == 0 => Age::Unknown,
            None => Age::Between { min, max: None },
        }
    }
}

/// A listening socket, to which its unaccepted connections belong.
#[derive(Clone, Debug)]
pub(super) struct Listener {
    pub(super) tuple: Tuple,
    pub(super) cookie: u64,
    pub(super) holders: Vec<Holder>,
    pub(super) opened_by: Option<Actor>,
    pub(super) seen_in: u32,
    /// It was closed; its queue is emptied right after.
    pub(super) gone: bool,
    /// How many wait to be accepted, and the limit, where a dump told.
    pub(super) queue: Option<(u32, u32)>,
    /// `sk_drops` before anybody counted, where a dump told.
    pub(super) drops_before: Option<u32>,
    /// `sk_drops` when the trace began, and when it was last looked at.
    pub(super) drops: Option<(u32, u32)>,
}

impl Conn {
    pub(super) fn new(tuple: Tuple, state: TcpState, entered: Entered, at: Mono) -> Box<Conn> {
        Box::new(Conn {
            tuple,
            generation: 0,
            role: None,
            state,
            entered,
            touched: at,
            mini: false,
            dying: None,
            closed: false,
            shown: false,
            found: !entered.exact,
            eof_read: false,
            fd_open: false,
            seen_in: 0,
            missed: 0,
            acquired: None,
            closer: None,
            facts: None,
        })
    }

    /// Takes what a dump says of the socket, its state aside.
    pub(super) fn look(&mut self, socket: &SocketSnapshot) {
        if self.tuple.local.port() == 0 {
            self.tuple = socket.tuple;
        }
        let facts = self.facts.get_or_insert_default();
        facts.queues_at = Some(socket.at);
        facts.recv_q = socket.recv_q;
        facts.send_q = socket.send_q;
        facts.inode = socket.inode;
        facts.keepalive = infer::keepalive(socket);
        facts.probe_ns = match socket.timer {
            Timer::Keepalive { left_ms } => Some(u64::from(left_ms) * 1_000_000),
            _ => None,
        };
        let sent = socket.last_data_sent_ms;
        facts.sent_at = sent.map(|ms| socket.at.minus(u64::from(ms) * 1_000_000));
        if socket.state == TcpState::CloseWait && self.state == socket.state {
            facts.idle = Idle::of(socket, self.entered);
        }
        if socket.mini {
            return;
        }
        let never_accepted = socket.inode == 0
            && matches!(socket.state, TcpState::Established | TcpState::CloseWait)
            && self.role != Some(Role::Active)
            && self.acquired.is_none();
        if never_accepted {
            self.role = Some(Role::Unaccepted);
        } else if self.role == Some(Role::Unaccepted) && socket.inode != 0 {
            self.role = Some(Role::Passive);
        }
    }

    /// The owner let go of the socket: what was known of its holders holds no longer.
    pub(super) fn released(&mut self, actor: Option<Actor>) {
        let Some(actor) = actor else {
            return;
        };
        self.closer = Some(Box::new(actor));
        if let Some(facts) = &mut self.facts {
            facts.held_at = None;
            facts.holders = Vec::new();
            facts.queues_at = None;
        }
    }

    /// Every process that it leads to.
    pub(super) fn pids(&self) -> impl Iterator<Item = u32> {
        let holders = self.facts.as_deref().map_or(&[][..], |f| &f.holders);
        let closer = self.closer.as_deref().map(|a| a.pid);
        let acquirer = self.acquired.as_deref().map(|a| a.actor.pid);
        holders.iter().map(|h| h.pid).chain(closer).chain(acquirer)
    }

    /// Forgets what was found of the socket in a state that it has left.
    pub(super) fn outdated(&mut self) {
        if let Some(facts) = &mut self.facts {
            facts.queues_at = None;
        }
    }

    /// The connection as it is shown.
    pub(super) fn view(&self, cookie: u64, at: Mono, world: &World) -> View {
        let facts = self.facts.as_deref();
        let queues = facts.filter(|f| f.queues_at.is_some());
        let owner = self.owner(world);
        let held = match facts.filter(|f| f.held_at.is_some()) {
            Some(facts) => Some(!facts.holders.is_empty()),
            None if self.fd_open => Some(true),
            None if self.mini => Some(false),
            None => queues.map(|f| f.inode != 0),
        };
        let recv_q = queues.map(|f| f.recv_q);
        let [acquired, eof] = world.stacks.of(cookie);
        let evidence = Evidence {
            unaccepted: self.role == Some(Role::Unaccepted),
            mini: self.mini,
            held,
            eof_read: self.eof_read,
            recv_q,
        };
        View {
            at,
            id: ConnId {
                cookie: super::parted::cookie_of(cookie),
                generation: self.generation,
            },
            tuple: self.tuple,
            role: self.role,
            state: self.state,
            age: self.entered.age(at),
            mini: self.mini,
            owner,
            recv_q: recv_q.filter(|_| !self.mini),
            send_q: queues.map(|f| f.send_q).filter(|_| !self.mini),
            keepalive: facts.and_then(|f| f.keepalive),
            verdict: verdict::verdict(self.state, evidence),
            acquired_at: world.stacks.named(acquired),
            eof_at: world.stacks.named(eof),
        }
    }

    fn owner(&self, world: &World) -> Owner {
        if self.role == Some(Role::Unaccepted) {
            return world.listener_owner(&self.tuple);
        }
        let acquired = self.acquired.as_deref();
        let holders = self.facts.as_deref().map_or(&[][..], |f| &f.holders);
        let by_acquirer = |h: &&Holder| acquired.is_some_and(|a| a.actor.pid == h.pid);
        if let Some(holder) = holders.iter().find(by_acquirer).or(holders.first()) {
            let tid = acquired
                .filter(|a| a.actor.pid == holder.pid)
                .map(|a| a.actor.tid);
            let mut owner = world.owner(holder.pid, holder.comm);
            owner.cgroup_id = acquired
                .filter(|a| a.actor.pid == holder.pid)
                .and_then(|a| a.actor.cgroup_id());
            owner.tid = tid;
            owner.fd = Some(holder.fd);
            owner.holders = holders.to_vec();
            return owner;
        }
        let closer = self.closer.as_deref().copied();
        let Some(actor) = closer.or(acquired.map(|a| a.actor)) else {
            return Owner::default();
        };
        let mut owner = world.owner_acting(&actor);
        owner.tid = acquired
            .filter(|a| a.actor.pid == actor.pid)
            .map(|a| a.actor.tid);
        owner.remembered = closer.is_some();
        if closer.is_none() {
            owner.fd = acquired.and_then(|a| a.fd);
        }
        owner
    }
}

/// What is known beside the connections.
#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) listeners: BTreeMap<(Option<u32>, u16), Vec<Listener>>,
    pub(super) processes: BTreeMap<u32, Process>,
    pub(super) fin_timeouts: BTreeMap<u32, u64>,
    /// In the order in which they came, each once.
    pub(super) notes: Vec<Arc<str>>,
    pub(super) stacks: Stacks,
    pub(super) host: Host,
}

/// More notes than this say nothing more.
const MAX_NOTES: usize = 256;

impl World {
    /// Remembers what a reader of the results has to know.
    pub(super) fn note(&mut self, note: &Arc<str>) {
        if self.notes.len() < MAX_NOTES && !self.notes.contains(note) {
            self.notes.push(note.clone());
        }
    }

    /// Everything that definitions told, the holders of sockets aside.
    pub(super) fn definitions(&self) -> Vec<Definition> {
        let notes = self.notes.iter().cloned().map(Definition::Note);
        let timeouts = self.fin_timeouts.iter();
        let timeouts = timeouts.map(|(netns, ns)| Definition::FinTimeout {
            netns: *netns,
            ns: *ns,
        });
        let processes = self.processes.values().cloned();
        notes
            .chain(timeouts)
            .chain(processes.map(Definition::Process))
            .chain(self.host.definitions())
            .collect()
    }

    /// The listeners that a connection may have come through: those that fit it best, several with
    /// SO_REUSEPORT. One that was closed counts where no other is left.
    pub(super) fn listeners(&self, tuple: &Tuple) -> Vec<&Listener> {
        let key = (tuple.netns, tuple.local.port());
        let all = self.listeners.get(&key).map_or(&[][..], Vec::as_slice);
        let rank = |l: &Listener| tuple.fit(l.tuple.local).map(|fit| (!l.gone, fit));
        let best = all.iter().filter_map(rank).max();
        let is_best = |l: &&Listener| best.is_some() && rank(l) == best;
        all.iter().filter(is_best).collect()
    }

    /// Whose queue an unaccepted connection is in. Of several listeners nobody can say which one:
    /// then only what they have in common is said.
    fn listener_owner(&self, tuple: &Tuple) -> Owner {
        let listeners = self.listeners(tuple).into_iter();
        let owners = listeners.map(|listener| self.owner_holding(listener));
        let common = owners.reduce(|a, b| match a.pid == b.pid {
            true => a,
            false => Owner {
                comm: a.comm.filter(|c| Some(*c) == b.comm),
                ..Owner::default()
            },
        });
        Owner {
            by_listener: true,
            ..common.unwrap_or_default()
        }
    }

    /// Whose listener it is, and everyone who has it open.
    pub(super) fn owner_of_listener(&self, tuple: &Tuple, cookie: u64) -> Owner {
        let key = (tuple.netns, tuple.local.port());
        let list = self.listeners.get(&key).map_or(&[][..], Vec::as_slice);
        let Some(listener) = list.iter().find(|l| l.cookie == cookie) else {
            return Owner::default();
        };
        Owner {
            fd: listener.holders.first().map(|h| h.fd),
            holders: listener.holders.clone(),
            ..self.owner_holding(listener)
        }
    }

    fn owner_holding(&self, listener: &Listener) -> Owner {
        let held = listener.holders.first().map(|h| self.owner(h.pid, h.comm));
        let opened = || listener.opened_by.map(|a| self.owner_acting(&a));
        held.or_else(opened).unwrap_or_default()
    }

    /// A process that was seen acting. One that got its id later is not taken for it. A process'
    /// first thread has its name; of another one only /proc tells what its process is called.
    fn owner_acting(&self, actor: &Actor) -> Owner {
        let process = self.processes.get(&actor.pid);
        let process = process.filter(|p| p.may_have_thread(actor.start_ns));
        let comm = match process {
            Some(process) if actor.tid != actor.pid => process.comm,
            _ => actor.comm,
        };
        Owner {
            cgroup_id: actor.cgroup_id(),
            ..owner(actor.pid, comm, process)
        }
    }

    /// A process whose present name is known.
    fn owner(&self, pid: u32, comm: Comm) -> Owner {
        owner(pid, comm, self.processes.get(&pid))
    }
}

fn owner(pid: u32, comm: Comm, process: Option<&Process>) -> Owner {
    let text = |get: fn(&Process) -> &Option<Arc<str>>| process.and_then(|p| get(p).clone());
    // Under another name it was another program.
    let same = process.is_some_and(|p| p.comm == comm);
    Owner {
        pid: Some(pid),
        comm: Some(comm),
        cmdline: text(|p| &p.cmdline).filter(|_| same),
        cgroup: text(|p| &p.cgroup),
        container: text(|p| &p.container),
        ..Owner::default()
    }
}

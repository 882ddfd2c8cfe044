//! Everything that can change the tracker's state.

use std::sync::Arc;

use crate::cause::Cause;
use crate::host::{Activity, Reading};
use crate::owner::{Actor, Holder, Process};
use crate::stack::{self, Stack};
use crate::state::TcpState;
use crate::time::Mono;
use crate::tuple::Tuple;

/// One input. The order in which inputs arrive is the canonical order.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A kernel program saw something.
    Kernel(Event),
    /// Something was not seen: totals since the start, never differences.
    Lost(Loss),
    /// Time has come to be at least this.
    Tick(Mono),
    /// A socket as sock_diag has it, inside or outside a sweep.
    Socket(SocketSnapshot),
    /// A dump of all sockets begins or ends.
    Sweep(Sweep),
    /// A listener's accept queue was full.
    Overflow(Overflow),
    /// A thread acted on a socket, with its stack.
    Stack(stack::Seen),
    /// A fact about the world outside the sockets.
    Define(Definition),
    /// No input follows.
    End(Mono),
}

/// What a kernel program saw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Event {
    /// When.
    pub at: Mono,
    /// The CPU.
    pub cpu: u32,
    /// The socket cookie; 0 unknown.
    pub cookie: u64,
    /// The kernel address, shown, never a key.
    pub sk: u64,
    /// What.
    pub body: EventBody,
}

impl Event {
    /// An event of a socket that is known by its cookie alone.
    pub fn new(at: Mono, cookie: u64, body: EventBody) -> Event {
        Event {
            at,
            cpu: 0,
            cookie,
            sk: 0,
            body,
        }
    }
}

/// The kinds of events.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum EventBody {
    /// A socket changed its state.
    State(StateChange),
    /// A process accepted a connection.
    Accept {
        /// The connection.
        tuple: Tuple,
        /// Who.
        actor: Actor,
        /// The new descriptor, where it has one by then.
        fd: Option<u32>,
        /// The connection's state at that moment.
        state: TcpState,
    },
    /// Something happened to a minisocket.
    Mini {
        /// The connection.
        tuple: Tuple,
        /// FIN_WAIT_2 or TIME_WAIT.
        substate: TcpState,
        /// What.
        op: MiniOp,
    },
    /// A subflow of an MPTCP connection, which is no connection of its own.
    LeftOut,
    /// The descriptor of a dead socket was closed: after a reset close() changes no state.
    Close {
        /// Who closed it.
        actor: Actor,
        /// Because the process ended.
        exiting: bool,
    },
    /// A receive returned 0 in CLOSE_WAIT.
    Eof {
        /// Who read.
        actor: Actor,
    },
}

/// A state change of a full socket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StateChange {
    /// The tuple at that moment: local port 0 where the kernel had none.
    pub tuple: Tuple,
    /// State before.
    pub old: TcpState,
    /// State after.
    pub new: TcpState,
    /// `tcptrace_common::event::STATE_*` bits.
    pub flags: u16,
    /// `sk_err`, 0 none.
    pub err: u32,
    /// Unread bytes, plus one for an unread FIN.
    pub recv_q: u32,
    /// Unacknowledged bytes.
    pub send_q: u32,
    /// Who did it, if a local call did.
    pub actor: Option<Actor>,
}

impl StateChange {
    /// A change of which nothing else is known: no flag, no error, empty queues, nobody who did it.
    pub fn new(tuple: Tuple, old: TcpState, new: TcpState) -> StateChange {
        StateChange {
            tuple,
            old,
            new,
            flags: 0,
            err: 0,
            recv_q: 0,
            send_q: 0,
            actor: None,
        }
    }
}

/// What happened to a minisocket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MiniOp {
    /// Its timer was armed for so many ns.
    Armed {
        /// Time until it runs out, ns, exact to one jiffy.
        timeout_ns: u64,
    },
    /// Its timer was stopped; the cause as the kernel stack tells it.
    Cancelled {
        /// [`Cause::Unknown`] where kallsyms could not be read.
        cause: Cause,
        /// Who ran, where the cause is a local call.
        actor: Option<Actor>,
    },
    /// It was taken down before its time; the cause as the kernel stack tells it.
    Killed {
        /// [`Cause::Unknown`] where kallsyms could not be read.
        cause: Cause,
    },
    /// Its timer ran out.
    Expired,
    /// It received a segment.
    Segment,
}

/// Totals of what was lost since the start, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Records that found the ring buffer full.
    pub ring_full: u64,
    /// Runs of a program that the kernel skipped because it was active, and no twin made up for.
    pub recursion_missed: u64,
    /// Updates that found a kernel map full.
    pub map_full: u64,
    /// Kernel memory that could not be read.
    pub read_faults: u64,
    /// Records that could not be decoded.
    pub undecodable: u64,
    /// Events of MPTCP subflows, left out on purpose.
    pub mptcp: u64,
    /// Stacks that were not taken, by reason: no event is lost with them.
    pub stacks: StackLoss,
}

/// Stacks that were not taken, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StackLoss {
    /// More were wanted than the budget allows.
    pub over_budget: u64,
    /// The ring of stacks, or the queue to the one who names them, was full.
    pub full: u64,
    /// There was nothing to copy: a 32-bit program, a kernel thread, memory that cannot be read.
    pub unreadable: u64,
}

impl StackLoss {
    /// How many.
    pub fn total(&self) -> u64 {
        [self.over_budget, self.full, self.unreadable]
            .into_iter()
            .fold(0, u64::saturating_add)
    }
}

/// What a listener dropped because its accept queue was full: totals since the start, never
/// differences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overflow {
    /// When it last happened.
    pub at: Mono,
    /// When it first happened.
    pub first: Mono,
    /// The socket cookie of the listener; its kernel address where it has no cookie.
    pub cookie: u64,
    /// The listener; the remote end is unspecified.
    pub tuple: Tuple,
    /// SYNs and last ACKs of handshakes that were dropped.
    pub dropped: u64,
    /// Connections that waited to be accepted, at `at`.
    pub queue: u32,
    /// Their limit: the queue is full with one more.
    pub limit: u32,
}

impl Loss {
    /// How much was lost, for whatever reason; what was left out on purpose is not.
    pub fn total(&self) -> u64 {
        [
            self.ring_full,
            self.recursion_missed,
            self.map_full,
            self.read_faults,
            self.undecodable,
        ]
        .into_iter()
        .fold(0, u64::saturating_add)
    }

    /// What was lost since `before`.
    pub fn since(&self, before: &Loss) -> Loss {
        let since = |total: fn(&Loss) -> u64| total(self).saturating_sub(total(before));
        Loss {
            ring_full: since(|l| l.ring_full),
            recursion_missed: since(|l| l.recursion_missed),
            map_full: since(|l| l.map_full),
            read_faults: since(|l| l.read_faults),
            undecodable: since(|l| l.undecodable),
            mptcp: since(|l| l.mptcp),
            stacks: StackLoss {
                over_budget: since(|l| l.stacks.over_budget),
                full: since(|l| l.stacks.full),
                unreadable: since(|l| l.stacks.unreadable),
            },
        }
    }
}

impl Input {
    /// When it came, where it says so.
    pub fn at(&self) -> Option<Mono> {
        match self {
            Input::Kernel(event) => Some(event.at),
            Input::Tick(at) | Input::End(at) => Some(*at),
            Input::Socket(socket) => Some(socket.at),
            Input::Sweep(Sweep::Begin { at } | Sweep::End { at, .. }) => Some(*at),
            Input::Overflow(overflow) => Some(overflow.at),
            Input::Stack(seen) => Some(seen.at),
            Input::Lost(_) | Input::Define(_) => None,
        }
    }
}

/// A socket as sock_diag shows it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SocketSnapshot {
    /// When its dump message was received.
    pub at: Mono,
    /// The socket cookie.
    pub cookie: u64,
    /// The tuple; of a listener, the remote end is unspecified.
    pub tuple: Tuple,
    /// The state; of a minisocket, its substate.
    pub state: TcpState,
    /// A timewait minisocket: it has no owner and no file.
    pub mini: bool,
    /// Inode of the socket file; 0: none, never accepted or closed by its owner.
    pub inode: u32,
    /// User id of the owner.
    pub uid: u32,
    /// Recv-Q: unread bytes, plus one for an unread FIN; of a listener, its queue.
    pub recv_q: u32,
    /// Send-Q: unacknowledged bytes; of a listener, the limit of its queue.
    pub send_q: u32,
    /// The timer that runs.
    pub timer: Timer,
    /// ms since the last ACK came (`tcpi_last_ack_recv`).
    pub last_ack_recv_ms: Option<u32>,
    /// ms since the last data came (`tcpi_last_data_recv`).
    pub last_data_recv_ms: Option<u32>,
    /// ms since we sent data (`tcpi_last_data_sent`).
    pub last_data_sent_ms: Option<u32>,
    /// cgroup v2 id of the socket (`INET_DIAG_CGROUP_ID`, 5.8 and later).
    pub cgroup: Option<u64>,
    /// `sk_shutdown` bits.
    pub shutdown: Option<u8>,
    /// Segments that it dropped (`sk_drops`), of a listener for a full queue above all.
    pub drops: Option<u32>,
    /// A subflow of an MPTCP connection: no connection of its own.
    pub mptcp: bool,
}

/// A socket's timer, as `ss -o` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// None.
    Off,
    /// Retransmission.
    Retransmit {
        /// ms left.
        left_ms: u32,
    },
    /// Keepalive, or the FIN_WAIT_2 timer of an orphan.
    Keepalive {
        /// ms left.
        left_ms: u32,
    },
    /// The minisocket's.
    TimeWait {
        /// ms left.
        left_ms: u32,
    },
    /// Zero-window probe.
    Probe {
        /// ms left.
        left_ms: u32,
    },
}

/// Begin and end of a dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sweep {
    /// The sockets of these namespaces follow.
    Begin {
        /// When the dump was asked for.
        at: Mono,
    },
    /// All were given.
    End {
        /// When the last message was received.
        at: Mono,
        /// Namespaces that were dumped whole; sockets of others are neither missed nor found.
        netns: Vec<u32>,
        /// Namespaces that could not be dumped whole.
        partly: Vec<u32>,
        /// Processes whose namespace could not even be found out.
        hidden: u32,
    },
}

/// A fact resolved at capture.
#[derive(Clone, Debug, PartialEq)]
pub enum Definition {
    /// Who has a socket open, all of them. Empty: nobody.
    Holders {
        /// The socket.
        cookie: u64,
        /// Sorted by pid and fd.
        holders: Vec<Holder>,
    },
    /// A process.
    Process(Process),
    /// A stack.
    Stack(Stack),
    /// `tcp_fin_timeout` of a namespace, ns.
    FinTimeout {
        /// The namespace.
        netns: u32,
        /// How long an orphan may stay in FIN_WAIT_2.
        ns: u64,
    },
    /// A setting or a counter of a namespace.
    Reading(Reading),
    /// What a process had open and waited for.
    Activity(Activity),
    /// What a reader of the results has to know, in a sentence.
    Note(Arc<str>),
}

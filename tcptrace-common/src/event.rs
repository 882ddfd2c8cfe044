//! What the programs write to the ring buffer: one header and a body per kind.

use core::mem::size_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A socket changed its state: [`State`], followed by an [`Actor`] if [`STATE_ACTOR`] is set.
pub const KIND_STATE: u16 = 1;
/// A process accepted a connection: [`Acquire`].
pub const KIND_ACQUIRE: u16 = 2;
/// Something happened to a timewait minisocket: [`Mini`].
pub const KIND_MINI: u16 = 3;
/// A receive returned 0 on a socket in CLOSE_WAIT: [`Eof`].
pub const KIND_EOF: u16 = 4;

/// A socket that is left out on purpose, a subflow of an MPTCP connection: [`Header`] alone.
pub const KIND_LEFT_OUT: u16 = 5;
/// The descriptor of a socket that was dead already, after a reset, was closed: [`Close`].
pub const KIND_CLOSE: u16 = 6;

/// Starts every record.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Header {
    /// One of the `KIND_*` numbers.
    pub kind: u16,
    /// Bytes of the whole record, header included.
    pub size: u16,
    /// The CPU that wrote it.
    pub cpu: u32,
    /// `bpf_ktime_get_ns`: CLOCK_MONOTONIC.
    pub ts: u64,
    /// The socket cookie; 0 where none can be had yet.
    pub cookie: u64,
    /// The kernel address of the sock or minisocket: to tell records apart, never a key.
    pub sk: u64,
}

/// The two ends, as the socket has them.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Tuple {
    /// Local address; IPv4 in the first four bytes.
    pub laddr: [u8; 16],
    /// Remote address; IPv4 in the first four bytes.
    pub raddr: [u8; 16],
    /// Local port, host order; 0 while it is not chosen.
    pub lport: u16,
    /// Remote port, host order.
    pub rport: u16,
    /// `AF_INET` or `AF_INET6`.
    pub family: u16,
    /// Zero.
    pub pad: u16,
    /// Network namespace inode number.
    pub netns: u32,
    /// Zero.
    pub pad2: u32,
}

/// Who ran when the record was written; present only where that is the one who caused it.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Actor {
    /// Process id (kernel: tgid), in the initial pid namespace.
    pub tgid: u32,
    /// Thread id (kernel: pid).
    pub tid: u32,
    /// `task_struct.start_boottime` of the thread: tells a reused pid apart.
    pub start_ns: u64,
    /// cgroup v2 id (the inode number of its directory).
    pub cgroup: u64,
    /// `task_struct.comm`, zero-terminated.
    pub comm: [u8; 16],
}

/// An [`Actor`] follows: the transition is one that a local call makes, and a task holds the lock.
pub const STATE_ACTOR: u16 = 1 << 0;
/// `sk_lock.owned` was set.
pub const STATE_OWNED: u16 = 1 << 1;
/// The socket has no `struct socket`: never accepted, or already closed by its owner.
pub const STATE_NO_SOCKET: u16 = 1 << 2;
/// The socket's file is in its final `fput`: close() or exit, not shutdown().
pub const STATE_LAST_FPUT: u16 = 1 << 3;
/// The acting task is exiting (`PF_EXITING`).
pub const STATE_EXITING: u16 = 1 << 4;
/// `sk_shutdown & RCV_SHUTDOWN`.
pub const STATE_SHUT_RCV: u16 = 1 << 5;
/// `sk_shutdown & SEND_SHUTDOWN`.
pub const STATE_SHUT_SEND: u16 = 1 << 6;
/// `linger2 < 0`: the owner asked for no FIN_WAIT_2.
pub const STATE_NO_LINGER2: u16 = 1 << 7;
/// A shadow twin wrote this record.
pub const STATE_SHADOW: u16 = 1 << 8;
/// `SOCK_DEAD`: the owner has closed it.
pub const STATE_DEAD: u16 = 1 << 9;

/// Body of [`KIND_STATE`].
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct State {
    /// Header.
    pub header: Header,
    /// The tuple as it was at the event; local port 0 where the kernel had none.
    pub tuple: Tuple,
    /// State before.
    pub old: u8,
    /// State after.
    pub new: u8,
    /// `STATE_*` bits.
    pub flags: u16,
    /// `sk_err`: why a connection died, if it died of an error.
    pub err: u32,
    /// `rcv_nxt - copied_seq`: unread bytes, plus one for an unread FIN.
    pub recv_q: u32,
    /// `write_seq - snd_una`: unacknowledged bytes.
    pub send_q: u32,
}

/// Body of a [`KIND_STATE`] record that names who did it.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct StateBy {
    /// The change.
    pub state: State,
    /// Who made it.
    pub actor: Actor,
}

/// No descriptor yet: seen inside of accept, before it has one.
pub const NO_FD: u32 = u32::MAX;

/// Body of [`KIND_ACQUIRE`].
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Acquire {
    /// Header.
    pub header: Header,
    /// The accepted connection.
    pub tuple: Tuple,
    /// Who accepted it.
    pub actor: Actor,
    /// The new file descriptor, or [`NO_FD`].
    pub fd: u32,
    /// The connection's state when it was accepted.
    pub state: u32,
}

/// The minisocket's timer was armed: it was born, or its time starts anew.
pub const MINI_ARMED: u8 = 1;
/// Its timer was stopped: a re-arm follows at once, or it died early.
pub const MINI_CANCELLED: u8 = 2;
/// Its timer ran out.
pub const MINI_EXPIRED: u8 = 3;
/// It received a segment.
pub const MINI_SEGMENT: u8 = 4;
/// It is taken down (`inet_twsk_kill`), and not by its timer.
pub const MINI_KILLED: u8 = 5;

/// Kernel return addresses kept of a [`MiniStopped`].
pub const MINI_FRAMES: usize = 12;

/// Body of [`KIND_MINI`].
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Mini {
    /// Header.
    pub header: Header,
    /// The tuple of the connection.
    pub tuple: Tuple,
    /// One of the `MINI_*` operations.
    pub op: u8,
    /// `tw_substate` at that moment: FIN_WAIT2 or TIME_WAIT.
    pub substate: u8,
    /// Zero.
    pub flags: u16,
    /// Jiffies until the timer runs out, for [`MINI_ARMED`].
    pub timeout_jiffies: u32,
}

/// A [`MINI_CANCELLED`] or [`MINI_KILLED`] carries who ran and where, since that is the cause of an early death.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct MiniStopped {
    /// The event.
    pub mini: Mini,
    /// Who ran; the cause only if the stack says so.
    pub actor: Actor,
    /// Kernel stack, innermost first, 0 past its end.
    pub stack: [u64; MINI_FRAMES],
}

/// Body of [`KIND_EOF`].
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Eof {
    /// Header.
    pub header: Header,
    /// Who read.
    pub actor: Actor,
}

/// Body of [`KIND_CLOSE`].
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Close {
    /// Header.
    pub header: Header,
    /// The task's flags: `PF_EXITING` where the process ends.
    pub exiting: u32,
    /// Zero.
    pub pad: u32,
    /// Who closed.
    pub actor: Actor,
}

/// What the iterator over open files writes per TCP socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct HeldFile {
    /// Cookie of the socket.
    pub cookie: u64,
    /// The process.
    pub tgid: u32,
    /// The task whose table this is.
    pub tid: u32,
    /// File descriptor.
    pub fd: u32,
    /// Zero.
    pub pad: u32,
    /// `task_struct.start_boottime`.
    pub start_ns: u64,
    /// `task_struct.comm`.
    pub comm: [u8; 16],
}

/// What a full accept queue turned away, by listener: a value of the map `OVERFLOWS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Overflow {
    /// The listener: remote end zero.
    pub tuple: Tuple,
    /// When it began, `bpf_ktime_get_ns`.
    pub first: u64,
    /// When it last happened.
    pub last: u64,
    /// SYNs and last ACKs of handshakes that were dropped since the programs were attached.
    pub dropped: u64,
    /// Connections that waited to be accepted, when it last happened.
    pub queue: u32,
    /// Their limit; the queue is full at one more.
    pub limit: u32,
}

const _: () = assert!(size_of::<Overflow>() == 80);
const _: () = assert!(size_of::<Header>() == 32);
const _: () = assert!(size_of::<Tuple>() == 48);
const _: () = assert!(size_of::<Actor>() == 40);
const _: () = assert!(size_of::<State>() == 96);
const _: () = assert!(size_of::<StateBy>() == 136);
const _: () = assert!(size_of::<Acquire>() == 128);
const _: () = assert!(size_of::<Mini>() == 88);
const _: () = assert!(size_of::<MiniStopped>() == 224);
const _: () = assert!(size_of::<Eof>() == 72);
const _: () = assert!(size_of::<Close>() == 80);
const _: () = assert!(size_of::<HeldFile>() == 48);

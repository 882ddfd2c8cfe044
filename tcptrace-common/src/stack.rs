//! What the programs say of the user stack of a thread that acts on a socket.

use core::mem::size_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::event::Header;

/// It connects.
pub const POINT_CONNECT: u8 = 1;
/// It accepts.
pub const POINT_ACCEPT: u8 = 2;
/// It reads the end of the stream.
pub const POINT_EOF: u8 = 3;
/// It closes its last descriptor of the socket.
pub const POINT_CLOSE: u8 = 4;

/// Bytes of the stack that are copied at most.
pub const STACK_BYTES: usize = 24_576;
/// Return addresses that are followed by frame pointers at most.
pub const CHAIN_FRAMES: usize = 64;
/// Python frames that are followed at most.
pub const PYTHON_FRAMES: usize = 48;

/// The user registers that a caller may rely on, as they were at the entry of the system call.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Registers {
    /// The instruction after the system call.
    pub ip: u64,
    /// The stack pointer.
    pub sp: u64,
    /// `rbp`.
    pub bp: u64,
    /// `rbx`.
    pub bx: u64,
    /// `r12` to `r15`.
    pub r: [u64; 4],
}

/// Starts every record of the ring `STACKS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct StackHead {
    /// Its kind is [`KIND_STACK`], [`KIND_CHAIN`] or [`KIND_PATH`].
    pub header: Header,
    /// Process id (kernel: tgid), in the initial pid namespace.
    pub tgid: u32,
    /// Thread id (kernel: pid).
    pub tid: u32,
    /// `group_leader->start_boottime`: tells a reused pid apart.
    pub start_ns: u64,
    /// `mm->start_stack`: tells an exec apart.
    pub start_stack: u64,
    /// One of the `POINT_*` numbers.
    pub point: u8,
    /// Python frames that follow.
    pub python_len: u8,
    /// Whether there are more Python frames than were followed.
    pub python_more: u8,
    /// Zero.
    pub pad: u8,
    /// Bytes of stack, or addresses, that follow; 0 of a path.
    pub len: u32,
}

/// A frame of Python's own stack, not yet understood.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PythonFrame {
    /// The word that leads to the code object; 0 of a frame that only marks a call from C.
    pub code: u64,
    /// The word that says at which instruction it is.
    pub at: u64,
}

/// A copy of the stack: user space unwinds it.
pub const KIND_STACK: u16 = 16;

/// Body of [`KIND_STACK`].
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Stack {
    /// Head.
    pub head: StackHead,
    /// Where the thread is.
    pub registers: Registers,
    /// The Python frames, the innermost first.
    pub python: [PythonFrame; PYTHON_FRAMES],
    /// The stack from `registers.sp` upward.
    pub bytes: [u8; STACK_BYTES],
}

/// Return addresses that the kernel found by frame pointers.
pub const KIND_CHAIN: u16 = 17;

/// Body of [`KIND_CHAIN`].
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Chain {
    /// Head.
    pub head: StackHead,
    /// The Python frames, the innermost first.
    pub python: [PythonFrame; PYTHON_FRAMES],
    /// The instruction after the system call, and then the return addresses.
    pub addresses: [u64; CHAIN_FRAMES],
}

/// A stack that user space knows: what decides it was looked at, and found in the map `PATHS`.
pub const KIND_PATH: u16 = 18;

/// Body of [`KIND_PATH`].
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Path {
    /// Head.
    pub head: StackHead,
    /// The number that user space gave it.
    pub number: u32,
    /// Zero.
    pub pad: u32,
    /// The Python frames, the innermost first.
    pub python: [PythonFrame; PYTHON_FRAMES],
}

/// Words of a stack that are looked at for a known path at most.
pub const PATH_WORDS: usize = 64;

/// For each stack that may be copied in a second so many may be looked at.
pub const LOOKS_PER_COPY: u64 = 8;

/// What was seen at a node of the tree of known paths: a key of the map `PATHS`.
///
/// The first nodes of a path are the process, by its start; its program, by where its stack starts; and
/// the instruction after the system call. From there on each node says where to look next.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PathSeen {
    /// The node; of a process its tgid.
    pub node: u32,
    /// One of the `SEEN_*` numbers.
    pub kind: u32,
    /// What was seen.
    pub value: u64,
}

/// An address of code.
pub const SEEN_ADDRESS: u32 = 0;
/// A place, in bytes from the stack pointer.
pub const SEEN_PLACE: u32 = 1;
/// Zero, which is no place.
pub const SEEN_ZERO: u32 = 2;
/// `group_leader->start_boottime`.
pub const SEEN_PROCESS: u32 = 3;
/// `mm->start_stack`.
pub const SEEN_PROGRAM: u32 = 4;

/// Where to look next: a value of the map `PATHS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PathNext {
    /// The node that this is; of [`LOOK_FOUND`] the number of the path.
    pub node: u32,
    /// Bytes from the stack pointer to the word, and above them the `LOOK_*` bits.
    pub look: u32,
}

/// The bits of a look that are the number of bytes.
pub const LOOK_OFFSET: u32 = 0x00ff_ffff;
/// Set: the word is a place on the stack. Not set: it is an address of code.
pub const LOOK_PLACE: u32 = 1 << 24;
/// Set: the word is `rbp`.
pub const LOOK_BP: u32 = 1 << 25;
/// Set: there is nothing to look at, the path is known.
pub const LOOK_FOUND: u32 = 1 << 26;

/// An offset of [`Python`] that there is none of.
pub const NO_OFFSET: u16 = u16::MAX;

/// How the frames of a process that runs CPython are found: a value of the map `PYTHONS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Python {
    /// `group_leader->start_boottime` of the process that this was found in, to 10 ms.
    pub start_ns: u64,
    /// Address of the pointer to the first thread state of the main interpreter.
    pub threads: u64,
    /// Offset of the next thread state.
    pub thread_next: u16,
    /// Offset of the `pthread_t`, which on x86-64 is the thread's `fs` base.
    pub thread_id: u16,
    /// Offset of the innermost frame, or of the `_PyCFrame` that points to it.
    pub thread_frame: u16,
    /// Offset of the frame in the `_PyCFrame`, or [`NO_OFFSET`].
    pub cframe_frame: u16,
    /// Offset of the frame that called this one.
    pub frame_previous: u16,
    /// Offset of the word that leads to the code object.
    pub frame_code: u16,
    /// Offset of the word that says at which instruction it is.
    pub frame_at: u16,
    /// Offset of the byte that says who owns the frame, or [`NO_OFFSET`]. From [`OWNED_BY_C`] on it
    /// marks a call from C and is no function.
    pub frame_owner: u16,
}

/// See [`Python::frame_owner`].
pub const OWNED_BY_C: u8 = 3;

const _: () = assert!(size_of::<Registers>() == 64);
const _: () = assert!(size_of::<StackHead>() == 64);
const _: () = assert!(size_of::<PythonFrame>() == 16);
const _: () = assert!(size_of::<Stack>() == 64 + 64 + 16 * PYTHON_FRAMES + STACK_BYTES);
const _: () = assert!(size_of::<Chain>() == 64 + 16 * PYTHON_FRAMES + 512);
const _: () = assert!(size_of::<Path>() == 64 + 8 + 16 * PYTHON_FRAMES);
const _: () = assert!(size_of::<PathSeen>() == 16);
const _: () = assert!(size_of::<PathNext>() == 8);
const _: () = assert!(size_of::<Python>() == 32);

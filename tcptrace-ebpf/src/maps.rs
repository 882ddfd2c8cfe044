//! Maps and read-only globals: everything that the programs share with user space. The globals'
//! names end with the version of the ABI.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf};
use tcptrace_common::config::Config;
use tcptrace_common::counters;
use tcptrace_common::event::Overflow;
use tcptrace_common::layout::Layout;
use tcptrace_common::stack::{PathNext, PathSeen, Python};
use zerocopy::FromZeros;

/// Where the kernel keeps its fields; set before load.
#[unsafe(no_mangle)]
pub(crate) static LAYOUT_V6: Layout = Layout::UNRESOLVED;

/// What the agent asks for; set before load.
#[unsafe(no_mangle)]
pub(crate) static CONFIG_V6: Config = Config::ZERO;

/// The events. The size is set by user space.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 24, 0);

/// Stacks: apart from the events, so that they take no room from them. The size is set by user space.
#[map]
pub(crate) static STACKS: RingBuf = RingBuf::with_byte_size(1 << 12, 0);

/// How many stacks were copied in the second that runs, and how many were looked at: its number above,
/// their count below.
#[map]
pub(crate) static STACKS_TAKEN: Array<u64> = Array::with_max_entries(2, 0);

/// The tree of the call paths that user space knows. It writes it; a path without room is copied.
#[map]
pub(crate) static PATHS: HashMap<PathSeen, PathNext> =
    HashMap::with_max_entries(1 << 16, BPF_F_NO_PREALLOC);

/// Processes that run CPython, by tgid. Those that ended are forgotten in time; losing another costs
/// stacks whose Python is of a later moment, and says so: that is why this may be an LRU map.
#[map]
pub(crate) static PYTHONS: LruHashMap<u32, Python> = LruHashMap::with_max_entries(1 << 10, 0);

/// `tcptrace_common::counters`.
#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(counters::COUNT, 0);

/// Cookies of the sockets that an owner filter selected at their birth.
#[map]
pub(crate) static SELECTED: HashMap<u64, u8> = HashMap::with_max_entries(1 << 16, 0);

/// Connections whose EOF was reported, so that spinning readers cannot flood the ring: the last ones of each
/// place. One that is lost costs a second report, never a wrong one; to find room for each in a hash costs
/// 0.6 µs.
#[map]
pub(crate) static EOF_SEEN: Array<[u64; 4]> = Array::with_max_entries(EOF_PLACES, 0);

/// Places of `EOF_SEEN`: a power of 2.
pub(crate) const EOF_PLACES: u32 = 1 << 12;

/// Sockets whose change the main state program took, and the last of its twins has not seen yet: their
/// addresses, some at each place of their hashes.
#[map]
pub(crate) static STATE_TAKEN: PerCpuArray<[u64; STATE_AT_ONCE]> =
    PerCpuArray::with_max_entries(STATE_PLACES, 0);

/// Places of `STATE_TAKEN`: a power of 2.
pub(crate) const STATE_PLACES: u32 = 1 << 8;
/// So many sockets of one place can be in the middle of a change on a CPU.
pub(crate) const STATE_AT_ONCE: usize = 4;

/// Nobody writes it, so it is 0: the verifier does not know that.
#[map]
static ZERO: Array<u64> = Array::with_max_entries(1, 0);

/// Makes the verifier forget what it knows of a number, by adding a 0 that it does not know.
///
/// It follows every way through a program, and takes two of them as one from where they know the
/// same. What a branch has told and a later branch asks for again keeps them apart: so each such
/// question doubles the rest. Numbers that are forgotten in between cost nothing of the kind.
///
/// Nothing is written anywhere: since 7.x a program may be preempted, and another run of it come
/// in between on the same CPU.
#[derive(Clone, Copy)]
pub(crate) struct Blur(u64);

impl Blur {
    #[inline(always)]
    pub(crate) fn new() -> Option<Blur> {
        let zero = ZERO.get_ptr(0)?;
        // SAFETY: a valid pointer into the map; volatile, so that the compiler does not know it either.
        Some(Blur(unsafe { core::ptr::read_volatile(zero) }))
    }

    /// The same number.
    #[inline(always)]
    pub(crate) fn number(self, mut number: u64) -> u64 {
        // SAFETY: an addition. In assembly, so that none of several is thought to be needless.
        unsafe {
            core::arch::asm!("{0} += {1}", inlateout(reg) number, in(reg) self.0, options(nomem, nostack));
        }
        number
    }
}

/// The minisocket whose timer runs on this CPU: its cookie, or its address if it has none.
#[map]
pub(crate) static EXPIRING: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Minisockets in FIN_WAIT_2 by their ends, where segments are seen without their socket. One
/// that is lost is dated back from its timer: that is why this may be an LRU map, which forgets
/// those whose end no filter lets pass any more.
#[map]
pub(crate) static FIN_WAIT2: LruHashMap<Ends, u64> = LruHashMap::with_max_entries(1 << 14, 0);

/// The ends of a connection as a key, IPv4 in its v4-mapped form.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Ends {
    pub(crate) laddr: [u64; 2],
    pub(crate) raddr: [u64; 2],
    pub(crate) lport: u16,
    pub(crate) rport: u16,
    pub(crate) netns: u32,
}

/// What a thread receives on, from the entry of `tcp_recvmsg` to its return. A lost entry is an
/// EOF that is told later, from the receive queue: that is why this may be an LRU map.
#[map]
pub(crate) static RECEIVING: LruHashMap<u64, u64> = LruHashMap::with_max_entries(1 << 12, 0);

/// Cookies of sockets that are dead, by a reset, while their descriptor is open.
#[map]
pub(crate) static DEAD: LruHashMap<u64, u8> = LruHashMap::with_max_entries(1 << 14, 0);

/// Listeners whose accept queue was full, by cookie, or by address where there is none. User space
/// reads it: however many are turned away, the ring has no record of them.
#[map]
pub(crate) static OVERFLOWS: HashMap<u64, Overflow> = HashMap::with_max_entries(1 << 10, 0);

/// Do not wake the reader: a wake-up from inside a probe raises an interrupt whose softirq runs
/// nested state changes while our program is active, and the kernel would skip those.
pub(crate) const BPF_RB_NO_WAKEUP: u64 = 1;

/// Adds one to a counter.
#[inline(always)]
pub(crate) fn count(index: u32) {
    if let Some(counter) = COUNTERS.get_ptr_mut(index) {
        // SAFETY: a valid pointer into this CPU's copy.
        unsafe { *counter += 1 };
    }
}

/// Writes one record, or counts that there was no room.
#[inline(always)]
pub(crate) fn emit<T: FromZeros + 'static>(fill: impl FnOnce(&mut T)) {
    let Some(mut entry) = EVENTS.reserve::<T>(0) else {
        count(counters::RING_FULL);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: all-zero bytes are a valid `T`, and the entry is as large as `T`.
    unsafe {
        core::ptr::write_bytes(record, 0, 1);
        fill(&mut *record);
    }
    entry.submit(BPF_RB_NO_WAKEUP);
}

/// The value of a [`Config`] field; see [`crate::kernel::offset`].
macro_rules! config {
    ($($field:tt)+) => {
        // SAFETY: a read of a static; volatile, since user space sets it before load.
        unsafe { core::ptr::read_volatile(&raw const $crate::maps::CONFIG_V6.$($field)+) }
    };
}
pub(crate) use config;

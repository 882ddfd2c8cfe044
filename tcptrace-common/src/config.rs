//! What the agent asks of the programs: switches and filters, as one read-only global.
//!
//! A filter that is not set is a constant zero for the verifier, which drops its code.

use core::mem::size_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// How many ports, addresses or owners of one kind are pushed into the kernel. A longer list is
/// applied by the agent alone.
pub const MAX_FILTER: usize = 8;

/// Follow only sockets whose birth was selected (map `SELECTED`): an owner filter is set.
pub const FLAG_SELECTED: u32 = 1 << 0;
/// Select sockets that connect.
pub const FLAG_SELECT_ACTIVE: u32 = 1 << 1;
/// Select sockets that were accepted from a listener.
pub const FLAG_SELECT_PASSIVE: u32 = 1 << 2;
/// Note minisockets in FIN_WAIT_2 by their ends: segments are seen without their socket.
pub const FLAG_NOTE_FIN_WAIT2: u32 = 1 << 3;

/// Stacks are copied, for user space to unwind.
pub const STACKS_COPY: u32 = 1;
/// The chain of frame pointers is followed.
pub const STACKS_CHAIN: u32 = 2;

/// An address prefix; IPv4 as its v4-mapped IPv6 form, so that one rule serves both.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Prefix {
    /// Network address: two halves whose bytes are in network order, as they lie in memory.
    pub net: [u64; 2],
    /// Mask of the same form.
    pub mask: [u64; 2],
}

/// The configuration.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Config {
    /// A change is reported if its old or its new state is in this set (bit = state number).
    pub states: u32,
    /// `FLAG_*` bits.
    pub flags: u32,
    /// 0, or the one address family to follow.
    pub family: u32,
    /// 0, or the one network namespace to follow.
    pub netns: u32,
    /// Address of `tw_timer_handler`, which tells minisocket timers from all others.
    pub tw_timer_handler: u64,
    /// Number of `local_ports`.
    pub local_ports_len: u32,
    /// Number of `remote_ports`.
    pub remote_ports_len: u32,
    /// Number of `any_ports`.
    pub any_ports_len: u32,
    /// Number of `local_nets`.
    pub local_nets_len: u32,
    /// Number of `remote_nets`.
    pub remote_nets_len: u32,
    /// Number of `tgids`.
    pub tgids_len: u32,
    /// How stacks are taken: 0 not at all, else one of the `STACKS_*` numbers.
    pub stacks: u32,
    /// How many a second.
    pub stack_rate: u32,
    /// 0, or the cgroup v2 id whose processes are followed.
    pub cgroup: u64,
    /// Local port is one of these.
    pub local_ports: [u16; MAX_FILTER],
    /// Remote port is one of these.
    pub remote_ports: [u16; MAX_FILTER],
    /// Either port is one of these.
    pub any_ports: [u16; MAX_FILTER],
    /// Processes to follow.
    pub tgids: [u32; MAX_FILTER],
    /// Local address is in one of these.
    pub local_nets: [Prefix; MAX_FILTER],
    /// Remote address is in one of these.
    pub remote_nets: [Prefix; MAX_FILTER],
}

impl Config {
    /// Nothing asked for.
    pub const ZERO: Config = Config {
        states: 0,
        flags: 0,
        family: 0,
        netns: 0,
        tw_timer_handler: 0,
        local_ports_len: 0,
        remote_ports_len: 0,
        any_ports_len: 0,
        local_nets_len: 0,
        remote_nets_len: 0,
        tgids_len: 0,
        stacks: 0,
        stack_rate: 0,
        cgroup: 0,
        local_ports: [0; MAX_FILTER],
        remote_ports: [0; MAX_FILTER],
        any_ports: [0; MAX_FILTER],
        tgids: [0; MAX_FILTER],
        local_nets: [Prefix::ZERO; MAX_FILTER],
        remote_nets: [Prefix::ZERO; MAX_FILTER],
    };
}

impl Prefix {
    /// Every address.
    pub const ZERO: Prefix = Prefix {
        net: [0; 2],
        mask: [0; 2],
    };
}

const _: () = assert!(size_of::<Config>() == 64 + 48 + 32 + 2 * MAX_FILTER * 32);

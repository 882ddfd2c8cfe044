//! The user's filters, as far as the kernel can judge them: what is dropped here costs next to
//! nothing. The agent applies the whole filter again, so a filter that cannot tell lets pass.

use aya_ebpf::helpers::generated::{bpf_get_current_cgroup_id, bpf_get_current_pid_tgid};
use tcptrace_common::config::{
    FLAG_SELECT_ACTIVE, FLAG_SELECT_PASSIVE, FLAG_SELECTED, MAX_FILTER, Prefix,
};
use tcptrace_common::counters;
use tcptrace_common::event::Tuple;
use tcptrace_common::tcp;

use crate::maps::{SELECTED, config, count};

/// Whether the ends, the family and the namespace are wanted.
#[inline(always)]
pub(crate) fn wants_tuple(tuple: &Tuple) -> bool {
    let family = config!(family);
    if family != 0 && family != u32::from(tuple.family) {
        return false;
    }
    let netns = config!(netns);
    if netns != 0 && netns != tuple.netns {
        return false;
    }
    if config!(local_ports_len) != 0 && tuple.lport != 0 {
        let mut hit = false;
        for i in 0..MAX_FILTER {
            hit |= (i as u32) < config!(local_ports_len) && config!(local_ports[i]) == tuple.lport;
        }
        if !hit {
            return false;
        }
    }
    if config!(remote_ports_len) != 0 {
        let mut hit = false;
        for i in 0..MAX_FILTER {
            hit |=
                (i as u32) < config!(remote_ports_len) && config!(remote_ports[i]) == tuple.rport;
        }
        if !hit {
            return false;
        }
    }
    if config!(any_ports_len) != 0 && tuple.lport != 0 {
        let mut hit = false;
        for i in 0..MAX_FILTER {
            let port = config!(any_ports[i]);
            hit |=
                (i as u32) < config!(any_ports_len) && (port == tuple.lport || port == tuple.rport);
        }
        if !hit {
            return false;
        }
    }
    if config!(local_nets_len) != 0 {
        let addr = halves(&tuple.laddr, tuple.family);
        let mut hit = false;
        for i in 0..MAX_FILTER {
            hit |= (i as u32) < config!(local_nets_len) && inside(addr, config!(local_nets[i]));
        }
        if !hit {
            return false;
        }
    }
    if config!(remote_nets_len) != 0 {
        let addr = halves(&tuple.raddr, tuple.family);
        let mut hit = false;
        for i in 0..MAX_FILTER {
            hit |= (i as u32) < config!(remote_nets_len) && inside(addr, config!(remote_nets[i]));
        }
        if !hit {
            return false;
        }
    }
    true
}

/// The address as two halves with their bytes in network order, IPv4 in its v4-mapped form.
#[inline(always)]
pub(crate) fn halves(addr: &[u8; 16], family: u16) -> [u64; 2] {
    let half = |at: usize| {
        let mut bytes = [0u8; 8];
        bytes.copy_from_slice(&addr[at..at + 8]);
        u64::from_ne_bytes(bytes)
    };
    if family == tcp::AF_INET {
        [0, 0xffff_0000 | half(0) << 32]
    } else {
        [half(0), half(8)]
    }
}

#[inline(always)]
fn inside(addr: [u64; 2], prefix: Prefix) -> bool {
    addr[0] & prefix.mask[0] == prefix.net[0] && addr[1] & prefix.mask[1] == prefix.net[1]
}

/// How a socket came to be, for the filters that are judged at its birth.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Birth {
    /// A process connects.
    Connect,
    /// The handshake with a listener ended: no process yet.
    Handshake,
    /// A process accepts.
    Accept,
}

/// Whether sockets are judged at their birth.
#[inline(always)]
pub(crate) fn selects() -> bool {
    config!(flags) & FLAG_SELECTED != 0
}

/// Judges a socket at its birth, and remembers it where an owner filter wants it.
#[inline(always)]
pub(crate) fn select(cookie: u64, birth: Birth) {
    if !selects() {
        return;
    }
    let flags = config!(flags);
    let role = match birth {
        Birth::Connect => flags & FLAG_SELECT_ACTIVE,
        Birth::Handshake | Birth::Accept => flags & FLAG_SELECT_PASSIVE,
    };
    if role == 0 || !owner_wanted(birth) {
        return;
    }
    if SELECTED.insert(cookie, 1, 0).is_err() {
        count(counters::SELECTED_FULL);
    }
}

/// Whether the running process is one of those asked for.
#[inline(always)]
fn owner_wanted(birth: Birth) -> bool {
    let filtered = config!(tgids_len) != 0 || config!(cgroup) != 0;
    if birth == Birth::Handshake {
        return !filtered;
    }
    if config!(tgids_len) != 0 {
        // SAFETY: a helper without arguments.
        let tgid = unsafe { bpf_get_current_pid_tgid() >> 32 } as u32;
        let mut hit = false;
        for i in 0..MAX_FILTER {
            hit |= (i as u32) < config!(tgids_len) && config!(tgids[i]) == tgid;
        }
        if !hit {
            return false;
        }
    }
    // SAFETY: a helper without arguments.
    if config!(cgroup) != 0 && unsafe { bpf_get_current_cgroup_id() } != config!(cgroup) {
        return false;
    }
    true
}

/// Whether the socket passed the filters of its birth.
#[inline(always)]
pub(crate) fn selected(cookie: u64) -> bool {
    if !selects() {
        return true;
    }
    // SAFETY: the value is not read.
    unsafe { SELECTED.get(cookie) }.is_some()
}

/// Forgets a socket that is gone.
#[inline(always)]
pub(crate) fn unselect(cookie: u64) {
    if selects() {
        let _ = SELECTED.remove(cookie);
    }
}

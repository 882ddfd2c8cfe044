//! A listener's accept queue is full: what would add to it is dropped.
//!
//! `tcp_conn_request (rsk_ops, af_ops, struct sock *sk, skb)` drops a SYN, and
//! `tcp_v4_syn_recv_sock (const struct sock *sk, skb, …)` and its v6 twin the last ACK of a
//! handshake, if `sk_acceptq_is_full`: more wait than the limit. Softirq; on every kernel from
//! 5.10 to 7.3, and no tracepoint tells of it.

use core::arch::asm;

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use tcptrace_common::counters;
use tcptrace_common::event::Overflow;

use crate::kernel::{Reader, offset};
use crate::maps::{OVERFLOWS, count};
use crate::sock;

/// `ETH_P_IP`, as it lies in memory.
const IPV4: u16 = 0x0800u16.to_be();

/// A SYN or a last ACK came for the listener `sk`.
#[inline(always)]
pub(crate) fn came<R: Reader>(reader: R, sk: *const u8) {
    let queue: u32 = reader.read(sk, offset!(sk_ack_backlog));
    let limit: u32 = reader.read(sk, offset!(sk_max_ack_backlog));
    if queue > limit {
        dropped(reader, sk, queue, limit);
    }
}

/// A last ACK came by `tcp_v6_syn_recv_sock`, which hands what is IPv4 on to its v4 twin.
#[inline(always)]
pub(crate) fn came_v6<R: Reader>(reader: R, sk: *const u8, skb: *const u8) {
    if reader.read::<u16>(skb, offset!(skb_protocol)) != IPV4 {
        came(reader, sk);
    }
}

#[inline(always)]
fn dropped<R: Reader>(reader: R, sk: *const u8, queue: u32, limit: u32) {
    let cookie: u64 = reader.read(sk, offset!(skc_cookie));
    let key = match cookie {
        0 => sk as u64,
        cookie => cookie,
    };
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    if add(key, now, queue, limit) {
        return;
    }
    let first = Overflow {
        tuple: sock::tuple(reader, sk, 0),
        first: now,
        last: now,
        dropped: 1,
        queue,
        limit,
    };
    // Another CPU may have been quicker.
    if OVERFLOWS
        .insert(key, first, u64::from(BPF_NOEXIST))
        .is_err()
        && !add(key, now, queue, limit)
    {
        count(counters::OVERFLOWS_FULL);
    }
}

/// One more for a listener that is known.
#[inline(always)]
fn add(key: u64, now: u64, queue: u32, limit: u32) -> bool {
    let Some(known) = OVERFLOWS.get_ptr_mut(key) else {
        return false;
    };
    // SAFETY: a valid pointer into the map. Other CPUs write at the same time: the number is added
    // to atomically (core's atomics are not there for this target), of the rest anyone's will do.
    unsafe {
        asm!("lock *(u64 *)({number} + 0) += {one}", number = in(reg) &raw mut (*known).dropped, one = in(reg) 1u64);
        (*known).last = now;
        (*known).queue = queue;
        (*known).limit = limit;
    }
    true
}

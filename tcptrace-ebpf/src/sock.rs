//! What the programs read of a socket.

use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid,
    bpf_get_smp_processor_id, bpf_ktime_get_ns,
};
use tcptrace_common::event::{Actor, Header, Tuple};
use tcptrace_common::tcp;

use crate::kernel::{Probed, Reader, current_task, offset};

/// Fills a record's header.
#[inline(always)]
pub(crate) fn header<T>(kind: u16, cookie: u64, sk: *const u8) -> Header {
    // SAFETY: helpers without arguments.
    let (cpu, ts) = unsafe { (bpf_get_smp_processor_id(), bpf_ktime_get_ns()) };
    Header {
        kind,
        size: size_of::<T>() as u16,
        cpu,
        ts,
        cookie,
        sk: sk as u64,
    }
}

/// The tuple of anything that starts with a `sock_common`: sock or minisocket.
///
/// `port` is the local port to use where `skc_num` is 0: the kernel clears that one before it
/// reports the last change.
#[inline(always)]
pub(crate) fn tuple<R: Reader>(reader: R, sk: *const u8, port: u16) -> Tuple {
    let family: u16 = reader.read(sk, offset!(skc_family));
    let mut laddr = [0u8; 16];
    let mut raddr = [0u8; 16];
    if family == tcp::AF_INET6 {
        laddr = v6(reader, sk, offset!(skc_v6_rcv_saddr));
        raddr = v6(reader, sk, offset!(skc_v6_daddr));
    } else {
        let local: u32 = reader.read(sk, offset!(skc_rcv_saddr));
        let remote: u32 = reader.read(sk, offset!(skc_daddr));
        laddr[..4].copy_from_slice(&local.to_ne_bytes());
        raddr[..4].copy_from_slice(&remote.to_ne_bytes());
    }
    let num: u16 = reader.read(sk, offset!(skc_num));
    let dport: u16 = reader.read(sk, offset!(skc_dport));
    let net = reader.pointer(sk, offset!(skc_net));
    Tuple {
        laddr,
        raddr,
        lport: if num == 0 { port } else { num },
        rport: u16::from_be(dport),
        family,
        pad: 0,
        netns: reader.follow(net, offset!(net_ns_inum)),
        pad2: 0,
    }
}

#[inline(always)]
fn v6<R: Reader>(reader: R, sk: *const u8, offset: u32) -> [u8; 16] {
    let low: u64 = reader.read(sk, offset);
    let high: u64 = reader.read(sk, offset + 8);
    let mut addr = [0u8; 16];
    addr[..8].copy_from_slice(&low.to_ne_bytes());
    addr[8..].copy_from_slice(&high.to_ne_bytes());
    addr
}

/// Whether the running task is on its way out (`PF_EXITING`, `include/linux/sched.h`).
#[inline(always)]
pub(crate) fn exiting() -> bool {
    const PF_EXITING: u32 = 0x4;
    let flags: u32 = Probed.read(current_task(), offset!(task_flags));
    flags & PF_EXITING != 0
}

/// Who runs now. Only process context makes this the one who acts on the socket.
#[inline(always)]
pub(crate) fn actor(actor: &mut Actor) {
    // SAFETY: helpers; `comm` is as long as said.
    unsafe {
        let id = bpf_get_current_pid_tgid();
        actor.tgid = (id >> 32) as u32;
        actor.tid = id as u32;
        actor.cgroup = bpf_get_current_cgroup_id();
        bpf_get_current_comm((&raw mut actor.comm).cast(), 16);
    }
    actor.start_ns = Probed.read(current_task(), offset!(task_start_boottime));
}

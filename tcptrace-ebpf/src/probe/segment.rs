//! The FIN that moves a minisocket from FIN_WAIT_2 to TIME_WAIT, where the timer does not tell:
//! a re-arm into the same bucket of the timer wheel fires no tracepoint.
//!
//! `skb:kfree_skb (struct sk_buff *skb, …)` fires for every segment that a minisocket takes, since
//! it keeps none. Before 6.11 it does not say for which socket; its ends do. Softirq context.

use tcptrace_common::config::FLAG_NOTE_FIN_WAIT2;
use tcptrace_common::event::Tuple;
use tcptrace_common::tcp;

use crate::filter;
use crate::kernel::{Probed, Reader, offset};
use crate::maps::{Ends, FIN_WAIT2, config};
use crate::probe::mini;

const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
const IPPROTO_TCP: u8 = 6;
const FIN: u8 = 1;

/// Notes a minisocket whose timer is armed, while it is in FIN_WAIT_2.
#[inline(always)]
pub(crate) fn note(tw: *const u8, tuple: &Tuple, armed: bool) {
    if config!(flags) & FLAG_NOTE_FIN_WAIT2 == 0 {
        return;
    }
    let ends = Ends {
        laddr: filter::halves(&tuple.laddr, tuple.family),
        raddr: filter::halves(&tuple.raddr, tuple.family),
        lport: tuple.lport,
        rport: tuple.rport,
        netns: tuple.netns,
    };
    if armed && Probed.read::<u8>(tw, offset!(tw_substate)) == tcp::FIN_WAIT2 {
        let _ = FIN_WAIT2.insert(ends, tw as u64, 0);
    } else {
        let _ = FIN_WAIT2.remove(ends);
    }
}

/// A segment is dropped: a FIN, perhaps, for a minisocket that was noted.
#[inline(always)]
pub(crate) fn dropped(skb: *const u8) {
    let head = Probed.pointer(skb, offset!(skb_head));
    let network: u16 = Probed.read(skb, offset!(skb_network_header));
    let transport: u16 = Probed.read(skb, offset!(skb_transport_header));
    let protocol: u16 = Probed.read(skb, offset!(skb_protocol));
    // An offset that was never set is all ones.
    if network >= transport || transport == u16::MAX {
        return;
    }
    let ip = head.wrapping_add(usize::from(network));
    let next: u8 = match u16::from_be(protocol) {
        ETH_P_IP => Probed.read(ip, 9),
        ETH_P_IPV6 => Probed.read(ip, 6),
        _ => return,
    };
    let segment = head.wrapping_add(usize::from(transport));
    if next != IPPROTO_TCP || Probed.read::<u8>(segment, 13) & FIN == 0 {
        return;
    }
    let dev = Probed.pointer(skb, offset!(skb_dev));
    if dev.is_null() {
        return;
    }
    let net = Probed.pointer(dev, offset!(dev_net));
    // It comes in: its source is the remote end.
    let (raddr, laddr) = match u16::from_be(protocol) {
        ETH_P_IP => (v4(ip, 12), v4(ip, 16)),
        _ => (v6(ip, 8), v6(ip, 24)),
    };
    let ends = Ends {
        laddr,
        raddr,
        lport: u16::from_be(Probed.read(segment, 2)),
        rport: u16::from_be(Probed.read(segment, 0)),
        netns: Probed.read(net, offset!(net_ns_inum)),
    };
    // SAFETY: the value is copied at once.
    let Some(tw) = unsafe { FIN_WAIT2.get(ends) }.copied() else {
        return;
    };
    let tw = tw as *const u8;
    if Probed.read::<u8>(tw, offset!(tw_substate)) == tcp::TIME_WAIT {
        let _ = FIN_WAIT2.remove(ends);
        mini::segment_at(tw);
    }
}

#[inline(always)]
fn v4(ip: *const u8, at: u32) -> [u64; 2] {
    let addr: u32 = Probed.read(ip, at);
    [0, 0xffff_0000 | u64::from(addr) << 32]
}

#[inline(always)]
fn v6(ip: *const u8, at: u32) -> [u64; 2] {
    [Probed.read(ip, at), Probed.read(ip, at + 8)]
}

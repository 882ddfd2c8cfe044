//! Timewait minisockets, which live on in FIN_WAIT_2 or TIME_WAIT when the full socket is gone.
//!
//! Two functions make and end them all, on 5.10 to 7.3, and can be entered by fentry or kprobe:
//! `__inet_twsk_schedule (struct inet_timewait_sock *tw, int timeo, bool rearm)`, with the
//! substate set, and `inet_twsk_kill (tw)`. The timer is what ends one in the course of nature:
//! `tw_timer_handler (struct timer_list *)` runs before the kill, on the same CPU, in softirq.
//!
//! Without either their life shows in their timer: `timer:timer_start`, `timer:timer_cancel`,
//! `timer:timer_expire_entry`, whose first argument is `struct timer_list *` on 5.10 to 7.3, kept
//! by its function `tw_timer_handler`; and in `skb:kfree_skb`, whose fourth argument `rx_sk`
//! (6.11 and later) is the minisocket that a segment reached; before, it is found by the ends in
//! the segment (`segment.rs`). The timer programs run with the
//! timer base locked and interrupts off, so nothing can nest in them.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::{bpf_get_stack, bpf_jiffies64};
use tcptrace_common::event::{
    KIND_MINI, MINI_ARMED, MINI_CANCELLED, MINI_EXPIRED, MINI_FRAMES, MINI_KILLED, MINI_SEGMENT,
    Mini, MiniStopped, Tuple,
};
use tcptrace_common::tcp;

use crate::filter;
use crate::kernel::{Probed, Reader, Typed, Window, offset};
use crate::maps::{EXPIRING, config, emit};
use crate::probe::segment;
use crate::sock;

/// Armed or expired: `op` says which.
#[inline(always)]
pub(crate) fn timer(timer: *const u8, op: u8) {
    let Some(tw) = minisocket(timer) else { return };
    let Some((cookie, tuple)) = wanted(tw) else {
        return;
    };
    let left = match op == MINI_ARMED {
        // SAFETY: a helper without arguments.
        true => Typed
            .read::<u64>(timer, offset!(timer_expires))
            .wrapping_sub(unsafe { bpf_jiffies64() }),
        false => 0,
    };
    segment::note(tw, &tuple, op == MINI_ARMED);
    emit::<Mini>(|record| {
        fill::<Mini>(record, tw, cookie, tuple, op);
        record.timeout_jiffies = left.min(u64::from(u32::MAX)) as u32;
    });
}

/// The timer was stopped: by a re-arm, which follows at once, or by an early death.
#[inline(always)]
pub(crate) fn cancelled<C: EbpfContext>(ctx: &C, timer: *const u8) {
    if let Some(tw) = minisocket(timer) {
        stopped(ctx, tw, MINI_CANCELLED);
    }
}

/// `__inet_twsk_schedule`: the timer is about to be armed, for the first time or anew.
#[inline(always)]
pub(crate) fn scheduled(tw: *const u8, jiffies: i32) {
    let Some((cookie, tuple)) = wanted(tw) else {
        return;
    };
    emit::<Mini>(|record| {
        fill::<Mini>(record, tw, cookie, tuple, MINI_ARMED);
        record.timeout_jiffies = jiffies.max(0) as u32;
    });
}

/// `tw_timer_handler`: its time is up, and the kill follows.
#[inline(always)]
pub(crate) fn ran_out(timer: *const u8) {
    let tw = around(timer);
    expiring(whose(tw));
    let Some((cookie, tuple)) = wanted(tw) else {
        return;
    };
    emit::<Mini>(|record| fill::<Mini>(record, tw, cookie, tuple, MINI_EXPIRED));
}

/// `inet_twsk_kill`: by the timer, which has told it, or before its time.
#[inline(always)]
pub(crate) fn killed<C: EbpfContext>(ctx: &C, tw: *const u8) {
    if expiring(0) != whose(tw) {
        stopped(ctx, tw, MINI_KILLED);
    }
}

/// Notes whose timer runs on this CPU, and gives the one noted before.
#[inline(always)]
fn expiring(tw: u64) -> u64 {
    let Some(slot) = EXPIRING.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: a valid pointer into this CPU's copy, which only softirq touches.
    unsafe { core::ptr::replace(slot, tw) }
}

/// The cookie, where there is one: the kernel soon makes another minisocket at the same address, and of one
/// that ran out before all programs were attached no kill is seen.
#[inline(always)]
fn whose(tw: *const u8) -> u64 {
    match Probed.read::<u64>(tw, offset!(skc_cookie)) {
        0 => tw as u64,
        cookie => cookie,
    }
}

/// It was stopped by somebody; the cause is in the kernel stack.
#[inline(always)]
fn stopped<C: EbpfContext>(ctx: &C, tw: *const u8, op: u8) {
    let Some((cookie, tuple)) = wanted(tw) else {
        return;
    };
    if op == MINI_CANCELLED {
        segment::note(tw, &tuple, false);
    }
    emit::<MiniStopped>(|record| {
        fill::<MiniStopped>(&mut record.mini, tw, cookie, tuple, op);
        sock::actor(&mut record.actor);
        // SAFETY: the buffer has the size said.
        unsafe {
            bpf_get_stack(
                ctx.as_ptr(),
                (&raw mut record.stack).cast(),
                (MINI_FRAMES * 8) as u32,
                0,
            )
        };
    });
}

/// A segment reached a minisocket: `sk` is `kfree_skb`'s `rx_sk`, a minisocket or not.
#[inline(always)]
pub(crate) fn segment(sk: *const u8) {
    if !sk.is_null() && Typed.read::<u8>(sk, offset!(skc_state)) == tcp::TIME_WAIT {
        segment_at(sk);
    }
}

/// A segment reached the minisocket `sk`.
#[inline(always)]
pub(crate) fn segment_at(sk: *const u8) {
    let Some((cookie, tuple)) = wanted(sk) else {
        return;
    };
    emit::<Mini>(|record| fill::<Mini>(record, sk, cookie, tuple, MINI_SEGMENT));
}

/// The minisocket around a timer, if it is one's.
#[inline(always)]
fn minisocket(timer: *const u8) -> Option<*const u8> {
    let function: u64 = Typed.read(timer, offset!(timer_function));
    if function != config!(tw_timer_handler) {
        return None;
    }
    Some(around(timer))
}

#[inline(always)]
fn around(timer: *const u8) -> *const u8 {
    (timer as u64).wrapping_sub(u64::from(offset!(tw_timer))) as *const u8
}

#[inline(always)]
fn wanted(tw: *const u8) -> Option<(u64, Tuple)> {
    let common = Window::of(tw);
    let cookie: u64 = common.read(tw, offset!(skc_cookie));
    if !filter::selected(cookie) {
        return None;
    }
    let tuple = sock::tuple(&common, tw, 0);
    filter::wants_tuple(&tuple).then_some((cookie, tuple))
}

#[inline(always)]
fn fill<T>(record: &mut Mini, tw: *const u8, cookie: u64, tuple: Tuple, op: u8) {
    record.header = sock::header::<T>(KIND_MINI, cookie, tw);
    record.tuple = tuple;
    record.op = op;
    record.substate = Probed.read(tw, offset!(tw_substate));
}

//! The kernel side of tcptrace: entry points only; bodies are in [`probe`].
//!
//! The agent loads the programs one by one, as its plan says. Each is named by the event it
//! serves and the mechanism it is entered by.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch, stmt_expr_attributes)]

mod filter;
mod kernel;
mod maps;
mod probe;
mod sock;
mod user;

use aya_ebpf::macros::{
    btf_tracepoint, cgroup_sock, fentry, fexit, kprobe, kretprobe, raw_tracepoint, sock_ops,
    tracepoint,
};
use aya_ebpf::programs::{
    BtfTracePointContext, FEntryContext, FExitContext, ProbeContext, RawTracePointContext,
    RetProbeContext, SockContext, SockOpsContext, TracePointContext,
};
use core::ffi::c_void;
use tcptrace_common::event::{MINI_ARMED, MINI_EXPIRED};

use crate::kernel::{Probed, Reader as _, Typed};

// State changes: sock:inet_sock_set_state (sk, oldstate, newstate).

#[btf_tracepoint(function = "inet_sock_set_state")]
fn state(ctx: BtfTracePointContext) -> i32 {
    let (sk, old, new) = (ctx.arg(0), ctx.arg(1), ctx.arg(2));
    probe::state::main(
        sk,
        probe::state::hash(sk),
        #[inline(always)]
        |twin| probe::state::change(Typed, sk, old, new, twin),
    );
    0
}

#[btf_tracepoint(function = "inet_sock_set_state")]
fn state_shadow(ctx: BtfTracePointContext) -> i32 {
    let (sk, old, new) = (ctx.arg(0), ctx.arg(1), ctx.arg(2));
    probe::state::shadow(
        sk,
        probe::state::hash(sk),
        #[inline(always)]
        |twin| probe::state::change(Typed, sk, old, new, twin),
    );
    0
}

#[btf_tracepoint(function = "inet_sock_set_state")]
fn state_last(ctx: BtfTracePointContext) -> i32 {
    let (sk, old, new) = (ctx.arg(0), ctx.arg(1), ctx.arg(2));
    probe::state::last(
        sk,
        probe::state::hash(sk),
        #[inline(always)]
        |twin| probe::state::change(Typed, sk, old, new, twin),
    );
    0
}

#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
fn state_raw(ctx: RawTracePointContext) -> i32 {
    let (sk, old, new) = (ctx.arg(0), ctx.arg(1), ctx.arg(2));
    probe::state::main(
        sk,
        probe::state::hash_at(sk),
        #[inline(always)]
        |twin| probe::state::change_at(sk, old, new, twin),
    );
    0
}

#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
fn state_raw_shadow(ctx: RawTracePointContext) -> i32 {
    let (sk, old, new) = (ctx.arg(0), ctx.arg(1), ctx.arg(2));
    probe::state::shadow(
        sk,
        probe::state::hash_at(sk),
        #[inline(always)]
        |twin| probe::state::change_at(sk, old, new, twin),
    );
    0
}

#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
fn state_raw_last(ctx: RawTracePointContext) -> i32 {
    let (sk, old, new) = (ctx.arg(0), ctx.arg(1), ctx.arg(2));
    probe::state::last(
        sk,
        probe::state::hash_at(sk),
        #[inline(always)]
        |twin| probe::state::change_at(sk, old, new, twin),
    );
    0
}

/// Its record holds `skaddr` at 8, `oldstate` at 16, `newstate` at 20, on 4.16 to 7.3. No twin
/// helps here: the kernel lets one program of this kind run on a CPU at a time.
#[tracepoint]
fn state_perf(ctx: TracePointContext) -> u32 {
    // SAFETY: within the record.
    let fields = unsafe {
        (
            ctx.read_at::<u64>(8),
            ctx.read_at::<i32>(16),
            ctx.read_at::<i32>(20),
        )
    };
    if let (Ok(sk), Ok(old), Ok(new)) = fields {
        probe::state::change_at(sk as *const u8, old, new, 0);
    }
    0
}

#[cgroup_sock(sock_create)]
fn cookie_create(ctx: SockContext) -> i32 {
    probe::cookie::made(&ctx);
    ALLOW
}

#[sock_ops]
fn cookie_established(ctx: SockOpsContext) -> u32 {
    probe::cookie::called(&ctx, ctx.op());
    ALLOW as u32
}

/// What programs on cgroups return: the kernel goes on as if they were not there.
const ALLOW: i32 = 1;

// Minisockets.

#[btf_tracepoint(function = "timer_start")]
fn mini_start(ctx: BtfTracePointContext) -> i32 {
    probe::mini::timer(ctx.arg(0), MINI_ARMED);
    0
}

#[btf_tracepoint(function = "timer_cancel")]
fn mini_cancel(ctx: BtfTracePointContext) -> i32 {
    probe::mini::cancelled(&ctx, ctx.arg(0));
    0
}

#[btf_tracepoint(function = "timer_expire_entry")]
fn mini_expire(ctx: BtfTracePointContext) -> i32 {
    probe::mini::timer(ctx.arg(0), MINI_EXPIRED);
    0
}

/// `skb:kfree_skb (skb, location, reason, rx_sk)`.
#[btf_tracepoint(function = "kfree_skb")]
fn mini_segment(ctx: BtfTracePointContext) -> i32 {
    probe::mini::segment(ctx.arg(3));
    0
}

/// `skb:kfree_skb (skb, …)`.
#[btf_tracepoint(function = "kfree_skb")]
fn mini_segment_skb(ctx: BtfTracePointContext) -> i32 {
    probe::segment::dropped(ctx.arg(0));
    0
}

#[fentry(function = "__inet_twsk_schedule")]
fn mini_schedule_fentry(ctx: FEntryContext) -> i32 {
    probe::mini::scheduled(ctx.arg(0), ctx.arg(1));
    0
}

#[fentry(function = "tw_timer_handler")]
fn mini_handler_fentry(ctx: FEntryContext) -> i32 {
    probe::mini::ran_out(ctx.arg(0));
    0
}

#[fentry(function = "inet_twsk_kill")]
fn mini_kill_fentry(ctx: FEntryContext) -> i32 {
    probe::mini::killed(&ctx, ctx.arg(0));
    0
}

#[kprobe(function = "__inet_twsk_schedule")]
fn mini_schedule_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(tw), Some(jiffies)) = (ctx.arg(0), ctx.arg(1)) {
        probe::mini::scheduled(tw, jiffies);
    }
    0
}

#[kprobe(function = "tw_timer_handler")]
fn mini_handler_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(timer) = ctx.arg(0) {
        probe::mini::ran_out(timer);
    }
    0
}

#[kprobe(function = "inet_twsk_kill")]
fn mini_kill_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(tw) = ctx.arg(0) {
        probe::mini::killed(&ctx, tw);
    }
    0
}

// Accept.

/// `inet_csk_accept (sk, flags, err, kern)`; what it returns lies behind the arguments. Each
/// number of arguments has a program of its own: the verifier takes no computed place in them.
#[fexit(function = "inet_csk_accept")]
fn accept_fexit_4(ctx: FExitContext) -> i32 {
    probe::accept::got(ctx.arg(4));
    0
}

/// From 6.10 on `(sk, arg)`.
#[fexit(function = "inet_csk_accept")]
fn accept_fexit_2(ctx: FExitContext) -> i32 {
    probe::accept::got(ctx.arg(2));
    0
}

#[kretprobe(function = "inet_csk_accept")]
fn accept_kretprobe(ctx: RetProbeContext) -> u32 {
    probe::accept::got(ctx.ret());
    0
}

/// `syscalls:sys_exit_accept`: `ret` at offset 16 of its record (`struct syscall_trace_exit`).
#[tracepoint]
fn accept_exit(ctx: TracePointContext) -> u32 {
    // SAFETY: within the record.
    if let Ok(ret) = unsafe { ctx.read_at::<i64>(16) } {
        probe::accept::returned(ret);
    }
    0
}

/// `raw_syscalls:sys_exit (struct pt_regs *regs, long ret)`: runs at the exit of every call.
#[raw_tracepoint(tracepoint = "sys_exit")]
fn accept_raw(ctx: RawTracePointContext) -> i32 {
    const ORIG_AX: u32 = 15 * 8;
    const SYS_ACCEPT: u64 = 43;
    const SYS_ACCEPT4: u64 = 288;
    let regs: *const u8 = ctx.arg(0);
    let number: u64 = Probed.read(regs, ORIG_AX);
    if number == SYS_ACCEPT || number == SYS_ACCEPT4 {
        probe::accept::returned(ctx.arg(1));
    }
    0
}

// The close of a dead socket's descriptor.

#[fentry(function = "tcp_close")]
fn close_fentry(ctx: FEntryContext) -> i32 {
    probe::close::closed(ctx.arg(0));
    0
}

#[kprobe(function = "tcp_close")]
fn close_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(sk) = ctx.arg(0) {
        probe::close::closed(sk);
    }
    0
}

#[btf_tracepoint(function = "tcp_destroy_sock")]
fn close_destroy(ctx: BtfTracePointContext) -> i32 {
    probe::close::closed(ctx.arg(0));
    0
}

// A full accept queue.

#[fentry(function = "tcp_conn_request")]
fn overflow_syn_fentry(ctx: FEntryContext) -> i32 {
    probe::overflow::came(Typed, ctx.arg(2));
    0
}

#[fentry(function = "tcp_v4_syn_recv_sock")]
fn overflow_ack_fentry(ctx: FEntryContext) -> i32 {
    probe::overflow::came(Typed, ctx.arg(0));
    0
}

#[fentry(function = "tcp_v6_syn_recv_sock")]
fn overflow_ack6_fentry(ctx: FEntryContext) -> i32 {
    probe::overflow::came_v6(Typed, ctx.arg(0), ctx.arg(1));
    0
}

#[kprobe(function = "tcp_conn_request")]
fn overflow_syn_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(sk) = ctx.arg(2) {
        probe::overflow::came(Probed, sk);
    }
    0
}

#[kprobe(function = "tcp_v4_syn_recv_sock")]
fn overflow_ack_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(sk) = ctx.arg(0) {
        probe::overflow::came(Probed, sk);
    }
    0
}

#[kprobe(function = "tcp_v6_syn_recv_sock")]
fn overflow_ack6_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(sk), Some(skb)) = (ctx.arg(0), ctx.arg(1)) {
        probe::overflow::came_v6(Probed, sk, skb);
    }
    0
}

// The end of the stream.

#[btf_tracepoint(function = "sock_recv_length")]
fn eof(ctx: BtfTracePointContext) -> i32 {
    let (sk, ret, flags) = (ctx.arg(0), ctx.arg(1), ctx.arg(2));
    probe::eof::received(Typed, sk, ret, flags);
    0
}

/// `tcp_recvmsg (sk, msg, len, nonblock, flags, addr_len)`.
#[fexit(function = "tcp_recvmsg")]
fn eof_fexit_6(ctx: FExitContext) -> i32 {
    probe::eof::received_at(ctx.arg(0), ctx.arg(6), ctx.arg(4));
    0
}

/// Without `nonblock` from 5.19 on.
#[fexit(function = "tcp_recvmsg")]
fn eof_fexit_5(ctx: FExitContext) -> i32 {
    probe::eof::received_at(ctx.arg(0), ctx.arg(5), ctx.arg(3));
    0
}

/// Without `addr_len` from 6.18 on.
#[fexit(function = "tcp_recvmsg")]
fn eof_fexit_4(ctx: FExitContext) -> i32 {
    probe::eof::received_at(ctx.arg(0), ctx.arg(4), ctx.arg(3));
    0
}

#[kprobe(function = "tcp_recvmsg")]
fn eof_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(sk), Some(flags)) = (ctx.arg(0), ctx.arg(3)) {
        probe::eof::entered(sk, flags);
    }
    0
}

/// With `nonblock`, before 5.19.
#[kprobe(function = "tcp_recvmsg")]
fn eof_kprobe_6(ctx: ProbeContext) -> u32 {
    if let (Some(sk), Some(flags)) = (ctx.arg(0), ctx.arg(4)) {
        probe::eof::entered(sk, flags);
    }
    0
}

#[kretprobe(function = "tcp_recvmsg")]
fn eof_kretprobe(ctx: RetProbeContext) -> u32 {
    probe::eof::left(ctx.ret());
    0
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
extern "C" fn files(ctx: *mut c_void) -> i32 {
    probe::files::step(ctx.cast());
    0
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // A panic that could be reached makes the verifier refuse the program: this loop never ends.
    loop {}
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

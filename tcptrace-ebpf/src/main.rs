//! The kernel side of tcptrace: entry points only; bodies are in [`probe`].
//!
//! The agent loads the programs one by one, as its plan says. Each is named by the event it
//! serves and the mechanism it is entered by.
#![no_std]
#![no_main]

mod filter;
mod kernel;
mod maps;
mod probe;
mod sock;

use aya_ebpf::macros::{btf_tracepoint, raw_tracepoint, tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, RawTracePointContext, TracePointContext};
use core::ffi::c_void;
use tcptrace_common::event::{MINI_ARMED, MINI_EXPIRED};

use crate::kernel::{Probed, Reader as _};

#[btf_tracepoint(function = "inet_sock_set_state")]
fn state(ctx: BtfTracePointContext) -> i32 {
    probe::state::main(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

#[btf_tracepoint(function = "inet_sock_set_state")]
fn state_shadow(ctx: BtfTracePointContext) -> i32 {
    probe::state::shadow(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

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

#[btf_tracepoint(function = "sock_recv_length")]
fn eof(ctx: BtfTracePointContext) -> i32 {
    probe::eof::received(ctx.arg(0), ctx.arg(1), ctx.arg(2));
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

//! The eBPF programs of tcptrace.
#![no_std]
#![no_main]

use aya_ebpf::macros::{btf_tracepoint, map};
use aya_ebpf::maps::RingBuf;
use aya_ebpf::programs::BtfTracePointContext;
use aya_ebpf::EbpfContext as _;
use tcptrace_common::layout::Layout;

#[unsafe(no_mangle)]
static LAYOUT: Layout = Layout::UNRESOLVED;

#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 24, 0);

#[inline(always)]
fn layout() -> &'static Layout {
    &LAYOUT
}

#[btf_tracepoint(function = "inet_sock_set_state")]
fn state_tp_btf(ctx: BtfTracePointContext) -> i32 {
    let sk: *const u8 = ctx.arg(0);
    let new: i32 = ctx.arg(2);
    let off = unsafe { core::ptr::read_volatile(&layout().skc_cookie) };
    if off == u32::MAX { return 0; }
    let cookie = unsafe { core::ptr::read_volatile(sk.add(off as usize).cast::<u64>()) };
    if let Some(mut e) = EVENTS.reserve::<[u64; 2]>(0) {
        e.write([cookie, new as u64]);
        e.submit(0);
    }
    let _ = ctx.as_ptr();
    0
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

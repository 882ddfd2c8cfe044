//! Cookies where tracing programs cannot make them (before 5.12, and in raw tracepoints): programs
//! on the root cgroup ask for them, and the kernel keeps them in the sock, where plain reads find
//! them.
//!
//! `cgroup/sock_create` runs in socket(), in every version; `sockops` at the end of a handshake,
//! which is the birth of an accepted socket, before its change to ESTABLISHED.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::bpf_get_socket_cookie;

/// `BPF_SOCK_OPS_TCP_CONNECT_CB`, `BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB`,
/// `BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB`.
const BIRTHS: [u32; 3] = [3, 4, 5];

/// A socket is made.
#[inline(always)]
pub(crate) fn made<C: EbpfContext>(ctx: &C) {
    // SAFETY: the helper takes the context of this program type.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
}

/// TCP calls back with `op`.
#[inline(always)]
pub(crate) fn called<C: EbpfContext>(ctx: &C, op: u32) {
    if BIRTHS.contains(&op) {
        made(ctx);
    }
}

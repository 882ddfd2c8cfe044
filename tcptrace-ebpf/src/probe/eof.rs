//! The application read the end of the stream. Process context; splice() is not seen.
//!
//! `sock:sock_recv_length (struct sock *sk, int ret, int flags)`, 6.3 and later, fires for every
//! receive of every protocol. `tcp_recvmsg (sk, msg, len, …, flags, …)` returns the same; its
//! flags are the fourth argument, but the fifth of the six that it had before 5.19.

use aya_ebpf::helpers::generated::bpf_get_current_pid_tgid;
use tcptrace_common::event::{Eof, KIND_EOF};
use tcptrace_common::stack::POINT_EOF;
use tcptrace_common::tcp;

use crate::filter;
use crate::kernel::{Sock, Window, offset};
use crate::maps::{EOF_PLACES, EOF_SEEN, RECEIVING, emit};
use crate::probe::stack;
use crate::sock;

const MSG_PEEK: i32 = 2;

/// `tcp_recvmsg` is entered; for a return probe, which does not see the arguments.
#[inline(always)]
pub(crate) fn entered(sk: *const u8, flags: i32) {
    if flags & MSG_PEEK == 0 {
        // SAFETY: a helper without arguments.
        let thread = unsafe { bpf_get_current_pid_tgid() };
        let _ = RECEIVING.insert(thread, sk as u64, 0);
    }
}

/// `tcp_recvmsg` of this thread returned `ret`.
#[inline(always)]
pub(crate) fn left(ret: i32) {
    // SAFETY: a helper without arguments.
    let thread = unsafe { bpf_get_current_pid_tgid() };
    // SAFETY: the value is copied at once.
    let Some(sk) = unsafe { RECEIVING.get(thread) }.copied() else {
        return;
    };
    let _ = RECEIVING.remove(thread);
    if ret == 0 {
        received_at(sk as *const u8, ret, 0);
    }
}

/// A receive on a sock that is known by its address only returned `ret`.
#[inline(always)]
pub(crate) fn received_at(sk: *const u8, ret: i32, flags: i32) {
    if ret == 0 && flags & MSG_PEEK == 0 {
        received(&Window::of(sk), sk, ret, flags);
    }
}

/// A receive on `sk` returned `ret`.
#[inline(always)]
pub(crate) fn received<S: Sock>(sock: S, sk: *const u8, ret: i32, flags: i32) {
    if ret != 0 || flags & MSG_PEEK != 0 {
        return;
    }
    let family: u16 = sock.read(sk, offset!(skc_family));
    let protocol: u16 = sock.read(sk, offset!(sk_protocol));
    let state: u8 = sock.read(sk, offset!(skc_state));
    if (family != tcp::AF_INET && family != tcp::AF_INET6)
        || protocol != tcp::IPPROTO_TCP
        || state != tcp::CLOSE_WAIT
    {
        return;
    }
    // A receive into an empty buffer returns 0, too: the end is reached when all is copied.
    let tp = sock.tcp(sk);
    if tp.is_null() {
        return;
    }
    let next: u32 = sock.read(tp, offset!(rcv_nxt));
    if next != sock.read::<u32>(tp, offset!(copied_seq)) {
        return;
    }
    let cookie = sock.cookie(sk);
    let tuple = sock::tuple(sock, sk, 0);
    if !filter::selected(cookie) || !filter::wants_tuple(&tuple) {
        return;
    }
    // A socket that connects again has other ports.
    let key = cookie ^ u64::from(tuple.lport) << 48 ^ u64::from(tuple.rport) << 32;
    let hash = (key ^ key >> 32) as u32;
    let Some(seen) = EOF_SEEN.get_ptr_mut(hash & (EOF_PLACES - 1)) else {
        return;
    };
    // SAFETY: a valid pointer into the map; another processor's write costs a second report.
    unsafe {
        let [a, b, c, d] = core::ptr::read_volatile(seen);
        if a == key || b == key || c == key || d == key {
            return;
        }
        core::ptr::write_volatile(seen, [key, a, b, c]);
    }
    emit::<Eof>(|record| {
        record.header = sock::header::<Eof>(KIND_EOF, cookie, sk);
        sock::actor(&mut record.actor);
    });
    stack::take(POINT_EOF, cookie, sk);
}

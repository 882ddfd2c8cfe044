//! The application read the end of the stream.
//!
//! `sock:sock_recv_length (struct sock *sk, int ret, int flags)`, 6.3 and later. Process context.
//! Fires for every receive of every protocol; splice() is not seen.

use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_skc_to_tcp_sock};
use tcptrace_common::event::{Eof, KIND_EOF};
use tcptrace_common::tcp;

use crate::filter;
use crate::kernel::{Reader, Typed, offset};
use crate::maps::{EOF_SEEN, emit};
use crate::sock;

const MSG_PEEK: i32 = 2;

/// A receive on `sk` returned `ret`.
#[inline(always)]
pub(crate) fn received(sk: *const u8, ret: i32, flags: i32) {
    if ret != 0 || flags & MSG_PEEK != 0 {
        return;
    }
    let family: u16 = Typed.read(sk, offset!(skc_family));
    let protocol: u16 = Typed.read(sk, offset!(sk_protocol));
    let state: u8 = Typed.read(sk, offset!(skc_state));
    if (family != tcp::AF_INET && family != tcp::AF_INET6)
        || protocol != tcp::IPPROTO_TCP
        || state != tcp::CLOSE_WAIT
    {
        return;
    }
    // A receive into an empty buffer returns 0, too: the end is reached when all is copied.
    // SAFETY: the verifier knows `sk` as a trusted sock; NULL where it is no TCP sock.
    let tp = unsafe { bpf_skc_to_tcp_sock(sk as *mut _) } as *const u8;
    if tp.is_null() {
        return;
    }
    let next: u32 = Typed.read(tp, offset!(rcv_nxt));
    if next != Typed.read::<u32>(tp, offset!(copied_seq)) {
        return;
    }
    // SAFETY: the verifier knows `sk` as a trusted sock.
    let cookie = unsafe { bpf_get_socket_cookie(sk as *mut _) };
    let tuple = sock::tuple(Typed, sk, 0);
    if !filter::selected(cookie) || !filter::wants_tuple(&tuple) {
        return;
    }
    // A socket that connects again has other ports.
    let key = cookie ^ u64::from(tuple.lport) << 48 ^ u64::from(tuple.rport) << 32;
    // SAFETY: the value is not read.
    if unsafe { EOF_SEEN.get(key) }.is_some() {
        return;
    }
    let _ = EOF_SEEN.insert(key, 1, 0);
    emit::<Eof>(|record| {
        record.header = sock::header::<Eof>(KIND_EOF, cookie, sk);
        sock::actor(&mut record.actor);
    });
}

//! The end of a descriptor whose socket was dead already, after a reset: close() changes no state
//! then. Every other close is told by the change that it makes.
//!
//! `tcp_close (struct sock *sk, long timeout)` by fentry or kprobe, or `tcp:tcp_destroy_sock
//! (struct sock *sk)`, which comes later in the same call. Process context.

use tcptrace_common::event::{Close, KIND_CLOSE};
use tcptrace_common::stack::POINT_CLOSE;

use crate::kernel::{Probed, Reader, offset};
use crate::maps::{DEAD, emit};
use crate::probe::stack;
use crate::sock;

/// The socket of this cookie died, and its descriptor is open.
#[inline(always)]
pub(crate) fn remember(cookie: u64) {
    let _ = DEAD.insert(cookie, 1, 0);
}

/// `sk` is closed.
#[inline(always)]
pub(crate) fn closed(sk: *const u8) {
    let cookie: u64 = Probed.read(sk, offset!(skc_cookie));
    if cookie == 0 || DEAD.remove(cookie).is_err() {
        return;
    }
    emit::<Close>(|record| {
        record.header = sock::header::<Close>(KIND_CLOSE, cookie, sk);
        record.exiting = u32::from(sock::exiting());
        sock::actor(&mut record.actor);
    });
    if !sock::exiting() {
        stack::take(POINT_CLOSE, cookie, sk);
    }
}

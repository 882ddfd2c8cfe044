//! State changes of full sockets.
//!
//! `sock:inet_sock_set_state (const struct sock *sk, const int oldstate, const int newstate)`,
//! 4.16 and later, called before `sk_state` is written (`inet_sk_state_store`,
//! `inet_sk_set_state`). Process or softirq context. It never fires for minisockets.

use tcptrace_common::counters;
use tcptrace_common::event::{
    self, Header, KIND_LEFT_OUT, KIND_STATE, STATE_ACTOR, STATE_DEAD, STATE_EXITING,
    STATE_LAST_FPUT, STATE_NO_LINGER2, STATE_NO_SOCKET, STATE_OWNED, STATE_SHADOW, STATE_SHUT_RCV,
    STATE_SHUT_SEND, State, StateBy,
};
use tcptrace_common::layout::ABSENT;
use tcptrace_common::stack::{POINT_CLOSE, POINT_CONNECT};
use tcptrace_common::tcp;

use crate::filter::{self, Birth};
use crate::kernel::{Sock, Window, offset};
use crate::maps::{STATE_ACTIVE, config, count, emit};
use crate::probe::{close, stack};
use crate::sock;

/// `enum sock_flags`: SOCK_DEAD, the first, so that its bit is 1 or 0.
const SOCK_DEAD: u64 = 1;
/// `file.f_ref` while the last reference is being dropped (`FILE_REF_DEAD`, 6.13 and later).
const FILE_REF_DEAD: u64 = 0xE000_0000_0000_0000;

/// The main program: marks this CPU while it runs, so that its twin knows when it was skipped.
///
/// Where the kernel does not guard against recursion (before 6.1) this one is entered again, and
/// leaves the event to the twin, which came first.
#[inline(always)]
pub(crate) fn main(change: impl FnOnce(u16)) {
    let Some(active) = STATE_ACTIVE.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: a valid pointer into this CPU's copy; volatile, since the twin reads it nested.
    if unsafe { core::ptr::read_volatile(active) } != 0 {
        return;
    }
    // SAFETY: as above.
    unsafe { core::ptr::write_volatile(active, 1) };
    change(0);
    // SAFETY: as above.
    unsafe { core::ptr::write_volatile(active, 0) };
}

/// The twin: the kernel does not enter a program that is already active on this CPU, as it is
/// when an interrupt's softirq changes another socket's state in the middle of it. The twin is
/// another program, so it runs then, and does the work only then.
#[inline(always)]
pub(crate) fn shadow(change: impl FnOnce(u16)) {
    let Some(active) = STATE_ACTIVE.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: a valid pointer into this CPU's copy.
    if unsafe { core::ptr::read_volatile(active) } != 0 {
        count(counters::SHADOW_STATE);
        change(STATE_SHADOW);
    }
}

/// One change of a sock that is known by its address only.
#[inline(always)]
pub(crate) fn change_at(sk: *const u8, old: i32, new: i32, twin: u16) {
    change(&Window::of(sk), sk, old, new, twin);
}

/// One change.
#[inline(always)]
pub(crate) fn change<S: Sock>(sock: S, sk: *const u8, old: i32, new: i32, twin: u16) {
    let protocol: u16 = sock.read(sk, offset!(sk_protocol));
    if protocol != tcp::IPPROTO_TCP {
        return;
    }
    let (old, new) = (old as u8, new as u8);
    let wanted = config!(states) & (1u32 << (old & 31) | 1u32 << (new & 31)) != 0;
    let handshake = old == tcp::SYN_RECV && new == tcp::ESTABLISHED;
    if !wanted && !handshake {
        return;
    }
    // Up to 6.12 the child wears its listener's cookie and tuple here: never ask for it.
    let child = old == tcp::LISTEN && new == tcp::SYN_RECV;
    let cookie = match child {
        true => 0,
        false => sock.cookie(sk),
    };
    // A handshake came this far for the cookie, which accept finds.
    if !wanted && !filter::selects() {
        return;
    }
    // Before its ends are looked at, which costs the verifier least; no room is kept for one whose
    // ends do not fit.
    if handshake {
        filter::select(cookie, Birth::Handshake);
    } else if new == tcp::SYN_SENT {
        filter::select(cookie, Birth::Connect);
    }
    // Listeners pass every filter: they own what nobody has accepted.
    let listener = new == tcp::LISTEN || (old == tcp::LISTEN && !child);
    let followed = child || listener || filter::selected(cookie) || unaccepted(sock, sk);
    if !followed {
        return;
    }
    let tp = sock.tcp(sk);
    if tp.is_null() {
        return;
    }
    let sport: u16 = sock.read(tp, offset!(inet_sport));
    let tuple = sock::tuple(sock, sk, u16::from_be(sport));
    let fits = listener || filter::wants_tuple(&tuple);
    let gone = new == tcp::CLOSE && old != tcp::FIN_WAIT2 && old != tcp::CLOSING;
    if !fits || gone {
        filter::unselect(cookie);
    }
    if !fits || !wanted {
        return;
    }
    if offset!(is_mptcp) != ABSENT && sock.read::<u8>(tp, offset!(is_mptcp)) & 1 != 0 {
        count(counters::MPTCP);
        emit::<Header>(|record| *record = sock::header::<Header>(KIND_LEFT_OUT, cookie, sk));
        return;
    }
    let flags = flags(sock, sk, tp) | twin;
    let acts = flags & STATE_OWNED != 0 && local_call(old, new);
    if new == tcp::CLOSE && flags & (STATE_NO_SOCKET | STATE_DEAD | STATE_LAST_FPUT) == 0 {
        close::remember(cookie);
    }
    let fill = #[inline(always)]
    |state: &mut State| {
        state.tuple = tuple;
        state.old = old;
        state.new = new;
        state.flags = flags;
        state.err = sock.read(sk, offset!(sk_err));
        let seq = |field: u32| sock.read::<u32>(tp, field);
        state.recv_q = seq(offset!(rcv_nxt)).wrapping_sub(seq(offset!(copied_seq)));
        state.send_q = seq(offset!(write_seq)).wrapping_sub(seq(offset!(snd_una)));
    };
    if acts {
        emit::<StateBy>(
            #[inline(always)]
            |record| {
                record.state.header = sock::header::<StateBy>(KIND_STATE, cookie, sk);
                fill(&mut record.state);
                record.state.flags |= STATE_ACTOR;
                if sock::exiting() {
                    record.state.flags |= STATE_EXITING;
                }
                sock::actor(&mut record.actor);
            },
        );
        let closes = old != tcp::LISTEN && flags & STATE_LAST_FPUT != 0;
        if new == tcp::SYN_SENT || (closes && !sock::exiting()) {
            let point = match closes {
                true => POINT_CLOSE,
                false => POINT_CONNECT,
            };
            stack::take(point, cookie, sk);
        }
    } else {
        emit::<State>(
            #[inline(always)]
            |record| {
                record.header = sock::header::<State>(event::KIND_STATE, cookie, sk);
                fill(record);
            },
        );
    }
}

/// Nobody has accepted it, so nobody could judge it yet: it belongs to its listener's owner.
#[inline(always)]
fn unaccepted<S: Sock>(sock: S, sk: *const u8) -> bool {
    sock.pointer(sk, offset!(sk_socket)).is_null()
        && sock.read::<u64>(sk, offset!(skc_flags)) & SOCK_DEAD == 0
}

/// Transitions that only a local call makes. With the lock owned, the running task made them;
/// packets that wait in the backlog while a task holds the lock make other transitions.
#[inline(always)]
fn local_call(old: u8, new: u8) -> bool {
    match new {
        tcp::SYN_SENT | tcp::LISTEN => old == tcp::CLOSE,
        tcp::FIN_WAIT1 => old == tcp::ESTABLISHED || old == tcp::SYN_RECV || old == new,
        tcp::LAST_ACK => old == tcp::CLOSE_WAIT || old == new,
        tcp::CLOSE => {
            old == tcp::ESTABLISHED
                || old == tcp::CLOSE_WAIT
                || old == tcp::FIN_WAIT1
                || old == tcp::FIN_WAIT2
                || old == tcp::SYN_SENT
                || old == tcp::SYN_RECV
                || old == tcp::LISTEN
        }
        _ => old == new,
    }
}

/// The socket first: the verifier searches all of the kernel's types for what it may know of a
/// pointer, on each path that leads to its load.
#[inline(always)]
fn flags<S: Sock>(sock: S, sk: *const u8, tp: *const u8) -> u16 {
    let mut flags = closing(sock, sock.pointer(sk, offset!(sk_socket)));
    if sock.read::<u32>(sk, offset!(sk_lock_owned)) != 0 {
        flags |= STATE_OWNED;
    }
    // Without branches: each would make two of the verifier's paths.
    let shutdown: u8 = sock.read(sk, offset!(sk_shutdown));
    flags |= u16::from(shutdown & 1) * STATE_SHUT_RCV;
    flags |= u16::from(shutdown >> 1 & 1) * STATE_SHUT_SEND;
    let dead = sock.read::<u64>(sk, offset!(skc_flags)) & SOCK_DEAD;
    flags |= dead as u16 * STATE_DEAD;
    let negative = sock.read::<u32>(tp, offset!(linger2)) >> 31;
    flags |= negative as u16 * STATE_NO_LINGER2;
    flags
}

/// Whether the socket has no file any more, or is losing the last reference to it.
#[inline(always)]
fn closing<S: Sock>(sock: S, socket: *const u8) -> u16 {
    if socket.is_null() {
        return STATE_NO_SOCKET;
    }
    let file = sock.follow_pointer(socket, offset!(socket_file));
    if file.is_null() {
        return 0;
    }
    let last = match offset!(file_f_ref) != ABSENT {
        true => sock.follow::<u64>(file, offset!(file_f_ref)) == FILE_REF_DEAD,
        false => sock.follow::<u64>(file, offset!(file_f_count)) == 0,
    };
    match last {
        true => STATE_LAST_FPUT,
        false => 0,
    }
}

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
use crate::kernel::{Reader, Sock, Typed, Window, offset};
use crate::maps::{Blur, STATE_AT_ONCE, STATE_PLACES, STATE_TAKEN, config, count, emit};
use crate::probe::{close, stack};
use crate::sock;

/// `enum sock_flags`: SOCK_DEAD, the first, so that its bit is 1 or 0.
const SOCK_DEAD: u64 = 1;
/// `file.f_ref` while the last reference is being dropped (`FILE_REF_DEAD`, 6.13 and later).
const FILE_REF_DEAD: u64 = 0xE000_0000_0000_0000;

/// The main program: says whose change it takes, so that its twins, which are called next, leave it.
///
/// The kernel does not enter a program that is already active on this CPU, as it is when an interrupt's
/// softirq changes another socket's state in the middle of it, or when, since 7.x, another task comes in
/// between, and then for as long as that one runs. A twin is another program, so it runs then, and takes
/// what was not taken; there are two, since what comes in between is interrupted, too.
///
/// One socket's changes come one after the other, under its lock. So it is the socket that tells: that the
/// main program is active says nothing of whose change it has.
#[inline(always)]
pub(crate) fn main(sk: *const u8, hash: u32, change: impl FnOnce(u16)) {
    if let Some(taken) = taken(hash) {
        note(taken, sk);
    }
    change(0);
}

/// The twin: what it takes, the last one leaves.
#[inline(always)]
pub(crate) fn shadow(sk: *const u8, hash: u32, change: impl FnOnce(u16)) {
    let Some(taken) = taken(hash) else {
        return;
    };
    if !is_noted(taken, sk) {
        note(taken, sk);
        make_up(change);
    }
}

/// The last one that is called for a change.
#[inline(always)]
pub(crate) fn last(sk: *const u8, hash: u32, change: impl FnOnce(u16)) {
    let Some(taken) = taken(hash) else {
        return;
    };
    if !is_noted(taken, sk) {
        make_up(change);
        return;
    }
    for place in 0..STATE_AT_ONCE {
        // SAFETY: within this CPU's copy.
        unsafe {
            let noted = (*taken).as_mut_ptr().add(place);
            if core::ptr::read_volatile(noted) == sk as u64 {
                core::ptr::write_volatile(noted, 0);
            }
        }
    }
}

#[inline(always)]
fn make_up(change: impl FnOnce(u16)) {
    count(counters::SHADOW_STATE);
    change(STATE_SHADOW);
}

/// Sockets whose change was taken, of one place.
type Taken = *mut [u64; STATE_AT_ONCE];

#[inline(always)]
fn taken(hash: u32) -> Option<Taken> {
    STATE_TAKEN.get_ptr_mut(hash & (STATE_PLACES - 1))
}

#[inline(always)]
fn is_noted(taken: Taken, sk: *const u8) -> bool {
    // SAFETY: a valid pointer into this CPU's copy.
    let noted = unsafe { core::ptr::read_volatile(taken) };
    noted.contains(&(sk as u64))
}

/// Where there is room, of which the last program makes more; there is none where it was skipped too often.
/// Then those others that are in the middle of a change are taken again: the tracker sees that they are the
/// same, and the count of made-up changes has some too many.
#[inline(always)]
fn note(taken: Taken, sk: *const u8) {
    // SAFETY: within this CPU's copy.
    unsafe {
        let noted = core::ptr::read_volatile(taken);
        for (place, other) in noted.into_iter().enumerate() {
            if other == 0 {
                core::ptr::write_volatile((*taken).as_mut_ptr().add(place), sk as u64);
                return;
            }
        }
        let mut alone = [0; STATE_AT_ONCE];
        alone[0] = sk as u64;
        core::ptr::write_volatile(taken, alone);
    }
}

/// Tells most sockets apart. The verifier refuses arithmetic with the address of one that it knows, so it
/// is made of the ports, which no change alters before its programs have run.
#[inline(always)]
pub(crate) fn hash(sk: *const u8) -> u32 {
    let local: u16 = Typed.read(sk, offset!(skc_num));
    let remote: u16 = Typed.read(sk, offset!(skc_dport));
    mix(u64::from(local) << 16 | u64::from(remote))
}

/// The same of a sock that is known by its address only.
#[inline(always)]
pub(crate) fn hash_at(sk: *const u8) -> u32 {
    mix(sk as u64)
}

#[inline(always)]
fn mix(number: u64) -> u32 {
    (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as u32
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
    let Some(blur) = Blur::new() else {
        return;
    };
    let step = Step {
        blur,
        old: old as u8,
        new: new as u8,
    };
    let wanted = step.is_wanted();
    if !wanted && !step.is_handshake() {
        return;
    }
    let step = step.forgotten();
    // Up to 6.12 the child wears its listener's cookie and tuple here: never ask for it.
    let cookie = match step.is_child() {
        true => 0,
        false => sock.cookie(sk),
    };
    let cookie = blur.number(cookie);
    let wanted = step.forgotten().is_wanted();
    // A handshake came this far for the cookie, which accept finds.
    if !wanted && !filter::selects() {
        return;
    }
    // Before its ends are looked at, which costs the verifier least; no room is kept for one whose
    // ends do not fit.
    let step = step.forgotten();
    if step.is_handshake() {
        filter::select(cookie, Birth::Handshake);
    } else if step.new == tcp::SYN_SENT {
        filter::select(cookie, Birth::Connect);
    }
    let step = step.forgotten();
    // Listeners pass every filter: they own what nobody has accepted.
    let by_itself = step.is_child() || step.is_listener();
    if !by_itself && !filter::selected(cookie) && !unaccepted(sock, sk) {
        return;
    }
    let step = step.forgotten();
    let tp = sock.tcp(sk);
    if tp.is_null() {
        return;
    }
    let sport: u16 = sock.read(tp, offset!(inet_sport));
    let tuple = sock::tuple(sock, sk, u16::from_be(sport));
    if !step.is_listener() && !filter::wants_tuple(&tuple) {
        filter::unselect(cookie);
        return;
    }
    let step = step.forgotten();
    if step.is_end() {
        filter::unselect(cookie);
    }
    let step = step.forgotten();
    if !step.is_wanted() {
        return;
    }
    let step = step.forgotten();
    if offset!(is_mptcp) != ABSENT && sock.read::<u8>(tp, offset!(is_mptcp)) & 1 != 0 {
        count(counters::MPTCP);
        emit::<Header>(|record| *record = sock::header::<Header>(KIND_LEFT_OUT, cookie, sk));
        return;
    }
    let flags = blur.number(u64::from(flags(sock, sk, tp) | twin)) as u16;
    if step.new == tcp::CLOSE && flags & (STATE_NO_SOCKET | STATE_DEAD | STATE_LAST_FPUT) == 0 {
        close::remember(cookie);
    }
    let step = step.forgotten();
    let acts = flags & STATE_OWNED != 0 && local_call(step.old, step.new);
    let Step { old, new, .. } = step.forgotten();
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

/// From one state to another.
#[derive(Clone, Copy)]
struct Step {
    blur: Blur,
    old: u8,
    new: u8,
}

impl Step {
    /// The same, of which the verifier knows nothing.
    #[inline(always)]
    fn forgotten(self) -> Step {
        let both = u64::from(self.old) | u64::from(self.new) << 8;
        let both = self.blur.number(both);
        Step {
            old: both as u8,
            new: (both >> 8) as u8,
            ..self
        }
    }

    /// Whether one of the states was asked for.
    #[inline(always)]
    fn is_wanted(self) -> bool {
        config!(states) & (1u32 << (self.old & 31) | 1u32 << (self.new & 31)) != 0
    }

    /// The last step of a connection that comes in.
    #[inline(always)]
    fn is_handshake(self) -> bool {
        self.old == tcp::SYN_RECV && self.new == tcp::ESTABLISHED
    }

    /// The first step of one.
    #[inline(always)]
    fn is_child(self) -> bool {
        self.old == tcp::LISTEN && self.new == tcp::SYN_RECV
    }

    /// A socket begins to listen, or ends it.
    #[inline(always)]
    fn is_listener(self) -> bool {
        self.new == tcp::LISTEN || (self.old == tcp::LISTEN && !self.is_child())
    }

    /// The socket has no further step, and no minisocket.
    #[inline(always)]
    fn is_end(self) -> bool {
        self.new == tcp::CLOSE && self.old != tcp::FIN_WAIT2 && self.old != tcp::CLOSING
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

//! An input as a record: kind, length, payload.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::context::{Known, Socket};
use super::numbers::{kind, of_cause};
use super::varint::{put, put_bytes, put_delta, put_option};
use crate::input::{
    Definition, Event, EventBody, Input, Loss, MiniOp, Overflow, SocketSnapshot, StateChange,
    Sweep, Timer,
};
use crate::owner::{Actor, Holder};
use crate::time::Mono;
use crate::tuple::Tuple;

/// Appends the record of an input.
pub(super) fn encode(input: &Input, known: &mut Known, out: &mut Vec<u8>) {
    put(out, kind_of(input));
    let length = out.len();
    out.push(0);
    payload(input, known, out);
    let bytes = out.len() - length - 1;
    match u8::try_from(bytes) {
        Ok(short @ 0..0x80) => out[length] = short,
        // Seldom: the length takes more than the byte that was left for it.
        _ => {
            let mut prefix = Vec::new();
            put(&mut prefix, bytes as u64);
            out.splice(length..=length, prefix);
        }
    }
}

fn kind_of(input: &Input) -> u64 {
    match input {
        Input::Kernel(event) => match event.body {
            EventBody::State(_) => kind::STATE,
            EventBody::Accept { .. } => kind::ACCEPT,
            EventBody::Mini { .. } => kind::MINI,
            EventBody::LeftOut => kind::LEFT_OUT,
            EventBody::Close { .. } => kind::CLOSE,
            EventBody::Eof { .. } => kind::EOF,
        },
        Input::Lost(_) => kind::LOST,
        Input::Tick(_) => kind::TICK,
        Input::Socket(_) => kind::SOCKET,
        Input::Sweep(Sweep::Begin { .. }) => kind::SWEEP_BEGIN,
        Input::Sweep(Sweep::End { .. }) => kind::SWEEP_END,
        Input::Define(Definition::Holders { .. }) => kind::HOLDERS,
        Input::Define(Definition::Process(_)) => kind::PROCESS,
        Input::Define(Definition::FinTimeout { .. }) => kind::FIN_TIMEOUT,
        Input::Define(Definition::Note(_)) => kind::NOTE,
        Input::Overflow(_) => kind::OVERFLOW,
        Input::End(_) => kind::END,
    }
}

/// Totals of what was lost.
pub(super) fn loss(loss: &Loss, out: &mut Vec<u8>) {
    for total in [
        loss.ring_full,
        loss.recursion_missed,
        loss.map_full,
        loss.read_faults,
        loss.undecodable,
        loss.mptcp,
    ] {
        put(out, total);
    }
}

fn payload(input: &Input, known: &mut Known, out: &mut Vec<u8>) {
    match input {
        Input::Kernel(event) => self::event(event, known, out),
        Input::Lost(lost) => loss(lost, out),
        Input::Tick(at) | Input::End(at) | Input::Sweep(Sweep::Begin { at }) => time(*at, known),
        Input::Socket(snapshot) => self::snapshot(snapshot, known, out),
        Input::Sweep(Sweep::End {
            at,
            netns,
            partly,
            hidden,
        }) => {
            time(*at, known);
            for list in [netns, partly] {
                put(out, list.len() as u64);
                list.iter().for_each(|inode| put(out, u64::from(*inode)));
            }
            put(out, u64::from(*hidden));
        }
        Input::Overflow(overflow) => self::overflow(overflow, known, out),
        Input::Define(definition) => define(definition, known, out),
    }
}

fn event(event: &Event, known: &mut Known, out: &mut Vec<u8>) {
    time(event.at, known);
    put(&mut known.times, u64::from(event.cpu));
    let tuple = match &event.body {
        EventBody::State(StateChange { tuple, .. })
        | EventBody::Accept { tuple, .. }
        | EventBody::Mini { tuple, .. } => Some(*tuple),
        EventBody::LeftOut | EventBody::Close { .. } | EventBody::Eof { .. } => None,
    };
    let (cookie, sk) = (event.cookie, event.sk);
    socket(Socket { cookie, sk, tuple }, known, out);
    match &event.body {
        EventBody::State(change) => {
            out.push(change.old.number());
            out.push(change.new.number());
            put(out, u64::from(change.flags));
            put(out, u64::from(change.err));
            put(out, u64::from(change.recv_q));
            put(out, u64::from(change.send_q));
            actor_if_any(change.actor, known, out);
        }
        EventBody::Accept {
            actor, fd, state, ..
        } => {
            self::actor(*actor, known, out);
            put_option(out, *fd);
            out.push(state.number());
        }
        EventBody::Mini { substate, op, .. } => {
            out.push(substate.number());
            mini(op, known, out);
        }
        EventBody::LeftOut => {}
        EventBody::Close { actor, exiting } => {
            self::actor(*actor, known, out);
            out.push(u8::from(*exiting));
        }
        EventBody::Eof { actor } => self::actor(*actor, known, out),
    }
}

fn mini(op: &MiniOp, known: &mut Known, out: &mut Vec<u8>) {
    match *op {
        MiniOp::Armed { timeout_ns } => {
            out.push(1);
            put(out, timeout_ns);
        }
        MiniOp::Cancelled { cause, actor } => {
            out.push(2);
            put(out, of_cause(cause));
            actor_if_any(actor, known, out);
        }
        MiniOp::Killed { cause } => {
            out.push(3);
            put(out, of_cause(cause));
        }
        MiniOp::Expired => out.push(4),
        MiniOp::Segment => out.push(5),
    }
}

fn snapshot(snapshot: &SocketSnapshot, known: &mut Known, out: &mut Vec<u8>) {
    let s = snapshot;
    time(s.at, known);
    shown(s.cookie, s.tuple, known, out);
    out.push(s.state.number());
    out.push(u8::from(s.mini) | u8::from(s.mptcp) << 1);
    for number in [s.inode, s.uid, s.recv_q, s.send_q] {
        put(out, u64::from(number));
    }
    let (timer, left_ms) = match s.timer {
        Timer::Off => (0, 0),
        Timer::Retransmit { left_ms } => (1, left_ms),
        Timer::Keepalive { left_ms } => (2, left_ms),
        Timer::TimeWait { left_ms } => (3, left_ms),
        Timer::Probe { left_ms } => (4, left_ms),
    };
    out.push(timer);
    put(out, u64::from(left_ms));
    for ms in [
        s.last_ack_recv_ms,
        s.last_data_recv_ms,
        s.last_data_sent_ms,
        s.shutdown.map(u32::from),
    ] {
        put_option(out, ms);
    }
    out.push(u8::from(s.cgroup.is_some()));
    put(out, s.cgroup.unwrap_or(0));
    put_option(out, s.drops);
}

fn overflow(overflow: &Overflow, known: &mut Known, out: &mut Vec<u8>) {
    let o = overflow;
    time(o.at, known);
    shown(o.cookie, o.tuple, known, out);
    put_delta(out, o.first.0, o.at.0);
    put(out, o.dropped);
    put(out, u64::from(o.queue));
    put(out, u64::from(o.limit));
}

fn define(definition: &Definition, known: &mut Known, out: &mut Vec<u8>) {
    match definition {
        Definition::Holders { cookie, holders } => {
            put_delta(out, *cookie, known.cookie);
            put(out, holders.len() as u64);
            for Holder { pid, fd, comm } in holders {
                put(out, u64::from(*pid));
                put(out, u64::from(*fd));
                put_bytes(out, comm.as_bytes());
            }
        }
        Definition::Process(process) => {
            put(out, u64::from(process.pid));
            put(out, process.start_ns);
            put_bytes(out, process.comm.as_bytes());
            for text in [&process.cmdline, &process.cgroup, &process.container] {
                self::text(text, out);
            }
        }
        Definition::FinTimeout { netns, ns } => {
            put(out, u64::from(*netns));
            put(out, *ns);
        }
        Definition::Note(note) => put_bytes(out, note.as_bytes()),
    }
}

fn text(text: &Option<Arc<str>>, out: &mut Vec<u8>) {
    out.push(u8::from(text.is_some()));
    put_bytes(out, text.as_deref().unwrap_or_default().as_bytes());
}

/// Times stand together, apart from the records: these compress much better without them.
fn time(at: Mono, known: &mut Known) {
    put_delta(&mut known.times, at.0, known.at);
    known.at = at.0;
}

/// A socket whose address is not known.
fn shown(cookie: u64, tuple: Tuple, known: &mut Known, out: &mut Vec<u8>) {
    let (sk, tuple) = (0, Some(tuple));
    socket(Socket { cookie, sk, tuple }, known, out);
}

fn socket(socket: Socket, known: &mut Known, out: &mut Vec<u8>) {
    if !known.sockets.refer(socket, 0, out) {
        return;
    }
    put_delta(out, socket.cookie, known.cookie);
    known.cookie = socket.cookie;
    if known.kernel_addresses.refer(socket.sk, 0, out) {
        out.extend_from_slice(&socket.sk.to_le_bytes());
    }
    out.push(u8::from(socket.tuple.is_some()));
    if let Some(tuple) = socket.tuple {
        self::tuple(tuple, known, out);
    }
}

fn tuple(tuple: Tuple, known: &mut Known, out: &mut Vec<u8>) {
    end(tuple.local, known, out);
    end(tuple.remote, known, out);
    if known.namespaces.refer(tuple.netns, 0, out) {
        put_option(out, tuple.netns);
    }
}

fn end(end: SocketAddr, known: &mut Known, out: &mut Vec<u8>) {
    if known.ips.refer(end.ip(), 0, out) {
        match end.ip() {
            IpAddr::V4(ip) => {
                out.push(4);
                out.extend_from_slice(&ip.octets());
            }
            IpAddr::V6(ip) => {
                out.push(6);
                out.extend_from_slice(&ip.octets());
            }
        }
    }
    out.extend_from_slice(&end.port().to_le_bytes());
}

fn actor_if_any(actor: Option<Actor>, known: &mut Known, out: &mut Vec<u8>) {
    match actor {
        None => put(out, 0),
        Some(actor) => actor_from(actor, 1, known, out),
    }
}

fn actor(actor: Actor, known: &mut Known, out: &mut Vec<u8>) {
    actor_from(actor, 0, known, out);
}

fn actor_from(actor: Actor, first: u64, known: &mut Known, out: &mut Vec<u8>) {
    if known.actors.refer(actor, first, out) {
        put(out, u64::from(actor.pid));
        put(out, u64::from(actor.tid));
        put(out, actor.start_ns);
        put(out, actor.cgroup);
        put_bytes(out, actor.comm.as_bytes());
    }
}

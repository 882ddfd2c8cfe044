//! An input as a record: its shape, and what differs between records of a shape.

use std::net::IpAddr;

use super::columns::Column;
use super::context::{Known, Socket, differs};
use super::numbers::{kind, of_cause, of_frame_kind, of_point, of_timer};
use super::varint::{put, put_bytes, put_delta, put_option};
use super::{MAX_BLOCK_BYTES, writer::TooLong};
use crate::host::Activity;
use crate::input::{
    Definition, Event, EventBody, Input, Loss, MiniOp, Overflow, SocketSnapshot, StateChange, Sweep,
};
use crate::owner::{Actor, Holder};
use crate::stack::{Seen, Stack};
use crate::time::Mono;

/// Appends the record of an input.
///
/// # Errors
/// If it is longer than half of what a block may be; then nothing was appended.
pub(super) fn encode(input: &Input, known: &mut Known) -> Result<(), TooLong> {
    match input {
        Input::Kernel(event) => self::event(event, known),
        Input::Socket(socket) => snapshot(socket, known),
        Input::Lost(lost) => return alone(kind::LOST, known, |out| loss(lost, out)),
        Input::Tick(at) => {
            alone(kind::TICK, known, |_| {})?;
            time(*at, known);
        }
        Input::End(at) => {
            alone(kind::END, known, |_| {})?;
            time(*at, known);
        }
        Input::Sweep(Sweep::Begin { at }) => {
            alone(kind::SWEEP_BEGIN, known, |_| {})?;
            time(*at, known);
        }
        Input::Sweep(Sweep::End {
            at,
            netns,
            partly,
            hidden,
        }) => {
            alone(kind::SWEEP_END, known, |out| {
                for list in [netns, partly] {
                    put(out, list.len() as u64);
                    list.iter().for_each(|inode| put(out, u64::from(*inode)));
                }
                put(out, u64::from(*hidden));
            })?;
            time(*at, known);
        }
        Input::Overflow(overflow) => return self::overflow(overflow, known),
        Input::Stack(seen) => return self::seen(seen, known),
        Input::Define(definition) => return define(definition, known),
    }
    Ok(())
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
        loss.stacks.over_budget,
        loss.stacks.full,
        loss.stacks.unreadable,
    ] {
        put(out, total);
    }
}

fn event(event: &Event, known: &mut Known) {
    match event.body {
        EventBody::State(change) => state(&change, known),
        EventBody::Accept {
            actor, fd, state, ..
        } => {
            let who = known.task(actor);
            known.shape(kind::ACCEPT, |out| {
                put(out, who);
                out.push(state.number());
            });
            put_option(known.columns.of(Column::Numbers), fd);
        }
        EventBody::Mini { substate, op, .. } => {
            let who = match op {
                MiniOp::Cancelled { actor, .. } => known.task_if_any(actor),
                _ => 0,
            };
            known.shape(kind::MINI, |out| {
                out.push(substate.number());
                mini(op, who, out);
            });
        }
        EventBody::LeftOut => known.shape(kind::LEFT_OUT, |_| {}),
        EventBody::Close { actor, exiting } => {
            let who = known.task(actor);
            known.shape(kind::CLOSE, |out| {
                put(out, who);
                out.push(u8::from(exiting));
            });
        }
        EventBody::Eof { actor } => {
            let who = known.task(actor);
            known.shape(kind::EOF, |out| put(out, who));
        }
    }
    time(event.at, known);
    put(known.columns.of(Column::Cpus), u64::from(event.cpu));
    let tuple = match &event.body {
        EventBody::State(StateChange { tuple, .. })
        | EventBody::Accept { tuple, .. }
        | EventBody::Mini { tuple, .. } => Some(*tuple),
        EventBody::LeftOut | EventBody::Close { .. } | EventBody::Eof { .. } => None,
    };
    let (cookie, sk) = (event.cookie, event.sk);
    match tuple {
        Some(tuple) => socket(Socket { cookie, sk, tuple }, known),
        None => socket(known.without_ends(cookie, sk), known),
    }
}

fn state(change: &StateChange, known: &mut Known) {
    let who = known.task_if_any(change.actor);
    known.shape(kind::STATE, |out| {
        out.push(change.old.number());
        out.push(change.new.number());
        put(out, u64::from(change.flags));
        put(out, u64::from(change.err));
        put_option(out, common(change.recv_q));
        put_option(out, common(change.send_q));
        put(out, who);
    });
    queues(change.recv_q, change.send_q, known);
}

/// The length of a queue, where it is one that many records have.
fn common(queue: u32) -> Option<u32> {
    (queue <= 1).then_some(queue)
}

/// The lengths that are not in the shape.
fn queues(recv_q: u32, send_q: u32, known: &mut Known) {
    for queue in [recv_q, send_q] {
        if common(queue).is_none() {
            put(known.columns.of(Column::Numbers), u64::from(queue));
        }
    }
}

fn mini(op: MiniOp, who: u64, out: &mut Vec<u8>) {
    match op {
        MiniOp::Armed { timeout_ns } => {
            out.push(1);
            put(out, timeout_ns);
        }
        MiniOp::Cancelled { cause, .. } => {
            out.push(2);
            put(out, of_cause(cause));
            put(out, who);
        }
        MiniOp::Killed { cause } => {
            out.push(3);
            put(out, of_cause(cause));
        }
        MiniOp::Expired => out.push(4),
        MiniOp::Segment => out.push(5),
    }
}

fn snapshot(s: &SocketSnapshot, known: &mut Known) {
    let (timer, left_ms) = of_timer(s.timer);
    known.shape(kind::SOCKET, |out| {
        out.push(s.state.number());
        out.push(u8::from(s.mini) | u8::from(s.mptcp) << 1);
        put(out, u64::from(s.uid));
        put_option(out, common(s.recv_q));
        put_option(out, common(s.send_q));
        out.push(timer);
        put_option(out, s.shutdown.map(u32::from));
        out.push(u8::from(s.cgroup.is_some()));
        put(out, s.cgroup.unwrap_or(0));
        put_option(out, s.drops);
    });
    time(s.at, known);
    shown(s.cookie, s.tuple, known);
    queues(s.recv_q, s.send_q, known);
    let numbers = known.columns.of(Column::Numbers);
    put(numbers, u64::from(s.inode));
    for ms in [s.last_ack_recv_ms, s.last_data_recv_ms, s.last_data_sent_ms] {
        put_option(numbers, ms);
    }
    put(known.columns.of(Column::Timers), u64::from(left_ms));
}

fn overflow(o: &Overflow, known: &mut Known) -> Result<(), TooLong> {
    alone(kind::OVERFLOW, known, |out| {
        put_delta(out, o.first.0, o.at.0);
        put(out, o.dropped);
        put(out, u64::from(o.queue));
        put(out, u64::from(o.limit));
    })?;
    time(o.at, known);
    shown(o.cookie, o.tuple, known);
    Ok(())
}

/// Its time is its own: a reader that does not know the kind would miss it in the column.
fn seen(seen: &Seen, known: &mut Known) -> Result<(), TooLong> {
    alone(kind::SEEN, known, |out| {
        put(out, seen.at.0);
        put(out, seen.cookie);
        out.push(of_point(seen.point));
        put(out, u64::from(seen.pid));
        put(out, u64::from(seen.tid));
        put(out, u64::from(seen.stack.0));
    })
}

fn define(definition: &Definition, known: &mut Known) -> Result<(), TooLong> {
    match definition {
        Definition::Holders { cookie, holders } => {
            let before = known.cookie;
            alone(kind::HOLDERS, known, |out| {
                put_delta(out, *cookie, before);
                put(out, holders.len() as u64);
                for Holder { pid, fd, comm } in holders {
                    put(out, u64::from(*pid));
                    put(out, u64::from(*fd));
                    put_bytes(out, comm.as_bytes());
                }
            })
        }
        Definition::Process(process) => alone(kind::PROCESS, known, |out| {
            put(out, u64::from(process.pid));
            put(out, process.start_ns);
            put_bytes(out, process.comm.as_bytes());
            for text in [&process.cmdline, &process.cgroup, &process.container] {
                put_text(out, text.as_deref());
            }
        }),
        Definition::Stack(stack) => alone(kind::STACK, known, |out| self::stack(stack, out)),
        Definition::FinTimeout { netns, ns } => alone(kind::FIN_TIMEOUT, known, |out| {
            put(out, u64::from(*netns));
            put(out, *ns);
        }),
        Definition::Reading(reading) => alone(kind::READING, known, |out| {
            put(out, u64::from(reading.netns));
            put_bytes(out, reading.name.as_bytes());
            put_bytes(out, reading.value.as_bytes());
        }),
        Definition::Activity(activity) => {
            alone(kind::ACTIVITY, known, |out| self::activity(activity, out))
        }
        Definition::Note(note) => {
            let text = note.as_bytes();
            alone(kind::NOTE, known, |out| put_bytes(out, text))
        }
    }
}

fn activity(activity: &Activity, out: &mut Vec<u8>) {
    put(out, activity.at.0);
    put(out, u64::from(activity.pid));
    for number in [activity.files, activity.files_max] {
        out.push(u8::from(number.is_some()));
        put(out, number.unwrap_or(0));
    }
    put(out, u64::from(activity.threads));
    put(out, activity.blocked.len() as u64);
    for thread in &activity.blocked {
        put(out, u64::from(thread.tid));
        put_bytes(out, thread.comm.as_bytes());
        put_bytes(out, thread.call.as_bytes());
        put(out, u64::from(thread.fd));
        put(out, u64::from(thread.inode));
        put(out, thread.since.0);
    }
}

fn stack(stack: &Stack, out: &mut Vec<u8>) {
    put(out, u64::from(stack.id.0));
    put_text(out, stack.cut.as_deref());
    put(out, stack.frames.len() as u64);
    for frame in &*stack.frames {
        out.push(of_frame_kind(frame.kind));
        for text in [&frame.function, &frame.file, &frame.module, &frame.build_id] {
            put_text(out, text.as_deref());
        }
        put_option(out, frame.line);
        put(out, frame.address);
    }
}

fn put_text(out: &mut Vec<u8>, text: Option<&str>) {
    out.push(u8::from(text.is_some()));
    put_bytes(out, text.unwrap_or_default().as_bytes());
}

/// A record without a shape.
fn alone(kind: u64, known: &mut Known, fields: impl FnOnce(&mut Vec<u8>)) -> Result<(), TooLong> {
    let mut written = std::mem::take(&mut known.scratch);
    written.clear();
    fields(&mut written);
    let length = written.len();
    let fits = length <= MAX_BLOCK_BYTES / 2;
    if fits {
        known.columns.of(Column::Shapes).push(0);
        let records = known.columns.of(Column::Records);
        put(records, kind);
        put_bytes(records, &written);
    }
    known.scratch = written;
    fits.then_some(()).ok_or(TooLong(length))
}

fn time(at: Mono, known: &mut Known) {
    known.times.put(at.0, known.columns.of(Column::Times));
}

/// A socket whose address is not known.
fn shown(cookie: u64, tuple: crate::tuple::Tuple, known: &mut Known) {
    let sk = 0;
    socket(Socket { cookie, sk, tuple }, known);
}

fn socket(socket: Socket, known: &mut Known) {
    let told = known.sockets.told();
    if let Some(place) = known.sockets.find(&socket) {
        put(known.columns.of(Column::Sockets), (told - place) as u64);
        return;
    }
    known.columns.of(Column::Sockets).push(0);
    let (back, like) = known.sockets.like(&socket);
    let differs = like.difference(&socket);
    let likes = known.columns.of(Column::Likes);
    put(likes, back);
    likes.push(differs);
    if differs & differs::COOKIE != 0 {
        put_delta(
            known.columns.of(Column::Cookies),
            socket.cookie,
            known.cookie,
        );
        known.cookie = socket.cookie;
    }
    if differs & differs::ADDRESS != 0 {
        let step = socket.sk.wrapping_sub(known.address).rotate_right(3);
        put_delta(known.columns.of(Column::Addresses), step, 0);
        known.address = socket.sk;
    }
    let ends = [
        (differs::LOCAL_IP, differs::LOCAL_PORT, socket.tuple.local),
        (
            differs::REMOTE_IP,
            differs::REMOTE_PORT,
            socket.tuple.remote,
        ),
    ];
    for (ip, port, end) in ends {
        if differs & ip != 0 {
            self::ip(end.ip(), known);
        }
        if differs & port != 0 {
            self::port(end.port(), known);
        }
    }
    if differs & differs::NAMESPACE != 0 {
        let netns = socket.tuple.netns;
        let (number, new) = known.namespaces.number(netns);
        put(known.columns.of(Column::Places), number);
        if new {
            put_option(known.columns.of(Column::Names), netns);
        }
    }
    known.sockets.push(socket);
}

fn port(port: u16, known: &mut Known) {
    let back = known.ports.back(port);
    known.columns.of(Column::Places).push(back.unwrap_or(0));
    if back.is_none() {
        known.ports.push(port);
        let ports = known.columns.of(Column::Ports);
        ports.extend_from_slice(&port.to_le_bytes());
    }
}

fn ip(ip: IpAddr, known: &mut Known) {
    let (number, new) = known.ips.number(ip);
    put(known.columns.of(Column::Places), number);
    if !new {
        return;
    }
    let names = known.columns.of(Column::Names);
    match ip {
        IpAddr::V4(ip) => {
            names.push(4);
            names.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            names.push(6);
            names.extend_from_slice(&ip.octets());
        }
    }
}

impl Known {
    /// The number of a task, 0 where there is none; it is told if it is new.
    fn task_if_any(&mut self, actor: Option<Actor>) -> u64 {
        actor.map_or(0, |actor| self.task(actor))
    }

    fn task(&mut self, actor: Actor) -> u64 {
        let (number, new) = self.tasks.number(actor);
        if new {
            let names = self.columns.of(Column::Names);
            put(names, u64::from(actor.pid));
            put(names, u64::from(actor.tid));
            put(names, actor.start_ns);
            put(names, actor.cgroup);
            put_bytes(names, actor.comm.as_bytes());
        }
        number
    }

    /// Tells the shape of a record; it is described if it is new.
    fn shape(&mut self, kind: u64, fields: impl FnOnce(&mut Vec<u8>)) {
        self.scratch.clear();
        put(&mut self.scratch, kind);
        let begin = self.scratch.len();
        fields(&mut self.scratch);
        if let Some(number) = self.shapes.get(&self.scratch[..]) {
            put(self.columns.of(Column::Shapes), *number);
            return;
        }
        self.columns.of(Column::Shapes).push(0);
        let records = self.columns.of(Column::Records);
        put(records, kind);
        put_bytes(records, &self.scratch[begin..]);
        let number = self.shapes.len() as u64 + 1;
        self.shapes.insert(Box::from(&self.scratch[..]), number);
    }
}

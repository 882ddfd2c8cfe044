//! A trace for Perfetto: a track per process, below it lanes, on a lane a slice per connection with
//! a slice per state inside.
//!
//! Whose a connection is may be known only after it began, and a slice cannot be moved: so it waits
//! until then, at most until its end, and is written with its true times. Readers sort by time.

mod lanes;
mod proto;

use std::io;

use self::lanes::{Lane, Processes};
use self::proto::{Data, DebugAnnotation, TracePacket, TrackDescriptor, TrackEvent, Type, Value};
use super::{Format, Lives, Step};
use crate::change::{Change, View};
use crate::input::Loss;
use crate::owner::{Actor, Owner};
use crate::recording::Session;
use crate::report::summary::Summary;
use crate::state::TcpState;
use crate::text::escape;
use crate::time::{Age, Mono, WallAnchor};
use crate::tracker::Tracker;
use crate::tuple::{ConnId, Role};

/// The packets of this file are one sequence.
const SEQUENCE: u32 = 1;
/// Track of what is missing of the data.
const DATA: u64 = 1;
/// Counter of lost events.
const LOST: u64 = 2;
/// From here on uuids are given out.
const FIRST_UUID: u64 = 16;

/// Perfetto's protobuf. Names are escaped as in text.
pub struct Perfetto {
    lives: Lives<ConnId, Life>,
    processes: Processes,
    lost: u64,
}

/// A connection that has not ended.
struct Life {
    began: Mono,
    state: TcpState,
    /// In this state.
    since: Mono,
    place: Place,
}

/// Where its slices go.
enum Place {
    Lane(Lane),
    /// Not decided: it is not known whose it is.
    Waiting(Box<Waiting>),
}

/// What is kept until a lane is found.
struct Waiting {
    view: View,
    /// States that it has left.
    stays: Vec<Stay>,
}

/// A state that was left.
struct Stay {
    state: TcpState,
    since: Mono,
    until: Mono,
    args: Args,
}

type Args = Vec<DebugAnnotation>;

impl Default for Perfetto {
    fn default() -> Perfetto {
        Perfetto {
            lives: Lives::default(),
            processes: Processes::new(FIRST_UUID),
            lost: 0,
        }
    }
}

impl Format for Perfetto {
    fn begin(&mut self, session: &Session, out: &mut Vec<u8>) -> io::Result<()> {
        packet(first(session.anchor), out);
        let system = proto::SystemInfo {
            utsname: Some(proto::Utsname {
                sysname: Some("Linux".to_owned()),
                release: Some(escape(&session.kernel)),
            }),
            machine_name: Some(escape(&session.host)),
        };
        packet(data(None, Data::SystemInfo(system)), out);
        let counter = proto::CounterDescriptor {
            unit_name: Some("events".to_owned()),
        };
        for (uuid, name, counter) in [
            (DATA, "tcptrace: what is missing", None),
            (LOST, "tcptrace: events lost", Some(counter)),
        ] {
            let track = TrackDescriptor {
                uuid: Some(uuid),
                name: Some(name.to_owned()),
                counter,
                ..TrackDescriptor::default()
            };
            descriptor(track, out);
        }
        Ok(())
    }

    fn moved(&mut self, step: &Step, out: &mut Vec<u8>) -> io::Result<()> {
        if step.is_of_listener() {
            self.listener(step, out);
            return Ok(());
        }
        let view = step.view;
        let mut known = self.lives.remove(&view.id);
        if step.begins()
            && let Some(life) = known.take()
        {
            self.unfollowed(life, view.at, out);
        }
        let mut life = known.unwrap_or_else(|| Life::of(view));
        let at = view.at.max(life.since);
        if step.begins() {
            (life.began, life.since) = (at, at);
        } else {
            let stay = Stay {
                state: view.state,
                since: life.since,
                until: at,
                args: why_left(step),
            };
            life.left(stay, out);
        }
        (life.state, life.since) = (step.next, at);
        if let Place::Waiting(waiting) = &mut life.place {
            waiting.view.clone_from(view);
        }
        if step.next == TcpState::Close {
            let end = vec![string("end_cause", step.cause.name())];
            self.finish(life, end, out);
            return Ok(());
        }
        if life.is_claimed() {
            self.place(&mut life, out);
        }
        self.lives.insert(view.id, life);
        Ok(())
    }

    fn other(&mut self, change: &Change, out: &mut Vec<u8>) -> io::Result<()> {
        if let Change::Overflow {
            view,
            dropped,
            estimated,
        } = change
        {
            let track = self.processes.track(&view.owner, out);
            let mut args = vec![
                string("local", view.tuple.local),
                uint("dropped", *dropped),
                boolean("dropped_estimated", *estimated),
            ];
            args.extend(view.recv_q.map(|n| uint("queue", n)));
            args.extend(view.send_q.map(|n| uint("limit", n)));
            instant(view.at, track, "accept queue full", args, out);
        }
        Ok(())
    }

    fn accepted(&mut self, cookie: u64, by: &Actor, out: &mut Vec<u8>) {
        // What a thread is called, its process need not be.
        if by.pid != by.tid {
            return;
        }
        let Some((id, life)) = self.lives.newest_of(cookie) else {
            return;
        };
        let Place::Waiting(waiting) = &mut life.place else {
            return;
        };
        let owner = &mut waiting.view.owner;
        if owner.pid != Some(by.pid) {
            // What is known of the listener's owner is not known of this one.
            *owner = Owner::default();
        }
        (owner.pid, owner.tid, owner.comm) = (Some(by.pid), Some(by.tid), Some(by.comm));
        owner.by_listener = false;
        waiting.view.role = Some(Role::Passive);
        if let Some(mut life) = self.lives.remove(&id) {
            self.place(&mut life, out);
            self.lives.insert(id, life);
        }
    }

    fn lost(&mut self, at: Mono, loss: &Loss, out: &mut Vec<u8>) {
        self.lost = self.lost.saturating_add(loss.total());
        let args = vec![
            uint("ring_full", loss.ring_full),
            uint("recursion_missed", loss.recursion_missed),
            uint("map_full", loss.map_full),
            uint("read_faults", loss.read_faults),
            uint("undecodable", loss.undecodable),
        ];
        instant(at, DATA, "events were lost before this", args, out);
        let value = TrackEvent {
            r#type: Some(Type::Counter.into()),
            track_uuid: Some(LOST),
            counter_value: Some(i64::try_from(self.lost).unwrap_or(i64::MAX)),
            ..TrackEvent::default()
        };
        packet(data(Some(at), Data::TrackEvent(value)), out);
    }

    fn gap(&mut self, at: Mono, out: &mut Vec<u8>) {
        let name = "a part of the recording is missing here";
        instant(at, DATA, name, Vec::new(), out);
    }

    fn tidy(&mut self, tracker: &Tracker, out: &mut Vec<u8>) -> io::Result<()> {
        for (_, life) in self.lives.forgotten(|id, _| tracker.knows(id.cookie)) {
            self.unfollowed(life, tracker.now(), out);
        }
        Ok(())
    }

    fn end(&mut self, tracker: &Tracker, _: &Summary, out: &mut Vec<u8>) -> io::Result<()> {
        for view in tracker.connections() {
            let known = self.lives.remove(&view.id);
            let mut life = known.unwrap_or_else(|| Life::of(&view));
            if life.state != view.state {
                let entered = view.at.minus(view.age.at_least().unwrap_or(0));
                (life.state, life.since) = (view.state, entered.max(life.since));
            }
            let mut args = vec![boolean("open_at_end", true)];
            args.extend(age_args(view.age));
            args.extend(
                view.verdict
                    .map(|verdict| string("verdict", verdict.name())),
            );
            if let Place::Waiting(waiting) = &mut life.place {
                waiting.view = view;
            }
            let lane = self.place(&mut life, out);
            begin(life.since, lane.track, life.state.label(), args, out);
        }
        for (_, life) in self.lives.take() {
            self.unfollowed(life, tracker.now(), out);
        }
        Ok(())
    }
}

impl Perfetto {
    /// A listener comes or goes.
    fn listener(&mut self, step: &Step, out: &mut Vec<u8>) {
        let view = step.view;
        let name = match step.next {
            TcpState::Listen => format!("listens on {}", view.tuple.local),
            _ => format!("listens no longer on {}", view.tuple.local),
        };
        let track = self.processes.track(&view.owner, out);
        let mut args = vec![string("id", view.id), string("cause", step.cause.name())];
        args.extend(view.tuple.netns.map(|netns| uint("netns", netns)));
        instant(view.at, track, &name, args, out);
    }

    /// Finds a lane, and writes there what has waited for one.
    fn place(&mut self, life: &mut Life, out: &mut Vec<u8>) -> Lane {
        let waiting = match &life.place {
            Place::Lane(lane) => return *lane,
            Place::Waiting(waiting) => waiting,
        };
        let view = &waiting.view;
        let lane = self.processes.lane(&view.owner, life.began, out);
        let name = format!("{} -> {}", view.tuple.local, view.tuple.remote);
        begin(life.began, lane.track, &name, who(view), out);
        for stay in &waiting.stays {
            stay.write(lane, out);
        }
        life.place = Place::Lane(lane);
        lane
    }

    /// The connection has ended, and its lane is free.
    fn finish(&mut self, mut life: Life, args: Args, out: &mut Vec<u8>) {
        let lane = self.place(&mut life, out);
        finish(life.since, lane.track, args, out);
        self.processes.free(lane, life.since);
    }

    /// The connection is followed no longer, and may go on: what was asked for is not known of it.
    fn unfollowed(&mut self, mut life: Life, now: Mono, out: &mut Vec<u8>) {
        let stay = Stay {
            state: life.state,
            since: life.since,
            until: now.max(life.since),
            args: Vec::new(),
        };
        life.since = stay.until;
        life.left(stay, out);
        self.finish(life, vec![boolean("followed_to_its_end", false)], out);
    }
}

impl Life {
    /// One that is in a state already.
    fn of(view: &View) -> Life {
        let since = view.at.minus(view.age.at_least().unwrap_or(0));
        Life {
            began: since,
            state: view.state,
            since,
            place: Place::Waiting(Box::new(Waiting {
                view: view.clone(),
                stays: Vec::new(),
            })),
        }
    }

    fn left(&mut self, stay: Stay, out: &mut Vec<u8>) {
        match &mut self.place {
            Place::Lane(lane) => stay.write(*lane, out),
            Place::Waiting(waiting) => waiting.stays.push(stay),
        }
    }

    /// Whether it is known whose it is, and between whom.
    fn is_claimed(&self) -> bool {
        match &self.place {
            Place::Lane(_) => true,
            Place::Waiting(waiting) => {
                let view = &waiting.view;
                let owned = view.owner.pid.is_some() && !view.owner.by_listener;
                // One that connects has no port yet, or its last connection's.
                owned && self.state != TcpState::SynSent && view.tuple.local.port() != 0
            }
        }
    }
}

impl Stay {
    fn write(&self, lane: Lane, out: &mut Vec<u8>) {
        begin(self.since, lane.track, self.state.label(), Vec::new(), out);
        finish(self.until, lane.track, self.args.clone(), out);
    }
}

/// What is known of a connection.
fn who(view: &View) -> Args {
    let owner = &view.owner;
    let mut args = vec![
        string("id", view.id),
        string("local", view.tuple.local),
        string("remote", view.tuple.remote),
    ];
    args.extend(view.tuple.netns.map(|netns| uint("netns", netns)));
    args.extend(view.role.map(|role| string("role", role.name())));
    args.extend(owner.pid.map(|pid| uint("pid", pid)));
    args.extend(owner.tid.map(|tid| uint("tid", tid)));
    args.extend(owner.comm.map(|comm| string("comm", comm)));
    for (name, text) in [
        ("cmdline", &owner.cmdline),
        ("cgroup", &owner.cgroup),
        ("container", &owner.container),
    ] {
        args.extend(text.as_deref().map(|text| string(name, escape(text))));
    }
    args
}

/// Why a state was left, and how long it had lasted.
fn why_left(step: &Step) -> Args {
    let mut args = vec![
        string("cause", step.cause.name()),
        string("next", step.next.label()),
    ];
    args.extend(age_args(step.view.age));
    args.extend(
        step.view
            .verdict
            .map(|verdict| string("verdict", verdict.name())),
    );
    if let Some(actor) = step.actor {
        args.push(uint("actor_pid", actor.pid));
        args.push(uint("actor_tid", actor.tid));
        args.push(string("actor_comm", actor.comm));
    }
    args
}

fn age_args(age: Age) -> Args {
    let mut args = vec![boolean("estimated", age.is_estimated())];
    args.extend(age.at_least().map(|ns| uint("duration_ns", ns)));
    if let Age::Between { max: Some(max), .. } = age {
        args.push(uint("duration_max_ns", max));
    }
    args
}

fn string(name: &str, value: impl ToString) -> DebugAnnotation {
    annotation(name, Value::String(value.to_string()))
}

fn uint(name: &str, value: impl Into<u64>) -> DebugAnnotation {
    annotation(name, Value::Uint(value.into()))
}

fn boolean(name: &str, value: bool) -> DebugAnnotation {
    annotation(name, Value::Bool(value))
}

fn annotation(name: &str, value: Value) -> DebugAnnotation {
    DebugAnnotation {
        name: Some(name.to_owned()),
        value: Some(value),
    }
}

/// The first packet: which clock counts, and what time it was by the other.
fn first(anchor: WallAnchor) -> TracePacket {
    let clock = |clock_id, timestamp| proto::Clock {
        clock_id: Some(clock_id),
        timestamp: Some(timestamp),
    };
    let wall = u64::try_from(anchor.wall_ns).unwrap_or(0);
    let clocks = proto::ClockSnapshot {
        clocks: vec![
            clock(proto::MONOTONIC, anchor.mono.0),
            clock(proto::REALTIME, wall),
        ],
        primary_trace_clock: Some(proto::MONOTONIC),
    };
    TracePacket {
        sequence_flags: Some(proto::STATE_CLEARED),
        trace_packet_defaults: Some(proto::TracePacketDefaults {
            timestamp_clock_id: Some(proto::MONOTONIC),
        }),
        ..data(None, Data::ClockSnapshot(clocks))
    }
}

fn begin(at: Mono, track: u64, name: &str, args: Args, out: &mut Vec<u8>) {
    event(Type::SliceBegin, at, track, Some(name), args, out);
}

fn finish(at: Mono, track: u64, args: Args, out: &mut Vec<u8>) {
    event(Type::SliceEnd, at, track, None, args, out);
}

fn instant(at: Mono, track: u64, name: &str, args: Args, out: &mut Vec<u8>) {
    event(Type::Instant, at, track, Some(name), args, out);
}

fn event(kind: Type, at: Mono, track: u64, name: Option<&str>, args: Args, out: &mut Vec<u8>) {
    let event = TrackEvent {
        debug_annotations: args,
        r#type: Some(kind.into()),
        track_uuid: Some(track),
        name: name.map(str::to_owned),
        counter_value: None,
    };
    packet(data(Some(at), Data::TrackEvent(event)), out);
}

fn descriptor(track: TrackDescriptor, out: &mut Vec<u8>) {
    packet(data(None, Data::TrackDescriptor(track)), out);
}

fn data(at: Option<Mono>, data: Data) -> TracePacket {
    TracePacket {
        timestamp: at.map(|at| at.0),
        trusted_packet_sequence_id: Some(SEQUENCE),
        data: Some(data),
        ..TracePacket::default()
    }
}

/// Appends a packet as the trace has it: as its field 1.
fn packet(packet: TracePacket, out: &mut Vec<u8>) {
    prost::encoding::message::encode(1, &packet, out);
}

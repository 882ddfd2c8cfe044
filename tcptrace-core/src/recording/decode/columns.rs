//! Blocks of records in columns.

use std::net::{IpAddr, SocketAddr};

use super::{cause, held, ip, look_back, plain, sweep_end, task};
use crate::input::{
    Event, EventBody, Input, MiniOp, Overflow, SocketSnapshot, StateChange, Sweep, Timer,
};
use crate::owner::Actor;
use crate::recording::columns::{Column, Rest};
use crate::recording::context::{Socket, differs};
use crate::recording::numbers::{self, kind};
use crate::recording::ports::Ports;
use crate::recording::times;
use crate::recording::varint::{Bad, Cursor};
use crate::state::TcpState;
use crate::time::Mono;

/// Reads the records of a block. The inputs of all that are known are appended; gives how many
/// records were skipped because they are not.
///
/// # Errors
/// If the bytes break the format. The inputs before that place have been appended.
pub(in crate::recording) fn decode(block: &[u8], inputs: &mut Vec<Input>) -> Result<u64, Bad> {
    let mut shapes: Vec<Shape> = Vec::new();
    let mut rest = Rest::of(block)?;
    let mut heard = Heard {
        times: times::Reader::new(rest.at(Column::Times).all()),
        rest,
        ..Heard::default()
    };
    let mut skipped = 0;
    while !heard.rest.at(Column::Shapes).is_empty() {
        let number = heard.rest.at(Column::Shapes).number()?;
        let known = match number {
            0 => {
                let records = heard.rest.at(Column::Records);
                let kind = records.number()?;
                let mut fields = Cursor::new(records.bytes()?);
                match shape(kind, &mut fields, &mut heard)? {
                    Some(shape) => {
                        let known = heard.shaped(&shape, inputs)?;
                        shapes.push(shape);
                        known
                    }
                    None => match heard.alone(kind, &mut fields) {
                        Ok(input) => {
                            inputs.push(input);
                            true
                        }
                        Err(Bad::Unknown) => false,
                        Err(Bad::Malformed) => return Err(Bad::Malformed),
                    },
                }
            }
            number => {
                let place = usize::try_from(number - 1).map_err(|_| Bad::Malformed)?;
                heard.shaped(shapes.get(place).ok_or(Bad::Malformed)?, inputs)?
            }
        };
        skipped += u64::from(!known);
    }
    Ok(skipped)
}

/// What records of a shape have in common.
struct Shape {
    /// It has values that this version does not know.
    unknown: bool,
    /// Each record has its own.
    recv_q: bool,
    send_q: bool,
    body: Body,
}

/// What is not of the shape stands empty.
enum Body {
    Event(Event),
    /// And the number of its timer.
    Row(SocketSnapshot, u8),
}

/// Reads a shape; `None`: records of this kind have none.
fn shape(kind: u64, fields: &mut Cursor<'_>, heard: &mut Heard<'_>) -> Result<Option<Shape>, Bad> {
    let tuple = Socket::NONE.tuple;
    let mut unknown = false;
    let mut state = |number| {
        numbers::state(number).unwrap_or_else(|_| {
            unknown = true;
            TcpState::Close
        })
    };
    let (mut recv_q, mut send_q) = (Some(0), Some(0));
    let event = |body| {
        Body::Event(Event {
            at: Mono(0),
            cpu: 0,
            cookie: 0,
            sk: 0,
            body,
        })
    };
    let body = match kind {
        kind::STATE => {
            let (old, new) = (state(fields.byte()?), state(fields.byte()?));
            let (flags, err) = (fields.u16()?, fields.u32()?);
            (recv_q, send_q) = (fields.option()?, fields.option()?);
            event(EventBody::State(StateChange {
                tuple,
                old,
                new,
                flags,
                err,
                recv_q: recv_q.unwrap_or(0),
                send_q: send_q.unwrap_or(0),
                actor: heard.task_if_any(fields)?,
            }))
        }
        kind::ACCEPT => event(EventBody::Accept {
            tuple,
            actor: heard.task(fields)?,
            fd: None,
            state: state(fields.byte()?),
        }),
        kind::MINI => {
            let substate = state(fields.byte()?);
            let op = match fields.byte()? {
                1 => MiniOp::Armed {
                    timeout_ns: fields.number()?,
                },
                2 => MiniOp::Cancelled {
                    cause: cause(fields)?,
                    actor: heard.task_if_any(fields)?,
                },
                3 => MiniOp::Killed {
                    cause: cause(fields)?,
                },
                4 => MiniOp::Expired,
                5 => MiniOp::Segment,
                _ => {
                    unknown = true;
                    MiniOp::Segment
                }
            };
            event(EventBody::Mini {
                tuple,
                substate,
                op,
            })
        }
        kind::LEFT_OUT => event(EventBody::LeftOut),
        kind::CLOSE => event(EventBody::Close {
            actor: heard.task(fields)?,
            exiting: fields.byte()? != 0,
        }),
        kind::EOF => event(EventBody::Eof {
            actor: heard.task(fields)?,
        }),
        kind::SOCKET => {
            let state = state(fields.byte()?);
            let flags = fields.byte()?;
            let uid = fields.u32()?;
            (recv_q, send_q) = (fields.option()?, fields.option()?);
            let timer = fields.byte()?;
            unknown |= numbers::timer(timer, 0).is_err();
            let shutdown = fields.option()?.map(|bits| bits as u8);
            let in_cgroup = fields.byte()? != 0;
            let cgroup = fields.number()?;
            let row = SocketSnapshot {
                at: Mono(0),
                cookie: 0,
                tuple,
                state,
                mini: flags & 1 != 0,
                inode: 0,
                uid,
                recv_q: recv_q.unwrap_or(0),
                send_q: send_q.unwrap_or(0),
                timer: Timer::Off,
                last_ack_recv_ms: None,
                last_data_recv_ms: None,
                last_data_sent_ms: None,
                cgroup: in_cgroup.then_some(cgroup),
                shutdown,
                drops: fields.option()?,
                mptcp: flags & 2 != 0,
            };
            Body::Row(row, timer)
        }
        _ => return Ok(None),
    };
    Ok(Some(Shape {
        unknown,
        recv_q: recv_q.is_none(),
        send_q: send_q.is_none(),
        body,
    }))
}

/// What the block has said already.
#[derive(Default)]
struct Heard<'a> {
    rest: Rest<'a>,
    times: times::Reader<'a>,
    cookie: u64,
    address: u64,
    sockets: Vec<Socket>,
    ports: Ports,
    ips: Vec<IpAddr>,
    namespaces: Vec<Option<u32>>,
    tasks: Vec<Actor>,
}

impl Heard<'_> {
    /// Appends the next record of this shape; false: this version does not know it.
    fn shaped(&mut self, shape: &Shape, inputs: &mut Vec<Input>) -> Result<bool, Bad> {
        match &shape.body {
            Body::Event(event) => inputs.push(Input::Kernel(*event)),
            Body::Row(row, _) => inputs.push(Input::Socket(*row)),
        }
        match (inputs.last_mut(), &shape.body) {
            (Some(Input::Kernel(event)), _) => self.event(shape, event)?,
            (Some(Input::Socket(row)), Body::Row(_, timer)) => self.row(shape, *timer, row)?,
            _ => {}
        }
        if shape.unknown {
            inputs.pop();
        }
        Ok(!shape.unknown)
    }

    /// What an event has of its own.
    fn event(&mut self, shape: &Shape, event: &mut Event) -> Result<(), Bad> {
        event.at = self.time()?;
        event.cpu = self.rest.at(Column::Cpus).u32()?;
        let socket = self.socket()?;
        (event.cookie, event.sk) = (socket.cookie, socket.sk);
        match &mut event.body {
            EventBody::State(change) => {
                change.tuple = socket.tuple;
                self.queues(shape, &mut change.recv_q, &mut change.send_q)?;
            }
            EventBody::Accept { tuple, fd, .. } => {
                *tuple = socket.tuple;
                *fd = self.rest.at(Column::Numbers).option()?;
            }
            EventBody::Mini { tuple, .. } => *tuple = socket.tuple,
            EventBody::LeftOut | EventBody::Close { .. } | EventBody::Eof { .. } => {}
        }
        Ok(())
    }

    /// What a socket of a dump has of its own.
    fn row(&mut self, shape: &Shape, timer: u8, row: &mut SocketSnapshot) -> Result<(), Bad> {
        row.at = self.time()?;
        let socket = self.socket()?;
        (row.cookie, row.tuple) = (socket.cookie, socket.tuple);
        self.queues(shape, &mut row.recv_q, &mut row.send_q)?;
        let numbers = self.rest.at(Column::Numbers);
        row.inode = numbers.u32()?;
        row.last_ack_recv_ms = numbers.option()?;
        row.last_data_recv_ms = numbers.option()?;
        row.last_data_sent_ms = numbers.option()?;
        let left_ms = self.rest.at(Column::Timers).u32()?;
        row.timer = numbers::timer(timer, left_ms).unwrap_or(Timer::Off);
        Ok(())
    }

    /// The lengths of the queues that are not of the shape.
    fn queues(&mut self, shape: &Shape, recv_q: &mut u32, send_q: &mut u32) -> Result<(), Bad> {
        for (own, queue) in [(shape.recv_q, recv_q), (shape.send_q, send_q)] {
            if own {
                *queue = self.rest.at(Column::Numbers).u32()?;
            }
        }
        Ok(())
    }

    /// A record without a shape.
    fn alone(&mut self, kind: u64, fields: &mut Cursor<'_>) -> Result<Input, Bad> {
        Ok(match kind {
            kind::TICK => Input::Tick(self.time()?),
            kind::SWEEP_BEGIN => Input::Sweep(Sweep::Begin { at: self.time()? }),
            kind::SWEEP_END => sweep_end(self.time()?, fields)?,
            kind::HOLDERS => held(self.cookie, fields)?,
            kind::OVERFLOW => {
                let at = self.time()?;
                let socket = self.socket()?;
                Input::Overflow(Overflow {
                    at,
                    cookie: socket.cookie,
                    tuple: socket.tuple,
                    first: Mono(fields.delta(at.0)?),
                    dropped: fields.number()?,
                    queue: fields.u32()?,
                    limit: fields.u32()?,
                })
            }
            kind::END => Input::End(self.time()?),
            _ => plain(kind, fields)?,
        })
    }

    fn time(&mut self) -> Result<Mono, Bad> {
        self.times.next().map(Mono)
    }

    fn socket(&mut self) -> Result<Socket, Bad> {
        if let Some(socket) = look_back(&self.sockets, self.rest.at(Column::Sockets).number()?)? {
            return Ok(socket);
        }
        let likes = self.rest.at(Column::Likes);
        let like = look_back(&self.sockets, likes.number()?)?;
        let differs = likes.byte()?;
        let mut socket = like.unwrap_or(Socket::NONE);
        if differs & differs::COOKIE != 0 {
            self.cookie = self.rest.at(Column::Cookies).delta(self.cookie)?;
            socket.cookie = self.cookie;
        }
        if differs & differs::NO_COOKIE != 0 {
            socket.cookie = 0;
        }
        if differs & differs::ADDRESS != 0 {
            let step = self.rest.at(Column::Addresses).delta(0)?;
            self.address = self.address.wrapping_add(step.rotate_left(3));
            socket.sk = self.address;
        }
        let tuple = &mut socket.tuple;
        for (ip, port, end) in [
            (differs::LOCAL_IP, differs::LOCAL_PORT, &mut tuple.local),
            (differs::REMOTE_IP, differs::REMOTE_PORT, &mut tuple.remote),
        ] {
            if differs & ip != 0 {
                *end = SocketAddr::new(self.ip()?, end.port());
            }
            if differs & port != 0 {
                end.set_port(self.port()?);
            }
        }
        if differs & differs::NAMESPACE != 0 {
            tuple.netns = self.namespace()?;
        }
        self.sockets.push(socket);
        Ok(socket)
    }

    fn port(&mut self) -> Result<u16, Bad> {
        match self.rest.at(Column::Places).byte()? {
            0 => {
                let port = u16::from_le_bytes(self.rest.at(Column::Ports).array()?);
                self.ports.push(port);
                Ok(port)
            }
            back => self.ports.at(back).ok_or(Bad::Malformed),
        }
    }

    fn ip(&mut self) -> Result<IpAddr, Bad> {
        let number = self.rest.at(Column::Places).number()?;
        if let Some(ip) = told(&self.ips, number)? {
            return Ok(ip);
        }
        let ip = ip(self.rest.at(Column::Names))?.to_canonical();
        self.ips.push(ip);
        Ok(ip)
    }

    fn namespace(&mut self) -> Result<Option<u32>, Bad> {
        let number = self.rest.at(Column::Places).number()?;
        if let Some(netns) = told(&self.namespaces, number)? {
            return Ok(netns);
        }
        let netns = self.rest.at(Column::Names).option()?;
        self.namespaces.push(netns);
        Ok(netns)
    }

    fn task_if_any(&mut self, fields: &mut Cursor<'_>) -> Result<Option<Actor>, Bad> {
        match fields.number()? {
            0 => Ok(None),
            number => self.task_of(number).map(Some),
        }
    }

    fn task(&mut self, fields: &mut Cursor<'_>) -> Result<Actor, Bad> {
        let number = fields.number()?;
        self.task_of(number)
    }

    fn task_of(&mut self, number: u64) -> Result<Actor, Bad> {
        if let Some(actor) = told(&self.tasks, number)? {
            return Ok(actor);
        }
        let actor = task(self.rest.at(Column::Names))?;
        self.tasks.push(actor);
        Ok(actor)
    }
}

/// What has this number, from 1; `None`: it is the next, and told now.
fn told<T: Copy>(list: &[T], number: u64) -> Result<Option<T>, Bad> {
    let place = number.checked_sub(1).ok_or(Bad::Malformed)?;
    let place = usize::try_from(place).map_err(|_| Bad::Malformed)?;
    match place <= list.len() {
        true => Ok(list.get(place).copied()),
        false => Err(Bad::Malformed),
    }
}

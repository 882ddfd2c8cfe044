//! Blocks of records one behind the other, as version 1.0 wrote them.

use std::net::{IpAddr, SocketAddr};

use super::{cause, held, ip, look_back, plain, sweep_end, task};
use crate::input::{Event, EventBody, Input, MiniOp, Overflow, SocketSnapshot, StateChange, Sweep};
use crate::owner::Actor;
use crate::recording::numbers::{self, kind};
use crate::recording::varint::{Bad, Cursor};
use crate::time::Mono;
use crate::tuple::Tuple;

/// A socket as events name it.
#[derive(Clone, Copy, Debug)]
struct Socket {
    cookie: u64,
    sk: u64,
    tuple: Option<Tuple>,
}

/// What the block has said already. A reference counts back from the newest.
#[derive(Debug, Default)]
struct Heard<'a> {
    /// The times of the records that follow.
    times: Cursor<'a>,
    at: u64,
    cookie: u64,
    kernel_addresses: Vec<u64>,
    ips: Vec<IpAddr>,
    namespaces: Vec<Option<u32>>,
    sockets: Vec<Socket>,
    actors: Vec<Actor>,
}

/// Reads the records of a block. The inputs of all that are known are appended; gives how many
/// records were skipped because they are not.
///
/// # Errors
/// If the bytes break the format. The inputs before that place have been appended.
pub(in crate::recording) fn decode(block: &[u8], inputs: &mut Vec<Input>) -> Result<u64, Bad> {
    let mut cursor = Cursor::new(block);
    let mut heard = Heard {
        times: Cursor::new(cursor.bytes()?),
        ..Heard::default()
    };
    let mut skipped = 0;
    while !cursor.is_empty() {
        let kind = cursor.number()?;
        let mut payload = Cursor::new(cursor.bytes()?);
        match input(kind, &mut payload, &mut heard) {
            Ok(input) => inputs.push(input),
            Err(Bad::Unknown) => skipped += 1,
            Err(Bad::Malformed) => return Err(Bad::Malformed),
        }
    }
    Ok(skipped)
}

/// One record. What stands behind the fields that are known is of a later version.
fn input(kind: u64, cursor: &mut Cursor<'_>, heard: &mut Heard<'_>) -> Result<Input, Bad> {
    Ok(match kind {
        kind::STATE | kind::ACCEPT | kind::MINI | kind::LEFT_OUT | kind::CLOSE | kind::EOF => {
            Input::Kernel(event(kind, cursor, heard)?)
        }
        kind::TICK => Input::Tick(time(heard)?),
        kind::SOCKET => Input::Socket(snapshot(cursor, heard)?),
        kind::SWEEP_BEGIN => Input::Sweep(Sweep::Begin { at: time(heard)? }),
        kind::SWEEP_END => sweep_end(time(heard)?, cursor)?,
        kind::HOLDERS => held(heard.cookie, cursor)?,
        kind::OVERFLOW => Input::Overflow(overflow(cursor, heard)?),
        kind::END => Input::End(time(heard)?),
        _ => plain(kind, cursor)?,
    })
}

fn event(kind: u64, cursor: &mut Cursor<'_>, heard: &mut Heard<'_>) -> Result<Event, Bad> {
    let at = time(heard)?;
    let cpu = heard.times.u32()?;
    let socket = socket(cursor, heard)?;
    let with_tuple = || socket.tuple.ok_or(Bad::Malformed);
    // All is read before any of it is judged: what this version does not know may stand before
    // the first mention of a task.
    let body = match kind {
        kind::STATE => {
            let (old, new) = (cursor.byte()?, cursor.byte()?);
            let flags = cursor.u16()?;
            let (err, recv_q, send_q) = (cursor.u32()?, cursor.u32()?, cursor.u32()?);
            let actor = actor_if_any(cursor, heard)?;
            EventBody::State(StateChange {
                tuple: with_tuple()?,
                old: numbers::state(old)?,
                new: numbers::state(new)?,
                flags,
                err,
                recv_q,
                send_q,
                actor,
            })
        }
        kind::ACCEPT => EventBody::Accept {
            tuple: with_tuple()?,
            actor: actor(cursor, heard)?,
            fd: cursor.option()?,
            state: numbers::state(cursor.byte()?)?,
        },
        kind::MINI => {
            let substate = cursor.byte()?;
            let op = mini(cursor, heard)?;
            EventBody::Mini {
                tuple: with_tuple()?,
                substate: numbers::state(substate)?,
                op,
            }
        }
        kind::LEFT_OUT => EventBody::LeftOut,
        kind::CLOSE => EventBody::Close {
            actor: actor(cursor, heard)?,
            exiting: cursor.byte()? != 0,
        },
        kind::EOF => EventBody::Eof {
            actor: actor(cursor, heard)?,
        },
        _ => return Err(Bad::Unknown),
    };
    Ok(Event {
        at,
        cpu,
        cookie: socket.cookie,
        sk: socket.sk,
        body,
    })
}

fn mini(cursor: &mut Cursor<'_>, heard: &mut Heard<'_>) -> Result<MiniOp, Bad> {
    Ok(match cursor.byte()? {
        1 => MiniOp::Armed {
            timeout_ns: cursor.number()?,
        },
        2 => MiniOp::Cancelled {
            cause: cause(cursor)?,
            actor: actor_if_any(cursor, heard)?,
        },
        3 => MiniOp::Killed {
            cause: cause(cursor)?,
        },
        4 => MiniOp::Expired,
        5 => MiniOp::Segment,
        _ => return Err(Bad::Unknown),
    })
}

fn snapshot(cursor: &mut Cursor<'_>, heard: &mut Heard<'_>) -> Result<SocketSnapshot, Bad> {
    let at = time(heard)?;
    let socket = socket(cursor, heard)?;
    let state = cursor.byte()?;
    let flags = cursor.byte()?;
    Ok(SocketSnapshot {
        at,
        cookie: socket.cookie,
        tuple: socket.tuple.ok_or(Bad::Malformed)?,
        state: numbers::state(state)?,
        mini: flags & 1 != 0,
        mptcp: flags & 2 != 0,
        inode: cursor.u32()?,
        uid: cursor.u32()?,
        recv_q: cursor.u32()?,
        send_q: cursor.u32()?,
        timer: numbers::timer(cursor.byte()?, cursor.u32()?)?,
        last_ack_recv_ms: cursor.option()?,
        last_data_recv_ms: cursor.option()?,
        last_data_sent_ms: cursor.option()?,
        shutdown: cursor.option()?.map(|bits| bits as u8),
        cgroup: {
            let known = cursor.byte()? != 0;
            let id = cursor.number()?;
            known.then_some(id)
        },
        drops: cursor.option()?,
    })
}

fn overflow(cursor: &mut Cursor<'_>, heard: &mut Heard<'_>) -> Result<Overflow, Bad> {
    let at = time(heard)?;
    let socket = socket(cursor, heard)?;
    Ok(Overflow {
        at,
        cookie: socket.cookie,
        tuple: socket.tuple.ok_or(Bad::Malformed)?,
        first: Mono(cursor.delta(at.0)?),
        dropped: cursor.number()?,
        queue: cursor.u32()?,
        limit: cursor.u32()?,
    })
}

fn time(heard: &mut Heard<'_>) -> Result<Mono, Bad> {
    heard.at = heard.times.delta(heard.at)?;
    Ok(Mono(heard.at))
}

fn socket(cursor: &mut Cursor<'_>, heard: &mut Heard<'_>) -> Result<Socket, Bad> {
    if let Some(socket) = referred(&heard.sockets, cursor)? {
        return Ok(socket);
    }
    heard.cookie = cursor.delta(heard.cookie)?;
    let sk = match referred(&heard.kernel_addresses, cursor)? {
        Some(sk) => sk,
        None => {
            let sk = u64::from_le_bytes(cursor.array()?);
            heard.kernel_addresses.push(sk);
            sk
        }
    };
    let tuple = match cursor.byte()? {
        0 => None,
        _ => Some(tuple(cursor, heard)?),
    };
    let cookie = heard.cookie;
    let socket = Socket { cookie, sk, tuple };
    heard.sockets.push(socket);
    Ok(socket)
}

fn tuple(cursor: &mut Cursor<'_>, heard: &mut Heard<'_>) -> Result<Tuple, Bad> {
    let local = end(cursor, heard)?;
    let remote = end(cursor, heard)?;
    let netns = match referred(&heard.namespaces, cursor)? {
        Some(netns) => netns,
        None => {
            let netns = cursor.option()?;
            heard.namespaces.push(netns);
            netns
        }
    };
    Ok(Tuple::new(local, remote, netns))
}

fn end(cursor: &mut Cursor<'_>, heard: &mut Heard<'_>) -> Result<SocketAddr, Bad> {
    let ip = match referred(&heard.ips, cursor)? {
        Some(ip) => ip,
        None => {
            let ip = ip(cursor)?;
            heard.ips.push(ip);
            ip
        }
    };
    Ok(SocketAddr::new(ip, u16::from_le_bytes(cursor.array()?)))
}

fn actor_if_any(cursor: &mut Cursor<'_>, heard: &mut Heard<'_>) -> Result<Option<Actor>, Bad> {
    match cursor.number()? {
        0 => Ok(None),
        back => actor_at(back - 1, cursor, heard).map(Some),
    }
}

fn actor(cursor: &mut Cursor<'_>, heard: &mut Heard<'_>) -> Result<Actor, Bad> {
    let back = cursor.number()?;
    actor_at(back, cursor, heard)
}

fn actor_at(back: u64, cursor: &mut Cursor<'_>, heard: &mut Heard<'_>) -> Result<Actor, Bad> {
    if let Some(actor) = look_back(&heard.actors, back)? {
        return Ok(actor);
    }
    let actor = task(cursor)?;
    heard.actors.push(actor);
    Ok(actor)
}

/// Reads a reference; `None`: the value follows.
fn referred<T: Copy>(list: &[T], cursor: &mut Cursor<'_>) -> Result<Option<T>, Bad> {
    look_back(list, cursor.number()?)
}

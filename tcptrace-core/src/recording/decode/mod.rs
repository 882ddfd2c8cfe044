//! Records back to inputs: checked, never trusting.

mod columns;
mod rows;

use std::net::IpAddr;
use std::sync::Arc;

use super::numbers::{self, kind};
use super::varint::{Bad, Cursor};
use crate::cause::Cause;
use crate::host::{Activity, Blocked, Reading};
use crate::input::{Definition, Input, Loss, StackLoss, Sweep};
use crate::owner::{Actor, Comm, Holder, Process};
use crate::stack::{Frame, Seen, Stack, StackId};
use crate::time::Mono;

pub(super) use columns::decode as decode_columns;
pub(super) use rows::decode as decode_rows;

/// A record of a kind that is about no socket, and has no time.
fn plain(kind: u64, cursor: &mut Cursor<'_>) -> Result<Input, Bad> {
    Ok(match kind {
        kind::LOST => Input::Lost(loss(cursor)?),
        kind::PROCESS => Input::Define(Definition::Process(Process {
            pid: cursor.u32()?,
            start_ns: cursor.number()?,
            comm: comm(cursor)?,
            cmdline: text(cursor)?,
            cgroup: text(cursor)?,
            container: text(cursor)?,
        })),
        kind::FIN_TIMEOUT => Input::Define(Definition::FinTimeout {
            netns: cursor.u32()?,
            ns: cursor.number()?,
        }),
        kind::STACK => Input::Define(Definition::Stack(stack(cursor)?)),
        kind::SEEN => Input::Stack(seen(cursor)?),
        kind::READING => Input::Define(Definition::Reading(Reading {
            netns: cursor.u32()?,
            name: utf8(cursor.bytes()?),
            value: utf8(cursor.bytes()?),
        })),
        kind::ACTIVITY => Input::Define(Definition::Activity(activity(cursor)?)),
        kind::NOTE => Input::Define(Definition::Note(utf8(cursor.bytes()?))),
        _ => return Err(Bad::Unknown),
    })
}

/// Totals of what was lost.
pub(super) fn loss(cursor: &mut Cursor<'_>) -> Result<Loss, Bad> {
    Ok(Loss {
        ring_full: cursor.number()?,
        recursion_missed: cursor.number()?,
        map_full: cursor.number()?,
        read_faults: cursor.number()?,
        undecodable: cursor.number()?,
        mptcp: cursor.number()?,
        // Before 1.2 there were none.
        stacks: match cursor.is_empty() {
            true => StackLoss::default(),
            false => StackLoss {
                over_budget: cursor.number()?,
                full: cursor.number()?,
                unreadable: cursor.number()?,
            },
        },
    })
}

fn seen(cursor: &mut Cursor<'_>) -> Result<Seen, Bad> {
    Ok(Seen {
        at: Mono(cursor.number()?),
        cookie: cursor.number()?,
        point: numbers::point(cursor.byte()?)?,
        pid: cursor.u32()?,
        tid: cursor.u32()?,
        stack: StackId(cursor.u32()?),
    })
}

fn stack(cursor: &mut Cursor<'_>) -> Result<Stack, Bad> {
    const LEAST: usize = 11;
    let id = StackId(cursor.u32()?);
    let cut = text(cursor)?;
    let count = cursor.count(LEAST)?;
    let frame = |_| {
        Ok(Frame {
            kind: numbers::frame_kind(cursor.byte()?)?,
            function: text(cursor)?,
            file: text(cursor)?,
            module: text(cursor)?,
            build_id: text(cursor)?,
            line: cursor.option()?,
            address: cursor.number()?,
        })
    };
    let frames = (0..count).map(frame).collect::<Result<_, _>>()?;
    Ok(Stack { id, frames, cut })
}

fn activity(cursor: &mut Cursor<'_>) -> Result<Activity, Bad> {
    const LEAST: usize = 6;
    let (at, pid) = (Mono(cursor.number()?), cursor.u32()?);
    let (files, files_max) = (number_if_any(cursor)?, number_if_any(cursor)?);
    let threads = cursor.u32()?;
    let count = cursor.count(LEAST)?;
    let blocked = |_| {
        Ok(Blocked {
            tid: cursor.u32()?,
            comm: comm(cursor)?,
            call: utf8(cursor.bytes()?),
            fd: cursor.u32()?,
            inode: cursor.u32()?,
            since: Mono(cursor.number()?),
        })
    };
    Ok(Activity {
        at,
        pid,
        files,
        files_max,
        threads,
        blocked: (0..count).map(blocked).collect::<Result<_, _>>()?,
    })
}

fn number_if_any(cursor: &mut Cursor<'_>) -> Result<Option<u64>, Bad> {
    let known = cursor.byte()? != 0;
    let number = cursor.number()?;
    Ok(known.then_some(number))
}

fn sweep_end(at: Mono, cursor: &mut Cursor<'_>) -> Result<Input, Bad> {
    Ok(Input::Sweep(Sweep::End {
        at,
        netns: inodes(cursor)?,
        partly: inodes(cursor)?,
        hidden: cursor.u32()?,
    }))
}

/// Who has the socket open whose cookie differs so much from this one.
fn held(cookie: u64, cursor: &mut Cursor<'_>) -> Result<Input, Bad> {
    Ok(Input::Define(Definition::Holders {
        cookie: cursor.delta(cookie)?,
        holders: holders(cursor)?,
    }))
}

fn holders(cursor: &mut Cursor<'_>) -> Result<Vec<Holder>, Bad> {
    const LEAST: usize = 3;
    let count = cursor.count(LEAST)?;
    let holder = |_| {
        Ok(Holder {
            pid: cursor.u32()?,
            fd: cursor.u32()?,
            comm: comm(cursor)?,
        })
    };
    (0..count).map(holder).collect()
}

fn inodes(cursor: &mut Cursor<'_>) -> Result<Vec<u32>, Bad> {
    let count = cursor.count(1)?;
    (0..count).map(|_| cursor.u32()).collect()
}

fn cause(cursor: &mut Cursor<'_>) -> Result<Cause, Bad> {
    cursor.number().map(numbers::cause)
}

fn comm(cursor: &mut Cursor<'_>) -> Result<Comm, Bad> {
    let bytes = cursor.bytes()?;
    let mut comm = [0; 16];
    let room = comm.get_mut(..bytes.len()).ok_or(Bad::Malformed)?;
    room.copy_from_slice(bytes);
    Ok(Comm::from_kernel(comm))
}

fn text(cursor: &mut Cursor<'_>) -> Result<Option<Arc<str>>, Bad> {
    let known = cursor.byte()? != 0;
    let bytes = cursor.bytes()?;
    Ok(known.then(|| utf8(bytes)))
}

fn utf8(bytes: &[u8]) -> Arc<str> {
    Arc::from(String::from_utf8_lossy(bytes))
}

fn ip(cursor: &mut Cursor<'_>) -> Result<IpAddr, Bad> {
    Ok(match cursor.byte()? {
        4 => IpAddr::from(cursor.array::<4>()?),
        6 => IpAddr::from(cursor.array::<16>()?),
        _ => return Err(Bad::Malformed),
    })
}

fn task(cursor: &mut Cursor<'_>) -> Result<Actor, Bad> {
    Ok(Actor {
        pid: cursor.u32()?,
        tid: cursor.u32()?,
        start_ns: cursor.number()?,
        cgroup: cursor.number()?,
        comm: comm(cursor)?,
    })
}

/// What is so many places back from the end of the list, the last being 1; `None` at 0.
fn look_back<T: Copy>(list: &[T], back: u64) -> Result<Option<T>, Bad> {
    let place = usize::try_from(back)
        .ok()
        .and_then(|back| list.len().checked_sub(back))
        .ok_or(Bad::Malformed)?;
    Ok(list.get(place).copied())
}

//! The numbers that stand for names in a file. They are never given to anything else: what is new
//! goes to the end.

use super::varint::Bad;
use crate::cause::Cause;
use crate::input::Timer;
use crate::stack::{FrameKind, Point};
use crate::state::TcpState;
use crate::tracker::Minisockets;

/// Kinds of records.
pub(super) mod kind {
    pub(in super::super) const STATE: u64 = 1;
    pub(in super::super) const ACCEPT: u64 = 2;
    pub(in super::super) const MINI: u64 = 3;
    pub(in super::super) const LEFT_OUT: u64 = 4;
    pub(in super::super) const CLOSE: u64 = 5;
    pub(in super::super) const EOF: u64 = 6;
    pub(in super::super) const LOST: u64 = 16;
    pub(in super::super) const TICK: u64 = 17;
    pub(in super::super) const SOCKET: u64 = 18;
    pub(in super::super) const SWEEP_BEGIN: u64 = 19;
    pub(in super::super) const SWEEP_END: u64 = 20;
    pub(in super::super) const HOLDERS: u64 = 21;
    pub(in super::super) const PROCESS: u64 = 22;
    pub(in super::super) const FIN_TIMEOUT: u64 = 23;
    pub(in super::super) const NOTE: u64 = 24;
    pub(in super::super) const OVERFLOW: u64 = 25;
    pub(in super::super) const STACK: u64 = 26;
    pub(in super::super) const SEEN: u64 = 27;
    pub(in super::super) const READING: u64 = 28;
    pub(in super::super) const ACTIVITY: u64 = 29;
    pub(in super::super) const END: u64 = 31;
}

const POINTS: [Point; 4] = [Point::Connect, Point::Accept, Point::Eof, Point::Close];

/// The number of a point: its place in the list.
pub(super) fn of_point(point: Point) -> u8 {
    let place = POINTS.iter().position(|p| *p == point);
    place.unwrap_or_default() as u8
}

/// The point of that number.
pub(super) fn point(number: u8) -> Result<Point, Bad> {
    let point = POINTS.get(usize::from(number));
    point.copied().ok_or(Bad::Unknown)
}

const FRAME_KINDS: [FrameKind; 5] = [
    FrameKind::Native,
    FrameKind::Inlined,
    FrameKind::FramePointer,
    FrameKind::Python,
    FrameKind::PythonLater,
];

/// The number of a kind of frames: its place in the list.
pub(super) fn of_frame_kind(kind: FrameKind) -> u8 {
    let place = FRAME_KINDS.iter().position(|k| *k == kind);
    place.unwrap_or_default() as u8
}

/// The kind of frames of that number.
pub(super) fn frame_kind(number: u8) -> Result<FrameKind, Bad> {
    let kind = FRAME_KINDS.get(usize::from(number));
    kind.copied().ok_or(Bad::Unknown)
}

/// The number of a cause: its place in the list.
pub(super) fn of_cause(cause: Cause) -> u64 {
    let place = Cause::ALL.iter().position(|c| *c == cause);
    place.unwrap_or_default() as u64
}

/// A number that is none yet is a cause that this version does not know.
pub(super) fn cause(number: u64) -> Cause {
    let place = usize::try_from(number).unwrap_or(usize::MAX);
    Cause::ALL.get(place).copied().unwrap_or(Cause::Unknown)
}

/// States have the kernel's numbers.
pub(super) fn state(number: u8) -> Result<TcpState, Bad> {
    TcpState::try_from(number).map_err(|_| Bad::Unknown)
}

/// The number of a timer, and what it has left.
pub(super) fn of_timer(timer: Timer) -> (u8, u32) {
    match timer {
        Timer::Off => (0, 0),
        Timer::Retransmit { left_ms } => (1, left_ms),
        Timer::Keepalive { left_ms } => (2, left_ms),
        Timer::TimeWait { left_ms } => (3, left_ms),
        Timer::Probe { left_ms } => (4, left_ms),
    }
}

pub(super) fn timer(number: u8, left_ms: u32) -> Result<Timer, Bad> {
    Ok(match number {
        0 => Timer::Off,
        1 => Timer::Retransmit { left_ms },
        2 => Timer::Keepalive { left_ms },
        3 => Timer::TimeWait { left_ms },
        4 => Timer::Probe { left_ms },
        _ => return Err(Bad::Unknown),
    })
}

pub(super) fn of_minisockets(minisockets: Minisockets) -> u64 {
    match minisockets {
        Minisockets::Ignored => 0,
        Minisockets::Seen => 1,
        Minisockets::Sampled => 2,
    }
}

pub(super) fn minisockets(number: u64) -> Result<Minisockets, Bad> {
    match number {
        0 => Ok(Minisockets::Ignored),
        1 => Ok(Minisockets::Seen),
        2 => Ok(Minisockets::Sampled),
        _ => Err(Bad::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_a_number_of_its_own() {
        for (number, expected) in Cause::ALL.into_iter().enumerate() {
            assert_eq!(of_cause(expected), number as u64);
            assert_eq!(cause(number as u64), expected);
        }
        // The last one in the declaration: a cause that is added has to be added here, too.
        assert_eq!(Cause::Unknown as usize + 1, Cause::ALL.len());
        assert_eq!(cause(u64::MAX), Cause::Unknown);
    }
}

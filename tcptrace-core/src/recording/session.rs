//! How a recording was taken: what a replay has to know to give the same answers, and what a person
//! wants to know of the machine.

use super::numbers::{minisockets, of_minisockets};
use super::varint::{Bad, Cursor, put, put_bytes};
use super::{decode, encode, within};
use crate::filter::Filter;
use crate::input::Loss;
use crate::state::StateSet;
use crate::time::{Mono, WallAnchor};
use crate::tracker::Minisockets;

/// The first block of every file of a recording.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// The same in all files of a recording, and in no other's.
    pub recording: [u8; 16],
    /// Which of its files this is, from 1.
    pub part: u32,
    /// Both clocks at the start.
    pub anchor: WallAnchor,
    /// How the inputs came to be.
    pub capture: Capture,
    /// What had been lost before this file began.
    pub lost_before: Loss,
    /// Version of the program that recorded.
    pub program: String,
    /// Name of the machine.
    pub host: String,
    /// `uname -r`.
    pub kernel: String,
    /// `/proc/sys/kernel/random/boot_id`: cookies are unique within it.
    pub boot_id: String,
    /// What the kernel offered, what was attached, and the settings that matter: a JSON object for
    /// people, `{}` where it is not known.
    pub facts: String,
}

/// How the inputs came to be, as far as the tracker's answers depend on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capture {
    /// `full`, `partial` or `netlink`.
    pub mode: String,
    /// How minisockets were followed.
    pub minisockets: Minisockets,
    /// What full accept queues dropped was counted by programs; else dumps told.
    pub overflows_seen: bool,
    /// Threads that acted on sockets were told of, with their stacks.
    pub stacks: bool,
    /// Sockets of some owners only were followed.
    pub selective: bool,
    /// All sockets were looked at every so many ns; `None`: events told.
    pub polled_ns: Option<u64>,
    /// The states whose transitions are in it.
    pub states: StateSet,
    /// The states whose stuck sockets were looked up, for which ticks were made.
    pub shown: StateSet,
    /// At this age, ns.
    pub min_age_ns: u64,
    /// The sockets that were asked for, as far as their ends and their namespace say. What is in it
    /// of others is not all of what happened to them.
    pub within: Filter,
}

/// Facts are numbered; numbers are never given to anything else.
mod fact {
    pub(super) const RECORDING: u64 = 1;
    pub(super) const PART: u64 = 2;
    pub(super) const ANCHOR: u64 = 3;
    pub(super) const MODE: u64 = 4;
    pub(super) const MINISOCKETS: u64 = 5;
    pub(super) const SELECTIVE: u64 = 6;
    pub(super) const POLLED: u64 = 7;
    pub(super) const STATES: u64 = 8;
    pub(super) const SHOWN: u64 = 9;
    pub(super) const MIN_AGE: u64 = 10;
    pub(super) const OVERFLOWS: u64 = 11;
    pub(super) const LOST_BEFORE: u64 = 12;
    pub(super) const WITHIN: u64 = 13;
    pub(super) const STACKS: u64 = 14;
    pub(super) const PROGRAM: u64 = 16;
    pub(super) const HOST: u64 = 17;
    pub(super) const KERNEL: u64 = 18;
    pub(super) const BOOT_ID: u64 = 19;
    pub(super) const FACTS: u64 = 20;
}

impl Session {
    /// The payload of the block.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut bytes = |number: u64, value: &[u8]| {
            put(&mut out, number);
            put_bytes(&mut out, value);
        };
        bytes(fact::RECORDING, &self.recording);
        for (number, text) in [
            (fact::MODE, &self.capture.mode),
            (fact::PROGRAM, &self.program),
            (fact::HOST, &self.host),
            (fact::KERNEL, &self.kernel),
            (fact::BOOT_ID, &self.boot_id),
            (fact::FACTS, &self.facts),
        ] {
            bytes(number, text.as_bytes());
        }
        let within = within::to_text(&self.capture.within);
        if !within.is_empty() {
            bytes(fact::WITHIN, within.as_bytes());
        }
        let mut anchor = self.anchor.mono.0.to_le_bytes().to_vec();
        anchor.extend(self.anchor.wall_ns.to_le_bytes());
        bytes(fact::ANCHOR, &anchor);
        let capture = &self.capture;
        let numbers = [
            (fact::PART, u64::from(self.part)),
            (fact::MINISOCKETS, of_minisockets(capture.minisockets)),
            (fact::SELECTIVE, u64::from(capture.selective)),
            (fact::STATES, u64::from(capture.states.bits())),
            (fact::SHOWN, u64::from(capture.shown.bits())),
            (fact::MIN_AGE, capture.min_age_ns),
            (fact::OVERFLOWS, u64::from(capture.overflows_seen)),
            (fact::STACKS, u64::from(capture.stacks)),
        ];
        let polled = capture.polled_ns.map(|ns| (fact::POLLED, ns));
        for (number, value) in numbers.into_iter().chain(polled) {
            let mut text = Vec::new();
            put(&mut text, value);
            bytes(number, &text);
        }
        if self.lost_before != Loss::default() {
            let mut totals = Vec::new();
            encode::loss(&self.lost_before, &mut totals);
            bytes(fact::LOST_BEFORE, &totals);
        }
        out
    }

    /// Reads the payload of a block. Facts that are not known are skipped.
    pub(super) fn decode(payload: &[u8]) -> Result<Session, Bad> {
        let mut session = Session::default();
        let mut cursor = Cursor::new(payload);
        while !cursor.is_empty() {
            let number = cursor.number()?;
            let mut value = Cursor::new(cursor.bytes()?);
            session.take(number, &mut value)?;
        }
        Ok(session)
    }

    fn take(&mut self, number: u64, value: &mut Cursor<'_>) -> Result<(), Bad> {
        let capture = &mut self.capture;
        match number {
            fact::RECORDING => self.recording = value.array()?,
            fact::PART => self.part = value.u32()?,
            fact::ANCHOR => {
                self.anchor = WallAnchor {
                    mono: Mono(u64::from_le_bytes(value.array()?)),
                    wall_ns: i64::from_le_bytes(value.array()?),
                }
            }
            fact::MODE => capture.mode = text(value)?,
            fact::MINISOCKETS => capture.minisockets = minisockets(value.number()?)?,
            fact::SELECTIVE => capture.selective = value.number()? != 0,
            fact::POLLED => capture.polled_ns = Some(value.number()?),
            fact::STATES => capture.states = states(value)?,
            fact::SHOWN => capture.shown = states(value)?,
            fact::MIN_AGE => capture.min_age_ns = value.number()?,
            fact::OVERFLOWS => capture.overflows_seen = value.number()? != 0,
            fact::STACKS => capture.stacks = value.number()? != 0,
            fact::LOST_BEFORE => self.lost_before = decode::loss(value)?,
            fact::WITHIN => capture.within = within::of_text(&text(value)?),
            fact::PROGRAM => self.program = text(value)?,
            fact::HOST => self.host = text(value)?,
            fact::KERNEL => self.kernel = text(value)?,
            fact::BOOT_ID => self.boot_id = text(value)?,
            fact::FACTS => self.facts = text(value)?,
            _ => {}
        }
        Ok(())
    }
}

fn states(value: &mut Cursor<'_>) -> Result<StateSet, Bad> {
    let bits = value.u32()?;
    let known = StateSet::all().iter();
    Ok(known
        .filter(|state| bits >> state.number() & 1 == 1)
        .fold(StateSet::EMPTY, StateSet::with))
}

fn text(value: &mut Cursor<'_>) -> Result<String, Bad> {
    let bytes = value.take(value.left())?;
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

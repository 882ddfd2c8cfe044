//! The walk: from the registers and the copy of the stack to return addresses.
//!
//! A walk depends on the code that it passes, the first address, and the words that it looked at,
//! nothing else: it says which, so that the next stack with the same words needs no walk.

use std::num::NonZeroUsize;
use std::sync::Arc;

use gimli::UnwindContext;
use lru::LruCache;

use crate::cfi::{BP, Base, RA, Rule, SLOTS, SP, Saved, word};
use crate::expression;
use crate::module::{Exit, Module};
use crate::sample::Regs;
use crate::trace::{By, End};

/// Rules that are kept: some 300 bytes each.
const RULES: NonZeroUsize = NonZeroUsize::new(16 * 1024).unwrap();
/// How far above the stack pointer a frame pointer may point.
const FRAME: u64 = 64 << 20;

/// What is at an address of a process.
#[derive(Debug, Clone)]
pub(crate) enum Spot {
    /// No mapped code.
    Nothing,
    /// Code, but of no file.
    Memory,
    /// A file, and the address as it counts them.
    File(Arc<str>, Arc<Module>, u64),
    /// A file that could not be read.
    Unreadable(Arc<str>),
}

/// The code of a process.
pub(crate) trait Code {
    /// What is at `address`.
    fn spot(&mut self, address: u64) -> Spot;
}

/// A frame found.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) ip: u64,
    /// The address to look up: of a return address that of the call before it.
    pub(crate) call: u64,
    pub(crate) by: By,
    pub(crate) spot: Spot,
}

/// What a walk looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Read {
    /// The first value of a register, as a place on the stack. Of [`Read::BP`] this is `rbp`.
    Register(u8),
    /// A word of the copy, so many bytes above the stack pointer, as a place on the stack.
    Place(u32),
    /// A word of the copy, as an address of code.
    Address(u32),
}

impl Read {
    /// The frame pointer.
    pub const BP: Read = Read::Register(BP as u8);
}

/// What a walk saw there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Seen {
    /// An address of code.
    Address(u64),
    /// Bytes from the stack pointer.
    Offset(u64),
    /// Zero, which is no place.
    Zero,
    /// The copy ends before it.
    Missing,
}

/// What is looked at by a walk: the copy, and where it started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) regs: &'a Regs,
    pub(crate) stack: &'a [u8],
}

impl View<'_> {
    /// What is there.
    pub(crate) fn see(&self, read: Read) -> Seen {
        let place = |value: u64| match value {
            0 => Seen::Zero,
            value => Seen::Offset(value.wrapping_sub(self.regs.sp)),
        };
        match read {
            Read::Register(slot) => place(self.register(usize::from(slot))),
            Read::Place(at) => word(self.stack, u64::from(at)).map_or(Seen::Missing, place),
            Read::Address(at) => {
                word(self.stack, u64::from(at)).map_or(Seen::Missing, Seen::Address)
            }
        }
    }

    pub(crate) fn register(&self, slot: usize) -> u64 {
        let r = self.regs;
        [r.bx, r.bp, r.sp, r.r12, r.r13, r.r14, r.r15, r.ip][slot % SLOTS]
    }
}

/// A walk that is done.
#[derive(Debug)]
pub(crate) struct Walk {
    pub(crate) steps: Vec<Step>,
    pub(crate) end: End,
    /// What was looked at; `None` if more than places and addresses.
    pub(crate) reads: Option<Vec<(Read, Seen)>>,
}

/// Where the caller's value of a register is. What no frame's base depends on is never looked at.
#[derive(Debug, Clone, Copy)]
enum Value {
    First(usize),
    /// A word so many bytes above the first stack pointer.
    Word(u64),
    /// A place so many bytes above the first stack pointer.
    Offset(u64),
    Known(u64),
    Lost,
}

/// Does walks, and keeps the rules that they used.
pub(crate) struct Unwinder {
    rules: LruCache<(u32, u64), (By, Arc<Rule>)>,
    context: UnwindContext<usize>,
    frames: usize,
}

impl Unwinder {
    pub(crate) fn new(frames: usize) -> Unwinder {
        Unwinder {
            rules: LruCache::new(RULES),
            context: UnwindContext::new(),
            frames,
        }
    }

    /// Walks up the stack.
    pub(crate) fn walk(&mut self, code: &mut dyn Code, view: View<'_>) -> Walk {
        let mut state = State {
            view,
            values: std::array::from_fn(Value::First),
            reads: Some(Vec::new()),
            depth: 0,
        };
        state.values[SP] = Value::Offset(0);
        let mut steps = Vec::new();
        let (mut ip, mut by, mut exact) = (view.regs.ip, By::Registers, true);
        let end = loop {
            if steps.len() == self.frames {
                break End::Limit;
            }
            let call = if exact { ip } else { ip.wrapping_sub(1) };
            let spot = code.spot(call);
            match (&spot, steps.last()) {
                (Spot::Nothing, Some(Step { spot, .. })) if by == By::FramePointer => {
                    break End::NoUnwindInfo(name(spot));
                }
                (Spot::Nothing, Some(_)) => break End::NotCode(ip),
                _ => {}
            }
            let exit = self.exit(&spot, call);
            steps.push(Step {
                ip,
                call,
                by,
                spot: spot.clone(),
            });
            let next = match exit {
                Ok(Way::Rule(by, rule)) => {
                    exact = rule.signal;
                    state.apply(&rule, &spot).map(|ip| (ip, by))
                }
                Ok(Way::FramePointer) => {
                    exact = false;
                    state.frame_pointer(&spot).map(|ip| (ip, By::FramePointer))
                }
                Err(end) => Err(end),
            };
            match next {
                Ok((0, _)) => break End::Root,
                Ok(found) => (ip, by) = found,
                Err(end) => break end,
            }
        };
        Walk {
            steps,
            end,
            reads: state.reads,
        }
    }

    fn exit(&mut self, spot: &Spot, call: u64) -> Result<Way, End> {
        let (path, module, address) = match spot {
            Spot::Nothing => return Err(End::NotCode(call)),
            Spot::Unreadable(path) => return Err(End::Unreadable(Arc::clone(path))),
            Spot::Memory => return Ok(Way::FramePointer),
            Spot::File(path, module, address) => (path, module, *address),
        };
        if let Some((by, rule)) = self.rules.get(&(module.number, address)) {
            return Ok(Way::Rule(*by, Arc::clone(rule)));
        }
        match module.exit(address, &mut self.context) {
            Err(_) => Err(End::Corrupt(Arc::clone(path))),
            Ok(Exit::Root) => Err(End::Root),
            Ok(Exit::OtherStack) => Err(End::OtherStack),
            Ok(Exit::Unknown) => Ok(Way::FramePointer),
            Ok(Exit::By(by, rule)) => {
                self.rules
                    .put((module.number, address), (by, Arc::clone(&rule)));
                Ok(Way::Rule(by, rule))
            }
        }
    }
}

/// How to go on.
enum Way {
    Rule(By, Arc<Rule>),
    FramePointer,
}

fn name(spot: &Spot) -> Option<Arc<str>> {
    match spot {
        Spot::File(path, ..) | Spot::Unreadable(path) => Some(Arc::clone(path)),
        Spot::Memory | Spot::Nothing => None,
    }
}

/// Between two frames.
struct State<'a> {
    view: View<'a>,
    values: [Value; SLOTS],
    reads: Option<Vec<(Read, Seen)>>,
    /// How far the walk is above the first stack pointer.
    depth: u64,
}

impl State<'_> {
    /// The caller's address, 0 at the outermost frame.
    fn apply(&mut self, rule: &Rule, spot: &Spot) -> Result<u64, End> {
        let corrupt = || name(spot).map_or(End::NoUnwindInfo(None), End::Corrupt);
        let base = match &rule.base {
            Base::Register(slot, offset) => {
                self.place(*slot, corrupt)?.wrapping_add_signed(*offset)
            }
            Base::Expression(expression) => {
                let value = self.evaluate(spot, expression, None).ok_or_else(corrupt)?;
                value.wrapping_sub(self.view.regs.sp)
            }
        };
        if base.cast_signed() < 0 {
            return Err(corrupt());
        }
        let next = std::array::from_fn(|slot| match &rule.saved[slot] {
            Saved::Same => self.values[slot],
            Saved::Lost => Value::Lost,
            Saved::At(offset) => Value::Word(base.wrapping_add_signed(*offset)),
            Saved::Is(offset) => Value::Offset(base.wrapping_add_signed(*offset)),
            Saved::Register(other) => self.values[*other],
            Saved::IsExpression(expression) => self
                .evaluate(spot, expression, Some(base))
                .map_or(Value::Lost, Value::Known),
            Saved::AtExpression(expression) => self
                .evaluate(spot, expression, Some(base))
                .map_or(Value::Lost, |at| {
                    Value::Word(at.wrapping_sub(self.view.regs.sp))
                }),
        });
        if matches!(rule.saved[RA], Saved::Lost) {
            return Err(End::Root);
        }
        self.values = next;
        let above = self.place(SP, corrupt)?;
        if above <= self.depth {
            return Err(End::Loop);
        }
        self.depth = above;
        self.values[SP] = Value::Offset(above);
        match self.values[RA] {
            Value::Word(at) => self.address(at).ok_or_else(|| self.short(at, corrupt)),
            Value::Known(address) => Ok(address),
            _ => Err(corrupt()),
        }
    }

    /// The caller's address by the frame pointer, 0 at the outermost frame.
    fn frame_pointer(&mut self, spot: &Spot) -> Result<u64, End> {
        let none = || End::NoUnwindInfo(name(spot));
        if matches!(self.values[BP], Value::Lost) {
            return Err(none());
        }
        let seen = self.look(BP);
        let at = match seen {
            Some(Seen::Offset(at)) => at,
            Some(Seen::Zero) => return Err(End::Root),
            Some(Seen::Missing) => return Err(End::CopyTooShort),
            _ => return Err(none()),
        };
        if at < self.depth || at > FRAME || at % 8 != 0 {
            return Err(none());
        }
        let mut values = [Value::Lost; SLOTS];
        values[BP] = Value::Word(at);
        values[SP] = Value::Offset(at + 16);
        self.values = values;
        self.depth = at + 16;
        self.address(at + 8).ok_or(End::CopyTooShort)
    }

    /// The value of a register as bytes above the first stack pointer.
    fn place(&mut self, slot: usize, corrupt: impl Fn() -> End) -> Result<u64, End> {
        match (self.look(slot), self.values[slot]) {
            (Some(Seen::Offset(offset)), _) => Ok(offset),
            (Some(Seen::Missing), Value::Word(at)) => Err(self.short(at, corrupt)),
            _ => Err(corrupt()),
        }
    }

    /// What a register's value is as a place; that it was looked at is noted.
    fn look(&mut self, slot: usize) -> Option<Seen> {
        let read = match self.values[slot] {
            Value::Offset(offset) => return Some(Seen::Offset(offset)),
            Value::Known(value) => {
                return Some(Seen::Offset(value.wrapping_sub(self.view.regs.sp)));
            }
            Value::Lost => return None,
            Value::First(slot) => Read::Register(u8::try_from(slot).ok()?),
            Value::Word(at) => match u32::try_from(at) {
                Ok(at) => Read::Place(at),
                Err(_) => return Some(Seen::Missing),
            },
        };
        Some(self.note(read))
    }

    /// The word at `at` as an address of code.
    fn address(&mut self, at: u64) -> Option<u64> {
        match self.note(Read::Address(u32::try_from(at).ok()?)) {
            Seen::Address(address) => Some(address),
            _ => None,
        }
    }

    fn note(&mut self, read: Read) -> Seen {
        let seen = self.view.see(read);
        if let Some(reads) = &mut self.reads {
            reads.push((read, seen));
        }
        seen
    }

    /// Why the word at `at` is not there.
    fn short(&self, at: u64, corrupt: impl Fn() -> End) -> End {
        if at > FRAME {
            corrupt()
        } else {
            End::CopyTooShort
        }
    }

    /// The value of an expression. It may depend on anything, so the walk is not remembered.
    fn evaluate(
        &mut self,
        spot: &Spot,
        expression: &gimli::UnwindExpression<usize>,
        base: Option<u64>,
    ) -> Option<u64> {
        self.reads = None;
        let Spot::File(_, module, _) = spot else {
            return None;
        };
        let (view, values) = (self.view, self.values);
        let memory = |address: u64| word(view.stack, address.wrapping_sub(view.regs.sp));
        let register = |slot: usize| match values[slot] {
            Value::First(slot) => Some(view.register(slot)),
            Value::Word(at) => word(view.stack, at),
            Value::Offset(offset) => Some(view.regs.sp.wrapping_add(offset)),
            Value::Known(value) => Some(value),
            Value::Lost => None,
        };
        let base = base.map(|base| view.regs.sp.wrapping_add(base));
        expression::value(module.cfi.as_ref()?, expression, base, memory, register)
    }
}

//! Call frame information (`.eh_frame`): how to get from a frame to its caller.

use std::sync::Arc;

use gimli::{
    BaseAddresses, CfaRule, EhFrame, EndianArcSlice, LittleEndian, Register, RegisterRule,
    UnwindContext, UnwindExpression, UnwindSection,
};

use crate::elf::{Elf, PT_GNU_EH_FRAME, u32_at, u64_at};

/// Bytes of the description of one function that are worked through.
const DESCRIPTION: usize = 64 * 1024;

/// The registers whose values are followed; the last is the return address.
pub(crate) const SLOTS: usize = 8;
pub(crate) const BP: usize = 1;
pub(crate) const SP: usize = 2;
pub(crate) const RA: usize = 7;
const DWARF: [u16; SLOTS] = [3, 6, 7, 12, 13, 14, 15, 16];

/// The place of a register among [`SLOTS`].
pub(crate) fn slot(register: Register) -> Option<usize> {
    DWARF.iter().position(|number| *number == register.0)
}

/// The base of a frame, from which its saved registers are told.
#[derive(Debug, Clone)]
pub(crate) enum Base {
    Register(usize, i64),
    Expression(UnwindExpression<usize>),
}

/// Where the caller's value of a register is.
#[derive(Debug, Clone)]
pub(crate) enum Saved {
    Same,
    Lost,
    /// On the stack, at the frame's base and that.
    At(i64),
    /// It is the frame's base and that.
    Is(i64),
    Register(usize),
    AtExpression(UnwindExpression<usize>),
    IsExpression(UnwindExpression<usize>),
}

/// How to get from a frame to its caller.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub(crate) base: Base,
    pub(crate) saved: [Saved; SLOTS],
    /// The caller was interrupted there: its address is no return address.
    pub(crate) signal: bool,
}

/// Call frame information that makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Corrupt;

type Bytes = EndianArcSlice<LittleEndian>;

/// The `.eh_frame` of a file.
#[derive(Debug)]
pub(crate) struct Cfi {
    section: EhFrame<Bytes>,
    bytes: usize,
    bases: BaseAddresses,
    index: Index,
}

/// Where in `.eh_frame` the description of an address is.
#[derive(Debug)]
enum Index {
    /// The table of `.eh_frame_hdr` as it is in the file: pairs of 32-bit offsets from the address of
    /// `.eh_frame_hdr`, the function's and the description's.
    Table {
        header: Arc<[u8]>,
        at: u64,
        entries: usize,
        frame_at: u64,
    },
    /// Our own, for files without a table: first addresses and offsets.
    List(Vec<(u64, usize)>),
}

impl Cfi {
    /// That of a file; `None` if it has none.
    pub(crate) fn read(elf: &Elf<'_>, limit: u64) -> Option<Cfi> {
        let header = elf.segments.iter().find(|s| s.kind == PT_GNU_EH_FRAME);
        let header = header.and_then(|h| Some((h.address, elf.loaded(h.address, limit)?)));
        let table = header.and_then(|(at, header)| table(at, header));
        let (address, bytes) = match (elf.section(".eh_frame"), &table) {
            (Some(section), _) => (section.address, elf.data(section, limit)?),
            (None, Some(Index::Table { frame_at, .. })) => {
                (*frame_at, elf.loaded(*frame_at, limit)?)
            }
            (None, _) => return None,
        };
        let mut bases = BaseAddresses::default().set_eh_frame(address);
        if let Some(text) = elf.section(".text") {
            bases = bases.set_text(text.address);
        }
        if let Some(got) = elf.section(".got") {
            bases = bases.set_got(got.address);
        }
        let length = bytes.len();
        let mut section = EhFrame::from(EndianArcSlice::new(bytes, LittleEndian));
        section.set_address_size(8);
        let index = match table {
            Some(table @ Index::Table { frame_at, .. }) if frame_at == address => table,
            _ => Index::List(list(&section, &bases)),
        };
        Some(Cfi {
            section,
            bytes: length,
            bases,
            index,
        })
    }

    /// Bytes of memory.
    pub(crate) fn weight(&self) -> usize {
        self.bytes
            + match &self.index {
                Index::Table { header, .. } => header.len(),
                Index::List(list) => list.len() * 16,
            }
    }

    /// How to leave the function at `address`; `None` if nothing describes it.
    pub(crate) fn rule(
        &self,
        address: u64,
        context: &mut UnwindContext<usize>,
    ) -> Result<Option<Rule>, Corrupt> {
        let Some(offset) = self.index.find(address) else {
            return Ok(None);
        };
        if offset >= self.bytes {
            return Err(Corrupt);
        }
        let fde = self
            .section
            .fde_from_offset(&self.bases, offset.into(), EhFrame::cie_from_offset)
            .map_err(|_| Corrupt)?;
        if !fde.contains(address) {
            return Ok(None);
        }
        if fde.entry_len() > DESCRIPTION || fde.cie().entry_len() > DESCRIPTION {
            return Err(Corrupt);
        }
        let row = fde
            .unwind_info_for_address(&self.section, &self.bases, context, address)
            .map_err(|_| Corrupt)?;
        let base = match *row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
                Base::Register(slot(register).ok_or(Corrupt)?, offset)
            }
            CfaRule::Expression(expression) => Base::Expression(expression),
        };
        let mut saved = std::array::from_fn(|_| Saved::Same);
        for (number, saved) in DWARF.iter().zip(&mut saved) {
            *saved = place(row.register(Register(*number)))?;
        }
        // Nothing said of the stack pointer: it is the frame's base. Nothing said of the return
        // address: there is no caller.
        if matches!(saved[SP], Saved::Same) {
            saved[SP] = Saved::Is(0);
        }
        if matches!(saved[RA], Saved::Same) {
            saved[RA] = Saved::Lost;
        }
        Ok(Some(Rule {
            base,
            saved,
            signal: fde.is_signal_trampoline(),
        }))
    }

    /// The bytes of an expression.
    pub(crate) fn expression(
        &self,
        expression: &UnwindExpression<usize>,
    ) -> Option<gimli::Expression<Bytes>> {
        expression.get(&self.section).ok()
    }
}

fn place(rule: Option<RegisterRule<usize>>) -> Result<Saved, Corrupt> {
    Ok(match rule {
        None | Some(RegisterRule::SameValue) => Saved::Same,
        Some(RegisterRule::Undefined) => Saved::Lost,
        Some(RegisterRule::Offset(offset)) => Saved::At(offset),
        Some(RegisterRule::ValOffset(offset)) => Saved::Is(offset),
        Some(RegisterRule::Register(other)) => slot(other).map_or(Saved::Lost, Saved::Register),
        Some(RegisterRule::Expression(expression)) => Saved::AtExpression(expression),
        Some(RegisterRule::ValExpression(expression)) => Saved::IsExpression(expression),
        Some(_) => return Err(Corrupt),
    })
}

impl Index {
    /// The offset of the last description that starts at or before `address`.
    fn find(&self, address: u64) -> Option<usize> {
        match self {
            Index::List(list) => {
                let behind = list.partition_point(|(start, _)| *start <= address);
                Some(list.get(behind.checked_sub(1)?)?.1)
            }
            Index::Table {
                header,
                at,
                entries,
                frame_at,
            } => {
                let entry = |i: usize, word: usize| {
                    let offset = u32_at(header, 12 + i * 8 + word * 4)?.cast_signed();
                    Some(at.wrapping_add_signed(i64::from(offset)))
                };
                let (mut low, mut high) = (0, *entries);
                while low < high {
                    let middle = usize::midpoint(low, high);
                    if entry(middle, 0)? <= address {
                        low = middle + 1;
                    } else {
                        high = middle;
                    }
                }
                let description = entry(low.checked_sub(1)?, 1)?;
                usize::try_from(description.checked_sub(*frame_at)?).ok()
            }
        }
    }
}

/// The table of `.eh_frame_hdr` at address `at`, if it is in the form that every linker writes.
fn table(at: u64, mut header: Arc<[u8]>) -> Option<Index> {
    // Version 1; `.eh_frame` relative to here, the count absolute, the table relative to the header.
    const FORM: &[u8] = &[1, 0x1b, 0x03, 0x3b];
    if header.get(..4)? != FORM {
        return None;
    }
    let frame = i64::from(u32_at(&header, 4)?.cast_signed());
    let entries = u32_at(&header, 8)? as usize;
    let length = entries.checked_mul(8)?.checked_add(12)?;
    if entries == 0 || header.len() < length {
        return None;
    }
    if header.len() > length {
        header = Arc::from(&header[..length]);
    }
    Some(Index::Table {
        header,
        at,
        entries,
        frame_at: at.wrapping_add(4).wrapping_add_signed(frame),
    })
}

/// Every description up to the first that makes no sense.
fn list(section: &EhFrame<Bytes>, bases: &BaseAddresses) -> Vec<(u64, usize)> {
    let mut list = Vec::new();
    let mut entries = section.entries(bases);
    while let Ok(Some(entry)) = entries.next() {
        let gimli::CieOrFde::Fde(partial) = entry else {
            continue;
        };
        let Ok(fde) = partial.parse(EhFrame::cie_from_offset) else {
            break;
        };
        list.push((fde.initial_address(), fde.offset()));
    }
    list.sort_unstable();
    list
}

/// A rule of code that keeps its whole frame `size` bytes deep, the return address above it.
pub(crate) fn frame_of(size: i64) -> Rule {
    let mut saved = std::array::from_fn(|_| Saved::Lost);
    saved[SP] = Saved::Is(0);
    saved[RA] = Saved::At(-8);
    Rule {
        base: Base::Register(SP, size + 8),
        saved,
        signal: false,
    }
}

/// A word of a copy of a stack, `offset` bytes above its start.
pub(crate) fn word(stack: &[u8], offset: u64) -> Option<u64> {
    u64_at(stack, usize::try_from(offset).ok()?)
}

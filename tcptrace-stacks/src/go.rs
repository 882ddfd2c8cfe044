//! The function table of the Go runtime (`.gopclntab`): it is in every Go program, stripped or not,
//! and says how deep the stack is at every instruction. Go programs have no `.eh_frame`, and their
//! system calls are made by functions without a frame, which frame pointers skip.

use std::sync::Arc;

use crate::elf::{Elf, u32_at, u64_at};

/// Pairs of a table of values by address that are worked through.
const PAIRS: usize = 32 * 1024;

/// What Go's tables say of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The stack pointer is so many bytes below the return address.
    Depth(i64),
    /// No function called this one.
    Root,
    /// Its caller is on another stack.
    OtherStack,
}

/// The function table of a Go program of Go 1.16 or later.
#[derive(Debug)]
pub(crate) struct Go {
    bytes: Arc<[u8]>,
    /// Of 1.18 and later: entries are offsets from here.
    text: Option<u64>,
    functions: usize,
    names: usize,
    units: usize,
    files: usize,
    values: usize,
    table: usize,
}

/// Where the table is.
pub(crate) const SECTIONS: [&str; 2] = [".gopclntab", ".data.rel.ro.gopclntab"];

/// A function in the table.
struct Function {
    entry: u64,
    /// Where its description is, from the field of its name on.
    at: usize,
}

impl Go {
    /// The table of a file. `runtime_text` is the value of the symbol `runtime.text`, if there is one.
    pub(crate) fn read(elf: &Elf<'_>, limit: u64, runtime_text: Option<u64>) -> Option<Go> {
        let bytes = SECTIONS.iter().find_map(|name| elf.named(name, limit))?;
        let at = |index: usize| usize::try_from(u64_at(&bytes, 8 + index * 8)?).ok();
        // One-byte instructions, eight-byte pointers.
        if bytes.get(4..8)? != [0, 0, 1, 8] {
            return None;
        }
        let (text, first) = match u32_at(&bytes, 0)? {
            0xffff_fffa => (None, 2),
            0xffff_fff0 | 0xffff_fff1 => {
                let written = u64_at(&bytes, 24).filter(|text| *text != 0);
                (Some(written.or(runtime_text)?), 3)
            }
            _ => return None,
        };
        Some(Go {
            text,
            functions: at(0)?,
            names: at(first)?,
            units: at(first + 1)?,
            files: at(first + 2)?,
            values: at(first + 3)?,
            table: at(first + 4)?,
            bytes,
        })
    }

    /// Bytes of memory.
    pub(crate) fn weight(&self) -> usize {
        self.bytes.len()
    }

    /// How to leave the function at `address`; `None` if it is not of Go.
    pub(crate) fn step(&self, address: u64) -> Option<Step> {
        let function = self.find(address)?;
        Some(match self.name_of(&function)? {
            b"runtime.goexit" | b"runtime.mstart" | b"runtime.rt0_go" => Step::Root,
            b"runtime.systemstack"
            | b"runtime.mcall"
            | b"runtime.morestack"
            | b"runtime.asmcgocall" => Step::OtherStack,
            _ => Step::Depth(self.value(&function, 12, address).filter(|d| *d >= 0)?),
        })
    }

    /// The name of the function at `address`.
    pub(crate) fn name(&self, address: u64) -> Option<&[u8]> {
        self.name_of(&self.find(address)?)
    }

    /// The source file and line at `address`.
    pub(crate) fn line(&self, address: u64) -> Option<(&[u8], u32)> {
        let function = self.find(address)?;
        let line = u32::try_from(self.value(&function, 20, address)?).ok()?;
        let number = usize::try_from(self.value(&function, 16, address)?).ok()?;
        let unit = u32_at(&self.bytes, function.at + 28)? as usize;
        let entry = unit.checked_add(number)?.checked_mul(4)?;
        let file = u32_at(&self.bytes, self.units.checked_add(entry)?)? as usize;
        Some((self.text_at(self.files.checked_add(file)?)?, line))
    }

    fn find(&self, address: u64) -> Option<Function> {
        let (mut low, mut high) = (0, self.functions);
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.entry(middle)?.0 <= address {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        // Behind the last function is an entry that only says where it ends.
        let (entry, offset) = self.entry(low.checked_sub(1)?)?;
        if low > self.functions || address >= self.entry(low)?.0 {
            return None;
        }
        let pointer = if self.text.is_some() { 4 } else { 8 };
        let at = self.table.checked_add(offset)?.checked_add(pointer)?;
        (at < self.bytes.len()).then_some(Function { entry, at })
    }

    /// The start and the offset of the description of a function, by its number.
    fn entry(&self, number: usize) -> Option<(u64, usize)> {
        let width = if self.text.is_some() { 4 } else { 8 };
        let at = self.table.checked_add(number.checked_mul(2 * width)?)?;
        match self.text {
            Some(text) => Some((
                text.wrapping_add(u64::from(u32_at(&self.bytes, at)?)),
                u32_at(&self.bytes, at + 4)? as usize,
            )),
            None => Some((
                u64_at(&self.bytes, at)?,
                usize::try_from(u64_at(&self.bytes, at + 8)?).ok()?,
            )),
        }
    }

    fn name_of(&self, function: &Function) -> Option<&[u8]> {
        let offset = u32_at(&self.bytes, function.at)? as usize;
        self.text_at(self.names.checked_add(offset)?)
    }

    fn text_at(&self, at: usize) -> Option<&[u8]> {
        let bytes = self.bytes.get(at..)?;
        let bytes = &bytes[..bytes.len().min(4096)];
        let end = bytes.iter().position(|b| *b == 0)?;
        (end > 0).then(|| &bytes[..end])
    }

    /// The value for `address` in the table that the word at `field` of the description names.
    fn value(&self, function: &Function, field: usize, address: u64) -> Option<i64> {
        let table = u32_at(&self.bytes, function.at + field)? as usize;
        let mut bytes = self.bytes.get(self.values.checked_add(table)?..)?;
        let (mut value, mut at) = (-1_i64, function.entry);
        for pair in 0..PAIRS {
            let change = varint(&mut bytes)?;
            if change == 0 && pair > 0 {
                return None;
            }
            let half = i64::from(change >> 1);
            value = value.wrapping_add(if change & 1 == 1 { !half } else { half });
            at = at.checked_add(u64::from(varint(&mut bytes)?))?;
            if address < at {
                return Some(value);
            }
        }
        None
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u32> {
    let mut value = 0_u32;
    for shift in (0..35).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u32::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

//! Symbol tables of ELF files.

use std::sync::Arc;

use crate::elf::{Elf, Section, u16_at, u32_at, u64_at};

const ENTRY: usize = 24;
const STT_NOTYPE: u8 = 0;
const STT_FUNC: u8 = 2;
const STT_GNU_IFUNC: u8 = 10;
/// How far before an address the symbol that covers it is looked for.
const BACK: usize = 16;
/// Bytes of a name.
const NAME: usize = 8 * 1024;

#[derive(Debug, Clone, Copy)]
struct Symbol {
    start: u64,
    end: u64,
    name: u32,
    /// Whether the table says where it ends.
    sized: bool,
}

/// The functions of a symbol table, by address.
#[derive(Debug)]
pub(crate) struct Symbols {
    symbols: Vec<Symbol>,
    names: Arc<[u8]>,
}

impl Symbols {
    /// The full table (`.symtab`); `None` if the file is stripped.
    pub(crate) fn full(elf: &Elf<'_>, limit: u64) -> Option<Symbols> {
        Symbols::read(elf, elf.section(".symtab")?, limit, true)
    }

    /// The table of what the file exports and imports (`.dynsym`).
    pub(crate) fn dynamic(elf: &Elf<'_>, limit: u64) -> Option<Symbols> {
        Symbols::read(elf, elf.section(".dynsym")?, limit, false)
    }

    /// `complete`: a function without a size reaches to the next one. Where functions are missing in
    /// the table, that would be a guess.
    fn read(elf: &Elf<'_>, section: &Section, limit: u64, complete: bool) -> Option<Symbols> {
        let table = elf.data(section, limit)?;
        let names = elf.data(elf.sections.get(section.link as usize)?, limit)?;
        let mut symbols = Vec::new();
        for entry in table.chunks_exact(ENTRY) {
            let (kind, home) = (*entry.get(4)? & 15, u16_at(entry, 6)?);
            let (start, size) = (u64_at(entry, 8)?, u64_at(entry, 16)?);
            let code = matches!(kind, STT_FUNC | STT_GNU_IFUNC)
                || (kind == STT_NOTYPE && complete && size == 0);
            if code && home != 0 && home < 0xff00 && start != 0 && (size > 0 || complete) {
                let end = match size {
                    0 => elf
                        .sections
                        .get(usize::from(home))
                        .map_or(start, Section::end),
                    size => start.saturating_add(size),
                };
                symbols.push(Symbol {
                    start,
                    end,
                    name: u32_at(entry, 0)?,
                    sized: size > 0,
                });
            }
        }
        symbols.sort_unstable_by_key(|s: &Symbol| (s.start, !s.sized));
        let mut symbols = one_of_each(&symbols, &names);
        for i in 0..symbols.len() {
            if !symbols[i].sized {
                let next = symbols.get(i + 1).map_or(u64::MAX, |next| next.start);
                symbols[i].end = symbols[i].end.min(next);
            }
        }
        symbols.shrink_to_fit();
        Some(Symbols { symbols, names })
    }

    /// The name of the function that covers `address`, as the table has it.
    pub(crate) fn name(&self, address: u64) -> Option<&[u8]> {
        let behind = self.symbols.partition_point(|s| s.start <= address);
        let near = &self.symbols[behind.saturating_sub(BACK)..behind];
        let covers = |sized| {
            near.iter()
                .rev()
                .find(move |s| s.sized == sized && address < s.end)
        };
        let symbol = covers(true).or_else(|| covers(false))?;
        Some(name_at(&self.names, symbol.name)).filter(|name| !name.is_empty())
    }

    /// The address of the function of that name.
    pub(crate) fn address(&self, name: &[u8]) -> Option<u64> {
        let named = |s: &&Symbol| name_at(&self.names, s.name) == name;
        self.symbols.iter().find(named).map(|s| s.start)
    }

    /// Bytes of memory.
    pub(crate) fn weight(&self) -> usize {
        self.symbols.len() * size_of::<Symbol>() + self.names.len()
    }
}

/// Of the symbols at the same address, which are neighbours, the one with the best name.
fn one_of_each(sorted: &[Symbol], names: &[u8]) -> Vec<Symbol> {
    let mut kept: Vec<Symbol> = Vec::new();
    for same in sorted.chunk_by(|a, b| (a.start, a.sized) == (b.start, b.sized)) {
        let best = match same {
            [only] => Some(only),
            _ => same.iter().min_by_key(|s| rank(name_at(names, s.name))),
        };
        kept.extend(best);
    }
    kept.dedup_by_key(|s| s.start);
    kept
}

fn name_at(names: &[u8], at: u32) -> &[u8] {
    let bytes = names.get(at as usize..).unwrap_or_default();
    let bytes = &bytes[..bytes.len().min(NAME)];
    let end = bytes.iter().position(|b| *b == 0);
    &bytes[..end.unwrap_or(bytes.len())]
}

/// Of names for the same function the one that a reader knows: `connect`, not `__libc_connect`.
fn rank(name: &[u8]) -> (bool, usize, usize, &[u8]) {
    let name = &name[..name.len().min(256)];
    let underscores = name.iter().take_while(|b| **b == b'_').count();
    (name.is_empty(), underscores, name.len(), name)
}

//! Source lines and inlined functions (DWARF), from a file or its separate debug file.

use std::sync::Arc;

use gimli::{Dwarf, DwarfFileType, EndianArcSlice, LittleEndian, SectionId};

use crate::elf::Elf;
use crate::text;

type Bytes = EndianArcSlice<LittleEndian>;

/// Inlined functions of one address that are told.
const INLINED: usize = 64;

/// The debug information of a file.
pub(crate) struct Lines {
    context: addr2line::Context<Bytes>,
    weight: usize,
}

/// A function, or one inlined in the next.
pub(crate) struct Place {
    pub(crate) function: Option<Box<str>>,
    pub(crate) file: Option<Box<str>>,
    pub(crate) line: Option<u32>,
}

impl Lines {
    /// `None` if the file has none, or too much. `common` is the file that it shares parts with
    /// (`.gnu_debugaltlink`).
    pub(crate) fn read(elf: &Elf<'_>, common: Option<&Elf<'_>>, limit: u64) -> Option<Lines> {
        elf.section(".debug_info")?;
        let mut left = limit;
        let mut load = |elf: &Elf<'_>, id: SectionId| {
            let bytes = match elf.section(id.name()) {
                Some(section) if needed(id) => elf.data(section, left)?,
                _ => Arc::from([]),
            };
            left = left.checked_sub(bytes.len() as u64)?;
            Some(EndianArcSlice::new(bytes, LittleEndian))
        };
        let mut dwarf = Dwarf::load(|id| load(elf, id).ok_or(())).ok()?;
        if let Some(common) = common {
            dwarf.load_sup(|id| load(common, id).ok_or(())).ok()?;
        }
        dwarf.file_type = DwarfFileType::Main;
        Some(Lines {
            context: addr2line::Context::from_dwarf(dwarf).ok()?,
            // What is parsed on demand takes about as much again.
            weight: usize::try_from(limit - left).ok()?.checked_mul(2)?,
        })
    }

    /// The functions at `address`, the innermost first; empty if it is not described.
    pub(crate) fn at(&self, address: u64) -> Vec<Place> {
        let mut places = Vec::new();
        let Ok(mut frames) = self.context.find_frames(address).skip_all_loads() else {
            return places;
        };
        while let Ok(Some(frame)) = frames.next() {
            let name = frame.function.as_ref().and_then(|f| f.raw_name().ok());
            let location = frame.location.as_ref();
            places.push(Place {
                function: name.and_then(|name| text::function(name.as_bytes())),
                file: location
                    .and_then(|l| l.file)
                    .map(|file| text::clean(file.as_bytes())),
                line: location.and_then(|l| l.line),
            });
            if places.len() == INLINED {
                break;
            }
        }
        places
    }

    /// Bytes of memory, about.
    pub(crate) fn weight(&self) -> usize {
        self.weight
    }
}

/// The sections that names and lines are in.
fn needed(id: SectionId) -> bool {
    matches!(
        id,
        SectionId::DebugAbbrev
            | SectionId::DebugAddr
            | SectionId::DebugAranges
            | SectionId::DebugInfo
            | SectionId::DebugLine
            | SectionId::DebugLineStr
            | SectionId::DebugRanges
            | SectionId::DebugRngLists
            | SectionId::DebugStr
            | SectionId::DebugStrOffsets
    )
}

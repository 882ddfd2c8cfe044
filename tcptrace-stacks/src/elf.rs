//! ELF files, read by the section: never mapped, as who may write a file could cut it under us.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

const HEADER: usize = 64;
const SEGMENT: usize = 56;
const SECTION: usize = 64;
/// Program headers that are looked at.
const SEGMENTS: usize = 1024;
/// Bytes of a note section that are looked at.
const NOTES: u64 = 64 * 1024;

const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const EM_X86_64: u16 = 62;
const SHT_NOBITS: u32 = 8;
const SHF_COMPRESSED: u64 = 0x800;
const ELFCOMPRESS_ZLIB: u32 = 1;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
pub(crate) const PT_GNU_EH_FRAME: u32 = 0x6474_e550;
const NT_GNU_BUILD_ID: u32 = 3;

/// Where the bytes of a file come from.
#[derive(Debug)]
pub(crate) enum Source {
    File(File),
    Bytes(Vec<u8>),
}

impl Source {
    /// Exactly `length` bytes; nothing is allocated for what is not there.
    fn read(&self, offset: u64, length: u64) -> Option<Vec<u8>> {
        let end = offset.checked_add(length)?;
        match self {
            Source::Bytes(bytes) => bytes
                .get(usize::try_from(offset).ok()?..usize::try_from(end).ok()?)
                .map(<[u8]>::to_vec),
            Source::File(file) => {
                if end > file.metadata().ok()?.len() {
                    return None;
                }
                let mut bytes = vec![0; usize::try_from(length).ok()?];
                file.read_exact_at(&mut bytes, offset).ok()?;
                Some(bytes)
            }
        }
    }
}

/// A program header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment {
    pub(crate) kind: u32,
    pub(crate) offset: u64,
    pub(crate) address: u64,
    pub(crate) file_size: u64,
}

/// A section header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Section {
    name: u32,
    kind: u32,
    flags: u64,
    pub(crate) address: u64,
    offset: u64,
    size: u64,
    pub(crate) link: u32,
}

impl Section {
    /// The address behind it.
    pub(crate) fn end(&self) -> u64 {
        self.address.saturating_add(self.size)
    }
}

/// The headers of a 64-bit x86 ELF file.
#[derive(Debug)]
pub(crate) struct Elf<'a> {
    source: &'a Source,
    pub(crate) segments: Vec<Segment>,
    pub(crate) sections: Vec<Section>,
    names: Vec<u8>,
}

impl<'a> Elf<'a> {
    /// `None` if it is none, or is cut off. A file without section headers is fine.
    pub(crate) fn parse(source: &'a Source) -> Option<Elf<'a>> {
        let header = source.read(0, HEADER as u64)?;
        let kind = u16_at(&header, 16)?;
        if header.get(..6)? != b"\x7fELF\x02\x01"
            || u16_at(&header, 18)? != EM_X86_64
            || (kind != ET_EXEC && kind != ET_DYN)
        {
            return None;
        }
        let count = usize::from(u16_at(&header, 56)?).min(SEGMENTS);
        let table = source.read(u64_at(&header, 32)?, (count * SEGMENT) as u64)?;
        let segments = table
            .chunks_exact(SEGMENT)
            .filter_map(segment)
            .collect::<Vec<_>>();
        let count = usize::from(u16_at(&header, 60)?);
        let sections = source
            .read(u64_at(&header, 40)?, (count * SECTION) as u64)
            .map(|table| table.chunks_exact(SECTION).filter_map(section).collect())
            .unwrap_or_default();
        let mut elf = Elf {
            source,
            segments,
            sections,
            names: Vec::new(),
        };
        if let Some(names) = elf.sections.get(usize::from(u16_at(&header, 62)?)).copied() {
            elf.names = source
                .read(names.offset, names.size.min(1 << 20))
                .unwrap_or_default();
        }
        Some(elf)
    }

    /// The section of that name.
    pub(crate) fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| {
            let bytes = self.names.get(section.name as usize..);
            bytes.is_some_and(|b| {
                b.starts_with(name.as_bytes()) && b.get(name.len()).copied() == Some(0)
            })
        })
    }

    /// The bytes of a section, uncompressed. `None` if they are not in the file, are more than
    /// `limit`, or compressed otherwise than by zlib.
    pub(crate) fn data(&self, section: &Section, limit: u64) -> Option<Arc<[u8]>> {
        if section.kind == SHT_NOBITS || section.size > limit {
            return None;
        }
        let bytes = self.source.read(section.offset, section.size)?;
        if section.flags & SHF_COMPRESSED == 0 {
            return Some(bytes.into());
        }
        if u32_at(&bytes, 0)? != ELFCOMPRESS_ZLIB || u64_at(&bytes, 8)? > limit {
            return None;
        }
        let limit = usize::try_from(limit).ok()?;
        let inflated =
            miniz_oxide::inflate::decompress_to_vec_zlib_with_limit(bytes.get(24..)?, limit)
                .ok()?;
        Some(inflated.into())
    }

    /// The bytes of the section of that name: see [`Elf::data`].
    pub(crate) fn named(&self, name: &str, limit: u64) -> Option<Arc<[u8]>> {
        self.data(self.section(name)?, limit)
    }

    /// Bytes of the loaded segment that holds `address`, from there to its end.
    pub(crate) fn loaded(&self, address: u64, limit: u64) -> Option<Arc<[u8]>> {
        self.segments.iter().find_map(|s| {
            let skip = address.checked_sub(s.address)?;
            let rest = s.file_size.checked_sub(skip).filter(|r| *r > 0)?;
            if s.kind != PT_LOAD {
                return None;
            }
            let bytes = self
                .source
                .read(s.offset.checked_add(skip)?, rest.min(limit))?;
            Some(bytes.into())
        })
    }

    /// The address that the file gives to what is at `offset` in it.
    pub(crate) fn address_of(segments: &[Segment], offset: u64) -> Option<u64> {
        segments.iter().find_map(|s| {
            let skip = offset.checked_sub(s.offset)?;
            (s.kind == PT_LOAD && skip < s.file_size).then(|| s.address.wrapping_add(skip))
        })
    }

    /// The build id: of the note section, or of a note segment where there are no sections.
    pub(crate) fn build_id(&self) -> Option<Arc<[u8]>> {
        if let Some(note) = self.named(".note.gnu.build-id", NOTES) {
            return build_id(&note);
        }
        self.segments
            .iter()
            .filter(|s| s.kind == PT_NOTE && s.file_size <= NOTES)
            .find_map(|s| build_id(&self.source.read(s.offset, s.file_size)?))
    }
}

fn segment(bytes: &[u8]) -> Option<Segment> {
    Some(Segment {
        kind: u32_at(bytes, 0)?,
        offset: u64_at(bytes, 8)?,
        address: u64_at(bytes, 16)?,
        file_size: u64_at(bytes, 32)?,
    })
}

fn section(bytes: &[u8]) -> Option<Section> {
    Some(Section {
        name: u32_at(bytes, 0)?,
        kind: u32_at(bytes, 4)?,
        flags: u64_at(bytes, 8)?,
        address: u64_at(bytes, 16)?,
        offset: u64_at(bytes, 24)?,
        size: u64_at(bytes, 32)?,
        link: u32_at(bytes, 40)?,
    })
}

/// The build id among notes.
fn build_id(mut notes: &[u8]) -> Option<Arc<[u8]>> {
    loop {
        let name = u32_at(notes, 0)? as usize;
        let length = u32_at(notes, 4)? as usize;
        let kind = u32_at(notes, 8)?;
        let at = 12 + name.checked_next_multiple_of(4)?;
        let id = notes.get(at..at.checked_add(length)?)?;
        if kind == NT_GNU_BUILD_ID && notes.get(12..16) == Some(b"GNU\0".as_slice()) {
            return (8..=64).contains(&id.len()).then(|| Arc::from(id));
        }
        notes = notes.get(at + length.checked_next_multiple_of(4)?..)?;
    }
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_le_bytes(bytes.try_into().ok()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

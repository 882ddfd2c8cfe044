//! A file with code: what leads out of its functions, and what names them.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use gimli::UnwindContext;

use crate::cfi::{Cfi, Corrupt, Rule, frame_of};
use crate::debugfile;
use crate::elf::{Elf, Segment, Source};
use crate::go::{Go, Step};
use crate::limits::Limits;
use crate::lines::{Lines, Place};
use crate::symbols::Symbols;
use crate::text;
use crate::trace::{BuildId, By};

/// A file with code, read once. What is kept does not depend on the file any longer.
pub(crate) struct Module {
    /// Another for each module ever read.
    pub(crate) number: u32,
    pub(crate) build_id: Option<BuildId>,
    pub(crate) cfi: Option<Cfi>,
    segments: Vec<Segment>,
    go: Option<Go>,
    symbols: Option<Symbols>,
    lines: Option<Mutex<Lines>>,
}

/// What a module is read from.
pub(crate) struct ModuleFile<'a> {
    pub(crate) source: &'a Source,
    /// Only where a debug file is looked for.
    pub(crate) path: &'a str,
    /// Whether its debug information is read: no bound on that is a bound on the time it takes.
    pub(crate) trusted: bool,
}

/// How to leave a function.
pub(crate) enum Exit {
    By(By, Arc<Rule>),
    Root,
    OtherStack,
    Unknown,
}

impl Module {
    /// `None` if it is no ELF file of this machine.
    pub(crate) fn read(
        number: u32,
        file: &ModuleFile<'_>,
        directories: &[PathBuf],
        limits: &Limits,
    ) -> Option<Module> {
        let elf = Elf::parse(file.source)?;
        let limit = limits.section_bytes;
        let own = Symbols::full(&elf, limit);
        let own_lines = match file.trusted {
            true => Lines::read(&elf, None, limits.debug_bytes),
            false => None,
        };
        let mut module = Module {
            number,
            build_id: elf.build_id().map(BuildId),
            cfi: Cfi::read(&elf, limit),
            segments: elf.segments.clone(),
            go: None,
            symbols: own,
            lines: own_lines.map(Mutex::new),
        };
        if module.symbols.is_none() || module.lines.is_none() {
            module.add_debug_file(&elf, file.path, directories, limits);
        }
        if module.symbols.is_none() {
            module.symbols = Symbols::dynamic(&elf, limit);
        }
        let text = module
            .symbols
            .as_ref()
            .and_then(|s| s.address(b"runtime.text"));
        let only_go = elf.section(".init").is_none();
        let start = elf.section(".text").filter(|_| only_go).map(|s| s.address);
        module.go = Go::read(&elf, limit, text.or(start));
        Some(module)
    }

    fn add_debug_file(
        &mut self,
        elf: &Elf<'_>,
        path: &str,
        directories: &[PathBuf],
        limits: &Limits,
    ) {
        let Some((found, source)) = debugfile::find(elf, path, directories) else {
            return;
        };
        let Some(debug) = Elf::parse(&source) else {
            return;
        };
        if self.symbols.is_none() {
            self.symbols = Symbols::full(&debug, limits.section_bytes);
        }
        if self.lines.is_none() {
            let common = debugfile::common(&debug, &found);
            let common = common.as_ref().and_then(Elf::parse);
            let lines = Lines::read(&debug, common.as_ref(), limits.debug_bytes);
            self.lines = lines.map(Mutex::new);
        }
    }

    /// The address that the file gives to what is at `offset` in it.
    pub(crate) fn address(&self, offset: u64) -> Option<u64> {
        Elf::address_of(&self.segments, offset)
    }

    /// How to leave the function at `address`.
    pub(crate) fn exit(
        &self,
        address: u64,
        context: &mut UnwindContext<usize>,
    ) -> Result<Exit, Corrupt> {
        match self.go.as_ref().and_then(|go| go.step(address)) {
            Some(Step::Depth(depth)) => return Ok(Exit::By(By::Go, Arc::new(frame_of(depth)))),
            Some(Step::Root) => return Ok(Exit::Root),
            Some(Step::OtherStack) => return Ok(Exit::OtherStack),
            None => {}
        }
        let rule = match &self.cfi {
            Some(cfi) => cfi.rule(address, context)?,
            None => None,
        };
        Ok(rule.map_or(Exit::Unknown, |rule| Exit::By(By::Cfi, Arc::new(rule))))
    }

    /// The functions at `address`, the innermost first; only the last may be without a name.
    pub(crate) fn names(&self, address: u64) -> Vec<Place> {
        let mut places = match &self.lines {
            Some(lines) => lines
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .at(address),
            None => Vec::new(),
        };
        if places.is_empty() {
            places.push(Place {
                function: None,
                file: None,
                line: None,
            });
        }
        if let Some(outermost) = places.last_mut() {
            self.complete(outermost, address);
        }
        places
    }

    /// Adds what symbols and Go's table know.
    fn complete(&self, place: &mut Place, address: u64) {
        let symbol = self.symbols.as_ref().and_then(|s| s.name(address));
        // A mangled name says which namespace the function is of, DWARF's often does not.
        if place.function.is_none() || symbol.is_some_and(text::is_mangled) {
            place.function = symbol.and_then(text::function);
        }
        let Some(go) = &self.go else { return };
        if place.function.is_none() {
            place.function = go.name(address).map(text::clean);
        }
        if place.line.is_none()
            && let Some((file, line)) = go.line(address)
        {
            place.file = Some(text::clean(file));
            place.line = Some(line);
        }
    }

    /// Bytes of memory, about.
    pub(crate) fn weight(&self) -> usize {
        let lines = self.lines.as_ref().map_or(0, |lines| {
            lines
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .weight()
        });
        size_of::<Module>()
            + self.segments.len() * size_of::<Segment>()
            + self.cfi.as_ref().map_or(0, Cfi::weight)
            + self.go.as_ref().map_or(0, Go::weight)
            + self.symbols.as_ref().map_or(0, Symbols::weight)
            + lines
    }
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Module({}, {:?})", self.number, self.build_id)
    }
}

//! What kind of program a process runs, and what its frames could be found and named by. Nothing is kept.

use crate::elf::{Elf, PT_GNU_EH_FRAME};
use crate::go;
use crate::limits::Limits;
use crate::{mapped, maps, perfmap};

/// A program, as far as that decides about its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// What runs it.
    pub runtime: Runtime,
    /// It has written a map of the code that it generates, which could be read.
    pub perf_map: bool,
}

/// What runs a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// HotSpot: `libjvm.so` is mapped.
    Java,
    /// Node.js: that is what the program is called, or `libnode.so` is mapped.
    Node,
    /// Go: it has the table of the runtime's functions.
    Go,
    /// Nothing, or what is not known here.
    Native {
        /// Whether the program has `.eh_frame`.
        unwind_tables: bool,
    },
}

impl Program {
    /// That of a process; `None` if it is gone, may not be looked at, or is no program of this machine.
    pub fn of(pid: u32) -> Option<Program> {
        let maps = maps::read(pid, Limits::default().maps_bytes).ok()?;
        let files = maps.iter().filter_map(|mapping| mapping.path.as_deref());
        let mut names = files.filter_map(|path| path.rsplit('/').next());
        let name = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        let name = name.file_name().and_then(|name| name.to_str());
        let library = names.find_map(|name| match name {
            _ if name.starts_with("libjvm.so") => Some(Runtime::Java),
            _ if name.starts_with("libnode.so") => Some(Runtime::Node),
            _ => None,
        });
        let runtime = match (library, name) {
            (Some(runtime), _) => runtime,
            (None, Some("node" | "nodejs")) => Runtime::Node,
            (None, _) => of_file(pid)?,
        };
        Some(Program {
            runtime,
            perf_map: perfmap::exists(pid),
        })
    }
}

fn of_file(pid: u32) -> Option<Runtime> {
    let source = mapped::executable(pid)?;
    let elf = Elf::parse(&source)?;
    if go::SECTIONS.iter().any(|name| elf.section(name).is_some()) {
        return Some(Runtime::Go);
    }
    let header = elf.segments.iter().any(|s| s.kind == PT_GNU_EH_FRAME);
    Some(Runtime::Native {
        unwind_tables: header || elf.section(".eh_frame").is_some(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_rust_has_unwind_tables() {
        let ours = Program::of(std::process::id());
        let runtime = Runtime::Native {
            unwind_tables: true,
        };
        assert_eq!(ours.map(|program| program.runtime), Some(runtime));
        assert_eq!(Program::of(u32::MAX), None);
    }
}

//! Copies of user stacks turned into named frames.
//!
//! A sample is what a kernel program saw of a thread at a system call: the registers, and a copy of the
//! stack. [`Stacks::trace`] walks it by the call frame information of the mapped files, by the tables of
//! the Go runtime, and by frame pointers where there is nothing better. The process is neither stopped
//! nor changed, and may be gone by then. Where nothing certain can be said the frame has no name, and
//! [`Trace::end`] says why there are no more frames.
//!
//! Whatever a process maps or writes may be hostile: all work is bounded by [`Limits`].
#![forbid(unsafe_code)]

mod cfi;
mod debugfile;
mod elf;
mod expression;
mod go;
mod limits;
mod lines;
mod mapped;
mod maps;
mod module;
mod modules;
mod paths;
mod perfmap;
mod process;
mod program;
mod sample;
mod stacks;
mod symbols;
mod text;
mod trace;
mod traces;
mod unwind;

pub use limits::{Counters, DebugInfo, Limits};
pub use program::{Program, Runtime};
pub use sample::{Chain, Process, Regs, Sample};
pub use stacks::{Memory, Path, Stacks};
pub use trace::{BuildId, By, End, Frame, Trace, TraceId};
pub use unwind::{Read, Seen};

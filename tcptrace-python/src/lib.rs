//! The Python frames of a thread of a running CPython process, read from outside.
//!
//! Which line of `client.py` called `connect()`? The process is not stopped, runs no code for it, and
//! needs no option: its memory is read, as `py-spy dump --nonblocking` does.
//!
//! ```no_run
//! use tcptrace_python::Interpreters;
//!
//! let mut interpreters = Interpreters::new();
//! let interpreter = interpreters.find(4711)?;
//! let stack = interpreter.frames(4712)?;
//! for frame in &stack.frames {
//!     let _text = format!("{}:{:?} {}", frame.file, frame.line, frame.function);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What an answer is worth
//!
//! The target runs on while it is read.
//!
//! - [`Stack::slept`]: the kernel says that the thread was asleep before and after, and was not
//!   switched to in between. The stack is exactly that of the thread.
//! - [`Stack::consistent`]: the chain of frames was read three times, before and after the names and
//!   lines, and did not change by one word. A frame's file, function and line belong together. A thread
//!   that never sleeps can deceive about the caller, which is then of another round of a loop: four
//!   times in a million.
//! - Neither: the frames are of different moments. Do not show them as one stack.
//!
//! An answer is of the moment when it is read, not of the event. A thread that sleeps in `connect()`
//! or `accept()` is still at that line. One whose call did not have to wait has gone on, and is some
//! microseconds or milliseconds of Python later when somebody reads the event: its innermost line is
//! then later in the same function, or another function. The outer frames are mostly still the same.
//! For frames of the very moment a program in the kernel walks them: [`Interpreter::kernel_walk`] says
//! where they are, and [`Interpreter::resolve`] names them afterwards.
//! `docs/python.md` has the figures, the limits, and what was tried with which version.
//!
//! # Why not the crate `py-spy`
//!
//! It is MIT-licensed, works as a library and without pausing, and knows 3.8 to 3.14 (0.4.3 was looked
//! at). It brings over eighty crates, for profiles, native stacks and core files; without pausing it
//! cannot tell which thread of a Python before 3.11 is which thread of the system; and it does not say
//! whether what it read in a running target fits together, which is what a tracer has to know. What is
//! needed of it is small: five structures, three tables of lines, strings.
//!
//! # What is trusted
//!
//! Nothing of the target. Reads, frames, threads and lengths are bounded, types are checked, and a
//! process that lies gets its own lies told or an error. Names are given as the target has them:
//! escape them before printing.
#![forbid(unsafe_code)]

mod chain;
mod codes;
mod elf;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod hostile;
mod interpreter;
mod layout;
mod lines;
mod memory;
mod object;
mod runtime;
mod task;
mod walk;

pub use interpreter::{Interpreter, Interpreters};
pub use layout::Version;
pub use walk::KernelWalk;

/// The Python frames of one thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// The frames, the innermost first. There is at least one.
    pub frames: Vec<Frame>,
    /// How the frames end.
    pub end: End,
    /// Whether the chain of frames was the same before and after it was read.
    pub consistent: bool,
    /// Whether the thread was asleep all the while, so that the stack is proven.
    pub slept: bool,
    /// How many reads of the target's memory it took.
    pub reads: u32,
}

/// One call of a Python function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The file as the code object has it: not always a path, and not always absolute.
    pub file: String,
    /// The function: from 3.11 with its class or outer function (`Client.open`), before without.
    pub function: String,
    /// The line, where the compiler gave one.
    pub line: Option<u32>,
}

/// How the frames of a stack end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The outermost frame is the last one.
    Complete,
    /// There are more frames than are read.
    TooDeep,
    /// The next frame could not be read.
    Broken(Unreadable),
}

/// Why a process has no interpreter that could be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// It runs no CPython, as far as its dynamic symbols tell.
    #[error("no CPython")]
    NotPython,
    /// It runs a CPython that is not known well enough to be read.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// The right to trace it is missing.
    #[error("no permission to read its memory")]
    Denied,
    /// It ended.
    #[error("the process ended")]
    Gone,
    /// It says of itself what cannot be.
    #[error("its interpreter cannot be read: {0}")]
    Unreadable(Unreadable),
}

/// Why a stack, or its rest, could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// The thread or its process ended, or executed another program.
    #[error("it ended")]
    Gone,
    /// The right to trace it is missing.
    #[error("no permission to read it")]
    Denied,
    /// The interpreter knows no such thread: it has run no Python yet.
    #[error("the thread runs no Python")]
    NoThread,
    /// The interpreter knows the thread, but it runs no Python code now.
    #[error("the thread is in no Python function")]
    NoFrames,
    /// An address has no memory.
    #[error("no memory at {address:#x}")]
    Fault {
        /// The address.
        address: u64,
    },
    /// Something is not what it has to be.
    #[error("{0}")]
    Invalid(&'static str),
    /// It took more reads than are allowed.
    #[error("it takes too many reads")]
    TooMuch,
}

impl From<Unreadable> for FindError {
    fn from(error: Unreadable) -> FindError {
        match error {
            Unreadable::Gone => FindError::Gone,
            Unreadable::Denied => FindError::Denied,
            error => FindError::Unreadable(error),
        }
    }
}

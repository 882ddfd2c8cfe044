//! A stack with names.

use std::fmt;
use std::sync::Arc;

/// A number for a trace: the same for the same frames, as long as the cache keeps them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TraceId(pub u64);

/// A stack: its innermost frame first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// Its number.
    pub id: TraceId,
    /// The frames, inlined functions before the function that they are inlined in.
    pub frames: Vec<Frame>,
    /// Why there are no more.
    pub end: End,
}

/// A function on the stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The address: where the thread is, or where it will return to.
    pub ip: u64,
    /// How the address was found.
    pub by: By,
    /// The mapped file as the process's mount namespace names it, or a name like `[vdso]`. `None` for
    /// memory without a file.
    pub module: Option<Arc<str>>,
    /// The build id of the file.
    pub build_id: Option<BuildId>,
    /// The offset of `ip` in the file; without a file, in the mapping.
    pub offset: u64,
    /// `ip` as the ELF file counts addresses, which is what `addr2line -e` takes. `None` if the file
    /// could not be read.
    pub address: Option<u64>,
    /// The function; `None` if nothing that certainly belongs to the file names it.
    pub function: Option<Arc<str>>,
    /// The source file.
    pub file: Option<Arc<str>>,
    /// The line in it.
    pub line: Option<u32>,
    /// Whether the function is inlined in that of the next frame.
    pub inlined: bool,
}

/// How the address of a frame was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum By {
    /// It is where the thread is.
    Registers,
    /// By call frame information of the module called.
    Cfi,
    /// By the tables of the Go runtime.
    Go,
    /// By a frame pointer, as there was nothing better: frames may be missing before it.
    FramePointer,
}

/// Why a walk ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum End {
    /// At the outermost frame.
    Root,
    /// The copy of the stack ends before the next frame.
    CopyTooShort,
    /// The last frame's code (of that module; `None`: memory without a file) has no unwind
    /// information, and no frame pointer that makes sense.
    NoUnwindInfo(Option<Arc<str>>),
    /// The file of the last frame could not be read, or was not the one that is mapped.
    Unreadable(Arc<str>),
    /// The call frame information of that module makes no sense.
    Corrupt(Arc<str>),
    /// The next address is not in mapped code.
    NotCode(u64),
    /// The next frame would not be above the last.
    Loop,
    /// The next frame is on another stack of the thread.
    OtherStack,
    /// At the limit of frames.
    Limit,
    /// Nothing can be said of a chain's end.
    Chain,
    /// The process was gone, or another had its id, before anything was known of it.
    ProcessGone,
    /// The process executed another program since.
    Executed,
    /// The process's maps could not be read.
    NoPermission,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Root => f.write_str("complete"),
            End::CopyTooShort => f.write_str("the copy of the stack ends here"),
            End::NoUnwindInfo(Some(module)) => write!(f, "{module} has no unwind information here"),
            End::NoUnwindInfo(None) => f.write_str("generated code without a frame pointer"),
            End::Unreadable(module) => write!(f, "{module} could not be read"),
            End::Corrupt(module) => write!(f, "the unwind information of {module} is corrupt"),
            End::NotCode(address) => write!(f, "{address:#x} is not in mapped code"),
            End::Loop => f.write_str("the next frame is not above this one"),
            End::OtherStack => f.write_str("continues on another stack"),
            End::Limit => f.write_str("more frames than are shown"),
            End::Chain => f.write_str("the chain of frame pointers ends here"),
            End::ProcessGone => f.write_str("the process was gone"),
            End::Executed => f.write_str("the process executed another program since"),
            End::NoPermission => f.write_str("no permission to read the process's maps"),
        }
    }
}

/// A build id, shown in hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct BuildId(pub Arc<[u8]>);

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

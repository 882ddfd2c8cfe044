//! Where in its code a process acted on a socket.

use std::fmt;
use std::sync::Arc;

use crate::time::Mono;

/// A number for a stack: the same for the same frames, within one trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StackId(pub u32);

/// What the thread did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Point {
    /// It connected.
    Connect,
    /// It accepted.
    Accept,
    /// A receive returned 0: it read the end of the stream.
    Eof,
    /// It closed the socket.
    Close,
}

/// A thread was seen at one of these points, with its stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// When.
    pub at: Mono,
    /// The socket cookie.
    pub cookie: u64,
    /// What it did.
    pub point: Point,
    /// The process.
    pub pid: u32,
    /// The thread.
    pub tid: u32,
    /// Its stack, which was defined before.
    pub stack: StackId,
}

/// A stack, as it was named while the process lived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// Its number.
    pub id: StackId,
    /// The innermost frame first; inlined functions before the function that they are inlined in.
    /// Where the thread ran Python, its frames stand where the interpreter called itself.
    pub frames: Arc<[Frame]>,
    /// Why there are no more frames; `None`: the last one is the outermost.
    pub cut: Option<Arc<str>>,
}

impl Stack {
    /// Bytes that it takes, with its texts, which it may share with others.
    pub fn bytes(&self) -> usize {
        let frames = self.frames.iter();
        let cut = self.cut.as_ref().map_or(0, |why| why.len());
        size_of::<Stack>() + cut + frames.map(Frame::bytes).sum::<usize>()
    }
}

impl Frame {
    /// Bytes of its texts.
    pub fn text_bytes(&self) -> usize {
        let texts = [&self.function, &self.file, &self.module, &self.build_id];
        texts.into_iter().flatten().map(|text| text.len()).sum()
    }

    fn bytes(&self) -> usize {
        size_of::<Frame>() + self.text_bytes()
    }
}

/// A function on a stack. All texts are as the process has them: escape them before printing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Frame {
    /// The function; `None`: nothing that certainly belongs to the file names it.
    pub function: Option<Arc<str>>,
    /// The source file.
    pub file: Option<Arc<str>>,
    /// The line in it.
    pub line: Option<u32>,
    /// The mapped file as the process has it, or a name like `[vdso]`; `None` for memory without a
    /// file, and for Python.
    pub module: Option<Arc<str>>,
    /// The build id of that file, in hexadecimal digits.
    pub build_id: Option<Arc<str>>,
    /// The address in that file as `addr2line -e` takes it, else the offset in the file or mapping; 0
    /// for Python.
    pub address: u64,
    /// What kind of frame.
    pub kind: FrameKind,
}

/// How a frame was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrameKind {
    /// By the registers, or what describes the code: certain.
    #[default]
    Native,
    /// As above; the function is inlined in that of the next frame.
    Inlined,
    /// By a frame pointer, as there was nothing better: frames may be missing before it.
    FramePointer,
    /// A function of Python, of the very moment.
    Python,
    /// A function of Python, read some time after: its line may be a later one, or it may have been
    /// called since.
    PythonLater,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Point::Connect => "connect",
            Point::Accept => "accept",
            Point::Eof => "eof",
            Point::Close => "close",
        })
    }
}

//! Records of the ring `STACKS`: checked, never trusting.

use tcptrace_common::event::Header;
use tcptrace_common::stack::{
    CHAIN_FRAMES, KIND_CHAIN, KIND_PATH, KIND_STACK, POINT_ACCEPT, POINT_CLOSE, POINT_CONNECT,
    POINT_EOF, PYTHON_FRAMES, Path, PythonFrame, Registers, STACK_BYTES, StackHead,
};
use tcptrace_core::stack::Point;
use tcptrace_stacks::{Process, Regs};
use zerocopy::{FromBytes, IntoBytes as _};

/// Of each frame of Python the word that leads to the code object, and the one of the instruction.
type Words = Vec<(u64, u64)>;

/// What the kernel saw of a thread.
pub(super) struct Record<'a> {
    pub(super) header: Header,
    pub(super) point: Point,
    pub(super) process: Process,
    pub(super) tid: u32,
    /// The Python frames, the innermost first.
    pub(super) python: Words,
    /// Whether there are more of them.
    pub(super) python_more: bool,
    pub(super) native: Native<'a>,
}

/// Of its native frames.
pub(super) enum Native<'a> {
    /// Registers, and the copy of the stack.
    Copy(Regs, &'a [u8]),
    /// Addresses.
    Chain(Vec<u64>),
    /// The number of a path that the kernel was told of.
    Path(u32),
}

/// A record that its kind forbids: too short, too long, or of a kind that this program does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl<'a> Record<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Record<'a>, Malformed> {
        let (head, rest) = StackHead::read_from_prefix(bytes).map_err(|_| Malformed)?;
        let len = usize::try_from(head.len).map_err(|_| Malformed)?;
        let (native, python) = match head.header.kind {
            KIND_STACK => {
                let (registers, rest) = Registers::read_from_prefix(rest).map_err(|_| Malformed)?;
                let (python, stack) = python(&head, rest)?;
                let stack = stack.get(..len).filter(|_| len <= STACK_BYTES);
                (
                    Native::Copy(regs(&registers), stack.ok_or(Malformed)?),
                    python,
                )
            }
            KIND_CHAIN => {
                let (python, addresses) = python(&head, rest)?;
                let addresses = addresses
                    .get(..len * size_of::<u64>())
                    .filter(|_| len <= CHAIN_FRAMES);
                (Native::Chain(words(addresses.ok_or(Malformed)?)), python)
            }
            KIND_PATH => {
                let (path, _) = Path::read_from_prefix(bytes).map_err(|_| Malformed)?;
                let (python, _) = python(&head, path.python.as_bytes())?;
                (Native::Path(path.number), python)
            }
            _ => return Err(Malformed),
        };
        Ok(Record {
            header: head.header,
            point: point(head.point)?,
            process: Process {
                pid: head.tgid,
                start_ns: head.start_ns,
                start_stack: head.start_stack,
            },
            tid: head.tid,
            python,
            python_more: head.python_more != 0,
            native,
        })
    }
}

/// The Python frames that a record starts with, and what is behind the room for them.
fn python<'a>(head: &StackHead, bytes: &'a [u8]) -> Result<(Words, &'a [u8]), Malformed> {
    let (frames, rest) =
        <[PythonFrame; PYTHON_FRAMES]>::read_from_prefix(bytes).map_err(|_| Malformed)?;
    let frames = frames.get(..head.python_len.into()).ok_or(Malformed)?;
    // Those that mark a call from C are no functions.
    let functions = frames.iter().filter(|f| f.code != 0);
    Ok((functions.map(|f| (f.code, f.at)).collect(), rest))
}

fn words(bytes: &[u8]) -> Vec<u64> {
    let (words, _) = bytes.as_chunks();
    words.iter().map(|word| u64::from_ne_bytes(*word)).collect()
}

fn regs(registers: &Registers) -> Regs {
    let [r12, r13, r14, r15] = registers.r;
    Regs {
        ip: registers.ip,
        sp: registers.sp,
        bp: registers.bp,
        bx: registers.bx,
        r12,
        r13,
        r14,
        r15,
    }
}

fn point(number: u8) -> Result<Point, Malformed> {
    match number {
        POINT_CONNECT => Ok(Point::Connect),
        POINT_ACCEPT => Ok(Point::Accept),
        POINT_EOF => Ok(Point::Eof),
        POINT_CLOSE => Ok(Point::Close),
        _ => Err(Malformed),
    }
}

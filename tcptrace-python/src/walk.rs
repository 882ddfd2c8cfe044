//! What a program in the kernel needs to walk the frames itself, at the very moment.

use crate::Unreadable;
use crate::layout::Layout;
use crate::memory::{Memory, Reader};
use crate::runtime::Runtime;

/// Where the frames of each thread are. The code object and the instruction of a frame are words that
/// [`Interpreter::resolve`](crate::Interpreter::resolve) names later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelWalk {
    /// The address of the pointer to the first thread state of the only interpreter.
    pub threads: u64,
    /// In a thread state: the next one.
    pub thread_next: u16,
    /// In a thread state: the `pthread_t`, which on x86-64 is the thread's `fs` base.
    pub thread_id: u16,
    /// In a thread state: the innermost frame, or the `_PyCFrame` that points to it.
    pub thread_frame: u16,
    /// In the `_PyCFrame`: the innermost frame. `None`: there is no `_PyCFrame`.
    pub cframe_frame: Option<u16>,
    /// In a frame: the frame that called this one.
    pub frame_previous: u16,
    /// In a frame: the word that leads to the code object.
    pub frame_code: u16,
    /// In a frame: the word that says at which instruction it is.
    pub frame_at: u16,
    /// In a frame: the byte that says who owns it. From 3 on the frame marks a call from C.
    pub frame_owner: Option<u16>,
}

impl Runtime {
    /// How its frames are walked.
    pub(crate) fn kernel_walk(&self, memory: &dyn Memory) -> Result<KernelWalk, Unreadable> {
        let reader = Reader::new(memory);
        let layout = &self.layout;
        let interpreter = reader.u64(self.address.wrapping_add(layout.interpreters_head))?;
        if interpreter == 0 {
            return Err(Unreadable::Invalid("no interpreter yet"));
        }
        // A thread may have frames in several, of which a walk in one would miss the inner ones.
        if reader.u64(interpreter.wrapping_add(layout.interpreter_next))? != 0 {
            return Err(Unreadable::Invalid("more than one interpreter"));
        }
        offsets(layout, interpreter.wrapping_add(layout.threads_head))
            .ok_or(Unreadable::Invalid("offsets that are too large"))
    }
}

fn offsets(layout: &Layout, threads: u64) -> Option<KernelWalk> {
    let small = |offset: usize| u16::try_from(offset).ok();
    let cframe_frame = match layout.cframe_frame {
        Some(offset) => Some(u16::try_from(offset).ok()?),
        None => None,
    };
    let frame_owner = match layout.frame_owner {
        Some(offset) => Some(small(offset)?),
        None => None,
    };
    Some(KernelWalk {
        threads,
        thread_next: small(layout.thread_next)?,
        thread_id: small(layout.thread_id)?,
        thread_frame: small(layout.thread_frame)?,
        cframe_frame,
        frame_previous: small(layout.frame_previous)?,
        frame_code: small(layout.frame_code)?,
        frame_at: small(layout.frame_at)?,
        frame_owner,
    })
}

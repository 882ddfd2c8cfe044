//! The chain of frames of one thread state, as raw words, so that it can be compared with a later one.

use crate::Unreadable;
use crate::layout::{At, Layout};
use crate::memory::{Reader, u64_at};
use crate::object::Types;

/// How many frames of one thread are read, the innermost first.
pub(crate) const MAX_FRAMES: usize = 256;

/// What one frame says, not yet understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RawFrame {
    address: u64,
    previous: u64,
    pub(crate) code: u64,
    pub(crate) at: u64,
    owner: u8,
    kind: u64,
}

/// The state of one thread in one interpreter: `PyThreadState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ThreadState {
    pub(crate) address: u64,
    pub(crate) next: u64,
    pub(crate) interpreter: u64,
    pub(crate) thread_id: u64,
    pub(crate) native_thread_id: Option<u64>,
    frame: u64,
}

impl ThreadState {
    pub(crate) fn read(
        reader: &Reader<'_>,
        layout: &Layout,
        address: u64,
    ) -> Result<ThreadState, Unreadable> {
        let native = layout.native_thread_id;
        let last = [
            layout.thread_next,
            layout.thread_interpreter,
            layout.thread_id,
            native.unwrap_or(0),
            layout.thread_frame,
        ];
        let state = reader.bytes(address, last.into_iter().max().unwrap_or(0) + 8)?;
        Ok(ThreadState {
            address,
            next: u64_at(&state, layout.thread_next),
            interpreter: u64_at(&state, layout.thread_interpreter),
            thread_id: u64_at(&state, layout.thread_id),
            native_thread_id: native.map(|offset| u64_at(&state, offset)),
            frame: u64_at(&state, layout.thread_frame),
        })
    }

    /// The innermost frame, or 0.
    fn top(&self, reader: &Reader<'_>, layout: &Layout) -> Result<u64, Unreadable> {
        match layout.cframe_frame {
            Some(offset) if self.frame != 0 => reader.u64(self.frame.wrapping_add(offset)),
            _ => Ok(self.frame),
        }
    }
}

/// The chain of frames of one thread state.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    thread: ThreadState,
    top: u64,
    /// The frames, those that only mark a call from C included.
    frames: Vec<RawFrame>,
    /// Why the frames beyond the last one are not here.
    pub(crate) broken: Option<Unreadable>,
    /// Whether it was left at [`MAX_FRAMES`].
    pub(crate) cut: bool,
}

impl Chain {
    /// Follows the frames of a thread from the innermost on.
    pub(crate) fn follow(
        reader: &Reader<'_>,
        layout: &Layout,
        types: &Types,
        thread: ThreadState,
    ) -> Result<Chain, Unreadable> {
        let top = thread.top(reader, layout)?;
        let mut chain = Chain {
            thread,
            top,
            frames: Vec::new(),
            broken: None,
            cut: false,
        };
        let mut next = top;
        while next != 0 {
            if chain.frames.len() == MAX_FRAMES {
                chain.cut = true;
                break;
            }
            match RawFrame::read(reader, layout, next)
                .and_then(|frame| frame.checked(layout, types))
            {
                Ok(frame) => {
                    next = frame.previous;
                    chain.frames.push(frame);
                }
                Err(error) => {
                    chain.broken = Some(error);
                    break;
                }
            }
        }
        Ok(chain)
    }

    /// Whether every word of it is still where it was.
    ///
    /// It is read the other way round, the innermost frame last: what changes most was then the same for
    /// the longest, and a mixture of two moments, inner frames older, does not come out the same again.
    pub(crate) fn unchanged(&self, reader: &Reader<'_>, layout: &Layout) -> bool {
        let same = |then: &RawFrame| RawFrame::read(reader, layout, then.address) == Ok(*then);
        if !self.frames.iter().rev().all(same) {
            return false;
        }
        // Which thread comes next is not its own doing.
        let same = |now: &ThreadState| {
            ThreadState {
                next: self.thread.next,
                ..*now
            } == self.thread
        };
        ThreadState::read(reader, layout, self.thread.address)
            .is_ok_and(|now| same(&now) && now.top(reader, layout) == Ok(self.top))
    }

    /// The frames that run a function of Python.
    pub(crate) fn functions(&self) -> impl Iterator<Item = &RawFrame> {
        self.frames
            .iter()
            .filter(|frame| frame.owner < RawFrame::OWNED_BY_C)
    }
}

/// The address of a code object in the word of a frame that leads to it.
pub(crate) fn code_address(word: u64) -> u64 {
    // From 3.14 it is a reference, whose lowest bits say how it is counted.
    word & !3
}

impl RawFrame {
    /// From here on the owner is the interpreter: the frame marks a call from C.
    const OWNED_BY_C: u8 = 3;
    const LAST_OWNER: u8 = 4;

    fn read(reader: &Reader<'_>, layout: &Layout, address: u64) -> Result<RawFrame, Unreadable> {
        let last = [
            layout.frame_previous,
            layout.frame_code,
            layout.frame_at,
            layout.frame_owner.unwrap_or(0),
        ];
        let frame = reader.bytes(address, last.into_iter().max().unwrap_or(0) + 8)?;
        let at = u64_at(&frame, layout.frame_at);
        let index = matches!(layout.at, At::Index(_));
        Ok(RawFrame {
            address,
            previous: u64_at(&frame, layout.frame_previous),
            code: code_address(u64_at(&frame, layout.frame_code)),
            at: if index { at & 0xffff_ffff } else { at },
            owner: layout
                .frame_owner
                .and_then(|offset| frame.get(offset))
                .copied()
                .unwrap_or(0),
            // To 3.10 a frame is an object.
            kind: if index {
                u64_at(&frame, layout.object_type)
            } else {
                0
            },
        })
    }

    fn checked(self, layout: &Layout, types: &Types) -> Result<RawFrame, Unreadable> {
        if self.address & 7 != 0 || self.owner > RawFrame::LAST_OWNER {
            return Err(Unreadable::Invalid("a frame that cannot be one"));
        }
        if matches!(layout.at, At::Index(_)) && self.kind != types.frame {
            return Err(Unreadable::Invalid("a frame of another type"));
        }
        Ok(self)
    }
}

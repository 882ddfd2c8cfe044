//! The frames of CPython that the running thread is in, of this very moment: user space, which comes
//! later, gives them their names.
//!
//! Where they are found is told by the agent, per process. Nothing that is read is trusted: an address
//! leads nowhere but to memory of the process itself.

use tcptrace_common::stack::{
    NO_OFFSET, OWNED_BY_C, PYTHON_FRAMES, Python, PythonFrame, StackHead,
};

use crate::kernel::{Probed, Reader, offset};
use crate::maps::PYTHONS;
use crate::user;

/// Thread states that are looked at: the newest come first.
const THREADS: usize = 64;

/// What /proc says of a process' start is rounded down to this.
const STAT_GRAIN_NS: u64 = 10_000_000;

/// Fills in the frames of the thread, if its process is known to run Python.
#[inline(always)]
pub(crate) fn frames(
    head: &mut StackHead,
    frames: &mut [PythonFrame; PYTHON_FRAMES],
    task: *const u8,
) {
    // SAFETY: the value is copied at once.
    let Some(python) = (unsafe { PYTHONS.get(head.tgid) }) else {
        return;
    };
    if python.start_ns / STAT_GRAIN_NS != head.start_ns / STAT_GRAIN_NS {
        return;
    }
    let Some(thread) = thread_of(python, Probed.read(task, offset!(task_fsbase))) else {
        return;
    };
    let Some(mut frame) = field(thread, python.thread_frame) else {
        return;
    };
    if python.cframe_frame != NO_OFFSET {
        frame = field(frame, python.cframe_frame).unwrap_or(0);
    }
    for (place, slot) in frames.iter_mut().enumerate() {
        if frame == 0 {
            return;
        }
        let word = |offset| field(frame, offset).unwrap_or(0);
        let owner = match python.frame_owner {
            NO_OFFSET => 0,
            offset => user::read::<u8>(frame.wrapping_add(u64::from(offset))).unwrap_or(0),
        };
        slot.code = match owner {
            OWNED_BY_C.. => 0,
            _ => word(python.frame_code),
        };
        slot.at = word(python.frame_at);
        head.python_len = place as u8 + 1;
        match field(frame, python.frame_previous) {
            Some(previous) => frame = previous,
            // There are more, as far as anybody knows.
            None => break,
        }
    }
    head.python_more = u8::from(frame != 0);
}

/// The state of the thread that its own library knows by `id`.
#[inline(always)]
fn thread_of(python: &Python, id: u64) -> Option<u64> {
    let mut thread = user::read::<u64>(python.threads)?;
    for _ in 0..THREADS {
        if thread == 0 {
            return None;
        }
        if field(thread, python.thread_id)? == id {
            return Some(thread);
        }
        thread = field(thread, python.thread_next)?;
    }
    None
}

#[inline(always)]
fn field(base: u64, offset: u16) -> Option<u64> {
    user::read(base.wrapping_add(u64::from(offset)))
}

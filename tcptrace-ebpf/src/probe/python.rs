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
const THREADS: usize = 128;
/// Frames that are looked at, those that mark calls from C among them.
const STEPS: usize = 64;

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
    if python.start_ns != head.start_ns {
        return;
    }
    let Some(thread) = thread_of(python, Probed.read(task, offset!(task_fsbase))) else {
        return;
    };
    let mut frame = field(thread, python.thread_frame);
    if python.cframe_frame != NO_OFFSET {
        frame = frame.and_then(|cframe| field(cframe, python.cframe_frame));
    }
    let mut found = 0;
    for _ in 0..STEPS {
        let Some(address) = frame.filter(|address| *address != 0) else {
            break;
        };
        let owner = match python.frame_owner {
            NO_OFFSET => 0,
            place => user::read::<u8>(address.wrapping_add(u64::from(place))).unwrap_or(0),
        };
        if owner < OWNED_BY_C {
            if found >= PYTHON_FRAMES {
                head.python_more = 1;
                break;
            }
            let (Some(code), Some(at)) = (
                field(address, python.frame_code),
                field(address, python.frame_at),
            ) else {
                break;
            };
            // The verifier wants to see the bound.
            frames[found & (PYTHON_FRAMES - 1)] = PythonFrame { code, at };
            found += 1;
        }
        frame = field(address, python.frame_previous);
    }
    head.python_len = found as u8;
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

//! Which processes run CPython, and the Python frames of their threads.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lru::LruCache;
use tcptrace_common::stack::{NO_OFFSET, Python as Walk};
use tcptrace_core::stack::FrameKind;
use tcptrace_python::{End, Interpreter, KernelWalk, Unreadable};
use tcptrace_stacks::Process;

use super::Answer;
use super::merge::{self, Python};
use super::record::Record;
use crate::proc::{Program, program};

/// Processes with an interpreter that are remembered. Each costs an open file, and up to half a
/// megabyte of names.
const MAX_RUNNING: usize = 256;
/// Processes without one that are remembered.
const MAX_OTHERS: usize = 4_096;
/// How long a process without an interpreter is taken for one: it may still load the library.
const OTHER_FOR: Duration = Duration::from_secs(5);

/// The processes that were looked at.
pub(super) struct Pythons {
    running: LruCache<u32, Running>,
    others: HashMap<u32, (Process, Instant)>,
}

/// A process that runs CPython.
struct Running {
    process: Process,
    interpreter: Arc<Interpreter>,
    /// What the kernel was told of it.
    walk: Option<Walk>,
}

impl Pythons {
    pub(super) fn new() -> Pythons {
        Pythons {
            running: LruCache::unbounded(),
            others: HashMap::new(),
        }
    }

    /// Looks at a process that did nothing yet.
    pub(super) fn look(&mut self, pid: u32, out: &mut Vec<Answer>) {
        let Some(Program {
            start_ns,
            start_stack,
        }) = program(pid)
        else {
            return;
        };
        let process = Process {
            pid,
            start_ns,
            start_stack,
        };
        if let Some(running) = self.find(process, out) {
            running.tell(out);
        }
    }

    /// The interpreter of a record's process, and whether the Python frames in the record are to be
    /// believed: they are if the interpreter is still as the kernel was told.
    pub(super) fn of(
        &mut self,
        record: &Record<'_>,
        out: &mut Vec<Answer>,
    ) -> Option<(Arc<Interpreter>, bool)> {
        let running = self.find(record.process, out)?;
        let before = running.walk;
        running.tell(out);
        // An entry that was told by what /proc says of the start is as good as one by the kernel's word.
        let timeless = |walk: Option<Walk>| {
            walk.map(|walk| Walk {
                start_ns: 0,
                ..walk
            })
        };
        let believed = before.is_some() && timeless(before) == timeless(running.walk);
        Some((Arc::clone(&running.interpreter), believed))
    }

    fn find(&mut self, process: Process, out: &mut Vec<Answer>) -> Option<&mut Running> {
        let pid = process.pid;
        let known = |known: &Running| is_same(known.process, process);
        if !self.running.get(&pid).is_some_and(known) {
            self.open(process, out)?;
        }
        let running = self.running.get_mut(&pid)?;
        // What the kernel says of its start is finer than what /proc says.
        running.process.start_ns = running.process.start_ns.max(process.start_ns);
        Some(running)
    }

    fn open(&mut self, process: Process, out: &mut Vec<Answer>) -> Option<()> {
        let recent =
            |(other, at): &(Process, Instant)| is_same(*other, process) && at.elapsed() < OTHER_FOR;
        if self.others.get(&process.pid).is_some_and(recent) {
            return None;
        }
        let interpreter = Interpreter::open(process.pid);
        // What was opened is of the process and program that has the number now.
        let now = program(process.pid).map(|now| Process {
            start_ns: now.start_ns,
            start_stack: now.start_stack,
            ..process
        });
        if !now.is_some_and(|now| is_same(now, process)) {
            self.remember_other(process);
            return None;
        }
        let before = self.running.pop(&process.pid);
        let Ok(interpreter) = interpreter else {
            if before.is_some_and(|before| before.walk.is_some()) {
                out.push(Answer::NotPython { tgid: process.pid });
            }
            self.remember_other(process);
            return None;
        };
        self.others.remove(&process.pid);
        if self.running.len() >= MAX_RUNNING {
            self.running.pop_lru();
        }
        let running = Running {
            process,
            interpreter: Arc::new(interpreter),
            walk: before.and_then(|before| before.walk),
        };
        self.running.put(process.pid, running);
        Some(())
    }

    fn remember_other(&mut self, process: Process) {
        if self.others.len() >= MAX_OTHERS {
            self.others.clear();
        }
        self.others.insert(process.pid, (process, Instant::now()));
    }
}

impl Running {
    /// Tells the kernel how the frames are walked, or that they cannot be walked any more.
    fn tell(&mut self, out: &mut Vec<Answer>) {
        let (tgid, start_ns) = (self.process.pid, self.process.start_ns);
        match self.interpreter.kernel_walk() {
            Ok(walk) => {
                let walk = walk_of(start_ns, &walk);
                if self.walk != Some(walk) {
                    self.walk = Some(walk);
                    out.push(Answer::Python { tgid, walk });
                }
            }
            // What was right while it lived.
            Err(Unreadable::Gone) => {}
            Err(_) => {
                if self.walk.take().is_some() {
                    out.push(Answer::NotPython { tgid });
                }
            }
        }
    }
}

/// What the kernel walked, with names.
pub(super) fn of_the_moment(interpreter: &Interpreter, record: &Record<'_>) -> Python {
    let frames = interpreter.resolve(&record.python).into_iter();
    let more = record
        .python_more
        .then(|| Arc::from("more Python frames than are followed"));
    Python {
        frames: frames
            .map(|f| merge::python(f, FrameKind::Python))
            .collect(),
        cut: more,
    }
}

/// What is on a thread's stack now, if it holds together.
pub(super) fn later(interpreter: &Interpreter, tid: u32) -> Option<Python> {
    let stack = interpreter.frames(tid).ok()?;
    let frames = stack.frames.into_iter().map(Some);
    stack.consistent.then(|| Python {
        frames: frames
            .map(|f| merge::python(f, FrameKind::PythonLater))
            .collect(),
        cut: match stack.end {
            End::Complete => None,
            End::TooDeep => Some(Arc::from("more Python frames than are read")),
            End::Broken(why) => Some(Arc::from(format!("the next Python frame: {why}"))),
        },
    })
}

/// Whether two are the same process and program, as far as /proc tells.
fn is_same(one: Process, other: Process) -> bool {
    const TICK_NS: u64 = 10_000_000;
    // It is 0 or 1 for who may not know.
    let unknown = one.start_stack <= 1 || other.start_stack <= 1;
    one.pid == other.pid
        && one.start_ns / TICK_NS == other.start_ns / TICK_NS
        && (unknown || one.start_stack == other.start_stack)
}

fn walk_of(start_ns: u64, walk: &KernelWalk) -> Walk {
    Walk {
        start_ns,
        threads: walk.threads,
        thread_next: walk.thread_next,
        thread_id: walk.thread_id,
        thread_frame: walk.thread_frame,
        cframe_frame: walk.cframe_frame.unwrap_or(NO_OFFSET),
        frame_previous: walk.frame_previous,
        frame_code: walk.frame_code,
        frame_at: walk.frame_at,
        frame_owner: walk.frame_owner.unwrap_or(NO_OFFSET),
    }
}

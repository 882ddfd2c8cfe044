//! Stacks of the ring `STACKS` named: by a thread of its own, as that takes files and memory of others,
//! which may be slow.

mod merge;
mod name;
mod number;
mod paths;
mod python;
mod queue;
mod record;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tcptrace_common::stack::{PathNext, PathSeen, Python};
use tcptrace_core::stack::{Seen, Stack};
use tcptrace_stacks::DebugInfo;

use name::Names;
use queue::{Job, Queue};

/// What became of records, in the order in which they were taken.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A stack that was not seen before.
    Define(Stack),
    /// A thread was seen with a stack that was defined before, and not forgotten since.
    Seen(Seen),
    /// None of the stacks that were defined before is used any more.
    Forget,
    /// How the Python frames of a process are found: for the map `PYTHONS`. It may be told again.
    Python { tgid: u32, walk: Python },
    /// They cannot be found that way any more.
    NotPython { tgid: u32 },
    /// A node of the tree of known paths: for the map `PATHS`.
    Path { seen: PathSeen, next: PathNext },
    /// It is known no more.
    NoPath(PathSeen),
}

/// Names stacks. What is left when it is dropped is lost.
pub(crate) struct Namer {
    queue: Arc<Queue>,
    /// What was named while the end was waited for.
    named: Vec<Answer>,
    thread: Option<JoinHandle<()>>,
}

impl Namer {
    /// Starts the thread. It keeps the capabilities that its starter has now. Debug information of files
    /// of `caller`, the user who called sudo, is believed too.
    ///
    /// # Errors
    /// If there are no threads left.
    pub(crate) fn start(caller: Option<u32>) -> io::Result<Namer> {
        let mut debug = DebugInfo::default();
        debug.users.extend(caller);
        let queue = Arc::new(Queue::default());
        let thread = thread::Builder::new().name("tcptrace-stacks".to_owned());
        let theirs = Arc::clone(&queue);
        let thread = thread.spawn(move || work(&theirs, Names::new(debug)))?;
        Ok(Namer {
            queue,
            named: Vec::new(),
            thread: Some(thread),
        })
    }

    /// Takes a record of the ring; `false`: there are too many already, and it is lost.
    pub(crate) fn take(&mut self, record: &[u8]) -> bool {
        self.queue.put(Job::Record(Box::from(record)))
    }

    /// Looks whether a process runs CPython, so that the kernel can be told before it acts. Where there
    /// is too much to do, its first stack tells it.
    pub(crate) fn look(&mut self, pid: u32) {
        self.queue.put(Job::Look(pid));
    }

    /// What was named since it was last asked. It never waits.
    pub(crate) fn answers(&mut self) -> Vec<Answer> {
        let mut answers = std::mem::take(&mut self.named);
        self.queue.answers(&mut answers);
        answers
    }

    /// Waits until all that was taken is named, at most so long. Whether it is.
    pub(crate) fn wait(&mut self, limit: Duration) -> bool {
        self.queue.wait(limit, &mut self.named)
    }

    /// Stops. How many records were taken and are not named.
    pub(crate) fn finish(&mut self) -> u64 {
        let (dropped, idle) = self.queue.finish(&mut self.named);
        // One that reads a slow file is not waited for.
        if let Some(thread) = self.thread.take_if(|_| idle) {
            // A panic was told already.
            let _ = thread.join();
        }
        dropped
    }

    /// Records that were none.
    pub(crate) fn malformed(&self) -> u64 {
        self.queue.malformed()
    }
}

impl Drop for Namer {
    fn drop(&mut self) {
        self.queue.stop();
    }
}

fn work(queue: &Queue, mut names: Names) {
    while let Some(job) = queue.next() {
        let mut answers = Vec::new();
        let malformed = match job {
            Job::Record(record) => names.record(&record, &mut answers).is_err(),
            Job::Look(pid) => {
                names.look(pid, &mut answers);
                false
            }
        };
        queue.done(answers, malformed);
    }
}

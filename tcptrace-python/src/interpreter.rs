//! The interpreters of processes, remembered by process.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::layout::Version;
use crate::memory::ProcessMemory;
use crate::runtime::Runtime;
use crate::task::{Program, Task, candidates, find_error};
use crate::{FindError, Stack, Unreadable};

/// How many processes are remembered. Each one that runs Python costs an open file.
const MAX_KNOWN: usize = 512;
/// How long a process without an interpreter is taken for one: it may still load the library.
const NEGATIVE_FOR: Duration = Duration::from_secs(5);

/// Finds interpreters, and remembers what it found of each process.
#[derive(Debug, Default)]
pub struct Interpreters {
    known: HashMap<u32, Known>,
}

#[derive(Debug)]
struct Known {
    program: Program,
    answer: Result<Arc<Interpreter>, FindError>,
    at: Instant,
}

impl Interpreters {
    /// Remembers no process yet.
    pub fn new() -> Interpreters {
        Interpreters::default()
    }

    /// The interpreter of a process, by its number in the tracer's own PID namespace.
    pub fn find(&mut self, pid: u32) -> Result<Arc<Interpreter>, FindError> {
        let program = Program::of(pid)?;
        if let Some(known) = self.known.get(&pid)
            && known.program == program
            && known.holds()
        {
            return known.answer.clone();
        }
        let answer = Interpreter::open(pid).map(Arc::new);
        if matches!(answer, Err(FindError::Gone | FindError::Denied)) {
            self.known.remove(&pid);
            return answer;
        }
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        self.known.insert(
            pid,
            Known {
                program,
                answer: answer.clone(),
                at: Instant::now(),
            },
        );
        answer
    }
}

impl Known {
    fn holds(&self) -> bool {
        match &self.answer {
            Ok(interpreter) => interpreter.runtime.is_there(&interpreter.memory),
            Err(_) => self.at.elapsed() < NEGATIVE_FOR,
        }
    }
}

/// The CPython of one process. It reads, and changes nothing.
#[derive(Debug)]
pub struct Interpreter {
    pid: u32,
    memory: ProcessMemory,
    runtime: Runtime,
}

impl Interpreter {
    fn open(pid: u32) -> Result<Interpreter, FindError> {
        let starts = candidates(pid)?;
        let memory = ProcessMemory::open(pid).map_err(|error| find_error(&error))?;
        let runtime = Runtime::find(&memory, &starts)?;
        Ok(Interpreter {
            pid,
            memory,
            runtime,
        })
    }

    /// Which CPython it is.
    pub fn version(&self) -> Version {
        self.runtime.layout.version
    }

    /// The stack of a thread of that process, by its number in the tracer's own PID namespace.
    pub fn frames(&self, tid: u32) -> Result<Stack, Unreadable> {
        let before = Task::read(self.pid, tid)?;
        let stack = self.runtime.stack(&self.memory, before.number)?;
        let slept = Task::read(self.pid, tid).is_ok_and(|after| after.slept_since(&before));
        Ok(Stack {
            slept: slept && stack.consistent,
            ..stack
        })
    }
}

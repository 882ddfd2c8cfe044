//! The interpreters of processes, remembered by process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::codes::Codes;
use crate::layout::Version;
use crate::memory::{ProcessMemory, Reader};
use crate::runtime::Runtime;
use crate::task::{Program, Task, candidates, find_error};
use crate::walk::KernelWalk;
use crate::{FindError, Frame, Stack, Unreadable};

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
    codes: Mutex<Codes>,
}

impl Interpreter {
    /// The interpreter of a process, by its number in the tracer's own PID namespace: for who remembers
    /// it himself. It stays that of the program that the process runs now.
    pub fn open(pid: u32) -> Result<Interpreter, FindError> {
        let starts = candidates(pid)?;
        let memory = ProcessMemory::open(pid).map_err(|error| find_error(&error))?;
        let runtime = Runtime::find(&memory, &starts)?;
        Ok(Interpreter {
            pid,
            memory,
            runtime,
            codes: Mutex::default(),
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

    /// How a program in the kernel walks the frames of its threads.
    pub fn kernel_walk(&self) -> Result<KernelWalk, Unreadable> {
        self.runtime.kernel_walk(&self.memory)
    }

    /// Names frames that were walked in the kernel: of each the word that leads to the code object, and
    /// the word that says at which instruction it is. `None` for those that make no sense any more.
    ///
    /// Code objects are remembered, and read again where they changed. What they say is of now: who freed
    /// one since, and put another in its place, gets the other one's name.
    pub fn resolve(&self, raw: &[(u64, u64)]) -> Vec<Option<Frame>> {
        let reader = Reader::new(&self.memory);
        let objects = self.runtime.objects(&reader);
        let mut codes = self.codes.lock().unwrap_or_else(PoisonError::into_inner);
        raw.iter()
            .map(|(code, at)| codes.frame(&objects, *code, *at).ok())
            .collect()
    }

    /// Whether [`Interpreter::resolve`] would say what it said before, found without reading names: then
    /// a number, and what it said for the same frames and the same number holds.
    pub fn unchanged(&self, raw: &[(u64, u64)]) -> Option<u64> {
        let reader = Reader::new(&self.memory);
        let objects = self.runtime.objects(&reader);
        let codes = self.codes.lock().unwrap_or_else(PoisonError::into_inner);
        codes.unchanged(&objects, raw)
    }
}

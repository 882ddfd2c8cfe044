//! One CPython in a memory: found by its symbols, and asked for the stack of a thread.

use crate::chain::{Chain, MAX_FRAMES, ThreadState};
use crate::elf::Symbols;
use crate::layout::{COOKIE, Layout, SAID_FREE_THREADED, SAID_SIZE, SAID_VERSION, Version};
use crate::memory::{Memory, Reader, u32_at, u64_at};
use crate::object::{Code, Objects, Types};
use crate::{End, FindError, Frame, Stack, Unreadable};

/// How often a stack is read when the thread runs on meanwhile.
const ATTEMPTS: u32 = 3;
const MAX_INTERPRETERS: usize = 256;
const MAX_THREADS: usize = 4096;

/// Where one CPython has its state, and how it is laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Runtime {
    pub(crate) layout: Layout,
    types: Types,
    pub(crate) address: u64,
}

/// The files of a process that may define the symbols of an interpreter.
struct Files<'a> {
    reader: &'a Reader<'a>,
    files: Vec<Symbols>,
}

impl<'a> Files<'a> {
    fn read(reader: &'a Reader<'a>, starts: &[u64]) -> Result<Files<'a>, FindError> {
        let mut files = Vec::new();
        for start in starts {
            match Symbols::read(reader, *start) {
                Ok(symbols) => files.extend(symbols),
                Err(error @ (Unreadable::Gone | Unreadable::Denied)) => return Err(error.into()),
                // One that cannot be read is not the one that is looked for.
                Err(_) => {}
            }
        }
        Ok(Files { reader, files })
    }

    /// The first definition of a symbol.
    fn find(&self, name: &str) -> Result<Option<u64>, FindError> {
        for symbols in &self.files {
            if let Some(address) = symbols.find(self.reader, name)? {
                return Ok(Some(address));
            }
        }
        Ok(None)
    }

    fn find_type(&self, name: &str) -> Result<u64, FindError> {
        let refused = || FindError::Unsupported(format!("CPython without the symbol {name}"));
        self.find(name)?.ok_or_else(refused)
    }
}

impl Runtime {
    /// Looks for a CPython among the files whose starts are mapped at `starts`, in the order in which
    /// the loader looks for symbols.
    pub(crate) fn find(memory: &dyn Memory, starts: &[u64]) -> Result<Runtime, FindError> {
        let reader = Reader::new(memory);
        let files = Files::read(&reader, starts)?;
        let Some(address) = files.find("_PyRuntime")? else {
            // To 3.6 there was no such symbol.
            return Err(match files.find("PyCode_Type")? {
                Some(_) => too_old(),
                None => FindError::NotPython,
            });
        };
        let types = Types {
            code: files.find_type("PyCode_Type")?,
            string: files.find_type("PyUnicode_Type")?,
            bytes: files.find_type("PyBytes_Type")?,
            frame: files.find_type("PyFrame_Type")?,
        };
        let layout = match files.find("Py_Version")? {
            Some(version) => Runtime::layout_of_release(&reader, address, reader.u64(version)?)?,
            None => Runtime::layout_before_3_11(&files)?,
        };
        Ok(Runtime {
            layout,
            types,
            address,
        })
    }

    /// The layout of an interpreter that does not say its version: the functions that it has tell it.
    fn layout_before_3_11(files: &Files<'_>) -> Result<Layout, FindError> {
        const SINCE: [(&str, u8); 3] = [
            ("Py_NewRef", 10),
            ("PyFrame_GetCode", 9),
            ("PyCode_NewWithPosOnlyArgs", 8),
        ];
        for (function, minor) in SINCE {
            if files.find(function)?.is_some() {
                return Layout::of(Version {
                    major: 3,
                    minor,
                    micro: None,
                })
                .ok_or_else(too_old);
            }
        }
        Err(too_old())
    }

    fn layout_of_release(reader: &Reader<'_>, runtime: u64, hex: u64) -> Result<Layout, FindError> {
        let (version, release) = Version::from_hex(hex);
        let refuse = |why: &str| Err(FindError::Unsupported(format!("CPython {version}{why}")));
        if version.major != 3 {
            return refuse("");
        }
        if !release {
            return refuse(" before its release, whose layout is not known");
        }
        if let Some(layout) = Layout::of(version) {
            return Ok(layout);
        }
        let table = reader.bytes(runtime, SAID_SIZE)?;
        if !table.starts_with(COOKIE) || u64_at(&table, SAID_VERSION) != hex {
            return refuse(", which does not say its layout");
        }
        if u64_at(&table, SAID_FREE_THREADED) != 0 {
            return refuse(" without the GIL (free-threaded)");
        }
        Layout::said(version, &table).map_or_else(|| refuse(", whose layout is not known"), Ok)
    }

    /// Whether it is still where it was found: not after another program was executed.
    pub(crate) fn is_there(&self, memory: &dyn Memory) -> bool {
        Reader::new(memory).u64(self.address).is_ok()
    }

    /// What reads objects of it.
    pub(crate) fn objects<'a>(&'a self, reader: &'a Reader<'a>) -> Objects<'a> {
        Objects {
            reader,
            layout: &self.layout,
            types: &self.types,
        }
    }

    /// The stack of the thread that its PID namespace calls `tid`.
    pub(crate) fn stack(&self, memory: &dyn Memory, tid: u32) -> Result<Stack, Unreadable> {
        let reader = Reader::new(memory);
        let mut attempt = 1;
        loop {
            let answer = self.stack_once(&reader, tid);
            let good = match &answer {
                Ok(stack) => stack.consistent && !matches!(stack.end, End::Broken(_)),
                Err(Unreadable::Fault { .. } | Unreadable::Invalid(_)) => false,
                Err(_) => true,
            };
            if good || attempt == ATTEMPTS {
                return answer.map(|stack| Stack {
                    reads: reader.reads(),
                    ..stack
                });
            }
            attempt += 1;
        }
    }

    fn stack_once(&self, reader: &Reader<'_>, tid: u32) -> Result<Stack, Unreadable> {
        let chains = self.chains(reader, tid)?;
        let unchanged = || {
            chains
                .iter()
                .all(|chain| chain.unchanged(reader, &self.layout))
        };
        let before = unchanged();
        let objects = self.objects(reader);
        let mut codes: Vec<Code> = Vec::new();
        let mut stack = Stack {
            frames: Vec::new(),
            end: End::Complete,
            consistent: false,
            slept: false,
            reads: 0,
        };
        'chains: for chain in &chains {
            for raw in chain.functions() {
                if stack.frames.len() == MAX_FRAMES {
                    stack.end = End::TooDeep;
                    break 'chains;
                }
                match frame(&objects, &mut codes, raw.code, raw.at) {
                    Ok(frame) => stack.frames.push(frame),
                    Err(error) => {
                        stack.end = End::Broken(error);
                        break 'chains;
                    }
                }
            }
            if let Some(error) = &chain.broken {
                stack.end = End::Broken(error.clone());
                break;
            }
            if chain.cut {
                stack.end = End::TooDeep;
                break;
            }
        }
        stack.consistent = before && unchanged();
        match stack.end {
            End::Broken(error) if stack.frames.is_empty() => Err(error),
            _ if stack.frames.is_empty() => Err(Unreadable::NoFrames),
            _ => Ok(stack),
        }
    }

    /// The chains of frames of a thread, that of the youngest interpreter first: when a thread has
    /// frames in several interpreters, those of the younger one were called from the older one.
    fn chains(&self, reader: &Reader<'_>, tid: u32) -> Result<Vec<Chain>, Unreadable> {
        let states = self.thread_states(reader)?;
        let mut own: Vec<_> = states
            .iter()
            .filter(|(_, state)| state.native_thread_id == Some(u64::from(tid)))
            .collect();
        if own.is_empty() {
            // Before 3.11 the number is not there, and after a fork it can be that of the parent. The C
            // library has it too.
            own = states
                .iter()
                .filter(|(_, state)| is_pthread(reader, state.thread_id, tid))
                .collect();
        }
        if own.is_empty() {
            return Err(Unreadable::NoThread);
        }
        own.sort_by_key(|(interpreter, _)| std::cmp::Reverse(*interpreter));
        own.iter()
            .map(|(_, state)| Chain::follow(reader, &self.layout, &self.types, *state))
            .collect()
    }

    /// All thread states, with the number of their interpreter.
    fn thread_states(&self, reader: &Reader<'_>) -> Result<Vec<(u64, ThreadState)>, Unreadable> {
        let layout = &self.layout;
        let mut states = Vec::new();
        let mut interpreter = reader.u64(self.address.wrapping_add(layout.interpreters_head))?;
        let mut interpreters = 0;
        while interpreter != 0 {
            interpreters += 1;
            if interpreters > MAX_INTERPRETERS {
                return Err(Unreadable::Invalid("interpreters without end"));
            }
            let id = reader.u64(interpreter.wrapping_add(layout.interpreter_id))?;
            let mut thread = reader.u64(interpreter.wrapping_add(layout.threads_head))?;
            while thread != 0 {
                if states.len() == MAX_THREADS {
                    return Err(Unreadable::Invalid("more than 4096 threads"));
                }
                let state = ThreadState::read(reader, layout, thread)?;
                if state.interpreter != interpreter {
                    return Err(Unreadable::Invalid("a thread of another interpreter"));
                }
                thread = state.next;
                states.push((id, state));
            }
            interpreter = reader.u64(interpreter.wrapping_add(layout.interpreter_next))?;
        }
        Ok(states)
    }
}

fn too_old() -> FindError {
    FindError::Unsupported("CPython before 3.8".to_owned())
}

/// One frame, its code object read once.
fn frame(
    objects: &Objects<'_>,
    codes: &mut Vec<Code>,
    code: u64,
    at: u64,
) -> Result<Frame, Unreadable> {
    let known = codes.iter().position(|known| known.address() == code);
    let index = match known {
        Some(index) => index,
        None => {
            codes.push(objects.code(objects.head(code)?)?);
            codes.len() - 1
        }
    };
    codes[index].frame(objects.layout, at)
}

/// Whether the `pthread_t` at `address` is that of the thread `tid`, on x86-64.
///
/// Both C libraries have there a pointer to itself, in different places, and the number of the thread.
fn is_pthread(reader: &Reader<'_>, address: u64, tid: u32) -> bool {
    const GLIBC: (usize, usize) = (16, 720);
    const MUSL: (usize, usize) = (0, 48);
    let has = |head: &[u8], (own, number): (usize, usize)| {
        u64_at(head, own) == address && u32_at(head, number) == tid
    };
    match reader.bytes(address, GLIBC.1 + 4) {
        Ok(head) => has(&head, GLIBC) || has(&head, MUSL),
        Err(_) => reader
            .bytes(address, MUSL.1 + 4)
            .is_ok_and(|head| has(&head, MUSL)),
    }
}

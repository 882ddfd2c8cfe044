//! Tests with made-up processes: all versions, and processes that lie.

use std::cell::RefCell;

use proptest::prelude::*;

use crate::chain::MAX_FRAMES;
use crate::codes::Codes;
use crate::fake::{BASE, FILE, FUNCTIONS, Fake, Process, TID};
use crate::layout::{At, SAID_FREE_THREADED, SAID_VERSION};
use crate::memory::{Memory, Reader};
use crate::runtime::Runtime;
use crate::{End, FindError, Frame, Stack, Unreadable};

fn hex(minor: u8) -> u64 {
    0x0300_02f0 | u64::from(minor) << 16
}

fn process(minor: u8) -> Process {
    Process::new(minor, hex(minor))
}

fn find(process: &Process) -> Result<Runtime, FindError> {
    Runtime::find(&process.memory, &[process.start])
}

fn stack(process: &Process) -> Result<Stack, Unreadable> {
    find(process)
        .expect("a CPython")
        .stack(&process.memory, TID)
}

fn expected() -> Vec<Frame> {
    let frame = |(function, line): (&str, u32)| Frame {
        file: FILE.to_owned(),
        function: function.to_owned(),
        line: Some(line),
    };
    FUNCTIONS.map(frame).to_vec()
}

#[test]
fn each_version_is_read() {
    for minor in 8..=14 {
        let process = process(minor);
        assert_eq!(find(&process).unwrap().layout.version.minor, minor);
        let stack = stack(&process).unwrap();
        assert_eq!(stack.frames, expected(), "3.{minor}");
        assert_eq!(stack.end, End::Complete);
        assert!(stack.consistent && !stack.slept);
    }
}

#[test]
fn what_is_not_known_is_refused() {
    let refused = |process: &Process| find(process).unwrap_err().to_string();
    assert_eq!(refused(&process(7)), "CPython before 3.8 is not supported");
    assert_eq!(
        refused(&process(15)),
        "CPython 3.15.2, whose layout is not known is not supported"
    );
    let alpha = Process::new(13, hex(13) & !0xff | 0xa1);
    assert_eq!(
        refused(&alpha),
        "CPython 3.13.2 before its release, whose layout is not known is not supported"
    );
    let mut threaded = process(14);
    threaded
        .memory
        .put(threaded.runtime + SAID_FREE_THREADED as u64, 1);
    assert_eq!(
        refused(&threaded),
        "CPython 3.14.2 without the GIL (free-threaded) is not supported"
    );
    let mut other = process(13);
    other
        .memory
        .put(other.runtime + SAID_VERSION as u64, hex(14));
    assert_eq!(
        refused(&other),
        "CPython 3.13.2, which does not say its layout is not supported"
    );
    let mut huge = process(13);
    huge.memory.put(huge.runtime + 240, 1 << 40);
    assert_eq!(
        refused(&huge),
        "CPython 3.13.2, whose layout is not known is not supported"
    );
}

#[test]
fn another_thread_has_no_frames() {
    for minor in [8, 12] {
        let process = process(minor);
        let other = find(&process).unwrap().stack(&process.memory, TID + 1);
        assert_eq!(other, Err(Unreadable::NoThread));
    }
}

#[test]
fn a_second_interpreter_forbids_a_walk_in_the_kernel() {
    for minor in [8, 12, 14] {
        let mut process = process(minor);
        let runtime = find(&process).unwrap();
        assert!(runtime.kernel_walk(&process.memory).is_ok());
        let head = process.runtime + process.layout.interpreters_head;
        let interpreter = u64_of(&process.memory, head);
        let second = process.memory.room(1024);
        let next = interpreter + process.layout.interpreter_next;
        process.memory.put(next, second);
        assert_eq!(
            runtime.kernel_walk(&process.memory),
            Err(Unreadable::Invalid("more than one interpreter"))
        );
        process.memory.put(head, 0);
        assert_eq!(
            runtime.kernel_walk(&process.memory),
            Err(Unreadable::Invalid("no interpreter yet"))
        );
    }
}

#[test]
fn frames_that_go_round_end() {
    for minor in 8..=14 {
        let mut process = process(minor);
        let (inner, outer) = (process.frames[0], *process.frames.last().unwrap());
        process
            .memory
            .put(outer + process.layout.frame_previous as u64, inner);
        let stack = stack(&process).unwrap();
        assert_eq!(stack.end, End::TooDeep);
        assert!(stack.frames.len() <= MAX_FRAMES && stack.frames.len() > MAX_FRAMES / 2);
    }
}

#[test]
fn threads_and_interpreters_that_go_round_are_told() {
    let mut threads = process(12);
    threads.memory.put(
        threads.thread + threads.layout.thread_next as u64,
        threads.thread,
    );
    assert_eq!(
        stack(&threads),
        Err(Unreadable::Invalid("more than 4096 threads"))
    );
    let mut interpreters = process(12);
    let at = interpreters.runtime + interpreters.layout.interpreters_head;
    let interpreter = find(&interpreters)
        .map(|_| u64_of(&interpreters.memory, at))
        .unwrap();
    interpreters.memory.put(
        interpreter + interpreters.layout.interpreter_next,
        interpreter,
    );
    assert_eq!(
        stack(&interpreters),
        Err(Unreadable::Invalid("interpreters without end"))
    );
}

fn u64_of(memory: &Fake, address: u64) -> u64 {
    let mut bytes = [0; 8];
    memory.read(address, &mut bytes).expect("it is there");
    u64::from_le_bytes(bytes)
}

#[test]
fn a_name_without_end_is_told() {
    for minor in 8..=14 {
        let mut process = process(minor);
        process
            .memory
            .put(process.file + process.layout.string_length as u64, u64::MAX);
        assert_eq!(
            stack(&process),
            Err(Unreadable::Invalid("a name of more than 4096 characters"))
        );
    }
}

#[test]
fn a_frame_without_its_code_ends_the_stack_there() {
    for minor in 8..=14 {
        let mut process = process(minor);
        let outer = *process.frames.last().unwrap();
        process
            .memory
            .put(outer + process.layout.frame_code as u64, process.file);
        let stack = stack(&process).unwrap();
        assert_eq!(stack.frames, expected()[..1]);
        assert_eq!(
            stack.end,
            End::Broken(Unreadable::Invalid("a frame without a code object"))
        );
        let inner = process.frames[0];
        process
            .memory
            .put(inner + process.layout.frame_code as u64, 8);
        let error = find(&process).unwrap().stack(&process.memory, TID);
        assert_eq!(error, Err(Unreadable::Fault { address: 8 }));
    }
}

#[test]
fn an_instruction_of_another_function_is_no_line() {
    for minor in 11..=14 {
        let mut process = process(minor);
        let (inner, other) = (
            process.frames[0],
            process.codes[1] + process.layout.code_code as u64,
        );
        process
            .memory
            .put(inner + process.layout.frame_at as u64, other + 2);
        assert_eq!(
            stack(&process),
            Err(Unreadable::Invalid("an instruction outside its function"))
        );
    }
}

/// A process whose innermost frame is one instruction further with every read.
struct Running {
    memory: RefCell<Fake>,
    at: u64,
}

impl Memory for Running {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Unreadable> {
        let mut memory = self.memory.borrow_mut();
        let next = u64_of(&memory, self.at) + 2;
        memory.put(self.at, next);
        memory.read(address, into)
    }
}

#[test]
fn a_thread_that_runs_is_not_consistent() {
    for minor in 8..=14 {
        let mut process = process(minor);
        let (layout, code) = (process.layout.clone(), process.codes[0]);
        // Its byte code is long enough for all that.
        let sized = match layout.at {
            At::Pointer => code,
            At::Index(_) => u64_of(&process.memory, code + layout.code_code as u64),
        };
        process
            .memory
            .put(sized + layout.object_size as u64, 1 << 20);
        let at = process.frames[0] + layout.frame_at as u64;
        let running = Running {
            memory: RefCell::new(process.memory.clone()),
            at,
        };
        let stack = find(&process).unwrap().stack(&running, TID).unwrap();
        assert!(!stack.consistent, "3.{minor}");
    }
}

/// How many reads the answers to everything may take, of a process that lies as it likes.
const MOST: u32 = 3 * 16_384;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_process_that_lies_gets_an_answer(
        minor in 8u8..=14,
        lies in prop::collection::vec((any::<prop::sample::Index>(), lie()), 1..8),
        at in any::<u64>(),
    ) {
        let mut process = process(minor);
        let words = process.memory.bytes.len() / 8;
        for (place, lie) in lies {
            let address = BASE + 8 * place.index(words) as u64;
            let value = lied(lie, u64_of(&process.memory, address), process.memory.bytes.len() as u64);
            process.memory.put(address, value);
        }
        if let Ok(runtime) = find(&process)
            && let Ok(stack) = runtime.stack(&process.memory, TID)
        {
            prop_assert!(!stack.frames.is_empty() && stack.frames.len() <= MAX_FRAMES);
        }
        prop_assert!(process.memory.reads.get() <= MOST);
        if let Ok(runtime) = find(&process) {
            let _ = runtime.kernel_walk(&process.memory);
            let reader = Reader::new(&process.memory);
            let objects = runtime.objects(&reader);
            let mut codes = Codes::default();
            for code in process.codes.into_iter().chain([process.file, at]) {
                let _ = codes.frame(&objects, code, at);
                let _ = codes.unchanged(&objects, &[(code, at)]);
            }
        }
    }

    #[test]
    fn any_memory_gets_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..4096), minor in 8u8..=14) {
        let process = process(minor);
        let runtime = find(&process).expect("a CPython");
        let mut memory = Fake { bytes, ..Fake::default() };
        let _ = Runtime::find(&memory, &[BASE, 0, u64::MAX]);
        let mut header = process.memory.bytes[..4096].to_vec();
        header.extend(&memory.bytes);
        memory.bytes = header;
        let _ = Runtime::find(&memory, &[BASE]);
        let _ = runtime.stack(&memory, TID);
        prop_assert!(memory.reads.get() <= MOST);
    }
}

/// What a word becomes: anything, an address nearby, a small number, or nearly what it was.
fn lie() -> impl Strategy<Value = (u8, u64)> {
    (0u8..4, any::<u64>())
}

fn lied((kind, any): (u8, u64), truth: u64, size: u64) -> u64 {
    match kind {
        0 => any,
        1 => (BASE + any % size) & !7,
        2 => any % 100,
        _ => truth.wrapping_add(any % 65).wrapping_sub(32),
    }
}

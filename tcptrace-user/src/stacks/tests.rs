//! Records of real threads, and records that are none.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::FileExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use proptest::prelude::*;
use tcptrace_common::event::Header;
use tcptrace_common::stack::{
    CHAIN_FRAMES, Chain, KIND_CHAIN, KIND_STACK, NO_OFFSET, OWNED_BY_C, POINT_ACCEPT,
    POINT_CONNECT, PYTHON_FRAMES, Python, PythonFrame, Registers, STACK_BYTES, Stack as Copy,
    StackHead,
};
use tcptrace_core::stack::{Frame, FrameKind, Point, StackId};
use zerocopy::{FromZeros as _, IntoBytes as _};

use super::*;
use crate::proc::program;

const LIMIT: Duration = Duration::from_secs(30);

fn head(kind: u16, pid: u32, point: u8) -> StackHead {
    let program = program(pid).expect("it runs");
    StackHead {
        header: Header {
            kind,
            size: 0,
            cpu: 1,
            ts: 17,
            cookie: 4711,
            sk: 0,
        },
        tgid: pid,
        tid: pid,
        start_ns: program.start_ns + 1234,
        start_stack: program.start_stack,
        point,
        python_len: 0,
        python_more: 0,
        pad: 0,
        len: 0,
    }
}

/// A thread of ours at these addresses.
fn chain(addresses: &[u64]) -> Chain {
    let mut chain = Chain::new_zeroed();
    chain.head = head(KIND_CHAIN, std::process::id(), POINT_CONNECT);
    chain.head.len = addresses.len() as u32;
    chain.addresses[..addresses.len()].copy_from_slice(addresses);
    chain
}

fn namer() -> Namer {
    Namer::start(None).expect("a thread")
}

/// What becomes of records, in their order.
fn named(namer: &mut Namer, records: &[&[u8]]) -> Vec<Answer> {
    for record in records {
        assert!(namer.take(record));
    }
    assert!(namer.wait(LIMIT));
    assert_eq!(namer.finish(), 0);
    namer.answers()
}

fn numbers(answers: &[Answer]) -> Vec<StackId> {
    let seen = answers.iter().filter_map(|answer| match answer {
        Answer::Seen(seen) => Some(seen.stack),
        _ => None,
    });
    seen.collect()
}

#[test]
fn stacks_are_defined_once_and_before_they_are_used() {
    let code = |function: fn()| function as usize as u64 + 1;
    fn one() {}
    fn other() {
        std::hint::black_box(3);
    }
    let chains = [
        chain(&[code(one), code(other)]),
        chain(&[code(other), code(one)]),
        chain(&[code(one), code(other)]),
        chain(&[]),
    ];
    let mut namer = namer();
    let records = chains.each_ref().map(|chain| chain.as_bytes());
    let answers = named(&mut namer, &records);
    let mut defined = HashSet::new();
    for answer in &answers {
        match answer {
            Answer::Define(stack) => assert!(defined.insert(stack.id)),
            Answer::Seen(seen) => {
                assert!(defined.contains(&seen.stack));
                assert_eq!((seen.cookie, seen.point), (4711, Point::Connect));
                assert_eq!((seen.pid, seen.at.0), (std::process::id(), 17));
            }
            other => panic!("{other:?}"),
        }
    }
    let numbers = numbers(&answers);
    assert_eq!((numbers.len(), defined.len()), (4, 3));
    assert_eq!(numbers[0], numbers[2]);
}

#[test]
fn records_that_are_none_are_counted() {
    let mut namer = namer();
    let record = chain(&[]);
    let cut = &record.as_bytes()[..64];
    assert!(named(&mut namer, &[&[], cut, &[0xff; 9000]]).is_empty());
    assert_eq!(namer.malformed(), 3);
    assert!(!namer.take(record.as_bytes()), "it is over");
}

/// A program of Python, which ends with the test.
struct Script(Child);

const PROGRAM: &str = "
import socket
def serve(listener):
    listener.accept()
def main():
    listener = socket.socket()
    listener.bind(('127.0.0.1', 0))
    listener.listen()
    print('ready', flush=True)
    serve(listener)
main()
";

/// The innermost is in socket.py.
const FUNCTIONS: [&str; 3] = ["serve", "main", "<module>"];

impl Script {
    fn start() -> Option<Script> {
        let child = Script::ready(PROGRAM)?;
        child.waits_in("288 ");
        Some(child)
    }

    /// A program that said that it is ready. `None` where there is no Python, which is only right on a
    /// developer's machine.
    fn ready(program: &str) -> Option<Script> {
        let mut python = Command::new("python3");
        python.stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = python.args(["-c", program]).spawn();
        assert!(child.is_ok() || std::env::var_os("CI").is_none());
        let mut child = Script(child.ok()?);
        let mut line = String::new();
        let mut said = BufReader::new(child.0.stdout.take().expect("a pipe"));
        said.read_line(&mut line).expect("text");
        assert_eq!(line, "ready\n");
        Some(child)
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Waits until it is in that system call.
    fn waits_in(&self, call: &str) {
        while !self.syscall().starts_with(call) {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn syscall(&self) -> String {
        fs::read_to_string(format!("/proc/{}/syscall", self.pid())).expect("it runs")
    }

    fn memory(&self) -> File {
        File::open(format!("/proc/{}/mem", self.pid())).expect("it is ours")
    }

    /// What the kernel copies of it, but for the registers that its unwinding does not need.
    fn record(&self) -> Copy {
        let mut copy = Copy::new_zeroed();
        copy.head = head(KIND_STACK, self.pid(), POINT_ACCEPT);
        let syscall = self.syscall();
        let mut fields = syscall.split_ascii_whitespace().rev();
        let mut register = || {
            let digits = fields.next()?.strip_prefix("0x")?;
            u64::from_str_radix(digits, 16).ok()
        };
        let (ip, sp) = (register().expect("ip"), register().expect("sp"));
        copy.registers = Registers {
            ip,
            sp,
            ..Registers::new_zeroed()
        };
        let read = self.memory().read_at(&mut copy.bytes, sp);
        copy.head.len = read.expect("its stack") as u32;
        copy
    }

    /// As the kernel does it for the only thread.
    fn walked(&self, walk: &Python) -> Copy {
        let memory = self.memory();
        let at = |base: u64, offset: u16| {
            let mut word = [0; 8];
            let read = memory.read_exact_at(&mut word, base + u64::from(offset));
            read.expect("memory");
            u64::from_ne_bytes(word)
        };
        let mut copy = self.record();
        let mut frame = at(at(walk.threads, 0), walk.thread_frame);
        if walk.cframe_frame != NO_OFFSET {
            frame = at(frame, walk.cframe_frame);
        }
        while frame != 0 {
            let marks_c =
                walk.frame_owner != NO_OFFSET && at(frame, walk.frame_owner) as u8 >= OWNED_BY_C;
            copy.python[usize::from(copy.head.python_len)] = PythonFrame {
                code: match marks_c {
                    true => 0,
                    false => at(frame, walk.frame_code),
                },
                at: at(frame, walk.frame_at),
            };
            copy.head.python_len += 1;
            frame = at(frame, walk.frame_previous);
        }
        copy
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Names one record without a thread.
fn answers(names: &mut Names, record: &Copy) -> Vec<Answer> {
    let mut answers = Vec::new();
    let named = names.record(record.as_bytes(), &mut answers);
    assert!(named.is_ok());
    answers
}

fn definition(answers: &[Answer]) -> &Stack {
    let defined = answers.iter().find_map(|answer| match answer {
        Answer::Define(stack) => Some(stack),
        _ => None,
    });
    defined.unwrap_or_else(|| panic!("no definition: {answers:?}"))
}

/// The frames of Python, of which all have to be of that kind.
fn of_python(stack: &Stack, kind: FrameKind) -> Vec<&Frame> {
    let python = |frame: &&Frame| matches!(frame.kind, FrameKind::Python | FrameKind::PythonLater);
    let frames: Vec<_> = stack.frames.iter().filter(python).collect();
    assert!(frames.iter().all(|frame| frame.kind == kind), "{stack:?}");
    frames
}

fn walk(answers: &[Answer]) -> Option<Python> {
    answers.iter().find_map(|answer| match answer {
        Answer::Python { walk, .. } => Some(*walk),
        _ => None,
    })
}

#[test]
fn the_first_stack_is_read_later_and_the_next_ones_are_of_the_moment() {
    let Some(process) = Script::start() else {
        return;
    };
    let mut names = Names::new(DebugInfo::none());
    let first = answers(&mut names, &process.record());
    let stack = definition(&first);
    let python = of_python(stack, FrameKind::PythonLater);
    let functions = |frames: &[&Frame]| {
        let name = |frame: &&Frame| frame.function.as_deref().map(str::to_owned);
        frames.iter().filter_map(name).collect::<Vec<_>>()
    };
    assert_eq!(functions(&python[1..]), FUNCTIONS);
    assert_eq!(python[1].line, Some(4));
    assert_eq!(stack.frames[0].kind, FrameKind::Native, "the C library's");

    let walk = walk(&first).expect("the kernel is told");
    let record = process.walked(&walk);
    let second = answers(&mut names, &record);
    let exact = definition(&second);
    let python = of_python(exact, FrameKind::Python);
    assert_eq!(functions(&python[1..]), FUNCTIONS);
    assert_eq!(python[1].line, Some(4));
    assert_eq!(exact.frames.len(), stack.frames.len());

    let third = answers(&mut names, &record);
    assert!(matches!(&third[..], [Answer::Seen(seen)] if seen.stack == exact.id));
    drop(process);
    let after = answers(&mut names, &record);
    assert_eq!(numbers(&after), [exact.id], "it is remembered");
}

#[test]
fn a_process_that_is_looked_at_has_no_later_stacks() {
    let Some(process) = Script::start() else {
        return;
    };
    let mut names = Names::new(DebugInfo::none());
    let mut looked = Vec::new();
    names.look(process.pid(), &mut looked);
    let told = walk(&looked).expect("the kernel is told");
    let record = process.walked(&told);
    let first = answers(&mut names, &record);
    of_python(definition(&first), FrameKind::Python);
    let exact = walk(&first).expect("it is told the start that it knows itself");
    assert_eq!(exact.start_ns, record.head.start_ns);
    assert_eq!(exact.threads, told.threads);
    let mut nothing = Vec::new();
    names.look(std::process::id(), &mut nothing);
    names.look(0, &mut nothing);
    assert!(nothing.is_empty());
}

#[test]
fn the_kernel_is_told_that_a_process_executed_another_program() {
    let program = "
import os
print('ready', flush=True)
os.read(0, 1)
os.execvp('sleep', ['sleep', '60'])
";
    let Some(mut process) = Script::ready(program) else {
        return;
    };
    let mut names = Names::new(DebugInfo::none());
    let mut answers = Vec::new();
    names.look(process.pid(), &mut answers);
    assert!(walk(&answers).is_some());
    drop(process.0.stdin.take());
    process.waits_in("230 ");
    let mut chain = chain(&[]);
    chain.head = head(KIND_CHAIN, process.pid(), POINT_CONNECT);
    answers.clear();
    assert!(names.record(chain.as_bytes(), &mut answers).is_ok());
    let told =
        |answer: &Answer| matches!(answer, Answer::NotPython { tgid } if *tgid == process.pid());
    assert!(answers.iter().any(told), "{answers:?}");
}

#[test]
fn python_frames_of_another_process_are_not_believed() {
    let mut names = Names::new(DebugInfo::none());
    let mut chain = chain(&[names_nothing as *const () as u64]);
    chain.head.python_len = 2;
    let mut answers = Vec::new();
    assert!(names.record(chain.as_bytes(), &mut answers).is_ok());
    assert!(of_python(definition(&answers), FrameKind::Python).is_empty());
}

fn names_nothing() {}

/// How long a stack takes that was seen before.
#[test]
#[ignore = "a measurement, which asserts nothing: prints what docs/stacks.md says of naming"]
fn measure() {
    let process = Script::start().expect("a Python");
    let mut names = Names::new(DebugInfo::none());
    let plain = process.record();
    let walk = walk(&answers(&mut names, &plain)).expect("the kernel is told");
    let moment = process.walked(&walk);
    let rounds = 2_000;
    for (what, record) in [("of the moment", &moment), ("read later", &plain)] {
        answers(&mut names, record);
        let start = Instant::now();
        for _ in 0..rounds {
            answers(&mut names, record);
        }
        eprintln!("{what}: {:?}", start.elapsed() / rounds);
    }
}

proptest! {
    #[test]
    fn any_bytes_get_an_answer(
        bytes in prop::collection::vec(any::<u8>(), 0..STACK_BYTES + 1000),
        kind in prop::sample::select(vec![KIND_STACK, KIND_CHAIN]),
        known in any::<bool>(),
    ) {
        let mut bytes = bytes;
        if known && bytes.len() > 2 {
            bytes[..2].copy_from_slice(&kind.to_ne_bytes());
        }
        let mut answers = Vec::new();
        let named = Names::new(DebugInfo::none()).record(&bytes, &mut answers);
        prop_assert_eq!(named.is_ok(), !answers.is_empty());
    }

    #[test]
    fn any_frames_get_an_answer(
        registers in any::<[u64; 8]>(),
        stack in prop::collection::vec(any::<u8>(), STACK_BYTES),
        words in any::<[u64; 8]>(),
        python_len in 0..PYTHON_FRAMES as u8 + 3,
        more in any::<bool>(),
        len in 0..STACK_BYTES as u32 + 9,
        point in 0u8..6,
        chained in any::<bool>(),
        cut in 0usize..STACK_BYTES,
    ) {
        let [ip, sp, bp, bx, r @ ..] = registers;
        let mut copy = Copy::new_zeroed();
        copy.head = head(KIND_STACK, std::process::id(), point);
        copy.head.python_len = python_len;
        copy.head.python_more = more.into();
        copy.head.len = len;
        copy.registers = Registers { ip, sp, bp, bx, r };
        copy.bytes.copy_from_slice(&stack);
        for (frame, word) in copy.python.iter_mut().zip(words) {
            *frame = PythonFrame { code: word, at: word };
        }
        let mut bytes = copy.as_bytes().to_vec();
        let mut fits = len as usize <= STACK_BYTES - cut;
        if chained {
            let mut chain = chain(&words);
            chain.head = StackHead { header: chain.head.header, ..copy.head };
            bytes = chain.as_bytes().to_vec();
            fits = len as usize <= CHAIN_FRAMES;
        } else {
            bytes.truncate(bytes.len() - cut);
        }
        let mut answers = Vec::new();
        let named = Names::new(DebugInfo::none()).record(&bytes, &mut answers);
        let good = fits && (1..=4).contains(&point) && usize::from(python_len) <= PYTHON_FRAMES;
        prop_assert_eq!(named.is_ok(), good);
        prop_assert_eq!(numbers(&answers).len(), usize::from(good));
    }
}

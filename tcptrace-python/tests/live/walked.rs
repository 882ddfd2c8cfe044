//! Frames walked as a program in the kernel does it, and named afterwards.

use std::fs::File;
use std::os::unix::fs::FileExt;

use tcptrace_python::{Interpreter, Interpreters, KernelWalk, Unreadable};

use crate::python::{Program, asleep, pythons};

/// Where glibc's descriptor of a thread has its number.
const GLIBC_TID: u64 = 720;

struct Memory(File);

impl Memory {
    fn word(&self, address: u64) -> u64 {
        let mut word = [0; 8];
        self.0.read_exact_at(&mut word, address).expect("memory");
        u64::from_le_bytes(word)
    }

    fn at(&self, base: u64, offset: u16) -> u64 {
        self.word(base + u64::from(offset))
    }

    /// The code objects and instructions of a thread's frames.
    fn walk(&self, walk: &KernelWalk, tid: u32) -> Vec<(u64, u64)> {
        let mut thread = self.word(walk.threads);
        while self.word(self.at(thread, walk.thread_id) + GLIBC_TID) as u32 != tid {
            thread = self.at(thread, walk.thread_next);
        }
        let top = self.at(thread, walk.thread_frame);
        let mut frame = walk.cframe_frame.map_or(top, |offset| self.at(top, offset));
        let mut words = Vec::new();
        while frame != 0 {
            let owner = walk
                .frame_owner
                .map_or(0, |offset| self.at(frame, offset) as u8);
            if owner < 3 {
                words.push((
                    self.at(frame, walk.frame_code),
                    self.at(frame, walk.frame_at),
                ));
            }
            frame = self.at(frame, walk.frame_previous);
        }
        words
    }
}

#[test]
fn they_have_the_names_that_the_program_says() {
    for python in pythons() {
        for function in [
            "nested",
            "connect",
            "generator",
            "through_c",
            "threads",
            "recursion",
            "odd_names",
        ] {
            let mut program = Program::start(&python, "truth.py", &[function]);
            let truth = program.truth();
            asleep(&mut Interpreters::new(), truth.pid, truth.tid);
            let interpreter = Interpreter::open(truth.pid).expect("a Python");
            let walk = interpreter.kernel_walk().expect("one interpreter");
            let memory = Memory(File::open(format!("/proc/{}/mem", truth.pid)).expect("memory"));
            let raw = memory.walk(&walk, truth.tid);
            assert_eq!(interpreter.unchanged(&raw), None, "nothing is known yet");
            let frames = interpreter.resolve(&raw);
            let frames: Vec<_> = frames.into_iter().map(|f| f.expect("a frame")).collect();
            assert_eq!(frames, truth.frames, "{function} of {}", python.display());
            let generation = interpreter.unchanged(&raw);
            assert!(generation.is_some());
            drop(program);
            assert_eq!(interpreter.unchanged(&raw), generation, "it ended");
        }
    }
}

#[test]
fn a_sub_interpreter_forbids_it() {
    for python in pythons() {
        let mut program = Program::start(&python, "truth.py", &["subinterpreter"]);
        let truth = program.truth();
        let interpreter = Interpreter::open(truth.pid).expect("a Python");
        assert_eq!(
            interpreter.kernel_walk(),
            Err(Unreadable::Invalid("more than one interpreter"))
        );
    }
}

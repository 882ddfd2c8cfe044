//! An ELF file, and a stack that leads through it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tcptrace_stacks::{DebugInfo, Limits, Process, Regs, Sample, Stacks};

/// Where the file is mapped, and where the stack is.
const START: u64 = 0x40_0000;
const STACK: u64 = 0x7000_0000_0000;

// The first 256 bytes are the stack, the rest is the file. Words of the stack are places in it, or
// addresses in the file, as their lowest bit says.
fuzz_target!(|bytes: &[u8]| {
    let Some((words, image)) = bytes.split_at_checked(256) else {
        return;
    };
    let process = Process {
        pid: 0,
        start_ns: 1,
        start_stack: 0,
    };
    let mut stacks = Stacks::with_debug_info(Limits::default(), DebugInfo::none());
    if !stacks.load_image(process, START, image.to_vec()) {
        return;
    }
    let words = words.chunks_exact(8).map(|word| {
        let word = u64::from_le_bytes(word.try_into().unwrap_or_default());
        match word & 1 {
            0 => STACK + (word >> 1) % 64 * 8,
            _ => START + (word >> 1) % image.len() as u64,
        }
    });
    let words = words.collect::<Vec<_>>();
    let stack = words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<_>>();
    for ip in words.iter().take(4) {
        let sample = Sample {
            process,
            regs: Regs {
                ip: *ip,
                sp: STACK,
                bp: words[4],
                ..Regs::default()
            },
            stack: &stack,
        };
        let trace = stacks.trace(&sample);
        assert_eq!(trace.frames[0].ip, *ip);
        assert_eq!(stacks.trace(&sample).end, trace.end);
    }
});

//! How much room the caches take. Alone in a process, whose memory is looked at.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::time::Instant;

use tcptrace_stacks::{DebugInfo, Limits, Process, Regs, Sample, Stacks};

/// Samples of an hour, every one with another stack: 300 a second. Unoptimized, of a minute.
#[test]
fn an_hour_of_distinct_stacks_fits() {
    let limits = Limits {
        trace_bytes: 4 << 20,
        path_words: 32 * 1024,
        processes: 8,
        ..Limits::default()
    };
    let mut stacks = Stacks::with_debug_info(limits.clone(), DebugInfo::none());
    let image = fs::read(std::env::current_exe().unwrap()).unwrap();
    let image = &image[..image.len().min(1 << 20)];
    let process = |pid| Process {
        pid,
        start_ns: 1,
        start_stack: 0,
    };
    let (start, sp) = (0x40_0000_u64, 0x7000_0000_0000_u64);
    let mut random = 1_u64;
    let mut next = || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        random >> 33
    };
    let before = resident();
    let began = Instant::now();
    let per_process = if cfg!(debug_assertions) { 1500 } else { 90_000 };
    let mut most = 0;
    for pid in 0..12_u32 {
        assert!(stacks.load_image(process(pid << 24), start, image.to_vec()));
        for i in 0..per_process {
            // A chain of frame pointers through code that has no unwind information.
            let words = (0..16_u64).flat_map(|i| [sp + (i + 1) * 16, start + 0x200 + next() % 64]);
            let stack = words.flat_map(u64::to_le_bytes).collect::<Vec<_>>();
            let regs = Regs {
                ip: start + 0x200,
                sp,
                bp: sp,
                ..Regs::default()
            };
            let sample = Sample {
                process: process(pid << 24),
                regs,
                stack: &stack,
            };
            let trace = stacks.trace(&sample);
            assert!(!trace.frames.is_empty());
            if i % 100 == 0 {
                let memory = stacks.memory();
                assert!(memory.traces <= limits.trace_bytes, "{memory:?}");
                most = most.max(memory.paths);
            }
            if std::env::var_os("CI").is_none() && began.elapsed().as_secs() > 20 {
                break;
            }
        }
    }
    // What was counted is what the system counts, about.
    let grown = resident().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown}");
    let counters = stacks.counters();
    eprintln!(
        "{counters:?} {:?} {most} {grown} {:?}",
        stacks.memory(),
        began.elapsed()
    );
    assert!(
        most <= limits.path_words * Limits::PATH_WORD_BYTES,
        "{most}"
    );
    assert!(counters.path_words_evicted > 0 && counters.traces_evicted > 0);
    assert_eq!(counters.processes_evicted, 4);
}

/// Bytes of memory of this process.
fn resident() -> usize {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

//! Call paths that the kernel is told of: it copies no stack that is on one of them.
//!
//! They make a tree in its map `PATHS`, which is written by whoever holds the map; what is in it is
//! remembered here.

use std::collections::HashMap;
use std::sync::Arc;

use tcptrace_common::stack::{
    LOOK_BP, LOOK_FOUND, LOOK_PLACE, PATH_WORDS, PathNext, PathSeen, SEEN_ADDRESS, SEEN_PLACE,
    SEEN_PROCESS, SEEN_PROGRAM, SEEN_ZERO, STACK_BYTES,
};
use tcptrace_stacks::{Path, Process, Read, Seen, Trace};

use super::Answer;

/// As many as the map has room for.
const MAX_NODES: usize = 1 << 16;

/// What the kernel knows.
#[derive(Default)]
pub(super) struct Paths {
    nodes: HashMap<PathSeen, PathNext>,
    /// What of it each process has.
    processes: HashMap<Process, Vec<PathSeen>>,
    traces: HashMap<u32, (Process, Arc<Trace>)>,
    /// The last number of a node or of a path.
    last: u32,
}

impl Paths {
    /// The trace of a path of that process that the kernel found.
    pub(super) fn trace(&self, process: Process, number: u32) -> Option<Arc<Trace>> {
        let (of, trace) = self.traces.get(&number)?;
        (*of == process).then(|| Arc::clone(trace))
    }

    /// Tells of a path, if it is one that the kernel can find.
    pub(super) fn tell(
        &mut self,
        process: Process,
        path: &Path,
        trace: &Arc<Trace>,
        out: &mut Vec<Answer>,
    ) {
        let Some(steps) = steps(process, path) else {
            return;
        };
        if self.nodes.len() + steps.len() > MAX_NODES {
            self.forget_all(out);
        }
        let mut node = process.pid;
        for Step { kind, value, look } in steps {
            let seen = PathSeen { node, kind, value };
            node = match self.nodes.get(&seen) {
                None => self.add(process, seen, look, out),
                Some(known) if known.look == look => known.node,
                // Its code has changed since.
                Some(_) => return self.forget(process, out),
            };
        }
        self.traces.insert(node, (process, Arc::clone(trace)));
    }

    fn add(&mut self, process: Process, seen: PathSeen, look: u32, out: &mut Vec<Answer>) -> u32 {
        self.last = self.last.wrapping_add(1);
        let next = PathNext {
            node: self.last,
            look,
        };
        self.nodes.insert(seen, next);
        self.processes.entry(process).or_default().push(seen);
        out.push(Answer::Path { seen, next });
        self.last
    }

    /// Nothing that was true of a process may be true any more.
    pub(super) fn forget(&mut self, process: Process, out: &mut Vec<Answer>) {
        let all = self.processes.remove(&process).unwrap_or_default();
        for seen in all {
            if let Some(next) = self.nodes.remove(&seen) {
                self.traces.remove(&next.node);
            }
            out.push(Answer::NoPath(seen));
        }
    }

    fn forget_all(&mut self, out: &mut Vec<Answer>) {
        out.extend(self.nodes.keys().copied().map(Answer::NoPath));
        self.nodes.clear();
        self.processes.clear();
        self.traces.clear();
    }
}

/// From a node to the next one.
struct Step {
    kind: u32,
    value: u64,
    /// Where to look then.
    look: u32,
}

/// What the kernel sees of a stack on this path; `None`: it would have to look at more than it can.
fn steps(process: Process, path: &Path) -> Option<Vec<Step>> {
    // What is beyond the end of every copy nobody sees: there is nothing to look at.
    let inside = |read: &Read| match read {
        Read::Place(at) | Read::Address(at) => *at as usize + size_of::<u64>() <= STACK_BYTES,
        Read::Register(_) => true,
    };
    let reads = path.looks.iter().filter(|(read, _)| inside(read));
    let first = [
        (SEEN_PROCESS, process.start_ns),
        (SEEN_PROGRAM, process.start_stack),
        (SEEN_ADDRESS, path.ip),
    ];
    let mut saw = first.to_vec();
    let mut looks = vec![0; first.len() - 1];
    for (read, seen) in reads {
        looks.push(match *read {
            Read::Address(at) => at,
            Read::Place(at) => LOOK_PLACE | at,
            Read::BP => LOOK_BP | LOOK_PLACE,
            Read::Register(_) => return None,
        });
        saw.push(match *seen {
            Seen::Address(address) => (SEEN_ADDRESS, address),
            Seen::Offset(offset) => (SEEN_PLACE, offset),
            Seen::Zero => (SEEN_ZERO, 0),
            // The page was not in memory, and may be the next time.
            Seen::Missing => return None,
        });
    }
    looks.push(LOOK_FOUND);
    let short = saw.len() - first.len() < PATH_WORDS;
    let steps = saw.into_iter().zip(looks);
    let step = |((kind, value), look)| Step { kind, value, look };
    short.then(|| steps.map(step).collect())
}

#[cfg(test)]
mod tests {
    use tcptrace_common::stack::LOOK_OFFSET;
    use tcptrace_stacks::{End, TraceId};

    use super::*;

    const PROCESS: Process = Process {
        pid: 7,
        start_ns: 1_000,
        start_stack: 0x7ffd_0000,
    };
    const SP: u64 = 0x7ffc_0000;
    const IP: u64 = 0x40_0000;

    /// The map, and how the program goes through it (`tcptrace-ebpf/src/probe/path.rs`).
    #[derive(Default)]
    struct Kernel(HashMap<PathSeen, PathNext>);

    impl Kernel {
        fn take(&mut self, answers: Vec<Answer>) {
            for answer in answers {
                match answer {
                    Answer::Path { seen, next } => assert!(self.0.insert(seen, next).is_none()),
                    Answer::NoPath(seen) => assert!(self.0.remove(&seen).is_some()),
                    other => panic!("{other:?}"),
                }
            }
            assert!(self.0.len() <= MAX_NODES);
        }

        fn next(&self, node: u32, kind: u32, value: u64) -> Option<PathNext> {
            self.0.get(&PathSeen { node, kind, value }).copied()
        }

        /// Of a thread with this frame pointer, and these words from its stack pointer upward.
        fn finds(&self, process: Process, bp: u64, stack: &[u64]) -> Option<u32> {
            let at = self.next(process.pid, SEEN_PROCESS, process.start_ns)?;
            let at = self.next(at.node, SEEN_PROGRAM, process.start_stack)?;
            let mut at = self.next(at.node, SEEN_ADDRESS, IP)?;
            for _ in 0..PATH_WORDS {
                let is = |bit| at.look & bit != 0;
                if is(LOOK_FOUND) {
                    return Some(at.node);
                }
                let word = match is(LOOK_BP) {
                    true => bp,
                    false => *stack.get((at.look & LOOK_OFFSET) as usize / 8)?,
                };
                let (kind, value) = match (is(LOOK_PLACE), word) {
                    (false, word) => (SEEN_ADDRESS, word),
                    (true, 0) => (SEEN_ZERO, 0),
                    (true, word) => (SEEN_PLACE, word.wrapping_sub(SP)),
                };
                at = self.next(at.node, kind, value)?;
            }
            None
        }
    }

    fn trace(number: u64) -> Arc<Trace> {
        Arc::new(Trace {
            id: TraceId(number),
            frames: Vec::new(),
            end: End::Root,
        })
    }

    /// Told, as the answers that the map is written by.
    fn tell(paths: &mut Paths, looks: &[(Read, Seen)], number: u64) -> Vec<Answer> {
        let path = Path {
            ip: IP,
            looks: looks.to_vec(),
            trace: TraceId(number),
        };
        let mut out = Vec::new();
        paths.tell(PROCESS, &path, &trace(number), &mut out);
        out
    }

    /// main() calls this and that, and both call connect().
    const THIS: [(Read, Seen); 3] = [
        (Read::Address(8), Seen::Address(0x41)),
        (Read::BP, Seen::Offset(16)),
        (Read::Address(24), Seen::Address(0x99)),
    ];
    const THAT: [(Read, Seen); 2] = [
        (Read::Address(8), Seen::Address(0x42)),
        (Read::Place(16), Seen::Zero),
    ];

    fn found(kernel: &Kernel, paths: &Paths, bp: u64, stack: &[u64]) -> Option<u64> {
        let number = kernel.finds(PROCESS, bp, stack)?;
        Some(paths.trace(PROCESS, number).expect("it was told").id.0)
    }

    #[test]
    fn who_sees_the_same_is_on_the_path() {
        let (mut paths, mut kernel) = (Paths::default(), Kernel::default());
        kernel.take(tell(&mut paths, &THIS, 1));
        kernel.take(tell(&mut paths, &THAT, 2));
        // Told again, there is nothing new.
        assert!(tell(&mut paths, &THIS, 1).is_empty());
        let find = |bp, stack: &[u64]| found(&kernel, &paths, bp, stack);
        assert_eq!(find(SP + 16, &[5, 0x41, 6, 0x99]), Some(1));
        assert_eq!(find(0, &[7, 0x42, 0, 8]), Some(2));
        // Another caller, another frame, a place where zero was, and a page that is not there.
        assert_eq!(find(SP + 16, &[5, 0x43, 6, 0x99]), None);
        assert_eq!(find(SP + 24, &[5, 0x41, 6, 0x99]), None);
        assert_eq!(find(0, &[7, 0x42, SP, 8]), None);
        assert_eq!(find(SP + 16, &[5, 0x41]), None);
        for other in [
            Process { pid: 8, ..PROCESS },
            Process {
                start_ns: 1_001,
                ..PROCESS
            },
            Process {
                start_stack: 0,
                ..PROCESS
            },
        ] {
            assert_eq!(kernel.finds(other, SP + 16, &[5, 0x41, 6, 0x99]), None);
            let number = kernel.finds(PROCESS, SP + 16, &[5, 0x41, 6, 0x99]);
            assert!(paths.trace(other, number.expect("a path")).is_none());
        }
    }

    #[test]
    fn what_no_copy_holds_is_not_looked_at() {
        let (mut paths, mut kernel) = (Paths::default(), Kernel::default());
        let beyond = Read::Address(STACK_BYTES as u32);
        let looks = [THAT[0], (beyond, Seen::Missing)];
        kernel.take(tell(&mut paths, &looks, 3));
        assert_eq!(found(&kernel, &paths, 0, &[7, 0x42]), Some(3));
    }

    #[test]
    fn paths_that_the_kernel_cannot_find_are_not_told() {
        let mut paths = Paths::default();
        let no_page = (Read::Address(32), Seen::Missing);
        let other_register = (Read::Register(0), Seen::Offset(8));
        for read in [no_page, other_register] {
            assert!(tell(&mut paths, &[THAT[0], read], 4).is_empty());
        }
        assert!(tell(&mut paths, &[THAT[0]; PATH_WORDS], 4).is_empty());
        assert!(!tell(&mut paths, &[THAT[0]; PATH_WORDS - 1], 4).is_empty());
    }

    #[test]
    fn what_may_not_be_true_any_more_is_forgotten() {
        let (mut paths, mut kernel) = (Paths::default(), Kernel::default());
        kernel.take(tell(&mut paths, &THIS, 1));
        // The same caller has another frame: its code is another.
        kernel.take(tell(
            &mut paths,
            &[THIS[0], (Read::Place(40), Seen::Zero)],
            2,
        ));
        assert!(kernel.0.is_empty() && paths.traces.is_empty());
        kernel.take(tell(&mut paths, &THAT, 2));
        let mut out = Vec::new();
        paths.forget(PROCESS, &mut out);
        kernel.take(out);
        assert!(kernel.0.is_empty() && paths.traces.is_empty());
    }

    #[test]
    fn there_is_room_for_so_many() {
        let (mut paths, mut kernel) = (Paths::default(), Kernel::default());
        for caller in 0..2 * MAX_NODES as u64 {
            let look = (Read::Address(8), Seen::Address(caller));
            kernel.take(tell(&mut paths, &[look], caller));
            assert_eq!(found(&kernel, &paths, 0, &[0, caller]), Some(caller));
        }
    }
}

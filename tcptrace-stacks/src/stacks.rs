//! Samples in, traces out.

use std::sync::Arc;

use foldhash::fast::FixedState;
use lru::LruCache;

use crate::limits::{Counters, DebugInfo, Limits};
use crate::mapped::Opened;
use crate::modules::{Modules, NUMBERS};
use crate::process::{Known, Space};
use crate::sample::{Chain, Process, Sample};
use crate::trace::{By, End, Frame, Trace, TraceId};
use crate::traces::{Key, Traces};
use crate::unwind::{Code, Read, Seen, Spot, Step, Unwinder, View, Walk};

/// Names stacks, and remembers what it needed for it.
pub struct Stacks {
    limits: Limits,
    counters: Counters,
    modules: Modules,
    processes: LruCache<Process, Known, FixedState>,
    /// Words of all their call paths.
    words: usize,
    /// Whose paths were forgotten.
    forgotten: Vec<Process>,
    number: u32,
    unwinder: Unwinder,
    traces: Traces,
}

/// A call path: whoever of that process is at that instruction and sees the same is on it, and has its trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// The instruction after the system call.
    pub ip: u64,
    /// Where a walk looked, and what it saw there, in this order.
    pub looks: Vec<(Read, Seen)>,
    /// The number of its trace.
    pub trace: TraceId,
}

/// Bytes of memory that the caches take, about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Of modules: unwind information, symbols, lines.
    pub modules: usize,
    /// Of processes: maps, perf maps.
    pub processes: usize,
    /// Of call paths.
    pub paths: usize,
    /// Of traces.
    pub traces: usize,
}

impl Stacks {
    /// With debug information of the system, and of files of the superuser and of the tracer's user.
    pub fn new(limits: Limits) -> Stacks {
        Stacks::with_debug_info(limits, DebugInfo::default())
    }

    /// With debug information of these only.
    pub fn with_debug_info(limits: Limits, debug: DebugInfo) -> Stacks {
        Stacks {
            unwinder: Unwinder::new(limits.frames),
            limits,
            counters: Counters::default(),
            modules: Modules::new(debug),
            processes: LruCache::unbounded_with_hasher(FixedState::default()),
            words: 0,
            forgotten: Vec::new(),
            number: 0,
            traces: Traces::new(),
        }
    }

    /// The number of a sample's trace, if a stack like it was seen before: nothing is unwound or read.
    pub fn known(&mut self, sample: &Sample<'_>) -> Option<TraceId> {
        let id = self.find(sample, |_, _| {})?;
        self.traces.get(id).map(|kept| kept.trace.id)
    }

    /// What decides that a sample has the trace that it has, if a stack like it was seen before.
    pub fn path(&mut self, sample: &Sample<'_>) -> Option<Path> {
        let mut looks = Vec::new();
        let trace = self.find(sample, |read, seen| looks.push((read, seen)))?;
        Some(Path {
            ip: sample.regs.ip,
            looks,
            trace,
        })
    }

    /// Processes whose paths were forgotten since it was last asked: what was true of them may not be any
    /// more.
    pub fn forgotten(&mut self) -> Vec<Process> {
        std::mem::take(&mut self.forgotten)
    }

    /// The trace with that number, if it is still kept.
    pub fn get(&mut self, id: TraceId) -> Option<Arc<Trace>> {
        self.traces.get(id).map(|kept| Arc::clone(&kept.trace))
    }

    /// Names a sample.
    pub fn trace(&mut self, sample: &Sample<'_>) -> Arc<Trace> {
        self.counters.samples += 1;
        if let Some(id) = self.known(sample)
            && let Some(trace) = self.get(id)
        {
            self.counters.path_hits += 1;
            return trace;
        }
        self.counters.path_misses += 1;
        if let Err(end) = self.learn(sample.process) {
            return self.nameless(&[sample.regs.ip], end);
        }
        self.refresh_old(sample.process);
        let mut walk = self.walk(sample);
        // It may go on in code that was mapped since the maps were read.
        let open = |end: &End| matches!(end, End::NotCode(_) | End::NoUnwindInfo(_));
        if open(&walk.end) && self.refresh(sample.process) {
            walk = self.walk(sample);
        }
        let lasting = !open(&walk.end);
        let (trace, settled) = self.name(sample.process, &walk.steps, walk.end);
        if let Some(reads) = walk.reads.filter(|_| settled && lasting)
            && let Some(known) = self.processes.get_mut(&sample.process)
        {
            let before = known.paths.words();
            known.paths.insert(sample.regs.ip, &reads, trace.id);
            let after = known.paths.words();
            self.account(sample.process, before, after);
            self.bound_paths();
        }
        trace
    }

    /// Names a chain of frame pointers.
    pub fn chain(&mut self, chain: &Chain<'_>) -> Arc<Trace> {
        self.counters.samples += 1;
        let addresses = &chain.addresses[..chain.addresses.len().min(self.limits.frames)];
        let end = if addresses.len() < chain.addresses.len() {
            End::Limit
        } else {
            End::Chain
        };
        if let Err(end) = self.learn(chain.process) {
            return self.nameless(addresses, end);
        }
        self.refresh_old(chain.process);
        let mut steps = self.steps(chain.process, addresses);
        let unknown = |s: &Step| matches!(s.spot, Spot::Nothing);
        if steps.iter().any(unknown) && self.refresh(chain.process) {
            steps = self.steps(chain.process, addresses);
        }
        self.name(chain.process, &steps, end).0
    }

    /// Forgets a process, for who knows that it ended or executed another program. Its traces are kept.
    pub fn forget(&mut self, process: Process) {
        if let Some(known) = self.processes.pop(&process) {
            self.account(process, known.paths.words(), 0);
        }
    }

    /// Takes `image`, mapped as a whole at `start`, for the only code of a process, whether there is such
    /// a process or not: for tests and fuzzing. Whether it is an ELF file.
    pub fn load_image(&mut self, process: Process, start: u64, image: Vec<u8>) -> bool {
        let bytes = image.len() as u64;
        let (opened, limits) = (Opened::of(image), &self.limits);
        let module = self.modules.load(opened, "", limits, &mut self.counters);
        let Some(module) = module else {
            return false;
        };
        let known = Known::of(process, self.number, start, bytes, &module);
        self.add(process, known);
        true
    }

    /// What was done since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What the caches take.
    pub fn memory(&self) -> Memory {
        Memory {
            modules: self.modules.bytes(),
            processes: self.processes.iter().map(|(_, known)| known.bytes()).sum(),
            paths: self
                .processes
                .iter()
                .map(|(_, known)| known.paths.bytes())
                .sum(),
            traces: self.traces.bytes(),
        }
    }

    /// The trace of the path that a sample is on. `look` is told what decides it.
    fn find(&mut self, sample: &Sample<'_>, look: impl FnMut(Read, Seen)) -> Option<TraceId> {
        let known = self.processes.get(&sample.process)?;
        known.paths.find(view(sample), look)
    }

    /// Makes sure that the process is known.
    fn learn(&mut self, process: Process) -> Result<(), End> {
        if self.processes.promote(&process) {
            return Ok(());
        }
        let known = Known::learn(process, self.number, &self.limits)?;
        self.counters.maps_read += 1;
        self.add(process, known);
        Ok(())
    }

    fn add(&mut self, process: Process, known: Known) {
        self.forget(process);
        self.number = self.number.wrapping_add(1) & NUMBERS;
        self.processes.put(process, known);
        while self.processes.len() > self.limits.processes.max(1) {
            if let Some((process, known)) = self.processes.pop_lru() {
                self.account(process, known.paths.words(), 0);
                self.counters.processes_evicted += 1;
            }
        }
    }

    fn refresh_old(&mut self, process: Process) {
        if self.processes.peek(&process).is_some_and(Known::is_old) {
            self.refresh(process);
        }
    }

    fn refresh(&mut self, process: Process) -> bool {
        let Some(known) = self.processes.get_mut(&process) else {
            return false;
        };
        let before = known.paths.words();
        let changed = known.refresh(&self.limits, &mut self.counters);
        let after = known.paths.words();
        self.account(process, before, after);
        changed
    }

    /// The paths of a process had so many words, and have so many now.
    fn account(&mut self, process: Process, before: usize, after: usize) {
        self.words = self.words - before + after;
        if after < before {
            self.forgotten.push(process);
        }
    }

    fn walk(&mut self, sample: &Sample<'_>) -> Walk {
        let (unwinder, mut space) = match self.processes.get_mut(&sample.process) {
            Some(known) => (
                &mut self.unwinder,
                Space {
                    known,
                    modules: &mut self.modules,
                    limits: &self.limits,
                    counters: &mut self.counters,
                },
            ),
            None => {
                return Walk {
                    steps: Vec::new(),
                    end: End::ProcessGone,
                    reads: None,
                };
            }
        };
        unwinder.walk(&mut space, view(sample))
    }

    fn steps(&mut self, process: Process, addresses: &[u64]) -> Vec<Step> {
        let Some(known) = self.processes.get_mut(&process) else {
            return Vec::new();
        };
        let mut space = Space {
            known,
            modules: &mut self.modules,
            limits: &self.limits,
            counters: &mut self.counters,
        };
        let steps = addresses.iter().enumerate().map(|(i, ip)| {
            let call = ip.wrapping_sub(u64::from(i > 0));
            Step {
                ip: *ip,
                call,
                by: if i > 0 {
                    By::FramePointer
                } else {
                    By::Registers
                },
                spot: space.spot(call),
            }
        });
        steps.collect()
    }

    /// The trace of addresses of a process of which nothing is known.
    fn nameless(&mut self, addresses: &[u64], end: End) -> Arc<Trace> {
        let steps = addresses.iter().enumerate().map(|(i, ip)| Step {
            ip: *ip,
            call: *ip,
            by: if i > 0 {
                By::FramePointer
            } else {
                By::Registers
            },
            spot: Spot::Nothing,
        });
        let steps = steps.collect::<Vec<_>>();
        let key = key(&steps, NOBODY, &end);
        if let Some(kept) = self.traces.find(&key) {
            return Arc::clone(&kept.trace);
        }
        let trace = Arc::new(Trace {
            id: self.traces.number(),
            frames: steps.iter().map(|step| bare(step, None)).collect(),
            end,
        });
        self.counters.traces_evicted +=
            self.traces.keep(key, &trace, true, self.limits.trace_bytes);
        trace
    }

    /// The trace of steps, and whether no name is missing that may come later.
    fn name(&mut self, process: Process, steps: &[Step], end: End) -> (Arc<Trace>, bool) {
        let Some(known) = self.processes.get_mut(&process) else {
            return (self.nameless(&[], end), false);
        };
        let key = key(steps, known.number, &end);
        let old = self.traces.find(&key).cloned();
        if let Some(old) = old.as_ref().filter(|old| old.settled) {
            self.counters.trace_hits += 1;
            return (Arc::clone(&old.trace), true);
        }
        let unnamed = |known: &Known| {
            let generated = |s: &&Step| matches!(s.spot, Spot::Memory);
            let mut generated = steps.iter().filter(generated);
            generated.any(|s| known.perf_map.name(s.call).is_none())
        };
        if unnamed(known) {
            let read = known
                .perf_map
                .refresh(known.pid(), self.limits.perf_map_bytes);
            self.counters.perf_maps_refused += u64::from(read.is_err());
        }
        let settled = !unnamed(known) || !known.perf_map.is_there();
        let trace = Arc::new(Trace {
            id: old.map_or_else(|| self.traces.number(), |old| old.trace.id),
            frames: steps.iter().flat_map(|step| frames(step, known)).collect(),
            end,
        });
        self.counters.traces_evicted +=
            self.traces
                .keep(key, &trace, settled, self.limits.trace_bytes);
        (trace, settled)
    }

    /// Drops the call paths of the processes seen the longest ago, until a quarter of the room is free.
    fn bound_paths(&mut self) {
        if self.words <= self.limits.path_words {
            return;
        }
        for (process, known) in self.processes.iter_mut().rev() {
            if self.words <= self.limits.path_words / 4 * 3 {
                break;
            }
            let words = known.paths.words();
            known.paths.clear();
            self.forgotten.push(*process);
            self.words -= words;
            self.counters.path_words_evicted += words as u64;
        }
    }
}

/// Stands for no process and no module.
const NOBODY: u32 = NUMBERS;

fn view<'a>(sample: &'a Sample<'_>) -> View<'a> {
    View {
        regs: &sample.regs,
        stack: sample.stack,
    }
}

/// Addresses in files are the same for all processes; others are a process's own.
fn key(steps: &[Step], process: u32, end: &End) -> Key {
    let steps = steps.iter().map(|step| {
        let place = match &step.spot {
            Spot::File(_, module, _) => module.number,
            _ => !NUMBERS | process,
        };
        (step.ip, place, step.by)
    });
    Key {
        steps: steps.collect(),
        end: end.clone(),
    }
}

/// The frames of a step: the functions inlined there, and the function itself.
fn frames(step: &Step, known: &Known) -> Vec<Frame> {
    let frame = bare(step, Some(known));
    let Spot::File(_, module, address) = &step.spot else {
        let name = match step.spot {
            Spot::Memory => known.perf_map.name(step.call).map(Arc::from),
            _ => None,
        };
        return vec![Frame {
            function: name,
            ..frame
        }];
    };
    let places = module.names(*address);
    let last = places.len().saturating_sub(1);
    let frames = places.into_iter().enumerate().map(|(i, place)| Frame {
        build_id: module.build_id.clone(),
        address: Some(address.wrapping_add(step.ip.wrapping_sub(step.call))),
        function: place.function.map(Arc::from),
        file: place.file.map(Arc::from),
        line: place.line,
        inlined: i < last,
        ..frame.clone()
    });
    frames.collect()
}

/// A frame without names.
fn bare(step: &Step, known: Option<&Known>) -> Frame {
    let mapping = known.and_then(|known| known.mapping(step.call));
    Frame {
        ip: step.ip,
        by: step.by,
        module: mapping.and_then(|m| m.path.clone()),
        build_id: None,
        offset: mapping.map_or(0, |m| step.ip.wrapping_sub(m.start).wrapping_add(m.offset)),
        address: None,
        function: None,
        file: None,
        line: None,
        inlined: false,
    }
}

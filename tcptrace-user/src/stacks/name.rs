//! One record turned into a stack with names, and who was seen with it.

use std::sync::Arc;

use tcptrace_core::stack::{Frame, Seen, StackId};
use tcptrace_core::time::Mono;
use tcptrace_stacks::{Chain, DebugInfo, Limits, Sample, Stacks, Trace};

use super::Answer;
use super::merge::{self, merge, place};
use super::number::StackIds;
use super::paths::Paths;
use super::python::{self, Pythons};
use super::record::{Malformed, Native, Record};

/// All that is remembered for naming.
pub(super) struct Names {
    stacks: Stacks,
    pythons: Pythons,
    ids: StackIds,
    paths: Paths,
    /// What the stack at hand was seen by.
    sight: Vec<u64>,
}

impl Names {
    /// With debug information of these.
    pub(super) fn new(debug: DebugInfo) -> Names {
        Names {
            stacks: Stacks::with_debug_info(Limits::default(), debug),
            pythons: Pythons::new(),
            ids: StackIds::default(),
            paths: Paths::default(),
            sight: Vec::new(),
        }
    }

    /// Looks whether a process runs CPython.
    pub(super) fn look(&mut self, pid: u32, out: &mut Vec<Answer>) {
        self.pythons.look(pid, out);
    }

    /// Names a record.
    pub(super) fn record(&mut self, bytes: &[u8], out: &mut Vec<Answer>) -> Result<(), Malformed> {
        let record = Record::parse(bytes)?;
        let trace = self.trace(&record, out).ok_or(Malformed)?;
        let stack = self.stack(&record, &trace, out);
        out.push(Answer::Seen(Seen {
            at: Mono(record.header.ts),
            cookie: record.header.cookie,
            point: record.point,
            pid: record.process.pid,
            tid: record.tid,
            stack,
        }));
        Ok(())
    }

    /// The native frames; `None` on a path that is known no more.
    fn trace(&mut self, record: &Record<'_>, out: &mut Vec<Answer>) -> Option<Arc<Trace>> {
        let process = record.process;
        let trace = match &record.native {
            Native::Path(number) => return self.paths.trace(process, *number),
            Native::Chain(addresses) => self.stacks.chain(&Chain { process, addresses }),
            Native::Copy(regs, stack) => {
                let sample = Sample {
                    process,
                    regs: *regs,
                    stack,
                };
                // What was seen once may never come again: the kernel is told at the second time.
                let path = self.stacks.path(&sample);
                let trace = self.stacks.trace(&sample);
                if let Some(path) = path.filter(|path| path.trace == trace.id) {
                    self.paths.tell(process, &path, &trace, out);
                }
                trace
            }
        };
        for process in self.stacks.forgotten() {
            self.paths.forget(process, out);
        }
        Some(trace)
    }

    fn stack(&mut self, record: &Record<'_>, trace: &Arc<Trace>, out: &mut Vec<Answer>) -> StackId {
        self.sight.clear();
        self.sight.push(trace.id.0);
        let Some((interpreter, believed)) = self.pythons.of(record, out) else {
            return self.seen(trace, out);
        };
        if believed && !record.python.is_empty() {
            let unchanged = interpreter.unchanged(&record.python);
            if let Some(generation) = unchanged {
                self.see_python(record, generation);
                if let Some(id) = self.ids.known(&self.sight, trace) {
                    return id;
                }
            }
            let python = python::of_the_moment(&interpreter, record);
            let id = self.define(trace, Some(python), out);
            if let Some(generation) = interpreter.unchanged(&record.python) {
                self.see_python(record, generation);
                self.ids.remember(&self.sight, trace, id);
            }
            return id;
        }
        if place(&trace.frames).is_some()
            && let Some(python) = python::later(&interpreter, record.tid)
        {
            return self.define(trace, Some(python), out);
        }
        self.seen(trace, out)
    }

    /// The number of a trace without frames of Python.
    fn seen(&mut self, trace: &Arc<Trace>, out: &mut Vec<Answer>) -> StackId {
        if let Some(id) = self.ids.known(&self.sight, trace) {
            return id;
        }
        let id = self.define(trace, None, out);
        self.ids.remember(&self.sight, trace, id);
        id
    }

    /// What decides of a trace with frames of Python that the kernel walked.
    fn see_python(&mut self, record: &Record<'_>, generation: u64) {
        let process = record.process;
        self.sight.truncate(1);
        self.sight.extend([
            process.pid.into(),
            process.start_ns,
            process.start_stack,
            generation,
            record.python_more.into(),
        ]);
        let words = record.python.iter().flat_map(|(code, at)| [*code, *at]);
        self.sight.extend(words);
    }

    fn define(
        &mut self,
        trace: &Trace,
        python: Option<merge::Python>,
        out: &mut Vec<Answer>,
    ) -> StackId {
        let (frames, cut) = bounded(merge(trace, python));
        self.ids.number(frames, cut, out)
    }
}

/// Bytes of the texts of a stack that are kept: whoever is watched chooses them, and a recording takes no
/// record without a bound.
const MAX_TEXT: usize = 256 << 10;

/// As much of a stack as there is room for.
fn bounded((mut frames, cut): (Vec<Frame>, Option<Arc<str>>)) -> (Vec<Frame>, Option<Arc<str>>) {
    let mut room = MAX_TEXT;
    let kept = frames.iter().take_while(|frame| {
        let left = room.checked_sub(frame.text_bytes());
        room = left.unwrap_or(0);
        left.is_some()
    });
    let kept = kept.count();
    if kept == frames.len() {
        return (frames, cut);
    }
    frames.truncate(kept);
    (frames, Some(Arc::from("its names are too long")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_end_are_cut() {
        let frame = |bytes: usize| Frame {
            function: Some(Arc::from("f".repeat(bytes))),
            ..Frame::default()
        };
        let all = vec![frame(1 << 10); 300];
        let (kept, cut) = bounded((all, None));
        assert_eq!(kept.len(), 256);
        assert_eq!(cut.as_deref(), Some("its names are too long"));
        let (kept, cut) = bounded((vec![frame(7); 512], None));
        assert_eq!((kept.len(), cut), (512, None));
    }
}

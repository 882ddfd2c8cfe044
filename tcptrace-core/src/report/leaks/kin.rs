//! What became of connections that the same code acquired for other callers: a pool closes those that
//! come back, and who never gives one back has a stack of his own.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::{Fate, places};
use crate::histogram::Durations;
use crate::stack::{Frame, FrameKind, Stack};
use crate::tracker::{Ledger, MAX_PLACES, Tracker};

/// Connections that were acquired by the same code, called from elsewhere.
#[derive(Clone, Debug, PartialEq)]
pub struct Kin {
    /// The outermost function that both have in common.
    pub shared: Frame,
    /// What became of them.
    pub fate: Fate,
}

/// All stacks at which connections were acquired of which some were closed. It is made when it is first
/// asked.
pub(super) struct Kindred<'a> {
    tracker: &'a Tracker,
    index: Option<Index<'a>>,
}

/// Stacks in the order of their frames: those that begin with the same ones are neighbors.
struct Index<'a> {
    /// Numbers for frames.
    numbers: HashMap<&'a Frame, u32>,
    stacks: Vec<(Vec<u32>, &'a Ledger)>,
    /// What became of neighbors.
    fates: BTreeMap<(usize, usize), Fate>,
}

impl<'a> Kindred<'a> {
    pub(super) fn new(tracker: &'a Tracker) -> Kindred<'a> {
        Kindred {
            tracker,
            index: None,
        }
    }

    /// The nearest kin of a stack at which nothing was acquired that was closed.
    pub(super) fn of(&mut self, stack: &Stack) -> Option<Kin> {
        let tracker = self.tracker;
        let index = self.index.get_or_insert_with(|| Index::new(tracker));
        let (same, neighbors) = index.neighbors(&stack.frames)?;
        if !tells(&stack.frames, same) {
            return None;
        }
        let key = (neighbors.start, neighbors.end);
        let ledgers = &index.stacks[neighbors];
        let fate = index.fates.entry(key);
        let fate = fate.or_insert_with(|| together(tracker, ledgers));
        Some(Kin {
            shared: stack.frames[same - 1].clone(),
            fate: fate.clone(),
        })
    }
}

impl<'a> Index<'a> {
    fn new(tracker: &'a Tracker) -> Index<'a> {
        let mut numbers = HashMap::new();
        let mut stacks = Vec::new();
        for (id, ledger) in tracker.ledgers().filter(|(_, ledger)| ledger.closed > 0) {
            let Some(stack) = tracker.stack(id) else {
                continue;
            };
            let frames = stack.frames.iter().map(|frame| {
                let next = numbers.len() as u32;
                *numbers.entry(frame).or_insert(next)
            });
            stacks.push((frames.collect(), ledger));
        }
        stacks.sort_by(|(a, _): &(Vec<u32>, _), (b, _)| a.cmp(b));
        Index {
            numbers,
            stacks,
            fates: BTreeMap::new(),
        }
    }

    /// How many frames, the innermost first, a stack has in common with those that are most like it, and
    /// which these are; `None`: none.
    fn neighbors(&self, frames: &[Frame]) -> Option<(usize, Range<usize>)> {
        let known = frames.iter().map(|frame| self.numbers.get(frame).copied());
        let ours: Vec<u32> = known.map_while(|number| number).collect();
        let at = self.stacks.partition_point(|(theirs, _)| *theirs < ours);
        let near = self.stacks[at.saturating_sub(1)..].iter().take(2);
        let shared = |theirs: &[u32]| ours.iter().zip(theirs).take_while(|(a, b)| a == b).count();
        let same = near.map(|(theirs, _)| shared(theirs)).max()?;
        let begins = |theirs: &[u32]| theirs[..same.min(theirs.len())].cmp(&ours[..same]);
        let first = |(theirs, _): &(Vec<u32>, _)| begins(theirs).is_lt();
        let last = |(theirs, _): &(Vec<u32>, _)| begins(theirs).is_le();
        let range = self.stacks.partition_point(first)..self.stacks.partition_point(last);
        (same > 0).then_some((same, range))
    }
}

/// Whether so many frames, the innermost first, are more than a library: who calls `connect` has nothing
/// in common for that.
fn tells(ours: &[Frame], same: usize) -> bool {
    let common = &ours[..same];
    let python = |frame: &Frame| matches!(frame.kind, FrameKind::Python | FrameKind::PythonLater);
    let library = &ours[0].module;
    if ours.iter().any(python) {
        common.iter().any(python)
    } else if ours.iter().any(|frame| frame.module != *library) {
        common.iter().any(|frame| frame.module != *library)
    } else {
        tells_in_one_module(ours, common)
    }
}

/// The same where the library is in the program's own file. Of Go it is what lies where its runtime lies;
/// else all that is known to be of the library is the function that made the system call.
fn tells_in_one_module(ours: &[Frame], common: &[Frame]) -> bool {
    match ours.iter().find_map(go_library) {
        Some(Some(library)) => {
            let own = |file: &str| !file.starts_with(library);
            common.iter().any(|f| f.file.as_deref().is_some_and(own))
        }
        Some(None) => common.iter().any(is_own_by_path),
        None => {
            let inlined = common.iter().take_while(|f| f.kind == FrameKind::Inlined);
            common.len() > inlined.count() + 1
        }
    }
}

/// The directory of Go's own packages, if the frame is one of its runtime; `Some(None)`: the program was
/// built with `-trimpath`.
fn go_library(frame: &Frame) -> Option<Option<&str>> {
    let file = frame.file.as_deref()?;
    frame.function.as_deref()?.strip_prefix("runtime.")?;
    match file.rfind("/runtime/") {
        Some(at) => Some(Some(&file[..=at])),
        None => file.starts_with("runtime/").then_some(None),
    }
}

/// Whether a frame of Go is not of its own packages, whose import paths have no dot in their first part.
fn is_own_by_path(frame: &Frame) -> bool {
    let function = frame.function.as_deref().unwrap_or_default();
    let package = function.split_once('/').map(|(first, _)| first);
    function.starts_with("main.") || package.is_some_and(|first| first.contains('.'))
}

fn together(tracker: &Tracker, ledgers: &[(Vec<u32>, &Ledger)]) -> Fate {
    let mut held = Durations::default();
    let (mut closed_at, mut otherwise) = (BTreeMap::new(), BTreeMap::new());
    for (_, ledger) in ledgers {
        held.add(&ledger.held);
        for (place, count) in &ledger.places {
            *closed_at.entry(*place).or_default() += count;
        }
        for (cause, count) in &ledger.otherwise {
            *otherwise.entry(*cause).or_default() += count;
        }
    }
    let sum = |of: fn(&Ledger) -> u64| ledgers.iter().map(|(_, ledger)| of(ledger)).sum();
    let quantile = |quantile| held.quantile_ns(quantile);
    let mut places = places(tracker, &closed_at);
    places.truncate(MAX_PLACES);
    Fate {
        acquired: sum(|ledger| ledger.acquired),
        closed: sum(|ledger| ledger.closed),
        places,
        held_ns: quantile(0.5).zip(quantile(0.99)).map(<[u64; 2]>::from),
        otherwise,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::input::{Definition, Event, EventBody, Input, StateChange};
    use crate::stack::{Point, Seen, StackId};
    use crate::state::TcpState;
    use crate::time::Mono;
    use crate::tracker::Options;
    use crate::tuple::Tuple;

    /// `function file module`, the innermost first.
    fn frames(lines: &[&str]) -> Vec<Frame> {
        let frame = |line: &&str| {
            let mut words = line.split(' ').map(|word| Some(Arc::from(word)));
            Frame {
                function: words.next().flatten(),
                file: words
                    .next()
                    .flatten()
                    .filter(|file: &Arc<str>| **file != *"-"),
                module: words.next().flatten(),
                ..Frame::default()
            }
        };
        lines.iter().map(frame).collect()
    }

    /// One connection for each stack, of which those behind the first are closed.
    fn tracker(stacks: &[Vec<Frame>]) -> Tracker {
        let mut tracker = Tracker::new(Options {
            stacks: true,
            ledgers: true,
            ..Options::default()
        });
        let mut apply = |input| tracker.apply(&input, &mut Vec::new());
        for (number, frames) in stacks.iter().enumerate() {
            let (stack, cookie) = (StackId(number as u32), number as u64 + 1);
            apply(Input::Define(Definition::Stack(Stack {
                id: stack,
                frames: frames.clone().into(),
                cut: None,
            })));
            let at = Mono(cookie * 10);
            apply(connects(at, cookie));
            let seen = |point| {
                Input::Stack(Seen {
                    at,
                    cookie,
                    point,
                    pid: 7,
                    tid: 7,
                    stack,
                })
            };
            apply(seen(Point::Connect));
            if number > 0 {
                apply(seen(Point::Close));
            }
        }
        tracker
    }

    fn connects(at: Mono, cookie: u64) -> Input {
        let ends = ([10, 0, 0, 1], 1_000).into();
        let tuple = Tuple::new(ends, ([10, 0, 0, 2], 443).into(), Some(1));
        let change = StateChange::new(tuple, TcpState::Close, TcpState::SynSent);
        Input::Kernel(Event::new(at, cookie, EventBody::State(change)))
    }

    /// What the first has in common with others of its kin, and how many those are.
    fn kin(stacks: &[&[&str]]) -> Option<(String, u64)> {
        let stacks: Vec<Vec<Frame>> = stacks.iter().map(|lines| frames(lines)).collect();
        let tracker = tracker(&stacks);
        let first = tracker.stack(StackId(0)).cloned().expect("it is known");
        let kin = Kindred::new(&tracker).of(&first)?;
        Some((kin.shared.function?.to_string(), kin.fate.closed))
    }

    fn some(shared: &str, closed: u64) -> Option<(String, u64)> {
        Some((shared.to_owned(), closed))
    }

    #[test]
    fn a_library_is_no_kin() {
        let leaky = ["connect - libc", "dial - app", "leaky - app", "main - app"];
        let pooled = ["connect - libc", "dial - app", "fetch - app", "main - app"];
        let other = ["connect - libc", "probe - app", "main - app"];
        assert_eq!(kin(&[&leaky, &pooled, &other]), some("dial", 1));
        assert_eq!(kin(&[&leaky, &pooled, &pooled]), some("dial", 2));
        assert_eq!(kin(&[&leaky, &other]), None);
        assert_eq!(kin(&[&leaky]), None);
    }

    #[test]
    fn a_static_program_of_c_has_kin() {
        let leaky = ["connect - app", "dial - app", "leaky - app", "main - app"];
        let pooled = ["connect - app", "dial - app", "fetch - app", "main - app"];
        let other = ["connect - app", "probe - app", "main - app"];
        assert_eq!(kin(&[&leaky, &pooled, &other]), some("dial", 1));
        assert_eq!(kin(&[&leaky, &other]), None, "nothing but main besides");
    }

    #[test]
    fn of_go_its_own_packages_are_no_kin() {
        for (lib, own) in [
            ("/usr/lib/go/src/", "/srv/app/"),
            ("", "command-line-arguments/"),
        ] {
            let stack = |calls: &[&str]| -> Vec<String> {
                let library = |call: &&str| format!("{call} {lib}net/x.go app");
                let own = |call: &&str| format!("main.{call} {own}main.go app");
                let inner = ["syscall.connect", "net.(*Dialer).Dial"];
                let outer = format!("runtime.goexit {lib}runtime/asm.s app");
                let inner = inner.iter().map(library);
                inner.chain(calls.iter().map(own)).chain([outer]).collect()
            };
            let of = |stacks: &[&[&str]]| {
                let stacks: Vec<Vec<String>> = stacks.iter().map(|calls| stack(calls)).collect();
                let stacks: Vec<Vec<&str>> = stacks
                    .iter()
                    .map(|lines| lines.iter().map(String::as_str).collect())
                    .collect();
                kin(&stacks.iter().map(Vec::as_slice).collect::<Vec<_>>())
            };
            let leaky: &[&str] = &["get", "leaky", "main"];
            let pooled: &[&str] = &["get", "fetch", "main"];
            let other: &[&str] = &["probe", "main"];
            assert_eq!(of(&[leaky, pooled, other]), some("main.get", 1));
            assert_eq!(of(&[leaky, other]), None);
        }
    }

    #[test]
    fn what_became_of_kin_is_summed_up_once() {
        // Each with a caller of its own.
        let stack = |caller: usize| {
            let caller = format!("caller{caller} - app");
            frames(&["connect - libc", "dial - app", &caller, "main - app"])
        };
        let many = 2_000;
        let stacks: Vec<Vec<Frame>> = (0..many).map(stack).collect();
        let tracker = tracker(&stacks);
        let mut kindred = Kindred::new(&tracker);
        for caller in many..2 * many {
            let kin = kindred.of(&Stack {
                id: StackId(caller as u32),
                frames: stack(caller).into(),
                cut: None,
            });
            let kin = kin.expect("dial");
            assert_eq!(kin.fate.closed, many as u64 - 1);
            assert_eq!(kin.fate.places.len(), MAX_PLACES);
        }
        assert_eq!(kindred.index.expect("was asked").fates.len(), 1);
    }
}

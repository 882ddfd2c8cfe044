//! Reports of leaks of whatever comes: their parts agree, they fit the terminal, and no name breaks
//! out of a picture, a line of stacks or a profile.

#[path = "recording/arbitrary.rs"]
mod arbitrary;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::Arc;

use proptest::prelude::*;
use prost::Message;
use tcptrace_core::export::to_pprof;
use tcptrace_core::filter::Filter;
use tcptrace_core::input::{Definition, Event, EventBody, Input, StateChange};
use tcptrace_core::report::flame;
use tcptrace_core::report::leaks::{By, Leaks, LeaksLine, Question, Trends, to_folded};
use tcptrace_core::report::leaks_text::{self, Style};
use tcptrace_core::report::table::width;
use tcptrace_core::stack::{Frame, FrameKind, Point, Seen, Stack, StackId};
use tcptrace_core::state::{StateSet, TcpState};
use tcptrace_core::time::{Mono, WallAnchor};
use tcptrace_core::tracker::{Options, Tracker};
use tcptrace_core::tuple::Tuple;

fn leaks(inputs: &[Input], by: By, min_age_ns: u64) -> Leaks {
    let mut tracker = Tracker::new(Options {
        filter: Filter {
            states: StateSet::all(),
            ..Filter::default()
        },
        ledgers: true,
        ..Options::default()
    });
    let mut trends = Trends::new(Question { by, min_age_ns });
    for input in inputs {
        trends.input(input, &tracker);
        tracker.apply(input, &mut Vec::new());
    }
    let completeness = tracker.summary().completeness;
    Leaks::new(&tracker, trends, completeness, WallAnchor::default())
}

/// Connections that somebody was seen to acquire, among whatever else comes.
fn inputs() -> impl Strategy<Value = Vec<Input>> {
    let acquired = (1u64..9, 0u32..4, arbitrary::input()).prop_map(|(cookie, stack, other)| {
        vec![
            connects(cookie, 5),
            seen(cookie, Point::Connect, stack),
            other,
        ]
    });
    let stacks = prop::collection::vec(arbitrary::stack(), 0..4).prop_map(|stacks| {
        let numbered = stacks.into_iter().zip(0..);
        let define = |(stack, id)| {
            let id = StackId(id);
            Input::Define(Definition::Stack(Stack { id, ..stack }))
        };
        numbered.map(define).collect()
    });
    let rest = prop::collection::vec(acquired, 0..20).prop_map(|all| all.concat());
    (stacks, rest).prop_map(|(stacks, rest): (Vec<Input>, Vec<Input>)| [stacks, rest].concat())
}

fn connects(cookie: u64, at: u64) -> Input {
    let port = 1_000u16.wrapping_add(cookie as u16);
    let ends = ([10, 0, 0, 1], port).into();
    let tuple = Tuple::new(ends, ([10, 0, 0, 2], 443).into(), Some(1));
    let change = StateChange::new(tuple, TcpState::Close, TcpState::SynSent);
    Input::Kernel(Event::new(Mono(at), cookie, EventBody::State(change)))
}

fn seen(cookie: u64, point: Point, stack: u32) -> Input {
    Input::Stack(Seen {
        at: Mono(6),
        cookie,
        point,
        pid: 7,
        tid: 8,
        stack: StackId(stack),
    })
}

fn by() -> impl Strategy<Value = By> {
    prop::sample::select(vec![By::Stack, By::Pid, By::Peer, By::Container])
}

proptest! {
    #[test]
    fn the_parts_agree(inputs in inputs(), by in by()) {
        let leaks = leaks(&inputs, by, 0);
        prop_assert_eq!(leaks.groups.iter().map(|group| group.size()).sum::<u64>(), leaks.total);
        for group in &leaks.groups {
            let sum = |counts: &mut dyn Iterator<Item = u64>| counts.sum::<u64>();
            prop_assert_eq!(sum(&mut group.states.values().copied()), group.count);
            prop_assert_eq!(sum(&mut group.owners.iter().map(|(_, n)| *n)), group.count);
            prop_assert_eq!(sum(&mut group.peers.iter().map(|(_, n)| *n)), group.count);
            prop_assert_eq!(sum(&mut group.samples.iter().map(|s| s.count)), group.count);
            prop_assert!(sum(&mut group.acquired.iter().map(|a| a.count)) <= group.count);
            prop_assert!(group.eof_read + group.eof_unread <= group.count);
        }
        prop_assert!(serde_json::to_string(&LeaksLine::new(&leaks)).is_ok());
    }

    #[test]
    fn it_fits_the_terminal(inputs in inputs(), by in by(), terminal in 1usize..160) {
        let leaks = leaks(&inputs, by, 0);
        let style = Style { terminal: Some(terminal), color: false, top: 3, full_stacks: true };
        for line in leaks_text::to_text(&leaks, style).lines() {
            prop_assert!(width(line) <= terminal, "{line:?}");
            prop_assert!(!line.chars().any(char::is_control), "{line:?}");
        }
    }

    #[test]
    fn no_name_breaks_out(inputs in inputs()) {
        let leaks = leaks(&inputs, By::Stack, 0);
        let sockets: u64 = leaks.groups.iter().map(|group| group.count).sum();
        let svg = flame::to_svg(&leaks);
        prop_assert!(roxmltree::Document::parse(&svg).is_ok(), "{svg}");
        let folded = to_folded(&leaks);
        let counts = folded.lines().map(|line| line.rsplit_once(' ').expect("a count").1);
        prop_assert_eq!(counts.map(|n| n.parse::<u64>().expect("a number")).sum::<u64>(), sockets);
        let profile = profile(&leaks);
        let counts = profile.samples.iter().map(|sample| sample.values[0]);
        prop_assert_eq!(counts.sum::<i64>() as u64, sockets);
        let locations = profile.samples.iter().flat_map(|sample| &sample.locations);
        prop_assert!(locations.copied().all(|id| profile.location(id).id == id));
    }
}

#[test]
fn a_profile_says_what_the_report_says() {
    let frame = |function: &str, kind| Frame {
        function: Some(function.into()),
        file: Some("/srv/pool.c".into()),
        line: Some(12),
        module: Some("/srv/pool".into()),
        build_id: Some("abcd".into()),
        address: 0x40,
        kind,
    };
    let frames: Arc<[Frame]> = [
        frame("connect", FrameKind::Native),
        frame("dial; or not", FrameKind::Inlined),
        frame("fetch", FrameKind::Native),
    ]
    .into();
    let stack = Stack {
        id: StackId(3),
        frames,
        cut: None,
    };
    let inputs = [
        Input::Define(Definition::Stack(stack)),
        connects(1, 1),
        seen(1, Point::Connect, 3),
        connects(2, 2),
        seen(2, Point::Connect, 3),
        connects(3, 3),
        Input::End(Mono(9)),
    ];
    let leaks = leaks(&inputs, By::Stack, 0);
    assert_eq!(
        to_folded(&leaks),
        "?;[no stack] 1\n?;fetch (srv/pool.c:12);dial: or not (srv/pool.c:12);connect (srv/pool.c:12) 2\n"
    );
    let profile = profile(&leaks);
    let text = |id: i64| profile.texts[id as usize].as_str();
    assert_eq!(text(profile.sample_types[0].name), "sockets");
    let sample = &profile.samples[0];
    assert_eq!(sample.values, [2]);
    let names: Vec<Vec<&str>> = sample
        .locations
        .iter()
        .map(|id| {
            let lines = profile.location(*id).lines.iter();
            let function = |line: &Line| profile.functions[line.function as usize - 1].name;
            lines.map(|line| text(function(line))).collect()
        })
        .collect();
    assert_eq!(names, [vec!["connect"], vec!["dial; or not", "fetch"]]);
    let labels: BTreeMap<&str, &str> = sample
        .labels
        .iter()
        .map(|label| (text(label.key), text(label.str)))
        .collect();
    assert_eq!(labels["peer"], "10.0.0.2:443");
    assert_eq!(labels["state"], "syn_sent");
}

/// Of no width, without colors.
fn text(leaks: &Leaks) -> String {
    let style = Style {
        terminal: None,
        color: false,
        top: 3,
        full_stacks: false,
    };
    leaks_text::to_text(leaks, style)
}

#[test]
fn a_trace_without_stacks_says_so() {
    let leaks = leaks(&[connects(1, 5), Input::End(Mono(9))], By::Stack, 0);
    let json = serde_json::to_value(LeaksLine::new(&leaks)).expect("JSON");
    assert_eq!(json["stacks"], serde_json::Value::Null);
    let text = text(&leaks);
    assert!(text.contains("\nthis trace took no stacks\n"), "{text}");
}

#[test]
fn stacks_without_room_are_counted() {
    let all = 70_000u32;
    let inputs: Vec<Input> = (0..all)
        .flat_map(|number| {
            let cookie = u64::from(number) + 1;
            let stack = Stack {
                id: StackId(number),
                frames: Arc::new([Frame::default()]),
                cut: None,
            };
            [
                Input::Define(Definition::Stack(stack)),
                connects(cookie, 5),
                seen(cookie, Point::Connect, number),
            ]
        })
        .collect();
    let leaks = leaks(&inputs, By::Pid, 0);
    let refused = u64::from(all) - 65_536;
    assert_eq!(leaks.stacks.map(|missing| missing.refused), Some(refused));
    assert_eq!(leaks.completeness.stacks_not_taken, refused);
    let text = text(&leaks);
    assert!(text.contains("\nstacks not taken: 4,464 without room to keep them\n"));
}

/// A connection of which `thread_at` is told when it is `told_at`, after `more`.
fn told_late(point: Point, told_at: u64, more: &[Input]) -> Leaks {
    let second = 1_000_000_000;
    let thread = Seen {
        at: Mono(second),
        cookie: 1,
        point,
        pid: 7,
        tid: 8,
        stack: StackId(0),
    };
    let stack = Stack {
        id: StackId(0),
        frames: Arc::new([Frame::default()]),
        cut: None,
    };
    let told = [
        Input::Define(Definition::Stack(stack)),
        Input::Tick(Mono(told_at * second)),
        Input::Stack(thread),
    ];
    leaks(&[more, &told].concat(), By::Stack, 0)
}

#[test]
fn threads_that_are_told_of_too_late_are_counted() {
    let late = |leaks: Leaks| leaks.stacks.map(|missing| missing.late);
    for point in [Point::Connect, Point::Close] {
        // Of a connection that nothing is known of any more.
        assert_eq!(late(told_late(point, 7, &[])), Some(1), "{point}");
        assert_eq!(late(told_late(point, 5, &[])), Some(0), "{point}");
    }
    // One that is still there has lost nothing.
    let there = [connects(1, 5)];
    assert_eq!(late(told_late(Point::Connect, 7, &there)), Some(0));
}

fn profile(leaks: &Leaks) -> Profile {
    let mut bytes = Vec::new();
    let gzip = to_pprof(leaks);
    flate2::read::GzDecoder::new(&gzip[..])
        .read_to_end(&mut bytes)
        .expect("gzip");
    Profile::decode(&bytes[..]).expect("a profile")
}

/// What of pprof's messages tells of samples.
#[derive(Clone, PartialEq, Message)]
struct Profile {
    #[prost(message, repeated, tag = "1")]
    sample_types: Vec<SampleType>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
    #[prost(message, repeated, tag = "4")]
    locations: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    functions: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    texts: Vec<String>,
}

impl Profile {
    fn location(&self, id: u64) -> &Location {
        &self.locations[id as usize - 1]
    }
}

#[derive(Clone, PartialEq, Message)]
struct SampleType {
    #[prost(int64, tag = "1")]
    name: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    locations: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    values: Vec<i64>,
    #[prost(message, repeated, tag = "3")]
    labels: Vec<Label>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(int64, tag = "1")]
    key: i64,
    #[prost(int64, tag = "2")]
    str: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(message, repeated, tag = "4")]
    lines: Vec<Line>,
}

#[derive(Clone, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Function {
    #[prost(int64, tag = "2")]
    name: i64,
}

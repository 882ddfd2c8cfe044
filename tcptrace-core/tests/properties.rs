//! Whatever comes, in whatever order: the tracker survives it and its totals balance.

use proptest::prelude::*;
use prost::Message;
use tcptrace_core::cause::Cause;
use tcptrace_core::change::Change;
use tcptrace_core::export::{Csv, Exporter, Format, Hlog, JsonLines, Pcapng, Perfetto};
use tcptrace_core::filter::Filter;
use tcptrace_core::input::*;
use tcptrace_core::owner::{Actor, Comm, Holder};
use tcptrace_core::recording::Session;
use tcptrace_core::stack::{Point, Seen, StackId};
use tcptrace_core::state::{ALL, StateSet, TcpState};
use tcptrace_core::time::Mono;
use tcptrace_core::tracker::{Minisockets, Options, Tracker};
use tcptrace_core::tuple::Tuple;

fn state() -> impl Strategy<Value = TcpState> {
    (0..ALL.len()).prop_map(|i| ALL[i])
}

fn tuple() -> impl Strategy<Value = Tuple> {
    (0u16..4, 0u16..4, prop::option::of(1u32..3)).prop_map(|(local, remote, netns)| {
        Tuple::new(
            ([10, 0, 0, 1], local).into(),
            ([10, 0, 0, 2], remote).into(),
            netns,
        )
    })
}

fn actor() -> impl Strategy<Value = Actor> {
    (1u32..4).prop_map(|pid| Actor {
        pid,
        tid: pid,
        start_ns: 0,
        cgroup: 0,
        comm: Comm::from_bytes(b"srv"),
    })
}

fn mini_op() -> impl Strategy<Value = MiniOp> {
    prop_oneof![
        Just(MiniOp::Armed {
            timeout_ns: 60_000_000_000
        }),
        prop::option::of(actor()).prop_map(|actor| MiniOp::Cancelled {
            cause: Cause::Unknown,
            actor
        }),
        Just(MiniOp::Killed {
            cause: Cause::Destroyed,
        }),
        Just(MiniOp::Expired),
        Just(MiniOp::Segment),
    ]
}

fn body() -> impl Strategy<Value = EventBody> {
    prop_oneof![
        6 => (state(), state(), tuple(), any::<u16>(), 0u32..120, prop::option::of(actor()))
            .prop_map(|(old, new, tuple, flags, err, actor)| EventBody::State(StateChange {
                tuple, old, new, flags, err, recv_q: 1, send_q: 0, actor,
            })),
        1 => (tuple(), actor(), state()).prop_map(|(tuple, actor, state)| EventBody::Accept {
            tuple, actor, fd: Some(5), state,
        }),
        3 => (tuple(), mini_op(), any::<bool>()).prop_map(|(tuple, op, fw2)| EventBody::Mini {
            tuple,
            substate: if fw2 { TcpState::FinWait2 } else { TcpState::TimeWait },
            op,
        }),
        1 => actor().prop_map(|actor| EventBody::Eof { actor }),
        1 => (actor(), any::<bool>()).prop_map(|(actor, exiting)| EventBody::Close { actor, exiting }),
    ]
}

fn snapshot() -> impl Strategy<Value = SocketSnapshot> {
    (
        1u64..6,
        tuple(),
        state(),
        any::<bool>(),
        0u32..3,
        0u32..100_000,
    )
        .prop_map(|(cookie, tuple, state, mini, inode, ms)| SocketSnapshot {
            at: Mono(0),
            cookie,
            tuple,
            state,
            mini,
            inode,
            uid: 0,
            recv_q: ms,
            send_q: 0,
            timer: if mini {
                Timer::TimeWait { left_ms: ms }
            } else {
                Timer::Off
            },
            last_ack_recv_ms: (inode > 0).then_some(ms),
            last_data_recv_ms: (inode > 1).then_some(ms),
            last_data_sent_ms: None,
            cgroup: None,
            shutdown: None,
            drops: (inode > 1).then_some(ms),
            mptcp: false,
        })
}

#[derive(Clone, Debug)]
enum Step {
    Event(u64, EventBody),
    Socket(SocketSnapshot),
    Begin,
    End,
    Tick,
    Holders(u64, u32),
    Overflow(u64, Tuple, u32),
    Seen(u64, Point, u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0u64..6, body()).prop_map(|(cookie, body)| Step::Event(cookie, body)),
        3 => snapshot().prop_map(Step::Socket),
        1 => Just(Step::Begin),
        1 => Just(Step::End),
        2 => Just(Step::Tick),
        1 => (1u64..6, 0u32..3).prop_map(|(cookie, n)| Step::Holders(cookie, n)),
        1 => (1u64..6, tuple(), any::<u32>()).prop_map(|(cookie, at, n)| Step::Overflow(cookie, at, n)),
        4 => (1u64..6, point(), 0u32..3).prop_map(|(cookie, point, n)| Step::Seen(cookie, point, n)),
    ]
}

fn point() -> impl Strategy<Value = Point> {
    prop::sample::select(vec![
        Point::Connect,
        Point::Accept,
        Point::Eof,
        Point::Close,
    ])
}

fn inputs(steps: &[(Step, u64)]) -> Vec<Input> {
    let mut now = Mono(1_000_000_000_000);
    let mut inputs = Vec::new();
    for (step, ms) in steps {
        now = now.plus(ms * 1_000_000);
        inputs.push(match step.clone() {
            Step::Event(cookie, body) => Input::Kernel(Event {
                at: now,
                cpu: 0,
                cookie,
                sk: cookie,
                body,
            }),
            Step::Socket(socket) => Input::Socket(SocketSnapshot { at: now, ..socket }),
            Step::Begin => Input::Sweep(Sweep::Begin { at: now }),
            Step::End => Input::Sweep(Sweep::End {
                at: now,
                netns: vec![1],
                partly: Vec::new(),
                hidden: 0,
            }),
            Step::Tick => Input::Tick(now),
            Step::Seen(cookie, point, stack) => Input::Stack(Seen {
                at: now.minus(3_000_000),
                cookie,
                point,
                pid: 7,
                tid: 8,
                stack: StackId(stack),
            }),
            Step::Overflow(cookie, tuple, dropped) => Input::Overflow(Overflow {
                at: now,
                first: now,
                cookie,
                tuple,
                dropped: u64::from(dropped),
                queue: 5,
                limit: 4,
            }),
            Step::Holders(cookie, n) => Input::Define(Definition::Holders {
                cookie,
                holders: (1..=n)
                    .map(|pid| Holder {
                        pid,
                        fd: 3,
                        comm: Comm::from_bytes(b"srv"),
                    })
                    .collect(),
            }),
        });
    }
    inputs
}

fn tracker(watched: StateSet, min_age_ns: u64, polled: bool) -> Tracker {
    Tracker::new(Options {
        filter: Filter {
            states: watched,
            min_age_ns,
            ..Filter::default()
        },
        transitions: StateSet::all(),
        by: Vec::new(),
        minisockets: match polled {
            true => Minisockets::Sampled,
            false => Minisockets::Seen,
        },
        overflows_seen: !polled,
        stacks: true,
        ledgers: true,
        selective: false,
        polled_ns: polled.then_some(250_000_000),
        mode: "full".to_owned(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn totals_balance_whatever_comes(
        steps in prop::collection::vec((step(), 0u64..5_000), 0..120),
        min_age in prop_oneof![Just(0u64), Just(1_000_000_000)],
        polled in any::<bool>(),
    ) {
        let mut tracker = tracker(StateSet::all(), min_age, polled);
        let mut changes = Vec::new();
        for input in inputs(&steps) {
            tracker.apply(&input, &mut changes);
        }
        let transitions_left = |state: TcpState| changes.iter().filter(|change| matches!(
            change, Change::Resolved { view, .. } if view.state == state
        )).count() as u64;
        for line in tracker.summary().states {
            prop_assert!(line.entered <= line.left + line.open, "{line:?}");
            prop_assert!(line.estimated <= line.left, "{line:?}");
            prop_assert!(transitions_left(line.state) <= line.left, "{line:?}");
            prop_assert_eq!(line.oldest_open.is_some(), line.open > 0, "{:?}", line);
        }
        for (stack, ledger) in tracker.ledgers() {
            let otherwise: u64 = ledger.otherwise.values().sum();
            let balance = ledger.open + ledger.closed + otherwise;
            prop_assert_eq!(ledger.acquired, balance, "{:?} {:?}", stack, ledger);
            prop_assert!(ledger.held.len() <= ledger.closed);
            prop_assert!(ledger.places.values().sum::<u64>() <= ledger.closed);
        }
        tracker.apply(&Input::End(tracker.now()), &mut changes);
        // The next part of a recording is told what is kept: that changes nothing.
        let ledgers = |tracker: &Tracker| format!("{:?}", tracker.ledgers().collect::<Vec<_>>());
        let before = ledgers(&tracker);
        for seen in tracker.threads_seen() {
            tracker.apply(&Input::Stack(seen), &mut changes);
        }
        prop_assert_eq!(before, ledgers(&tracker));
        let outstanding = tracker.outstanding().filter(|o| o.acquired.is_some()).count();
        prop_assert!(outstanding as u64 <= tracker.ledgers().map(|(_, l)| l.acquired).sum());
    }

    #[test]
    fn a_socket_is_told_stuck_before_it_is_resolved(
        steps in prop::collection::vec((step(), 0u64..5_000), 0..120),
        polled in any::<bool>(),
    ) {
        let mut tracker = tracker(StateSet::all(), 1_000_000_000, polled);
        let mut changes = Vec::new();
        for input in inputs(&steps) {
            tracker.apply(&input, &mut changes);
        }
        let mut stuck = std::collections::BTreeSet::new();
        for change in &changes {
            match change {
                Change::Stuck(view) => { stuck.insert((view.id, view.state)); }
                Change::Resolved { view, .. } => {
                    prop_assert!(stuck.contains(&(view.id, view.state)), "{view:?}");
                }
                Change::Transition { .. } | Change::Overflow { .. } => {}
            }
        }
    }

    #[test]
    fn the_same_inputs_give_the_same_changes(
        steps in prop::collection::vec((step(), 0u64..5_000), 0..80),
    ) {
        let run = || {
            let mut tracker = tracker(StateSet::all(), 1_000_000_000, false);
            let mut changes = Vec::new();
            for input in inputs(&steps) {
                tracker.apply(&input, &mut changes);
            }
            (changes, tracker.summary())
        };
        prop_assert_eq!(run(), run());
    }
}

proptest! {
    // An interval log packs many histograms.
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn exports_take_whatever_comes(
        steps in prop::collection::vec((step(), 0u64..5_000), 0..120),
        polled in any::<bool>(),
    ) {
        let inputs = inputs(&steps);
        twice(JsonLines::default, &inputs, polled);
        twice(Csv::default, &inputs, polled);
        twice(|| Hlog::new(StateSet::all(), 1_000_000_000), &inputs, polled);
        twice(Pcapng::default, &inputs, polled);
        slices_nest(&twice(Perfetto::default, &inputs, polled));
    }
}

/// The same inputs give the same bytes.
#[track_caller]
fn twice<F: Format>(format: impl Fn() -> F, inputs: &[Input], polled: bool) -> Vec<u8> {
    let bytes = exported(format(), inputs, polled);
    assert!(bytes == exported(format(), inputs, polled));
    bytes
}

fn exported(format: impl Format, inputs: &[Input], polled: bool) -> Vec<u8> {
    let mut tracker = tracker(StateSet::EMPTY, 0, polled);
    let (mut changes, mut out) = (Vec::new(), Vec::new());
    let mut exporter = Exporter::new(format, &Session::default(), true, &mut out).expect("a start");
    for input in inputs {
        exporter.input(input, &mut out);
        tracker.apply(input, &mut changes);
        for change in changes.drain(..) {
            exporter.change(&change, &mut out).expect("a change");
        }
        exporter.tidy(&tracker, &mut out).expect("forgotten ones");
    }
    let summary = tracker.summary();
    exporter.end(&tracker, &summary, &mut out).expect("an end");
    out
}

/// On every track lie connections one behind the other, with states in them one behind the other.
#[track_caller]
fn slices_nest(trace: &[u8]) {
    let mut events: Vec<(u64, u64, i32)> = Trace::decode(trace)
        .expect("a trace")
        .packets
        .into_iter()
        .filter_map(|packet| Some((packet.timestamp, packet.event?)))
        .map(|(at, event)| (at, event.track, event.kind))
        .collect();
    events.sort_by_key(|(at, ..)| *at);
    let mut depths = std::collections::BTreeMap::new();
    for (at, track, kind) in events {
        let depth = depths.entry(track).or_insert(0);
        *depth += match kind {
            1 => 1,
            2 => -1,
            _ => 0,
        };
        assert!((0..=2).contains(depth), "{depth} deep on {track} at {at}");
    }
    assert!(depths.values().all(|depth| *depth != 1));
}

/// What of Perfetto's messages tells of slices.
#[derive(Clone, PartialEq, Message)]
struct Trace {
    #[prost(message, repeated, tag = "1")]
    packets: Vec<Packet>,
}

#[derive(Clone, PartialEq, Message)]
struct Packet {
    #[prost(uint64, tag = "8")]
    timestamp: u64,
    #[prost(message, optional, tag = "11")]
    event: Option<TrackEvent>,
}

#[derive(Clone, PartialEq, Message)]
struct TrackEvent {
    #[prost(int32, tag = "9")]
    kind: i32,
    #[prost(uint64, tag = "11")]
    track: u64,
}

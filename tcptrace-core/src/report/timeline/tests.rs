use std::net::SocketAddr;

use super::*;
use crate::filter::Filter;
use crate::input::{Loss, StateChange, Sweep};
use crate::owner::Comm;
use crate::state::StateSet;
use crate::tracker::{Minisockets, Options, Tracker};
use TcpState::*;

#[test]
fn connections_are_named_by_ends_or_id() {
    let ends = |a: &str, b: &str| Ok(Wanted::Ends(a.parse().unwrap(), b.parse().unwrap()));
    let read = |text: &str| text.parse::<Wanted>();
    assert_eq!(
        read("10.0.0.5:41822-10.0.0.9:443"),
        ends("10.0.0.5:41822", "10.0.0.9:443")
    );
    assert_eq!(read("[::1]:1-[::1]:2"), ends("[::1]:1", "[::1]:2"));
    assert_eq!(
        read("[::ffff:10.0.0.5]:1-10.0.0.9:2"),
        ends("10.0.0.5:1", "10.0.0.9:2")
    );
    assert_eq!(read("31ec"), Ok(Wanted::Id(0x31ec, None)));
    assert_eq!(read("31ec.2"), Ok(Wanted::Id(0x31ec, Some(2))));
    for text in [
        "",
        "-",
        "10.0.0.5:1",
        "10.0.0.5-10.0.0.9",
        "xyz",
        "31ec.",
        "+31",
    ] {
        assert!(read(text).is_err(), "{text}");
    }
}

/// A client that connects, loses a while, and is closed; another one to the same server.
fn life(wanted: &str) -> Timeline {
    let actor = Actor {
        pid: 4711,
        tid: 4713,
        start_ns: 1,
        cgroup: 0,
        comm: Comm::from_bytes(b"py\x1b[31m"),
    };
    let at = |ms: u64| Mono(ms * 1_000_000);
    let event = |ms, cookie, port: u16, old, new, by: Option<Actor>| {
        let local = SocketAddr::from(([10, 0, 0, 5], port));
        let tuple = Tuple::new(local, ([10, 0, 0, 9], 443).into(), Some(4));
        let change = StateChange {
            actor: by,
            ..StateChange::new(tuple, old, new)
        };
        Input::Kernel(Event::new(at(ms), cookie, EventBody::State(change)))
    };
    let eof = EventBody::Eof { actor };
    let loss = Loss {
        ring_full: 3,
        ..Loss::default()
    };
    let inputs = [
        Input::Sweep(Sweep::Begin { at: at(1_000) }),
        event(1_001, 7, 0, Close, SynSent, Some(actor)),
        event(1_002, 8, 0, Close, SynSent, Some(actor)),
        event(1_003, 7, 41_822, SynSent, Established, None),
        event(1_004, 8, 41_823, SynSent, Established, None),
        event(16_003, 7, 41_822, Established, CloseWait, None),
        Input::Kernel(Event {
            at: at(16_010),
            cpu: 0,
            cookie: 7,
            sk: 7,
            body: eof,
        }),
        Input::Lost(loss),
        Input::End(at(20_000)),
    ];
    let mut tracker = Tracker::new(Options {
        filter: Filter::default(),
        transitions: StateSet::all(),
        by: Vec::new(),
        minisockets: Minisockets::Seen,
        overflows_seen: true,
        stacks: false,
        ledgers: false,
        selective: false,
        polled_ns: None,
        mode: "full".to_owned(),
    });
    let mut timeline = Timeline::new(wanted.parse().unwrap(), 0);
    for input in &inputs {
        let mut changes = Vec::new();
        tracker.apply(input, &mut changes);
        timeline.input(input);
        changes.iter().for_each(|change| timeline.change(change));
    }
    timeline
}

#[test]
fn a_life_is_told_step_by_step() {
    let expected = "\
7  10.0.0.5:41822 -> 10.0.0.9:443  1970-01-01T00:00:01.001000000Z
     +0.000000  SYN_SENT     connect()  by 4711 thread 4713 py\\x1b[31m
     +0.002000  ESTABLISHED  handshake, after 2.0ms in SYN_SENT
    +15.002000  CLOSE_WAIT   peer sent FIN, after 15.0s in ESTABLISHED
    +15.009000  the end of the stream was read  by 4711 thread 4713 py\\x1b[31m
    +15.009000  3 events were lost before this, of whatever connections
                still CLOSE_WAIT at the end, 3.9s later
";
    for wanted in [
        "10.0.0.5:41822-10.0.0.9:443",
        "10.0.0.9:443-10.0.0.5:41822",
        "7",
        "7.0",
    ] {
        assert_eq!(
            life(wanted).to_text(WallAnchor::default()),
            expected,
            "{wanted}"
        );
    }
}

#[test]
fn another_one_is_not_it() {
    assert!(life("10.0.0.5:41824-10.0.0.9:443").is_empty());
    assert!(life("9").is_empty() && life("7.1").is_empty());
}

#[test]
fn steps_are_objects() {
    let timeline = life("7");
    let objects = timeline.to_json(WallAnchor::default());
    let lines: Vec<String> = objects
        .iter()
        .map(|object| serde_json::to_string(object).expect("an object"))
        .collect();
    assert_eq!(lines.len(), 5);
    assert_eq!(
        lines[2],
        concat!(
            r#"{"type":"step","ts":"1970-01-01T00:00:16.003000000Z","id":"7","#,
            r#""offset_ns":15002000000,"what":"moved","local":"10.0.0.5:41822","#,
            r#""remote":"10.0.0.9:443","netns":4,"old_state":"established","#,
            r#""new_state":"close_wait","cause":"peer_fin","duration_ns":15000000000,"#,
            r#""estimated":false,"pid":null,"tid":null,"comm":null,"fd":null,"holders":null,"#,
            r#""lost":null}"#
        )
    );
}

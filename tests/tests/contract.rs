//! The shape of the JSON lines as `docs/output.md` has it.

use std::collections::BTreeSet;

use serde_json::Value;
use tcptrace_tests::lab::{Conn, Lab};
use tcptrace_tests::oracle::ss;
use tcptrace_tests::require;
use tcptrace_tests::tcptrace::{Event, snapshot};

/// What every line about a connection has, and what its values may be: a letter per JSON type,
/// `n`umber, `s`tring, `b`ool, `l`ist, `-` for null.
const CONNECTION: &[(&str, &str)] = &[
    ("type", "s"),
    ("ts", "s"),
    ("id", "s"),
    ("state", "s"),
    ("estimated", "b"),
    ("local", "s"),
    ("remote", "s"),
    ("netns", "n-"),
    ("role", "s-"),
    ("pid", "n-"),
    ("tid", "n-"),
    ("comm", "s-"),
    ("cmdline", "s-"),
    ("fd", "n-"),
    ("holders", "l-"),
    ("cgroup", "s-"),
    ("container", "s-"),
    ("recv_q", "n-"),
    ("send_q", "n-"),
    ("mini", "b"),
    ("keepalive", "b-"),
    ("verdict", "s-"),
];
const AGE: &[(&str, &str)] = &[("age_ns", "n-")];
const CHANGE: &[(&str, &str)] = &[
    ("duration_ns", "n-"),
    ("old_state", "s"),
    ("new_state", "s"),
    ("cause", "s"),
];

#[test]
fn every_line_has_every_field() {
    require!(root, tracer, ss);
    let lab = Lab::new();
    let mut old = leak(&lab);
    let watch = lab.watch(&["--state", "all", "--transitions", "--min-age", "100ms"]);
    let mut new = leak(&lab);
    for conn in [&mut old, &mut new] {
        watch.stuck(&conn.s.id(), "close_wait");
        conn.server.act("close S");
        watch.wait_for("resolved", |e| {
            e.kind() == "resolved" && e.id() == conn.s.id()
        });
    }
    let run = watch.stop();
    let mut kinds = BTreeSet::new();
    for event in &run.events {
        kinds.insert(event.kind());
        assert_fields(event, CONNECTION);
        match event.kind() {
            "stuck" => assert_fields(event, AGE),
            _ => assert_fields(event, CHANGE),
        }
        assert_time(&event.text("ts"));
        if event.kind() != "stuck" {
            assert_eq!(event.value["old_state"], event.value["state"]);
        }
    }
    assert_eq!(kinds, BTreeSet::from(["stuck", "resolved", "transition"]));
}

#[test]
fn a_snapshot_has_every_field() {
    require!(root, tracer, ss);
    let lab = Lab::new();
    let _leak = leak(&lab);
    let lines = snapshot(&lab.ns, &[]);
    assert_eq!(lines.len(), 3);
    for event in &lines {
        assert_eq!(event.kind(), "socket");
        assert_fields(event, CONNECTION);
        assert_fields(event, AGE);
        assert_time(&event.text("ts"));
    }
}

#[test]
fn the_summary_says_what_is_missing() {
    require!(root, tracer);
    let lab = Lab::new();
    let watch = lab.watch(&[]);
    let _leak = leak(&lab);
    let run = watch.stop();
    assert_time(run.summary["ts"].as_str().expect("a time"));
    let line = &run.summary["states"]["close_wait"];
    for key in ["entered", "left", "open"] {
        assert!(line[key].is_u64(), "no {key} in {line}");
    }
    // Nothing left CLOSE_WAIT: there are no durations, and they are not 0.
    for key in ["min_ns", "p50_ns", "p90_ns", "p99_ns", "p999_ns", "max_ns"] {
        assert_eq!(line.get(key), Some(&Value::Null), "{key} of {line}");
    }
    let completeness = &run.summary["completeness"];
    assert_eq!(completeness["complete"], true);
    for key in ["ring_full", "recursion_missed", "map_full", "reconciled"] {
        assert_eq!(completeness[key], 0, "{completeness}");
    }
}

fn leak(lab: &Lab) -> Conn {
    let mut conn = lab.connect();
    let close = conn.client.act("close C");
    conn.server.act("wait S 8");
    ss::wait(&lab.ns, &close, "fin_wait2");
    conn
}

#[track_caller]
fn assert_fields(event: &Event, fields: &[(&str, &str)]) {
    for (key, kinds) in fields {
        let value = event.value.get(key);
        let value = value.unwrap_or_else(|| panic!("no {key} in {}", event.value));
        let kind = match value {
            Value::Null => '-',
            Value::Bool(_) => 'b',
            Value::Number(_) => 'n',
            Value::String(_) => 's',
            Value::Array(_) => 'l',
            Value::Object(_) => 'o',
        };
        assert!(kinds.contains(kind), "{key} is {value} in {}", event.value);
    }
}

/// `2026-11-22T02:58:31.000000000Z`
#[track_caller]
fn assert_time(text: &str) {
    let form: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    assert_eq!(form, "0000-00-00T00:00:00.000000000Z", "{text}");
}

//! Exports, as programs read them that are not ours.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tcptrace_tests::export::{directory, packets, read, read_json};
use tcptrace_tests::lab::Lab;
use tcptrace_tests::recording::{Run, bustle, lines, run, text};
use tcptrace_tests::require;
use tcptrace_tests::tcptrace::tracer_path;

fn stored() -> PathBuf {
    directory("recordings").join("lifecycle-1.0.rec")
}

/// A recording of connections that go every way, one of which nobody closes.
fn recorded(directory: &Path) -> PathBuf {
    let file = directory.join("it.rec");
    let lab = Lab::new();
    let before = lab.connect();
    let mut run = Run::record(&lab, &file);
    let conns = bustle(&lab);
    drop((before, conns));
    run.stop();
    file
}

/// Exports into a file, or for Parquet into a directory, of this name.
#[track_caller]
fn export(format: &str, recording: &Path, directory: &Path) -> PathBuf {
    let to = directory.join(format);
    run(&[
        "export",
        format,
        text(recording),
        "-O",
        text(&to),
        "--force",
    ]);
    to
}

fn transitions(recording: &Path) -> Vec<Value> {
    let mut lines = lines(&run(&["export", "jsonl", text(recording)]));
    lines.retain(|line| line["type"] == "transition");
    assert!(!lines.is_empty());
    lines
}

/// Compares with what is stored beside the recording; `BLESS=1` rewrites it.
#[track_caller]
fn check(name: &str, found: &str) {
    let file = stored().with_extension(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&file, found).expect("the answer is written");
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    let file = file.display();
    assert!(
        expected == found,
        "{file} says otherwise (BLESS=1 rewrites it):\n{found}"
    );
}

#[test]
fn hdrhistogram_reads_how_long_every_state_was() {
    require!(tracer, python_tools);
    let scratch = tempfile::tempdir().expect("a directory");
    hdrhistogram(&stored(), scratch.path());
}

#[track_caller]
fn hdrhistogram(recording: &Path, scratch: &Path) {
    let found = read_json("read_hlog.py", &export("hlog", recording, scratch));
    let mut expected: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for line in transitions(recording) {
        let state = line["old_state"].as_str().expect("a state");
        let tag = match line["estimated"] == true {
            true => format!("{state}.estimated"),
            false => state.to_owned(),
        };
        // A bound of 0 says nothing.
        let ns = [&line["duration_ns"], &line["age_max_ns"]];
        let ns = ns.into_iter().filter_map(Value::as_u64).find(|ns| *ns > 0);
        expected.entry(tag).or_default().extend(ns);
    }
    expected.retain(|_, all| !all.is_empty());
    let tags: Vec<&String> = found.as_object().expect("an object").keys().collect();
    assert_eq!(tags, expected.keys().collect::<Vec<_>>());
    for (tag, all) in expected {
        assert_eq!(found[&tag]["count"], all.len(), "{tag}");
        let max = all.iter().max().copied().unwrap_or(0) as f64;
        let near = found[&tag]["max"].as_f64().expect("a number") / max;
        assert!(
            (0.999..1.001).contains(&near),
            "{tag}: {max} is {near} of itself"
        );
    }
}

#[test]
fn duckdb_finds_every_transition_and_connection() {
    require!(tracer, python_tools);
    let scratch = tempfile::tempdir().expect("a directory");
    duckdb(&stored(), scratch.path());
}

#[track_caller]
fn duckdb(recording: &Path, scratch: &Path) {
    let found = read_json("read_parquet.py", &export("parquet", recording, scratch));
    let all = transitions(recording);
    let sum = |lines: &[&Value]| -> u64 {
        lines
            .iter()
            .filter_map(|line| line["duration_ns"].as_u64())
            .sum()
    };
    let those = |wanted: &dyn Fn(&Value) -> bool| -> Vec<&Value> {
        all.iter().filter(|line| wanted(line)).collect()
    };
    let every = those(&|_| true);
    assert_eq!(found["transitions"], every.len());
    assert_eq!(found["duration_ns"], sum(&every));
    assert_eq!(found["estimated"], those(&|l| l["estimated"] == true).len());
    assert_eq!(found["without_pid"], those(&|l| l["pid"].is_null()).len());
    let mut comms: Vec<&str> = all.iter().filter_map(|l| l["comm"].as_str()).collect();
    comms.sort_unstable();
    comms.dedup();
    assert_eq!(found["comms"], json!(comms));
    let waited = those(&|l| l["old_state"] == "close_wait");
    assert_eq!(found["close_wait_ns"], sum(&waited));

    // A listener is no connection, and a descriptor is closed after its connection ended.
    let moves = those(&|l| {
        l["old_state"] != l["new_state"] && l["old_state"] != "listen" && l["new_state"] != "listen"
            || l["new_state"] == "syn_recv"
    });
    let ended = those(&|l| l["new_state"] == "close" && moves.contains(&l));
    let mut ids: Vec<&str> = moves.iter().filter_map(|l| l["id"].as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(found["moves"], moves.len());
    assert_eq!(found["ended"], ended.len());
    assert_eq!(found["connections"], found["ids"]);
    // One that only a dump told of has made no move.
    assert!(found["connections"].as_u64() >= Some(ids.len() as u64));
}

#[test]
fn perfetto_nests_states_in_connections_in_lanes_of_processes() {
    require!(tracer, python_tools);
    let scratch = tempfile::tempdir().expect("a directory");
    let trace = export("perfetto", &stored(), scratch.path());
    check("perfetto.txt", &read("read_perfetto.py", &trace));
}

const SEGMENT: [&str; 10] = [
    "frame.time_relative",
    "ip.src",
    "tcp.srcport",
    "ip.dst",
    "tcp.dstport",
    "tcp.flags",
    "tcp.seq",
    "tcp.ack",
    "tcp.stream",
    "frame.comment",
];

#[test]
fn wireshark_sees_conversations_without_a_fault() {
    require!(tracer, tshark);
    let scratch = tempfile::tempdir().expect("a directory");
    let file = export("pcapng", &stored(), scratch.path());
    check("packets.txt", &packets(&file, &SEGMENT));
    wireshark(&file);
}

/// No packet is malformed, retransmitted, lost, out of order, or has a wrong checksum, and each says
/// that it is synthetic.
#[track_caller]
fn wireshark(file: &Path) {
    let fields = [
        "_ws.malformed",
        "tcp.analysis.flags",
        "ip.checksum.status",
        "tcp.checksum.status",
        "ip.version",
        "frame.comment",
    ];
    let packets = packets(file, &fields);
    assert!(packets.lines().count() > 10);
    for packet in packets.lines() {
        let start = match packet.contains("|4|synthetic: ") {
            true => "||1|1|4|synthetic: ",
            false => "|||1|6|synthetic: ",
        };
        assert!(packet.starts_with(start), "{packet}");
    }
}

#[test]
fn bytes_are_not_for_a_terminal() {
    require!(tracer, script);
    let (tracer, stored) = (tracer_path(), stored());
    for (format, code) in [("perfetto", 2), ("pcapng", 2), ("csv", 0)] {
        let typed = format!(
            "{} export -q {format} {}",
            tracer.display(),
            stored.display()
        );
        let mut script = Command::new("script");
        let output = script.args(["-qec", &typed, "/dev/null"]).output();
        let output = output.expect("script starts");
        assert_eq!(output.status.code(), Some(code), "{format}: {output:?}");
    }
}

#[test]
fn what_was_just_recorded_is_read_by_all() {
    require!(root, tracer, python_tools, tshark);
    let scratch = tempfile::tempdir().expect("a directory");
    let recording = recorded(scratch.path());
    hdrhistogram(&recording, scratch.path());
    duckdb(&recording, scratch.path());
    let tree = read(
        "read_perfetto.py",
        &export("perfetto", &recording, scratch.path()),
    );
    assert!(tree.contains("CLOSE_WAIT"), "{tree}");
    wireshark(&export("pcapng", &recording, scratch.path()));
}

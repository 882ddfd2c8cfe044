//! The flight recorder: nothing is written until something happens, and then what led to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tcptrace_tests::child::{LIMIT, until};
use tcptrace_tests::lab::{Conn, Lab};
use tcptrace_tests::pace::scaled;
use tcptrace_tests::peer::Crowd;
use tcptrace_tests::recording::{Run, lines, run, status, text};
use tcptrace_tests::require;
use tcptrace_tests::tcptrace::command;

/// Longer than the tracer lets pass between two looks at its numbers.
const LOOKS: Duration = Duration::from_secs(3);

/// A recorder of this lab that holds what happens.
#[track_caller]
fn armed(lab: &Lab, file: &Path, args: &[&str]) -> Run {
    let netns = lab.ns.inode().to_string();
    let mut record = command(&["record", "-O", text(file), "--netns", &netns]);
    record.args(args);
    Run::start(&mut record)
}

/// Waits until the recorder has said this so many times.
#[track_caller]
fn said(record: &Run, what: &str, times: usize) -> String {
    until(LIMIT, what, || {
        let said = record.process.err.text();
        let mut lines = said.lines().filter(|line| line.contains(what));
        lines.nth(times - 1).map(str::to_owned)
    })
}

fn dump(file: &Path, number: u32) -> PathBuf {
    format!("{}.{number:05}", text(file)).into()
}

fn dumps(directory: &Path) -> usize {
    fs::read_dir(directory).expect("the directory").count()
}

/// Every transition of a recording that is whole.
#[track_caller]
fn transitions(file: &Path) -> Vec<Value> {
    let args = ["replay", "--strict", "--json", "-s", "all", "--transitions"];
    lines(&run(&[&args[..], &[text(file)]].concat()))
}

fn tells(lines: &[Value], id: &str, new_state: &str) -> bool {
    lines
        .iter()
        .any(|line| line["id"] == id && line["new_state"] == new_state)
}

/// A connection whose server does not close.
#[track_caller]
fn leak(lab: &Lab) -> Conn {
    let mut conn = lab.connect();
    conn.client.act("close C");
    conn.server.act("wait S 8");
    conn
}

#[test]
fn a_dump_holds_what_was_before_and_after() {
    require!(root, tracer);
    let lab = Lab::new();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("it.rec");
    let condition = "CLOSE-WAIT >= 3 and close_wait.oldest > 1ms";
    let mut record = armed(
        &lab,
        &file,
        &["--ring", "16M", "--trigger", condition, "--post", "2s"],
    );
    let mut before = leak(&lab);
    before.server.act("close S");
    let mut leaked = vec![leak(&lab), leak(&lab)];
    std::thread::sleep(LOOKS);
    assert_eq!(dumps(directory.path()), 0, "2 are not 3");
    leaked.push(leak(&lab));
    let why = said(&record, "triggered", 1);
    assert!(
        why.contains("close_wait = 3 (>= 3), close_wait.oldest = "),
        "{why}"
    );
    assert!(why.contains("it.rec.00001"), "{why}");
    let after = leak(&lab);
    said(&record, "wrote", 1);

    let told = transitions(&dump(&file, 1));
    assert!(tells(&told, before.s.id().as_str(), "last_ack"), "{told:?}");
    assert!(
        tells(&told, after.s.id().as_str(), "close_wait"),
        "{told:?}"
    );
    for conn in &leaked {
        assert!(tells(&told, conn.s.id().as_str(), "close_wait"), "{told:?}");
    }

    // What stays true fires no more; when it has been false, it does.
    std::thread::sleep(LOOKS);
    assert_eq!(dumps(directory.path()), 1);
    let mut rest = LOOKS;
    until(LIMIT, "another dump", || {
        for mut conn in leaked.drain(..) {
            conn.server.act("close S");
        }
        std::thread::sleep(rest);
        leaked.extend([leak(&lab), leak(&lab)]);
        std::thread::sleep(rest);
        rest *= 2;
        dump(&file, 2).exists().then_some(())
    });
    record.stop();
    // The second begins where the first ends: nothing was dropped between.
    let (first, second) = (dump(&file, 1), dump(&file, 2));
    run(&["replay", "--strict", text(&first), text(&second)]);
    let told = transitions(&second);
    assert!(
        tells(&told, leaked[1].s.id().as_str(), "close_wait"),
        "{told:?}"
    );
    assert!(
        !tells(&told, before.s.id().as_str(), "last_ack"),
        "it is in the first"
    );
    let err = record.process.err.text();
    assert!(err.contains("triggered 2 times"), "{err}");
}

#[test]
fn a_signal_dumps_and_the_end_of_the_run_ends_it() {
    require!(root, tracer);
    let lab = Lab::new();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("it.rec");
    let args = ["--ring", "4M", "--post", "1h", "--keep", "2"];
    for round in 1..4 {
        let mut record = armed(&lab, &file, &args);
        let before = leak(&lab);
        record.process.signal(Signal::USR1);
        said(&record, "SIGUSR1; writing", 1);
        record.process.signal(Signal::USR1);
        said(&record, "goes on for longer", 1);
        let after = leak(&lab);
        record.stop();
        let told = transitions(&dump(&file, round));
        for conn in [before, after] {
            assert!(tells(&told, conn.s.id().as_str(), "close_wait"), "{told:?}");
        }
        let err = record.process.err.text();
        assert!(err.contains("triggered once"), "{err}");
    }
    assert_eq!(dumps(directory.path()), 2, "--keep removes the oldest");
}

#[test]
fn nothing_is_written_where_nothing_happens() {
    require!(root, tracer);
    let lab = Lab::new();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("it.rec");
    let args = ["--ring", "4M", "--trigger", "close_wait > 10 or lost > 1g"];
    let refused = command(&["record", "-O", text(&file)]).args(args).output();
    assert_eq!(refused.expect("tcptrace").status.code(), Some(2));
    let args = [
        "--ring",
        "4M",
        "--trigger",
        "close_wait > 10 or no_port > 0",
    ];
    let mut record = armed(&lab, &file, &args);
    let _leaked = leak(&lab);
    std::thread::sleep(LOOKS);
    record.stop();
    let err = record.process.err.text();
    assert!(err.contains("nothing was written"), "{err}");
    assert_eq!(dumps(directory.path()), 0);
}

#[test]
fn local_ports_that_run_out_trigger() {
    require!(root, tracer);
    let lab = Lab::new();
    let listener = format!("{}:9000", lab.ip);
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("it.rec");
    let args = ["--ring", "4M", "--trigger", "no_port > 0", "--post", "0"];
    let mut record = armed(&lab, &file, &args);
    let mut server = lab.peer();
    server.act(&format!("listen L {listener}"));
    lab.ns.sysctl("ip_local_port_range", "50000 50000");
    let (mut first, mut late) = (lab.peer(), lab.peer());
    first.act(&format!("connect C {listener}"));
    let refused = late.attempt(&format!("connect C {listener}"));
    assert!(refused.error.is_some(), "{refused:?}");
    let why = said(&record, "triggered", 1);
    assert!(why.contains("no_port = 1 (> 0)"), "{why}");
    said(&record, "wrote", 1);
    record.stop();
    let told = transitions(&dump(&file, 1));
    let failed = told.iter().find(|line| line["cause"] == "no_port");
    assert_eq!(failed.expect("the failure")["pid"], late.pid(), "{told:?}");
}

#[test]
fn what_was_true_before_fires_once() {
    require!(root, tracer);
    let lab = Lab::new();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("it.rec");
    let _leaked = leak(&lab);
    let args = ["--ring", "4M", "--trigger", "cw > 0", "--post", "100ms"];
    let mut record = armed(&lab, &file, &args);
    said(&record, "wrote", 1);
    std::thread::sleep(LOOKS);
    record.stop();
    assert_eq!(dumps(directory.path()), 1);
    transitions(&dump(&file, 1));
}

#[test]
fn a_killed_recorder_leaves_what_it_had_written() {
    require!(root, tracer);
    let lab = Lab::new();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("it.rec");
    let record = armed(&lab, &file, &["--ring", "4M", "--post", "1h"]);
    let before = leak(&lab);
    record.process.signal(Signal::USR1);
    said(&record, "SIGUSR1; writing", 1);
    let after = leak(&lab);
    // At most a second of it is not in the file yet.
    std::thread::sleep(LOOKS);
    record.process.signal(Signal::KILL);
    drop(record);
    let dump = dump(&file, 1);
    let told = lines(&run(&["replay", "--json", "--min-age", "0", text(&dump)]));
    for conn in [before, after] {
        let id = conn.s.id();
        assert!(
            told.iter().any(|line| line["id"] == id.as_str()),
            "{told:?}"
        );
    }
    assert_eq!(
        status(command(&["replay", "--strict", text(&dump)])),
        Some(4)
    );
}

#[test]
fn dumps_from_the_midst_of_a_burst_are_whole() {
    require!(root, tracer);
    let lab = Lab::new();
    lab.ns.sysctl("tcp_max_tw_buckets", "1000000");
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("it.rec");
    let args = ["--ring", "4M", "--pre", "1s", "--post", "300ms"];
    let mut record = armed(&lab, &file, &args);
    let (ip, count) = (lab.ip.to_string(), scaled(40_000).to_string());
    let mut crowd = Crowd::start(&lab.ns, &["burst", &ip, &count, "2"]);
    for round in 1..6 {
        record.process.signal(Signal::USR1);
        said(&record, "wrote", round);
        std::thread::sleep(Duration::from_millis(700));
    }
    crowd.truth(3 * LIMIT);
    record.stop();
    crowd.exit();
    let err = record.process.err.text();
    assert!(err.contains("triggered 5 times"), "{err}");
    let mut entered = 0;
    for number in 1..6 {
        let told = lines(&run(&["replay", "--json", text(&dump(&file, number))]));
        let summary = &told[told.len() - 1];
        // Whatever was lost is lost for good; what begins and ends with a dump is no loss.
        let completeness = &summary["completeness"];
        for reason in ["gaps", "unread_bytes", "unlisted"] {
            assert_eq!(completeness[reason], 0, "{number}: {summary}");
        }
        if completeness["ring_full"] == 0 && completeness["recursion_missed"] == 0 {
            assert_eq!(completeness["complete"], true, "{number}: {summary}");
        }
        entered += summary["states"]["time_wait"]["entered"]
            .as_u64()
            .unwrap_or(0);
    }
    assert!(entered > 0);
}

//! What is printed of stored recordings, byte by byte. `BLESS=1` rewrites what is expected.
//!
//! A recording stays for ever, and keeps its answers: it stands for all that users have of its
//! version of the format.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest as _, Sha256};

/// What is asked of every recording, and the name of the answer.
const QUESTIONS: [(&str, &str, &[&str]); 11] = [
    ("watch.txt", "replay", &["-T=utc"]),
    ("watch.jsonl", "replay", &["--json", "--by", "comm,cause"]),
    (
        "transitions.txt",
        "replay",
        &["--state", "all", "--transitions", "-T=rel", "--wide"],
    ),
    (
        "transitions.jsonl",
        "replay",
        &["--state", "all", "--transitions", "--json"],
    ),
    (
        "part.txt",
        "replay",
        &["--from", "3s", "--to", "6s", "-T=ns", "--min-age", "100ms"],
    ),
    (
        "close_wait.txt",
        "replay",
        &["-s", "close_wait", "--min-age", "0", "--by", "comm"],
    ),
    ("report.txt", "report", &["--percentiles"]),
    (
        "report.part.txt",
        "report",
        &[
            "--from",
            "2s",
            "--hist",
            "established,close_wait",
            "--by",
            "peer",
            "--top",
            "1",
        ],
    ),
    ("report.json", "report", &["--json"]),
    ("report.html", "report", &["--html", "-"]),
    ("report.svg", "report", &["--svg", "-", "-s", "all"]),
];

/// What is asked of two recordings.
const DIFFERENCES: [(&str, &[&str]); 2] = [("diff.txt", &["--all"]), ("diff.json", &["--json"])];

/// Connections of a recording whose lives are told.
const LIVES: [(&str, &str, &[&str]); 2] = [
    (
        "lifecycle-1.0",
        "server.txt",
        &["--conn", "127.0.0.1:8080-127.0.0.1:41398"],
    ),
    (
        "lifecycle-1.1",
        "server.txt",
        &["--conn", "127.0.0.1:8080-127.0.0.1:41398"],
    ),
];

#[test]
fn stored_recordings_keep_their_answers() {
    let recordings = recordings();
    assert!(!recordings.is_empty());
    for file in recordings {
        for (answer, verb, question) in QUESTIONS {
            let text = file.to_str().expect("UTF-8");
            check(
                &file.with_extension(answer),
                &[&[verb, "--strict", text], question].concat(),
            );
        }
    }
}

#[test]
fn stored_recordings_keep_their_differences() {
    let files = recordings();
    for pair in files.windows(2) {
        let [before, after] = [&pair[0], &pair[1]].map(|file| file.to_str().expect("UTF-8"));
        for (answer, question) in DIFFERENCES {
            let asked = [&["diff", "--strict", before, after], question].concat();
            check(&pair[1].with_extension(answer), &asked);
        }
    }
}

/// What every recording is exported as, in text, and the name of that.
const EXPORTS: [(&str, &[&str]); 2] = [
    ("export.csv", &["csv"]),
    ("export.hlog", &["hlog", "--interval", "2s"]),
];

#[test]
fn exports_in_text_stay_what_they_are() {
    for file in recordings() {
        let text = file.to_str().expect("UTF-8");
        for (name, format) in EXPORTS {
            let asked = [&["export", "--strict"], format, &[text]].concat();
            check(&file.with_extension(name), &asked);
        }
        let replayed = answer(&["replay", text, "--transitions", "--json"]);
        assert!(answer(&["export", "jsonl", text]) == replayed, "{text}");
    }
}

/// What is in them is told by `perfetto.txt` and `packets.txt`, which the live suite compares.
#[test]
fn exports_in_binary_stay_what_they_are() {
    for file in recordings() {
        let text = file.to_str().expect("UTF-8");
        let mut digests = String::new();
        for format in ["perfetto", "pcapng"] {
            let bytes = answer(&["export", format, text, "--strict"]);
            let (length, digest) = (bytes.len(), Sha256::digest(&bytes));
            digests.push_str(&format!("{digest:x}  {length} bytes of {format}\n"));
            assert!(bytes == answer(&["export", format, text]), "{format} twice");
        }
        compare(&file.with_extension("export.sha256"), digests.as_bytes());
    }
}

/// What is asked of the recording with stacks.
const LEAKS: [(&str, &str, &[&str]); 7] = [
    ("leaks.txt", "leaks", &[]),
    ("leaks.json", "leaks", &["--json"]),
    ("leaks.folded", "leaks", &["--folded"]),
    ("leaks.svg", "leaks", &["--flamegraph", "-"]),
    (
        "leaks.pid.txt",
        "leaks",
        &["--by", "pid", "--top", "1", "--from", "2s", "--to", "12s"],
    ),
    (
        "leaks.growing.txt",
        "leaks",
        &[
            "--by",
            "peer",
            "--growing",
            "--min-age",
            "0",
            "-s",
            "cw,last_ack",
        ],
    ),
    ("stack.txt", "replay", &["--stack", "-T=rel"]),
];

#[test]
fn leaks_are_told_as_ever() {
    let file = directory().join("stacks-1.2.rec");
    let text = file.to_str().expect("UTF-8");
    for (answer, verb, question) in LEAKS {
        let asked = [&[verb, "--strict", text], question].concat();
        check(&file.with_extension(answer), &asked);
    }
}

#[test]
fn lives_are_told_as_ever() {
    for (name, answer, question) in LIVES {
        let file = directory().join(format!("{name}.rec"));
        let text = file.to_str().expect("UTF-8");
        check(
            &file.with_extension(answer),
            &[&["replay", "--strict", text], question].concat(),
        );
    }
}

#[track_caller]
fn check(expected: &Path, asked: &[&str]) {
    compare(expected, &answer(asked));
}

/// What is printed for these arguments.
#[track_caller]
fn answer(asked: &[&str]) -> Vec<u8> {
    let output = Command::new(env!("CARGO_BIN_EXE_tcptrace"))
        .args(asked)
        .arg("--quiet")
        .env("TZ", "UTC")
        .output()
        .expect("tcptrace starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{asked:?}: {stderr}");
    assert_eq!(stderr, "", "{asked:?}");
    output.stdout
}

#[track_caller]
fn compare(expected: &Path, found: &[u8]) {
    if std::env::var_os("BLESS").is_some() {
        fs::write(expected, found).expect("the answer is written");
        return;
    }
    let text = fs::read(expected).unwrap_or_default();
    assert!(
        text == found,
        "{} says otherwise (BLESS=1 rewrites it):\n{}",
        expected.display(),
        String::from_utf8_lossy(found)
    );
}

fn recordings() -> Vec<PathBuf> {
    let entries = fs::read_dir(directory()).expect("tests/recordings");
    let files = entries.map(|entry| entry.expect("an entry").path());
    let mut files: Vec<PathBuf> = files
        .filter(|file| file.extension().is_some_and(|e| e == "rec"))
        .collect();
    files.sort();
    files
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/recordings")
}

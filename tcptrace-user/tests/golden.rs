//! What is printed of stored recordings, byte by byte. `BLESS=1` rewrites what is expected.
//!
//! A recording stays for ever, and keeps its answers: it stands for all that users have of its
//! version of the format.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

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
    let output = Command::new(env!("CARGO_BIN_EXE_tcptrace"))
        .args(asked)
        .arg("--quiet")
        .env("TZ", "UTC")
        .output()
        .expect("tcptrace starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{asked:?}: {stderr}");
    assert_eq!(stderr, "", "{asked:?}");
    if std::env::var_os("BLESS").is_some() {
        fs::write(expected, &output.stdout).expect("the answer is written");
        return;
    }
    let text = fs::read(expected).unwrap_or_default();
    assert!(
        text == output.stdout,
        "{} says otherwise (BLESS=1 rewrites it):\n{}",
        expected.display(),
        String::from_utf8_lossy(&output.stdout)
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

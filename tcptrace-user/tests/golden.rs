//! What is printed of stored recordings, byte by byte. `BLESS=1` rewrites what is expected.
//!
//! A recording stays for ever, and keeps its answers: it stands for all that users have of its
//! version of the format.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is asked of every recording, and the name of the answer.
const QUESTIONS: [(&str, &[&str]); 6] = [
    ("watch.txt", &["-T=utc"]),
    ("watch.jsonl", &["--json", "--by", "comm,cause"]),
    (
        "transitions.txt",
        &["--state", "all", "--transitions", "-T=rel", "--wide"],
    ),
    (
        "transitions.jsonl",
        &["--state", "all", "--transitions", "--json"],
    ),
    (
        "part.txt",
        &["--from", "3s", "--to", "6s", "-T=ns", "--min-age", "100ms"],
    ),
    (
        "close_wait.txt",
        &["-s", "close_wait", "--min-age", "0", "--by", "comm"],
    ),
];

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
        for (answer, question) in QUESTIONS {
            check(&file, answer, question);
        }
    }
}

#[test]
fn lives_are_told_as_ever() {
    for (name, answer, question) in LIVES {
        check(&directory().join(format!("{name}.rec")), answer, question);
    }
}

#[track_caller]
fn check(file: &Path, answer: &str, question: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_tcptrace"))
        .args(["replay", "--strict"])
        .arg(file)
        .args(question)
        .env("TZ", "UTC")
        .output()
        .expect("tcptrace starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{question:?}: {stderr}");
    assert_eq!(stderr, "", "{question:?}");
    let expected = file.with_extension(answer);
    if std::env::var_os("BLESS").is_some() {
        fs::write(&expected, &output.stdout).expect("the answer is written");
        return;
    }
    let text = fs::read(&expected).unwrap_or_default();
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

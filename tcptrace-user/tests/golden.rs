//! What is printed of stored recordings, byte by byte. `BLESS=1` rewrites what is expected.
//!
//! A recording stays for ever, and keeps its answers: it stands for all that users have of its
//! version of the format.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest as _, Sha256};

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
const LIVES: [(&str, &str, &[&str]); 1] = [(
    "lifecycle-1.0",
    "server.txt",
    &["--conn", "127.0.0.1:8080-127.0.0.1:41398"],
)];

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

/// What every recording is exported as, in text, and the name of that.
const EXPORTS: [(&str, &[&str]); 2] = [
    ("export.csv", &["csv"]),
    ("export.hlog", &["hlog", "--interval", "2s"]),
];

#[test]
fn exports_in_text_stay_what_they_are() {
    for file in recordings() {
        for (answer, format) in EXPORTS {
            compare(&file, answer, &export(&file, format));
        }
        let replayed = replay(&file, &["--transitions", "--json"]);
        assert!(export(&file, &["jsonl"]) == replayed, "{}", file.display());
    }
}

/// What is in them is told by `perfetto.txt` and `packets.txt`, which the live suite compares.
#[test]
fn exports_in_binary_stay_what_they_are() {
    for file in recordings() {
        let mut digests = String::new();
        for format in ["perfetto", "pcapng"] {
            let bytes = export(&file, &[format]);
            let (length, digest) = (bytes.len(), Sha256::digest(&bytes));
            digests.push_str(&format!("{digest:x}  {length} bytes of {format}\n"));
            assert!(bytes == export(&file, &[format]), "{format} twice");
        }
        compare(&file, "export.sha256", digests.as_bytes());
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
    compare(file, answer, &replay(file, question));
}

#[track_caller]
fn replay(file: &Path, question: &[&str]) -> Vec<u8> {
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
    output.stdout
}

#[track_caller]
fn export(file: &Path, format: &[&str]) -> Vec<u8> {
    let (name, options) = format.split_first().expect("a format");
    let output = Command::new(env!("CARGO_BIN_EXE_tcptrace"))
        .args(["export", name])
        .arg(file)
        .args(options)
        .args(["--strict", "--quiet"])
        .output()
        .expect("tcptrace starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{format:?}: {stderr}");
    assert_eq!(stderr, "", "{format:?}");
    output.stdout
}

#[track_caller]
fn compare(file: &Path, answer: &str, found: &[u8]) {
    let expected = file.with_extension(answer);
    if std::env::var_os("BLESS").is_some() {
        fs::write(&expected, found).expect("the answer is written");
        return;
    }
    let text = fs::read(&expected).unwrap_or_default();
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

//! The manners of `tcptrace export`: where it writes, what it refuses, how it ends.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn stored() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/recordings/lifecycle-1.0.rec")
}

fn command(format: &str, file: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tcptrace"));
    command.args(["export", format]).arg(file);
    command
}

#[track_caller]
fn ends(command: &mut Command, code: i32) -> Output {
    let output = command.output().expect("tcptrace starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{command:?}: {stderr}");
    output
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_file_is_its_owners_and_none_is_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    for format in ["jsonl", "csv", "hlog", "perfetto", "pcapng"] {
        let to = directory.path().join(format);
        let done = ends(command(format, &stored()).arg("-O").arg(&to), 0);
        assert_eq!(said(&done), "tcptrace: data: complete; mode full\n");
        assert!(done.stdout.is_empty());
        assert_eq!(
            fs::metadata(&to).unwrap().permissions().mode() & 0o7777,
            0o600
        );
        let printed = ends(&mut command(format, &stored()), 0).stdout;
        assert!(fs::read(&to).unwrap() == printed, "{format}");

        let again = ends(command(format, &stored()).arg("-O").arg(&to), 2);
        assert!(said(&again).contains("--force"), "{}", said(&again));
        assert!(fs::read(&to).unwrap() == printed, "{format}");
        ends(
            command(format, &stored()).arg("--force").arg("-O").arg(&to),
            0,
        );
    }
}

#[test]
fn what_is_no_recording_leaves_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let to = directory.path().join("it.csv");
    let none = Path::new("/dev/null");
    ends(command("csv", none).arg("-O").arg(&to), 1);
    assert!(!to.exists());
}

#[test]
fn what_is_missing_is_told_and_fails_where_it_must_not_be() {
    let directory = tempfile::tempdir().unwrap();
    let torn = directory.path().join("torn.rec");
    let whole = fs::read(stored()).unwrap();
    fs::write(&torn, &whole[..whole.len() - 400]).unwrap();
    for format in ["jsonl", "csv", "hlog", "perfetto", "pcapng"] {
        let lax = ends(&mut command(format, &torn), 0);
        assert!(said(&lax).contains("data: INCOMPLETE"), "{}", said(&lax));
        let strict = ends(command(format, &torn).arg("--strict"), 4);
        assert!(strict.stdout == lax.stdout, "{format}");
    }
}

#[test]
fn a_reader_that_went_away_is_no_failure() {
    for format in ["jsonl", "csv", "hlog", "perfetto", "pcapng"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command(format, &stored())
            .stdout(writer)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{format}");
        assert_eq!(said(&output), "", "{format}");
    }
}

#[test]
fn a_full_disk_is_a_failure() {
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = ends(command("csv", &stored()).stdout(full), 1);
    assert!(
        said(&output).contains("cannot write the output"),
        "{}",
        said(&output)
    );
}

#[test]
fn a_part_and_some_sockets_can_be_asked_for() {
    let rows = |args: &[&str]| {
        let output = ends(command("csv", &stored()).args(args), 0);
        String::from_utf8(output.stdout).unwrap().lines().count() - 1
    };
    let all = rows(&[]);
    assert_eq!(all, 57);
    assert_eq!(rows(&["--to", "3s"]) + rows(&["--from", "3s"]), all);
    assert_eq!(rows(&["--comm", "nobody"]), 0);
    assert!((1..all).contains(&rows(&["--state", "close_wait"])));
    assert!((1..all).contains(&rows(&["--role", "active"])));
}

#[cfg(not(feature = "parquet"))]
#[test]
fn a_build_without_parquet_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let to = directory.path().join("tables");
    let output = ends(command("parquet", &stored()).arg("-O").arg(&to), 2);
    assert!(
        said(&output).contains("--features parquet"),
        "{}",
        said(&output)
    );
    assert!(!to.exists());
}

#[cfg(feature = "parquet")]
#[test]
fn parquet_is_two_files_in_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let to = directory.path().join("tables");
    ends(command("parquet", &stored()).arg("-O").arg(&to), 0);
    for table in ["connections.parquet", "transitions.parquet"] {
        let bytes = fs::read(to.join(table)).unwrap();
        assert!(
            bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"),
            "{table}"
        );
    }
    ends(command("parquet", &stored()).arg("-O").arg(&to), 2);
    ends(
        command("parquet", &stored())
            .arg("--force")
            .arg("-O")
            .arg(&to),
        0,
    );
}

//! The contract of the command line: help, exit codes, what goes to which stream. Nothing here
//! needs privileges or a network.

use std::fs::File;
use std::process::{Command, Output, Stdio};

fn tcptrace(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tcptrace"));
    command.args(args).env_remove("NO_COLOR");
    command
}

fn run(args: &[&str]) -> Output {
    tcptrace(args).output().expect("tcptrace starts")
}

/// Standard output of a run that succeeds and has nothing to complain about.
#[track_caller]
fn stdout(args: &[&str]) -> String {
    let output = run(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {stderr}");
    assert_eq!(stderr, "", "{args:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Standard error of a run that is refused as a wrong usage.
#[track_caller]
fn refused(args: &[&str]) -> String {
    let output = run(args);
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
    assert!(output.stdout.is_empty(), "{args:?} wrote to stdout");
    assert!(
        stderr.ends_with('\n') && !stderr.contains("panicked"),
        "{stderr}"
    );
    stderr
}

const VERBS: [&str; 11] = [
    "watch",
    "record",
    "replay",
    "leaks",
    "export",
    "snapshot",
    "kill",
    "doctor",
    "explain",
    "completions",
    "man",
];

#[test]
fn every_verb_has_help_with_examples() {
    for verb in VERBS {
        let long = stdout(&[verb, "--help"]);
        let examples = long.split_once("EXAMPLES").expect(verb).1;
        let count = examples
            .lines()
            .filter(|l| l.starts_with("  ") && l.contains("tcptrace "))
            .count();
        assert!((4..=6).contains(&count), "{verb}: {count} examples");
        let short = stdout(&[verb, "-h"]);
        assert!(
            short.len() < long.len() && !short.contains("EXAMPLES"),
            "{verb}"
        );
    }
    assert!(stdout(&["--help"]).contains("EXAMPLES"));
}

#[test]
fn examples_can_be_typed() {
    for verb in [
        "watch", "record", "replay", "leaks", "export", "snapshot", "kill", "doctor", "explain",
    ] {
        let help = stdout(&[verb, "--help"]);
        let examples = help.split_once("EXAMPLES").expect(verb).1;
        for line in examples.lines().filter(|l| l.contains("tcptrace ")) {
            let typed = line.split_once("tcptrace ").map_or(line, |(_, args)| args);
            // Up to what is the shell's; `-h` stops it after the arguments were read.
            let args = words(typed);
            let ours = args
                .iter()
                .take_while(|w| !matches!(w.as_str(), ">" | "|" | "||" | "--"));
            let mut args: Vec<&str> = ours.map(|w| w.trim_matches('\'')).collect();
            args.push("-h");
            stdout(&args);
        }
    }
}

/// As a shell parts them; what stands in quotes keeps them.
fn words(line: &str) -> Vec<String> {
    let mut quoted = false;
    let parts = line.split(|c: char| {
        quoted ^= c == '\'';
        c.is_whitespace() && !quoted
    });
    let words = parts.filter(|word| !word.is_empty()).map(str::to_owned);
    words.collect()
}

#[test]
fn topics_are_listed_explained_and_suggested() {
    let list = stdout(&["explain"]);
    assert!(
        list.contains("\nFindings\n") && list.contains("\n  close_wait "),
        "{list}"
    );
    assert!(list.lines().all(|l| l.chars().count() <= 100), "{list}");
    let text = stdout(&["explain", "Errno", "99"]);
    assert!(
        text.starts_with("eaddrnotavail: ") && text.contains("\n  here: "),
        "{text}"
    );
    assert_eq!(text, stdout(&["explain", "EADDRNOTAVAIL"]));
    let json = stdout(&["explain", "cw", "--json"]);
    let object: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(object["topic"], "close_wait");
    assert_eq!(object["group"], "States");
    assert!(
        object["text"]
            .as_str()
            .is_some_and(|text| text.contains("WHAT TO DO"))
    );
    assert!(object["values"][0]["name"].is_string(), "{object}");
    assert_eq!(
        stdout(&["explain", "--json"]).lines().count(),
        list.matches("\n  ").count()
    );
    let error = refused(&["explain", "clsoe_wait"]);
    assert!(
        error.contains("'clsoe_wait'") && error.contains("there is close_wait"),
        "{error}"
    );
    refused(&["explain", "\u{1b}[2J"]);
}

#[test]
fn what_selects_every_socket_is_not_destroyed() {
    for args in [
        &["kill"][..],
        &["kill", "--yes"],
        &["kill", "--min-age", "10m", "--yes"],
        &["kill", "-s", "all", "--yes"],
    ] {
        assert!(refused(args).contains("select every socket"), "{args:?}");
    }
    for (args, what) in [
        (&["kill", "-s", "cw", "--rate", "0"][..], "is not a rate"),
        (&["kill", "-s", "cw", "--evidence", "-"], "goes to a file"),
    ] {
        assert!(refused(args).contains(what), "{args:?}");
    }
}

#[test]
fn without_a_verb_the_help_is_the_error() {
    assert!(refused(&[]).contains("Usage: tcptrace"));
}

#[test]
fn the_version_names_object_and_abi() {
    for args in [&["--version"][..], &["-V"], &["watch", "--version"]] {
        let version = stdout(args);
        assert!(
            version.contains("(object ") && version.contains(", ABI 6)"),
            "{version}"
        );
    }
}

#[test]
fn wrong_usage_says_what_and_how() {
    for (args, what) in [
        (&["wach"][..], "watch"),
        (&["watch", "--sate", "cw"], "--state"),
        (&["watch", "--state", "clsoe"], "'clsoe' is not a TCP state"),
        (&["watch", "--state", ""], "is not a TCP state"),
        (&["watch", "--min-age", "10x"], "is not a duration"),
        (&["watch", "-d", "soon"], "is not a duration"),
        (&["watch", "-L", "65536"], "'65536' is not a port"),
        (&["watch", "--port", "http"], "'http' is not a port"),
        (
            &["watch", "--raddr", "10.0.0.0/33"],
            "not an address or a network",
        ),
        (
            &["watch", "--laddr", "localhost"],
            "not an address or a network",
        ),
        (&["watch", "--role", "both"], "is not a role"),
        (&["watch", "--by", "colour"], "is no key"),
        (&["watch", "--ring-size", "8X"], "is not a size"),
        (&["watch", "-T=now"], "local, utc, rel, ns"),
        (&["record", "--rotate", "64"], "neither a size"),
        (&["record", "--keep", "3"], "--rotate"),
        (
            &["record", "-O", "-", "--rotate", "1h"],
            "standard output is one file",
        ),
        (
            &["record", "-O", "-", "--ring", "8M"],
            "standard output is one file",
        ),
        (&["record", "--ring", "1M"], "not a size of 4M or more"),
        (
            &["record", "--ring", "8M", "--rotate", "1h"],
            "cannot be used with",
        ),
        (
            &["record", "--ring", "8M", "--force"],
            "cannot be used with",
        ),
        (&["record", "--trigger", "cw > 1"], "--ring"),
        (&["record", "--post", "1s"], "--ring"),
        (
            &["record", "--ring", "8M", "--trigger", "close_wait > > 5"],
            "  close_wait > > 5\n               ^",
        ),
        (
            &["record", "--ring", "8M", "-s", "cw", "--trigger", "tw > 9"],
            "time_wait, which is not recorded",
        ),
        (
            &["record", "--ring", "8M", "-O", "/no/such/dump.rec"],
            "its directory does not exist",
        ),
        (&["record", "-p", "1", "--", "true"], "cannot be used with"),
        (&["replay"], "<FILE>"),
        (&["replay", "no-such.rec"], "cannot open no-such.rec"),
        (&["replay", "/dev/null", "-"], "no part of a rotation"),
        (&["replay", "-", "--speed", "0"], "is not a speed"),
        (&["replay", "-", "--from", "noon"], "is no moment"),
        (&["replay", "-", "--conn", "x"], "is no connection"),
        (&["replay", "-", "--netns", "shop"], "is not the number"),
        (&["export", "xml", "-"], "'xml'"),
        (&["export", "csv"], "<FILE>"),
        (&["export", "csv", "-", "--interval", "1s"], "is of hlog"),
        (
            &["export", "hlog", "-", "--interval", "1us"],
            "less than 1ms",
        ),
        (&["export", "perfetto", "-", "-s", "cw"], "in all states"),
        (
            &["export", "csv", "-", "--min-age", "1s"],
            "does not tell that",
        ),
        (&["export", "parquet", "-"], "parquet"),
        (&["leaks", "--by", "colour"], "is none of these"),
        (&["leaks", "--json", "--folded"], "cannot be used with"),
        (
            &["leaks", "--flamegraph", "-", "--pprof", "-"],
            "two documents",
        ),
        (&["leaks", "-s", "listen"], "nothing lingers in listen"),
        (&["leaks", "x.rec", "-d", "1s"], "--duration is for a live"),
        (
            &["leaks", "x.rec", "--stacks", "fp"],
            "--stacks is for a live",
        ),
        (&["leaks", "--from", "1s"], "and this one is live"),
        (
            &["watch", "--stack", "--stacks", "none"],
            "--stack prints stacks",
        ),
        (&["watch", "--stacks", "lbr"], "auto, fp, dwarf, none"),
        (&["record", "--stack-rate", "0"], "0 is not in 1"),
        (&["watch", "-4", "-6"], "cannot be used with"),
        (&["watch", "-p", "0"], "a number from 1 on"),
        (&["watch", "-p", "python3"], "for a name use --comm"),
        (&["snapshot", "--by", "cause"], "is no key of a snapshot"),
        (
            &["snapshot", "--all-netns", "--netns", "1"],
            "cannot be used with",
        ),
        (&["completions", "tcsh"], "bash"),
        (&["man", "wach"], "no command 'wach'"),
    ] {
        let stderr = refused(args);
        assert!(stderr.starts_with("tcptrace: "), "{args:?}: {stderr}");
        assert!(stderr.contains(what), "{args:?}: {stderr}");
    }
}

#[test]
fn what_is_not_there_is_refused_with_a_hint() {
    for (args, what) in [
        (
            &["watch", "-p", "4194305"][..],
            "tcptrace: no process 4194305\nhint: ",
        ),
        (
            &["watch", "--netns", "no-such"],
            "tcptrace: no network namespace 'no-such'\nhint: ",
        ),
        (
            &["watch", "--netns", "/etc/passwd"],
            "tcptrace: no network namespace",
        ),
    ] {
        let stderr = refused(args);
        assert!(stderr.starts_with(what), "{args:?}: {stderr}");
    }
}

#[test]
fn what_was_typed_cannot_drive_the_terminal() {
    for args in [
        &["watch", "--state", "\x1b[2J"][..],
        &["\x1b]0;x\x07"],
        &["man", "\x1b[2J"],
        &["watch", "--netns", "\x1b[2J"],
    ] {
        let stderr = refused(args);
        assert!(!stderr.contains(['\x1b', '\x07']), "{stderr:?}");
    }
}

#[test]
fn completions_know_the_verbs() {
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(&["completions", shell]);
        for word in ["watch", "snapshot", "min-age"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn every_verb_has_a_manual_page() {
    for args in [
        &["man"][..],
        &["man", "watch"],
        &["man", "record"],
        &["man", "replay"],
        &["man", "leaks"],
        &["man", "export"],
        &["man", "snapshot"],
        &["man", "doctor"],
    ] {
        let page = stdout(args);
        for section in ["NAME", "SYNOPSIS", "OPTIONS", "EXAMPLES", "VERSION"] {
            assert!(
                page.contains(&format!("\n.SH {section}\n")),
                "{args:?}: {section}"
            );
        }
    }
}

#[test]
fn a_reader_that_went_away_is_no_failure() {
    for args in [&["completions", "bash"][..], &["man"], &["--help"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let status = tcptrace(args)
            .stdout(writer)
            .stderr(Stdio::piped())
            .output();
        let output = status.expect("tcptrace starts");
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn a_full_disk_is_a_failure() {
    let full = File::options()
        .write(true)
        .open("/dev/full")
        .expect("/dev/full");
    let output = tcptrace(&["completions", "bash"])
        .stdout(full)
        .stderr(Stdio::piped())
        .output();
    let output = output.expect("tcptrace starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("tcptrace: "));
}

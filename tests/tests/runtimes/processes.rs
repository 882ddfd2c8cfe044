//! Processes that are not any more what they were when they connected, or see other files than the tracer.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tcptrace_tests::export::output;
use tcptrace_tests::leaks::{assert_calls, functions};
use tcptrace_tests::require;

use super::{acquired, compile};

const PLAIN: [&str; 3] = ["gcc", "-O2", "-fomit-frame-pointer"];

/// Whatever is told is of the program that connected: its functions in their order, and nothing of what has
/// its number now. Where there is less, it is said why.
#[track_caller]
fn assert_true(place: &Value, program: &str) {
    let frames = place["frames"].as_array().expect("frames");
    let modules = frames.iter().filter_map(|frame| frame["module"].as_str());
    let modules: BTreeSet<&str> = modules.filter(|module| !module.contains("libc")).collect();
    assert!(modules.iter().all(|module| *module == program), "{place}");
    match place["cut"].is_null() {
        true => assert_calls(place, &["connect", "dial", "live", "main"]),
        false => {
            let of_it = ["connect", "dial", "live", "main", "start"];
            let known = |name: &&str| *name == "?" || of_it.iter().any(|of| name.contains(of));
            assert!(functions(place).iter().all(known), "{place}");
        }
    }
}

#[test]
fn a_process_that_exits_after_it_connected() {
    require!(root, tracer, gcc);
    let place = tempfile::tempdir().expect("a directory");
    let command = [&PLAIN[..], &["-o"]].concat();
    let program = compile("fates.c", &command, &place.path().join("fates"));
    assert_true(&acquired(&[&program, "exit"], false), &program);
}

#[test]
fn a_process_that_executes_another_program() {
    require!(root, tracer, gcc);
    let place = tempfile::tempdir().expect("a directory");
    let command = [&PLAIN[..], &["-o"]].concat();
    let program = compile("fates.c", &command, &place.path().join("fates"));
    assert_true(&acquired(&[&program, "exec"], false), &program);
}

#[test]
fn a_number_that_another_process_has_now() {
    require!(root, tracer, gcc);
    let place = tempfile::tempdir().expect("a directory");
    let command = [&PLAIN[..], &["-o"]].concat();
    let program = compile("fates.c", &command, &place.path().join("fates"));
    assert_true(&acquired(&[&program, "reuse"], false), &program);
}

/// Its program lies where another lies for the tracer, under another mount or another root.
#[test]
fn a_container_with_a_file_of_its_own_at_the_same_path() {
    require!(root, tracer, gcc, unshare);
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path();
    let outer = [&PLAIN[..], &["-Ddown=outer", "-o"]].concat();
    let inner = [&PLAIN[..], &["-static-pie", "-Ddown=inner", "-o"]].concat();
    let app = compile("leak.c", &outer, &path.join("app"));
    let own = compile("leak.c", &inner, &path.join("own"));
    let root = path.join("root");
    let within = root.join(app.trim_start_matches('/'));
    fs::create_dir_all(within.parent().expect("a directory")).expect("made");
    fs::copy(&own, &within).expect("copied");
    let mounted = "mount --bind \"$0\" \"$1\" && exec \"$1\" \"$2\" \"$3\"";
    let root = root.to_str().expect("UTF-8");
    let ways = [
        &["unshare", "-m", "sh", "-c", mounted, &own, &app][..],
        &["unshare", "-m", "chroot", root, &app],
    ];
    for way in ways {
        let acquired = acquired(way, false);
        assert_calls(&acquired, &["connect", "dial", "inner", "main"]);
        let functions = functions(&acquired);
        assert!(!functions.contains(&"outer"), "{acquired}");
        let inner = functions.iter().filter(|name| **name == "inner");
        assert_eq!(inner.count(), 40, "{acquired}");
    }
}

#[test]
fn a_debugger_sees_the_same_functions() {
    require!(root, tracer, gcc, gdb);
    let place = tempfile::tempdir().expect("a directory");
    // A debugger guesses tail calls, which leave no frame.
    let command = [&PLAIN[..], &["-fno-optimize-sibling-calls", "-o"]].concat();
    let program = compile("leak.c", &command, &place.path().join("leak"));
    let acquired = acquired(&[&program], false);
    let ours: Vec<&str> = functions(&acquired).into_iter().map(plain).collect();
    let theirs = stopped_at_connect(Path::new(&program));
    let theirs: Vec<&str> = theirs.iter().map(|name| plain(name)).collect();
    assert_eq!(ours, theirs);
    assert!(ours.len() > 43, "{ours:?}");
}

/// The functions on the stack when it connects, as gdb tells them.
#[track_caller]
fn stopped_at_connect(program: &Path) -> Vec<String> {
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-batch", "-iex", "set auto-load off"]);
    gdb.args(["-iex", "set debuginfod enabled off"]);
    for command in [
        "set width 0",
        "set backtrace past-main on",
        "set backtrace past-entry on",
        "catch syscall connect",
        "run",
        "backtrace",
    ] {
        gdb.args(["-ex", command]);
    }
    // It is stopped before it does so.
    gdb.arg("--args").arg(program).args(["127.0.0.1", "9"]);
    let text = output(&mut gdb);
    let frames = text.lines().filter_map(|line| {
        let (_, rest) = line.strip_prefix('#')?.split_once(' ')?;
        let rest = rest.trim_start();
        let name = match rest.split_once(" in ") {
            Some((address, name)) if address.starts_with("0x") => name,
            _ => rest,
        };
        name.split_once(" (").map(|(name, _)| name.to_owned())
    });
    let frames: Vec<String> = frames.collect();
    assert!(!frames.is_empty(), "{text}");
    frames
}

/// Without what marks the aliases of libc's functions.
fn plain(name: &str) -> &str {
    let name = name.split('@').next().unwrap_or(name);
    let name = name.trim_start_matches('_');
    let name = name.strip_prefix("libc_").unwrap_or(name);
    let name = name.strip_prefix("GI_").unwrap_or(name);
    let name = name.trim_start_matches('_');
    name.strip_suffix("_impl").unwrap_or(name)
}

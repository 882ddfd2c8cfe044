//! Recordings: little is lost whatever happens, and they are who asked's alone.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};
use rustix::process::Signal;
use rustix::thread::UnshareFlags;
use tcptrace_tests::child::{LIMIT, until};
use tcptrace_tests::lab::{Conn, Lab};
use tcptrace_tests::pace::scaled;
use tcptrace_tests::peer::Crowd;
use tcptrace_tests::recording::{Run, bustle, lines, run, status, text, text_of};
use tcptrace_tests::require;
use tcptrace_tests::tcptrace::{command, hooks, tracer_path};
use tcptrace_tests::truth::now_ns;

#[test]
fn a_killed_recorder_loses_the_last_second_at_most() {
    require!(root, tracer);
    let lab = Lab::new();
    for round in 0..4 {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("it.rec");
        let record = Run::record(&lab, &file);
        let mut closed = Vec::new();
        let end = Instant::now() + Duration::from_millis(1_400 + 370 * round);
        let mut conn = lab.connect();
        while Instant::now() < end {
            let close = conn.client.act("close C");
            conn.server.act("wait S 8");
            closed.push((conn.s.id(), close.after));
            conn.server.act("close S");
            conn = Conn::between(conn.client, conn.server, &lab.ip.to_string());
            std::thread::sleep(Duration::from_millis(5));
        }
        record.process.signal(Signal::KILL);
        let killed = now_ns();
        drop(record);

        let output = command(&[
            "replay",
            text(&file),
            "--json",
            "--state",
            "all",
            "--transitions",
        ])
        .output()
        .expect("tcptrace");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let told = lines(&output.stdout);
        let reached = told.iter().filter(|l| l["new_state"] == "close_wait");
        let reached: BTreeSet<&str> = reached.filter_map(|l| l["id"].as_str()).collect();
        let old: Vec<_> = closed
            .iter()
            .filter(|(_, at)| at + 1_000_000_000 < killed)
            .collect();
        assert!(!old.is_empty());
        for (id, at) in old {
            assert!(
                reached.contains(id.as_str()),
                "{id}, closed {} ms before the kill",
                (killed - at) / 1_000_000
            );
        }
        let summary = &told[told.len() - 1];
        assert_eq!(summary["completeness"]["complete"], false, "{summary}");
        assert_eq!(summary["completeness"]["gaps"], 1, "{summary}");
        assert_eq!(
            status(command(&["replay", text(&file), "--strict"])),
            Some(4)
        );
    }
}

#[test]
fn a_recording_is_whole_although_the_output_is_not() {
    require!(root, tracer);
    let lab = Lab::new();
    let netns = lab.ns.inode().to_string();
    let mut leaked = lab.connect();
    leaked.client.act("close C");
    leaked.server.act("wait S 8");
    let directory = tempfile::tempdir().expect("a directory");
    let watch = |name: &str, out: Stdio| {
        let file = directory.path().join(name);
        let mut watch = command(&["watch", "--min-age", "0", "--netns", &netns]);
        watch.args(["--record", text(&file)]);
        let child = watch.stdout(out).stderr(Stdio::piped()).spawn();
        (child.expect("the watch"), file)
    };
    // As `head -n LINES` does.
    let head = |lines: usize| {
        let (mut watch, file) = watch(&format!("{lines}.rec"), Stdio::piped());
        let out = BufReader::new(watch.stdout.take().expect("piped"));
        let read = out.lines().take(lines).collect::<Result<Vec<_>, _>>();
        assert_eq!(read.expect("lines").len(), lines);
        (watch.wait_with_output().expect("waitpid"), file, 0)
    };
    let full = || {
        let device = fs::File::options().write(true).open("/dev/full");
        let (watch, file) = watch("full.rec", device.expect("/dev/full").into());
        (watch.wait_with_output().expect("waitpid"), file, 1)
    };
    for (output, file, code) in [head(0), head(2), full()] {
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let told = text_of(&output.stderr).contains("cannot write the output");
        assert_eq!(told, code != 0, "{output:?}");
        let told = lines(&run(&["replay", "--strict", "--json", text(&file)]));
        let leaked = leaked.s.id();
        assert!(
            told.iter().any(|line| line["id"] == leaked.as_str()),
            "{told:?}"
        );
    }
}

#[test]
fn a_recorder_that_was_stopped_counts_what_it_missed() {
    require!(root, tracer);
    for (ring, lossy) in [("64K", true), ("64M", false)] {
        let lab = Lab::new();
        lab.ns.sysctl("tcp_max_tw_buckets", "1000000");
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("it.rec");
        let netns = lab.ns.inode().to_string();
        let args = ["record", "-O", text(&file), "--netns", &netns];
        let mut record = Run::start(command(&args).args(["--ring-size", ring]));
        let before = lab.connect();
        record.process.signal(Signal::STOP);
        let stopped = Instant::now();
        let (ip, count) = (lab.ip.to_string(), scaled(5_000).max(1_000));
        let mut crowd = Crowd::start(&lab.ns, &["burst", &ip, &count.to_string(), "2"]);
        crowd.truth(3 * LIMIT);
        // It is behind with its dumps, too.
        std::thread::sleep(Duration::from_secs(10).saturating_sub(stopped.elapsed()));
        record.process.signal(Signal::CONT);
        let mut after = lab.connect();
        after.client.act("close C");
        after.server.act("wait S 8");
        record.stop();
        crowd.exit();

        let err = record.process.err.text();
        let live = err
            .lines()
            .find_map(|line| line.strip_prefix("tcptrace: data: "));
        let replayed = text_of(&run(&["replay", text(&file)]));
        let replayed = replayed
            .lines()
            .find_map(|line| line.strip_prefix("data: "));
        assert_eq!(live, replayed, "{err}");
        let told = lines(&run(&["replay", "--json", "--min-age", "0", text(&file)]));
        let summary = &told[told.len() - 1];
        let completeness = &summary["completeness"];
        assert_eq!(completeness["gaps"], 0, "{summary}");
        let counted = |what: &str| completeness[what].as_u64().expect("a number");
        assert_eq!(counted("ring_full") > 0, lossy, "{ring}: {summary}");
        // No ring helps where tasks take turns in the middle of a program (docs/kernels.md).
        let complete = !lossy && counted("recursion_missed") == 0;
        assert_eq!(completeness["complete"], complete, "{ring}: {summary}");
        let strict = command(&["replay", "--strict", text(&file)]);
        let wanted = Some(if complete { 0 } else { 4 });
        assert_eq!(status(strict), wanted, "{ring}");
        let after = after.s.id();
        assert!(
            told.iter().any(|line| line["id"] == after.as_str()),
            "{ring}"
        );
        if !lossy {
            let entered = summary["states"]["close_wait"]["entered"].as_u64();
            assert_eq!(entered, Some(count + 1), "{summary}");
        }
        drop(before);
    }
}

#[test]
fn what_is_damaged_is_passed_and_told() {
    require!(root, tracer);
    let lab = Lab::new();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("it.rec");
    let mut record = Run::record(&lab, &file);
    let kept = bustle(&lab);
    std::thread::sleep(Duration::from_secs(1));
    record.stop();
    drop(kept);
    let whole = fs::read(&file).expect("the recording");
    let blocks: Vec<usize> = (0..whole.len())
        .filter(|at| whole[*at..].starts_with(b"\xb1TCB"))
        .collect();
    assert!(blocks.len() > 4, "{blocks:?}");
    let middle = blocks[3];
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x40;
        bytes
    };
    for (name, bytes) in [
        ("a byte is flipped", flipped(middle + 40)),
        ("its magic is damaged", flipped(3)),
        ("its first block is damaged", flipped(blocks[0] + 50)),
        ("its tail is torn", whole[..whole.len() - 5].to_vec()),
        ("its tail is rubbish", [&whole[..], &[7; 999]].concat()),
        (
            "a piece is cut out",
            [&whole[..middle + 9], &whole[blocks[4] + 3..]].concat(),
        ),
    ] {
        fs::write(&file, bytes).expect("a damaged copy");
        let output = command(&["replay", text(&file), "--json"])
            .output()
            .expect("tcptrace");
        assert_eq!(output.status.code(), Some(0), "{name}: {output:?}");
        let told = lines(&output.stdout);
        let completeness = &told[told.len() - 1]["completeness"];
        assert_eq!(completeness["complete"], false, "{name}: {completeness}");
        assert!(
            completeness["unread_bytes"].as_u64() > Some(0),
            "{name}: {completeness}"
        );
        assert!(
            completeness["gaps"].as_u64() > Some(0),
            "{name}: {completeness}"
        );
        let strict = command(&["replay", text(&file), "--strict"]);
        assert_eq!(status(strict), Some(4), "{name}");
    }
    let headless = [&whole[..blocks[0] + 9], &[0; 99], &whole[blocks[2]..]].concat();
    for (bytes, code, word) in [
        (&b""[..], 1, "is empty"),
        (&b"#!/bin/sh\n"[..], 2, "not a recording"),
        (&whole[..5], 1, "was cut"),
        (&whole[..blocks[0]], 1, "was cut"),
        (&whole[..blocks[0] + 20], 1, "was cut"),
        (&whole[..blocks[1] - 1], 1, "was cut"),
        (&headless[..], 1, "lost its beginning"),
    ] {
        fs::write(&file, bytes).expect("no recording");
        let output = command(&["replay", text(&file)])
            .output()
            .expect("tcptrace");
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(text_of(&output.stderr).contains(word), "{output:?}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_full_disk_ends_it_and_spoils_nothing() {
    require!(root, tracer);
    let lab = Lab::new();
    lab.ns.sysctl("tcp_max_tw_buckets", "1000000");
    let (output, bytes) = std::thread::scope(|scope| {
        let disk = scope.spawn(|| {
            let directory = small_disk("192k");
            let file = directory.path().join("it.rec");
            let mut record = Run::start(&mut command(&["record", "-O", text(&file)]));
            let ip = lab.ip.to_string();
            let count = scaled(20_000).max(8_000).to_string();
            let mut crowd = Crowd::start(&lab.ns, &["burst", &ip, &count, "2"]);
            crowd.truth(LIMIT);
            let status = record.process.wait(LIMIT);
            crowd.exit();
            let bytes = fs::read(&file).expect("the recording");
            unmount(directory.path(), UnmountFlags::DETACH).expect("umount");
            ((status, record.process.err.text()), bytes)
        });
        disk.join().expect("the thread with the disk")
    });
    let (status, err) = output;
    assert_eq!(status.code(), Some(1), "{err}");
    assert!(err.contains("No space left"), "{err}");
    assert!(err.contains("hint: "), "{err}");
    assert!(bytes.len() > 64 << 10, "{}", bytes.len());
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("it.rec");
    fs::write(&file, bytes).expect("a copy");
    let told = lines(&run(&["replay", text(&file), "--json"]));
    let summary = &told[told.len() - 1];
    assert_eq!(summary["completeness"]["unread_bytes"], 0, "{summary}");
    assert_eq!(summary["completeness"]["gaps"], 1, "{summary}");
    assert!(
        summary["states"]["close_wait"]["entered"].as_u64() > Some(1_000),
        "{summary}"
    );
}

/// A file system of that size, in a mount namespace of this thread and its children.
fn small_disk(size: &str) -> tempfile::TempDir {
    // SAFETY: only this short-lived thread changes its namespace and its file system context.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }
        .expect("unshare(CLONE_NEWNS)");
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .expect("private");
    let directory = tempfile::tempdir().expect("a directory");
    let options = std::ffi::CString::new(format!("size={size}")).expect("no NUL");
    let options = Some(options.as_c_str());
    mount(
        "tmpfs",
        directory.path(),
        "tmpfs",
        MountFlags::empty(),
        options,
    )
    .expect("a tmpfs");
    directory
}

#[test]
fn files_rotate_and_replay_as_one() {
    require!(root, tracer);
    let lab = Lab::new();
    let directory = tempfile::tempdir().expect("a directory");
    // Somebody's who called sudo: the recorder has given up most of what root may do by then.
    chown(directory.path(), Some(4_321), Some(4_322)).expect("chown");
    let file = directory.path().join("it.rec");
    let netns = lab.ns.inode().to_string();
    let mut record = command(&["record", "-O", text(&file), "--netns", &netns]);
    record.args(["--rotate", "1s", "--keep", "3"]);
    record.env("SUDO_UID", "4321").env("SUDO_GID", "4322");
    let mut record = Run::start(&mut record);
    let mut leaked = lab.connect();
    leaked.client.act("close C");
    leaked.server.act("wait S 8");
    let part = |number: u32| PathBuf::from(format!("{}.{number:05}", text(&file)));
    until(LIMIT, "the fifth file", || part(5).exists().then_some(()));
    let mut late = lab.connect();
    late.client.act("close C");
    late.server.act("wait S 8");
    std::thread::sleep(Duration::from_millis(300));
    record.stop();

    let mut files: Vec<PathBuf> = fs::read_dir(directory.path())
        .expect("the directory")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    assert_eq!(files.len(), 3, "{files:?}");
    for file in &files {
        let meta = fs::metadata(file).expect("a file");
        assert_eq!(
            (meta.uid(), meta.gid(), meta.mode() & 0o777),
            (4_321, 4_322, 0o600)
        );
        // Each knows by itself what was there before it, and whose it is.
        let alone = lines(&run(&[
            "replay",
            text(file),
            "--json",
            "-s",
            "close_wait",
            "--min-age",
            "0",
        ]));
        let stuck = alone
            .iter()
            .find(|l| l["id"] == leaked.s.id().as_str())
            .expect("the leak");
        assert_eq!(stuck["pid"], leaked.server.pid(), "{stuck}");
        assert!(
            stuck["comm"].is_string() && stuck["cmdline"].is_string(),
            "{stuck}"
        );
    }
    // In any order.
    let names: Vec<&str> = files.iter().rev().map(|f| text(f)).collect();
    let all = [
        &["replay", "--json", "--strict", "-s", "close_wait"],
        &names[..],
    ]
    .concat();
    let told = lines(&run(&all));
    let state = &told[told.len() - 1]["states"]["close_wait"];
    assert_eq!(state["open"], 2, "{state}");
    // One that is missing is a gap.
    let torn = ["replay", "--strict", names[0], names[2]];
    assert_eq!(status(command(&torn)), Some(4));
    assert_eq!(status(command(&["replay", names[0], names[0]])), Some(2));
}

#[test]
fn a_pipe_is_a_recording_too() {
    require!(root, tracer);
    let lab = Lab::new();
    let netns = lab.ns.inode().to_string();
    let mut leaked = lab.connect();
    leaked.client.act("close C");
    leaked.server.act("wait S 8");
    let mut record = command(&["record", "-O", "-", "-d", "1s", "--netns", &netns])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the recorder");
    let output = Command::new(tracer_path())
        .args(["replay", "-", "--json", "--strict", "--min-age", "0"])
        .stdin(record.stdout.take().expect("piped"))
        .output()
        .expect("the reader");
    assert!(record.wait().expect("waitpid").success());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    // A reader that goes away ends it in silence.
    let mut unread = command(&["record", "-q", "-O", "-", "--netns", &netns])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the recorder");
    drop(unread.stdout.take());
    let left = unread.wait_with_output().expect("waitpid");
    assert_eq!(left.status.code(), Some(0), "{left:?}");
    assert!(left.stderr.is_empty(), "{left:?}");
    let told = lines(&output.stdout);
    assert!(
        told.iter().any(|line| line["id"] == leaked.s.id().as_str()),
        "{told:?}"
    );
}

#[test]
fn a_command_is_recorded_with_its_children_and_nobody_else() {
    require!(root, tracer, cgroup2);
    let lab = Lab::new();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("it.rec");
    let workload = tcptrace_tests::peer::workload_path();
    let script = format!(
        "sleep 1; {} burst {} 20 1 < /dev/null & wait; exit 3",
        text(&workload),
        lab.ip
    );
    let mut record = lab.ns.command(tracer_path());
    record.arg("record").args(hooks());
    record.args(["-O", text(&file), "--", "sh", "-c", &script]);
    let mut record = Run::start(&mut record);
    let mut other = lab.connect();
    other.client.act("close C");
    other.server.act("wait S 8");
    let status = record.process.wait(LIMIT);
    let err = record.process.err.text();
    assert_eq!(status.code(), Some(0), "{err}");
    assert!(err.contains("sh: exit status: 3"), "{err}");

    let told = lines(&run(&[
        "replay",
        text(&file),
        "--json",
        "-s",
        "all",
        "--transitions",
    ]));
    let summary = &told[told.len() - 1];
    assert_eq!(summary["states"]["close_wait"]["left"], 20, "{summary}");
    assert_eq!(summary["completeness"]["complete"], true, "{summary}");
    // Its server's end may be in it: until somebody accepts it, it could be anybody's.
    let other = other.c.id();
    assert!(
        !told.iter().any(|line| line["id"] == other.as_str()),
        "{told:?}"
    );

    let missing = command(&["record", "--force", "-O", text(&file), "--", "/no/such"]);
    assert_eq!(self::status(missing), Some(2));
    let mount = tcptrace_tests::require::cgroup2_mount().expect("cgroup2");
    let left = fs::read_dir(mount).expect("the cgroups").flatten();
    let mut left = left.map(|entry| entry.file_name().into_string().unwrap_or_default());
    assert_eq!(left.find(|name| name.starts_with("tcptrace-")), None);
}

#[test]
fn nothing_is_overwritten() {
    require!(root, tracer);
    // Of the whole host it would tell of namespaces that other tests' ends took away.
    let lab = Lab::new();
    let netns = lab.ns.inode().to_string();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("it.rec");
    fs::write(&file, "precious").expect("a file");
    let output = command(&["record", "-d", "1s", "-O", text(&file)])
        .output()
        .expect("tcptrace");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(text_of(&output.stderr).contains("--force"), "{output:?}");
    assert_eq!(fs::read(&file).expect("the file"), b"precious");
    let mut forced = command(&["record", "-d", "1s", "--force", "-O", text(&file)]);
    forced.args(["--netns", &netns]);
    assert_eq!(status(forced), Some(0));
    run(&["replay", "--strict", text(&file)]);
}

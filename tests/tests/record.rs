//! Recordings: what a replay says is what the live run said, and little is lost whatever happens.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};
use rustix::process::Signal;
use rustix::thread::UnshareFlags;
use serde_json::Value;
use tcptrace_tests::child::{LIMIT, Process, until};
use tcptrace_tests::lab::{Conn, Lab};
use tcptrace_tests::pace::scaled;
use tcptrace_tests::peer::Crowd;
use tcptrace_tests::require;
use tcptrace_tests::tcptrace::{command, hooks, tracer_path};
use tcptrace_tests::truth::now_ns;

#[test]
fn a_replay_says_what_the_watch_said() {
    require!(root, tracer);
    for options in [
        &["--min-age", "100ms"][..],
        &["--json", "--min-age", "100ms"],
        &[
            "--json",
            "--state",
            "all",
            "--transitions",
            "--by",
            "comm,cause",
        ],
        &[
            "--state",
            "close_wait",
            "--min-age",
            "0",
            "--by",
            "state,pid",
            "-T=ns",
        ],
        &[
            "--json",
            "--state",
            "time_wait,fin_wait2",
            "--min-age",
            "0",
            "--role",
            "active",
        ],
    ] {
        identity(options);
    }
}

#[test]
fn a_replay_says_what_a_polling_watch_said() {
    require!(root, tracer);
    identity(&[
        "--hooks",
        "netlink",
        "--interval",
        "20ms",
        "--min-age",
        "100ms",
    ]);
    identity(&[
        "--hooks",
        "netlink",
        "--json",
        "--state",
        "all",
        "--transitions",
    ]);
}

/// Two processes and one recording: byte for byte the same, as fast as can be and slowly.
#[track_caller]
fn identity(options: &[&str]) {
    let lab = Lab::new();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("it.rec");
    let netns = lab.ns.inode().to_string();
    let before = lab.connect();
    let mut watch = command(
        &[
            &["watch", "--netns", &netns, "--record", text(&file)],
            options,
        ]
        .concat(),
    );
    let mut watch = Watch::start(&mut watch);
    let kept = bustle(&lab);
    let live = watch.stop();
    drop((before, kept));

    // Whoever replays cannot poll.
    let mut asked = vec!["replay", text(&file), "--netns", &netns];
    let mut words = options.iter();
    while let Some(word) = words.next() {
        match *word {
            "--hooks" | "--interval" => drop(words.next()),
            word => asked.push(word),
        }
    }
    let replayed = run(&asked);
    assert_same(&live, &replayed);
    let slow = run(&[&asked[..], &["--speed", "3"]].concat());
    assert_same(&live, &slow);
    let strict = command(&[&asked[..], &["--strict"]].concat());
    assert_eq!(status(strict), Some(0));
}

/// Connections that go every way, and two that stay.
fn bustle(lab: &Lab) -> Vec<Conn> {
    let mut leaked = lab.connect();
    leaked.client.act("close C");
    leaked.server.act("wait S 8");
    let mut half = lab.connect();
    half.client.act("shutdown C wr");
    half.server.act("wait S 8");
    let mut whole = lab.connect();
    whole.client.act("close C");
    whole.server.act("wait S 8");
    assert_eq!(whole.server.act("recv S 10").value, Some(0));
    std::thread::sleep(Duration::from_millis(300));
    whole.server.act("close S");
    let mut reset = lab.connect();
    reset.client.act("linger C 0");
    reset.client.act("close C");
    half.server.act("close S");
    std::thread::sleep(Duration::from_millis(200));
    vec![leaked, half, whole, reset]
}

#[test]
fn other_questions_can_be_asked_later() {
    require!(root, tracer);
    let lab = Lab::new();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("it.rec");
    let netns = lab.ns.inode().to_string();
    let mut record = Watch::start(&mut command(&[
        "record",
        "-O",
        text(&file),
        "--netns",
        &netns,
    ]));
    let kept = bustle(&lab);
    let mut late = lab.connect();
    late.client.act("close C");
    late.server.act("wait S 8");
    std::thread::sleep(Duration::from_millis(200));
    record.stop();

    let leaked = &kept[0].s.id();
    let all = lines(&run(&[
        "replay",
        text(&file),
        "--state",
        "all",
        "--transitions",
        "--json",
    ]));
    let path: Vec<&str> = all
        .iter()
        .filter(|line| line["type"] == "transition" && line["id"] == leaked.as_str())
        .filter_map(|line| line["new_state"].as_str())
        .collect();
    assert_eq!(path, ["syn_recv", "established", "close_wait"]);
    // Nobody looked when it was 250 ms old: it is told as it would have been.
    let stuck = lines(&run(&[
        "replay",
        text(&file),
        "--min-age",
        "250ms",
        "--json",
    ]));
    let stuck = stuck
        .iter()
        .find(|line| line["type"] == "stuck" && line["id"] == leaked.as_str());
    let stuck = stuck.expect("the leak");
    assert_eq!(stuck["age_ns"], 250_000_000);
    assert_eq!(stuck["pid"], kept[0].server.pid());
    // By a state that was not asked for, and by who is not in it.
    let none = lines(&run(&[
        "replay",
        text(&file),
        "-s",
        "close_wait",
        "-p",
        "1",
        "--json",
    ]));
    assert_eq!(none[none.len() - 1]["states"]["close_wait"]["entered"], 0);

    // From the middle on: the leak was there before, with its true age.
    let birth = |line: &&Value| line["id"] == late.c.id().as_str();
    let from = all.iter().find(birth).expect("a late connection");
    let from = from["ts"].as_str().expect("an instant");
    let later = [
        "replay",
        text(&file),
        "-s",
        "close_wait",
        "--min-age",
        "100ms",
        "--json",
    ];
    let part = lines(&run(&[&later[..], &["--from", from]].concat()));
    let (summary, told) = part.split_last().expect("a summary");
    let state = &summary["states"]["close_wait"];
    assert_eq!(
        (&state["entered"], &state["open"]),
        (&1.into(), &2.into()),
        "{summary}"
    );
    assert_eq!(told.len(), 2, "{told:?}");
    let part = lines(&run(&[&later[..], &["--to", from]].concat()));
    let state = &part[part.len() - 1]["states"]["close_wait"];
    assert_eq!(state["open"], 1, "{state}");
    drop(late);
}

#[test]
fn a_connection_is_told_from_its_birth() {
    require!(root, tracer);
    let lab = Lab::new();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("it.rec");
    let netns = lab.ns.inode().to_string();
    let mut record = Watch::start(&mut command(&[
        "record",
        "-O",
        text(&file),
        "--netns",
        &netns,
    ]));
    let kept = bustle(&lab);
    record.stop();

    let conn = &kept[2];
    let ends = format!("{}-{}", conn.c.local(), conn.c.remote());
    let told = text_of(&run(&["replay", text(&file), "--conn", &ends]));
    let client = format!("connect()  by {}", conn.client.pid());
    let server = format!("by {}", conn.server.pid());
    assert!(
        told.contains(&conn.c.id()) && told.contains(&conn.s.id()),
        "{told}"
    );
    assert!(told.contains(&client), "{told}");
    assert!(
        told.contains("the end of the stream was read") || told.contains(&server),
        "{told}"
    );
    let steps = lines(&run(&[
        "replay",
        text(&file),
        "--conn",
        &conn.s.id(),
        "--json",
    ]));
    let states: Vec<&str> = steps
        .iter()
        .filter_map(|s| s["new_state"].as_str())
        .collect();
    assert_eq!(
        states,
        ["syn_recv", "established", "close_wait", "last_ack", "close"]
    );
    let unknown = command(&["replay", text(&file), "--conn", "127.0.0.1:1-127.0.0.1:2"]);
    assert_eq!(status(unknown), Some(2));
}

#[test]
fn a_killed_recorder_loses_the_last_second_at_most() {
    require!(root, tracer);
    let lab = Lab::new();
    let netns = lab.ns.inode().to_string();
    for round in 0..4 {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("it.rec");
        let record = Watch::start(&mut command(&[
            "record",
            "-O",
            text(&file),
            "--netns",
            &netns,
        ]));
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
fn what_is_damaged_is_passed_and_told() {
    require!(root, tracer);
    let lab = Lab::new();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("it.rec");
    let netns = lab.ns.inode().to_string();
    let mut record = Watch::start(&mut command(&[
        "record",
        "-O",
        text(&file),
        "--netns",
        &netns,
    ]));
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
    for (bytes, code, word) in [
        (&b""[..], 1, "lost its beginning"),
        (&b"#!/bin/sh\n"[..], 2, "not a recording"),
        (&whole[..blocks[0] + 20], 1, "lost its beginning"),
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
            let mut record = Watch::start(&mut command(&["record", "-O", text(&file)]));
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
    let mut record = Watch::start(&mut record);
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
    let mut record = Watch::start(&mut record);
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
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("it.rec");
    fs::write(&file, "precious").expect("a file");
    let output = command(&["record", "-d", "1s", "-O", text(&file)])
        .output()
        .expect("tcptrace");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(text_of(&output.stderr).contains("--force"), "{output:?}");
    assert_eq!(fs::read(&file).expect("the file"), b"precious");
    let forced = command(&["record", "-d", "1s", "--force", "-O", text(&file)]);
    assert_eq!(status(forced), Some(0));
    run(&["replay", "--strict", text(&file)]);
}

/// A run that ends when it is told to.
struct Watch {
    process: Process,
}

impl Watch {
    /// Starts it and waits until it has listed what was there.
    #[track_caller]
    fn start(command: &mut Command) -> Watch {
        let process = Process::spawn(command);
        let ready = process.err.find(0, LIMIT, |line| {
            line.text.contains("already there").then_some(())
        });
        assert!(ready.is_some(), "not ready: {}", process.err.text());
        Watch { process }
    }

    /// Its whole output.
    #[track_caller]
    fn stop(&mut self) -> Vec<u8> {
        self.process.signal(Signal::INT);
        let status = self.process.wait(LIMIT);
        assert!(status.success(), "{status}: {}", self.process.err.text());
        self.process.out.text().into_bytes()
    }
}

/// Standard output of a run that succeeds.
#[track_caller]
fn run(args: &[&str]) -> Vec<u8> {
    let output: Output = command(args).output().expect("tcptrace");
    assert_eq!(
        output.status.code(),
        Some(0),
        "{args:?}: {}",
        text_of(&output.stderr)
    );
    output.stdout
}

fn status(mut command: Command) -> Option<i32> {
    command.output().expect("tcptrace").status.code()
}

#[track_caller]
fn assert_same(live: &[u8], replayed: &[u8]) {
    assert!(
        live == replayed,
        "live:\n{}\nreplayed:\n{}",
        text_of(live),
        text_of(replayed)
    );
}

#[track_caller]
fn lines(output: &[u8]) -> Vec<Value> {
    let text = text_of(output);
    let object = |line| serde_json::from_str(line).expect("JSON");
    text.lines().map(object).collect()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

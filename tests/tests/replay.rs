//! Replays: they say what the live run said, and answer what nobody asked then.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tcptrace_tests::lab::Lab;
use tcptrace_tests::recording::{Run, bustle, lines, run, status, text, text_of};
use tcptrace_tests::require;
use tcptrace_tests::tcptrace::{command, tracer_path};

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
    let mut watch = Run::start(&mut watch);
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
    // Fails, with all that it prints, if anything is missing.
    run(&[&asked[..], &["--strict"]].concat());
}

#[test]
fn other_questions_can_be_asked_later() {
    require!(root, tracer);
    let lab = Lab::new();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("it.rec");
    let mut record = Run::record(&lab, &file);
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
    let mut record = Run::record(&lab, &file);
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

#[track_caller]
fn assert_same(live: &[u8], replayed: &[u8]) {
    assert!(
        live == replayed,
        "live:\n{}\nreplayed:\n{}",
        text_of(live),
        text_of(replayed)
    );
}

#[test]
fn what_was_not_asked_for_is_not_missing() {
    require!(root, tracer);
    let lab = Lab::new();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("it.rec");
    let netns = lab.ns.inode().to_string();
    // As many ports as the kernel's programs take, and more.
    for more in [0, 40] {
        let mut conns = [lab.connect(), lab.connect()];
        let listener = conns[0].listener.local();
        let (_, port) = listener.rsplit_once(':').expect("a port");
        let ports = (1..=more).map(|n| format!("{n},")).collect::<String>() + port;
        let args = ["record", "--force", "-O", text(&file), "--netns", &netns];
        let mut record = Run::start(command(&args).args(["-L", &ports]));
        for conn in &mut conns {
            conn.client.act("close C");
            conn.server.act("wait S 8");
        }
        record.stop();
        let told = lines(&run(&[
            "replay",
            "--strict",
            "--json",
            "--min-age",
            "0",
            text(&file),
        ]));
        let tells = |id: String| told.iter().any(|line| line["id"] == id.as_str());
        assert!(tells(conns[0].s.id()), "{told:?}");
        assert!(!tells(conns[1].s.id()), "{told:?}");
    }
}

#[test]
fn a_replay_that_takes_long_says_how_far_it_is() {
    require!(root, tracer, script);
    let lab = Lab::new();
    let directory = tempfile::tempdir().expect("a directory");
    let (file, pipe) = (
        directory.path().join("it.rec"),
        directory.path().join("pipe"),
    );
    let mut record = Run::record(&lab, &file);
    let _kept = bustle(&lab);
    std::thread::sleep(Duration::from_secs(1));
    record.stop();
    let half = std::fs::metadata(&file).expect("a file").len() / 2;
    let (tracer, file, pipe) = (tracer_path(), text(&file), text(&pipe));
    let tracer = text(&tracer);
    // Half of it comes late, to a replay of which everything but the file is on one terminal.
    let slowly = format!(
        "mkfifo {pipe}; (head -c {half} {file}; sleep 1.5; tail -c +{} {file}) > {pipe} & ",
        half + 1
    );
    for (options, shown) in [
        ("> /dev/null", true),
        ("-q > /dev/null", false),
        ("", false),
        ("--conn 127.0.0.1:1-127.0.0.1:2 || true", true),
    ] {
        let script = format!("{slowly}{tracer} replay {pipe} {options}; wait; rm {pipe}");
        let output = Command::new("script")
            .args(["-qec", &script, "/dev/null"])
            .output()
            .expect("script");
        let said = text_of(&output.stdout);
        assert_eq!(said.contains("replaying: "), shown, "{options}: {said:?}");
        // What follows has the line to itself.
        let last = said.rsplit_once("replaying: ").map_or("", |(_, last)| last);
        assert!(!shown || last.contains(" \r"), "{options}: {said:?}");
    }
}

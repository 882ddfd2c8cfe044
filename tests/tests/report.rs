//! Reports: of a live run and of its recording they are the same, and their numbers are those of
//! what happened.

use std::fs;
use std::time::Duration;

use tcptrace_tests::lab::Lab;
use tcptrace_tests::recording::{Run, bustle, lines, run, status, text};
use tcptrace_tests::require;
use tcptrace_tests::tcptrace::command;

#[test]
fn a_report_of_a_recording_is_the_report_of_the_live_run() {
    require!(root, tracer);
    for options in [
        &["--json"][..],
        &["--percentiles", "--by", "comm,cause"],
        &["--html", "-", "--state", "all"],
        &["--svg", "-", "--hist", "established"],
        &["--json", "--hooks", "netlink", "--interval", "20ms"],
    ] {
        identity(options);
    }
}

#[track_caller]
fn identity(options: &[&str]) {
    let lab = Lab::new();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("it.rec");
    let netns = lab.ns.inode().to_string();
    let live = ["report", "live", "--netns", &netns, "--record", text(&file)];
    let mut live = Run::start(&mut command(&[&live[..], options].concat()));
    let _open = bustle(&lab);
    let said = live.stop();
    // How it is traced is not asked again.
    let again: Vec<&str> = match options.iter().position(|option| *option == "--hooks") {
        Some(hooks) => options[..hooks].to_vec(),
        None => options.to_vec(),
    };
    for _ in 0..2 {
        let asked = [&["report", text(&file)], &again[..]].concat();
        assert_eq!(
            String::from_utf8_lossy(&run(&asked)),
            String::from_utf8_lossy(&said),
            "{options:?}"
        );
    }
}

#[test]
fn a_report_counts_what_happened() {
    require!(root, tracer);
    let lab = Lab::new();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("it.rec");
    let mut recorder = Run::record(&lab, &file);
    let mut leaked: Vec<_> = (0..3).map(|_| lab.connect()).collect();
    for conn in &mut leaked {
        conn.client.act("close C");
        conn.server.act("wait S 8");
    }
    std::thread::sleep(Duration::from_millis(600));
    leaked[0].server.act("close S");
    recorder.stop();
    let report = &lines(&run(&[
        "report",
        text(&file),
        "--json",
        "-s",
        "close_wait",
        "--by",
        "comm",
    ]))[0];
    let stays = &report["histograms"][0];
    assert_eq!(stays["state"], "close_wait");
    assert_eq!((&stays["left"], &stays["open"]), (&1.into(), &2.into()));
    let shortest = stays["min_ns"].as_u64().expect("one has left");
    assert!(shortest >= 600_000_000, "{stays}");
    let open = report["series"]["open"]["close_wait"].as_array();
    let open: Vec<u64> = open
        .expect("an array")
        .iter()
        .filter_map(|n| n.as_u64())
        .collect();
    assert_eq!(open.iter().max(), Some(&3), "{open:?}");
    assert_eq!(open.last(), Some(&2), "{open:?}");
    let owners = report["groups"].as_array().expect("groups");
    assert_eq!(owners.len(), 1, "{owners:?}");
    assert_eq!(owners[0]["states"]["close_wait"]["open"], 2);
}

#[test]
fn what_lingers_since_is_told_with_its_owner() {
    require!(root, tracer);
    let lab = Lab::new();
    let directory = tempfile::tempdir().expect("a directory");
    let [before, after] = ["before.rec", "after.rec"].map(|name| directory.path().join(name));
    let mut old = lab.connect();
    let mut recorder = Run::record(&lab, &before);
    old.client.act("close C");
    old.server.act("wait S 8");
    recorder.stop();
    let mut recorder = Run::record(&lab, &after);
    let mut new: Vec<_> = (0..2).map(|_| lab.connect()).collect();
    for conn in &mut new {
        conn.client.act("close C");
        conn.server.act("wait S 8");
    }
    recorder.stop();
    let asked = ["diff", text(&before), text(&after), "-s", "close_wait"];
    let diff = &lines(&run(&[&asked[..], &["--by", "port", "--json"]].concat()))[0];
    let rows = diff["rows"].as_array().expect("rows");
    // Every server has a port of its own.
    let grown = rows.iter().filter(|row| row["before"]["open"] == 0);
    assert_eq!(grown.count(), 2, "{diff}");
    let stayed = rows.iter().find(|row| row["before"]["open"] == 1);
    assert_eq!(stayed.expect("the old one")["after"]["open"], 1, "{diff}");
    let said = String::from_utf8(run(&asked)).expect("UTF-8");
    assert!(said.contains("close_wait"), "{said}");
}

#[test]
fn documents_overwrite_nothing() {
    require!(root, tracer);
    let lab = Lab::new();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("it.rec");
    Run::record(&lab, &file).stop();
    let recorded = fs::read(&file).expect("a recording");
    let report = |options: &[&str]| {
        let asked = [&["report", text(&file), "--html", text(&file)], options].concat();
        status(command(&asked))
    };
    assert_eq!(report(&[]), Some(2));
    assert_eq!(fs::read(&file).expect("a recording"), recorded);
    assert_eq!(report(&["--hooks", "netlink"]), Some(2));
    let page = directory.path().join("it.html");
    let asked = ["report", text(&file), "--html", text(&page)];
    assert_eq!(status(command(&asked)), Some(0));
    let written = fs::read_to_string(&page).expect("a page");
    assert!(written.starts_with("<!DOCTYPE html>") && written.ends_with("</html>\n"));
}

//! Who never closed it, in which code: stacks of the workload, from the moment of its calls.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use serde_json::Value;
use tcptrace_tests::child::{LIMIT, until};
use tcptrace_tests::lab::Lab;
use tcptrace_tests::leaks::{assert_calls, functions, leaks, stop};
use tcptrace_tests::maps;
use tcptrace_tests::recording::{run, text};
use tcptrace_tests::require;
use tcptrace_tests::tcptrace::{chosen, doctor};

#[test]
fn the_code_that_acquired_and_the_code_that_closed() {
    require!(root, tracer);
    let lab = Lab::new();
    let run = leaks(&lab, &[]);
    // Two are left open, one is closed.
    let mut kept = [lab.connect(), lab.connect()];
    let mut closed = lab.connect();
    for conn in kept.iter_mut().chain([&mut closed]) {
        conn.client.act("close C");
        conn.server.act("wait S 8");
    }
    closed.server.act("recv S 10");
    closed.server.act("close S");
    kept[0].server.act("recv S 10");
    std::thread::sleep(Duration::from_millis(300));
    let told = stop(run);
    assert_eq!(told["total"], 2, "{told}");
    assert_eq!(told["completeness"]["complete"], true, "{told}");
    let groups = told["groups"].as_array().expect("groups");
    // One line of code accepted them, in two processes.
    assert_eq!(groups.len(), 1, "{told}");
    let group = &groups[0];
    assert_eq!(group["closed_first"], "peer", "{told}");
    let acquired = &group["acquired_at"][0];
    assert_eq!(acquired["by"], "accept", "{told}");
    assert_eq!(acquired["all"]["acquired"], 3, "{told}");
    assert_eq!(acquired["all"]["closed"], 1, "{told}");
    // Not optimized, a few of its functions fill all of the copy.
    assert_calls(acquired, &["accept", "Script::run"]);
    let place = &acquired["all"]["closed_at"][0];
    assert_eq!(place["count"], 1, "{told}");
    assert_calls(place, &["Script::run"]);
    // From the receive queue follows that the end was read, and not where.
    if chosen(&doctor(), "eof") != "derived" {
        let read = &group["eof_at"][0];
        assert_eq!(read["count"], 1, "{told}");
        assert_calls(read, &["script"]);
    }
}

#[test]
fn frame_pointers_are_followed_and_budgets_kept() {
    require!(root, tracer);
    let lab = Lab::new();
    let run = leaks(&lab, &["--stacks", "fp", "--stack-rate", "1"]);
    let mut conns: Vec<_> = (0..4).map(|_| lab.connect()).collect();
    for conn in &mut conns {
        conn.client.act("close C");
        conn.server.act("wait S 8");
    }
    let told = stop(run);
    assert_eq!(told["total"], 4, "{told}");
    let over = told["stacks"]["over_budget"].as_u64().expect("a count");
    assert!(over > 0, "{told}");
    // What was not taken makes no event incomplete.
    assert_eq!(told["completeness"]["complete"], true, "{told}");
}

/// The highest byte of a value of `PATHS` at which a path is known (`LOOK_FOUND`).
const LEAF: u8 = 4;

/// The kernel is told of paths that come again, and copies no stack that is on one.
#[test]
fn a_stack_on_a_known_path_is_not_copied() {
    require!(root, tracer, bpftool);
    let lab = Lab::new();
    // A second has 4 copies, and 32 looks.
    let run = leaks(&lab, &["--stack-rate", "4"]);
    let (mut client, mut server) = (lab.peer(), lab.peer());
    let to = server.act(&format!("listen L {}:0", lab.ip)).local();
    let mut connect = |n: u32| {
        client.act(&format!("connect C{n} {to}"));
        server.act(&format!("accept S{n} L"));
    };
    connect(0);
    connect(1);
    let tracer = run.process.pid();
    until(
        LIMIT,
        "the path that connects and the one that accepts",
        || {
            let nodes = maps::values(tracer, "PATHS");
            let leaves = nodes.iter().filter(|node| node[7] == LEAF);
            (leaves.count() == 2).then_some(())
        },
    );
    (2..14).for_each(&mut connect);
    // A process that is killed has no stack where its sockets are closed.
    client.kill();
    for n in 0..14 {
        server.act(&format!("wait S{n} 8"));
    }
    let told = stop(run);
    assert_eq!(told["total"], 14, "{told}");
    assert_eq!(told["stacks"]["over_budget"], 0, "{told}");
    assert_eq!(told["groups"].as_array().map(Vec::len), Some(1), "{told}");
    let acquired = &told["groups"][0]["acquired_at"][0];
    assert_eq!(acquired["all"]["acquired"], 14, "{told}");
    assert_calls(acquired, &["accept", "Script::run"]);
}

/// Names are of the time of the trace: a replay looks at no process and no file of theirs.
#[test]
fn a_replay_says_the_same() {
    require!(root, tracer);
    let directory = tempfile::tempdir().expect("a directory");
    // Whoever the tracer runs as.
    let anybody = Permissions::from_mode(0o777);
    std::fs::set_permissions(directory.path(), anybody).expect("its mode");
    let file = directory.path().join("it.rec");
    let file = text(&file);
    let lab = Lab::new();
    let live = leaks(&lab, &["--record", file]);
    let mut kept = lab.connect();
    let mut closed = lab.connect();
    for conn in [&mut kept, &mut closed] {
        conn.client.act("close C");
        conn.server.act("wait S 8");
    }
    closed.server.act("close S");
    std::thread::sleep(Duration::from_millis(300));
    let told = stop(live);
    drop((kept, closed));
    let again = run(&["leaks", "--json", "--min-age", "0", file]);
    let mut again: Value = serde_json::from_slice(&again).expect("one object");
    // What threads do now only a live run can tell.
    for group in again["groups"].as_array_mut().expect("groups") {
        group["now"] = told["groups"][0]["now"].clone();
    }
    assert!(
        !functions(&told["groups"][0]["acquired_at"][0]).is_empty(),
        "{told}"
    );
    assert_eq!(told, again);
}

/// What the verifier goes through grows with every filter, and with stacks.
#[test]
fn every_filter_leaves_room_for_stacks() {
    require!(root, tracer);
    let lab = Lab::new();
    let peer = lab.peer();
    let pid = peer.pid().to_string();
    let (ports, nets) = ("1,2,3,4,5,6,7,8", "10.0.0.0/8,10.1.0.0/16,10.2.0.0/16,::1");
    let owner = ["-4", "-p", &pid, "--role", "active"];
    let ends = ["-L", ports, "-D", ports, "--port", ports];
    let nets = ["--laddr", nets, "--raddr", nets];
    let told = stop(leaks(&lab, &[&owner[..], &ends, &nets].concat()));
    // Not polled: every program was taken.
    assert_ne!(told["completeness"]["mode"], "netlink", "{told}");
    assert_eq!(told["total"], 0, "{told}");
}

#[test]
fn none_is_taken_where_none_is_wanted() {
    require!(root, tracer);
    let lab = Lab::new();
    let run = leaks(&lab, &["--stacks", "none"]);
    let mut conn = lab.connect();
    conn.client.act("close C");
    conn.server.act("wait S 8");
    let told = stop(run);
    assert_eq!(told["total"], 1, "{told}");
    assert_eq!(told["groups"][0]["key"]["stack"], Value::Null, "{told}");
}

//! The tracer against programs and files that are not ours.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use tcptrace_tests::child::{LIMIT, until};
use tcptrace_tests::lab::{Conn, Lab};
use tcptrace_tests::oracle::tcpstates::Tcpstates;
use tcptrace_tests::oracle::tracefs::Recording;
use tcptrace_tests::oracle::{proc_net, ss};
use tcptrace_tests::peer::Crowd;
use tcptrace_tests::require;
use tcptrace_tests::tcptrace::{Event, snapshot};

/// What a socket, known by its ends, went through.
type Paths = BTreeMap<(String, String), Vec<(String, String)>>;

#[test]
fn transitions_are_those_of_the_kernels_trace() {
    require!(root, tracer, tracefs);
    let lab = Lab::new();
    let recording = Recording::start(lab.ip);
    let watch = lab.watch_transitions();

    let mut conns: Vec<Conn> = (0..4).map(|_| lab.connect()).collect();
    conns[0].client.act("close C");
    conns[0].server.act("wait S 8");
    conns[0].server.act("close S");
    conns[1].client.act("linger C 0");
    conns[1].client.act("close C");
    conns[2].cross_fins();
    conns[3].server.act("close S");
    conns[3].client.act("wait C 8");
    conns[3].client.exit();
    watch.left(&conns[0].s.id(), "last_ack");
    watch.left(&conns[3].c.id(), "last_ack");
    let run = watch.stop();

    let mut theirs = Paths::new();
    for c in recording.changes() {
        note(&mut theirs, (c.local, c.remote), (c.old, c.new));
    }
    let mut ours = Paths::new();
    for e in run.events.iter().filter(|e| e.is_transition()) {
        let end = |key| -> SocketAddr { e.text(key).parse().expect("ip:port") };
        let new = match e.text("new_state").as_str() {
            // The trace ends with the full socket: a minisocket takes over.
            "time_wait" => "close".to_owned(),
            other => other.to_owned(),
        };
        let step = (e.text("old_state"), new);
        if step.0 != "time_wait" {
            note(&mut ours, (end("local"), end("remote")), step);
        }
    }
    assert_eq!(theirs.len(), 8, "{theirs:#?}");
    assert_eq!(ours, theirs);
}

/// Adds a step, unless it belongs to no connection yet or any more: a listener's, the birth of a
/// child that still wears its listener's name, the start of a connect without a port.
fn note(paths: &mut Paths, ends: (SocketAddr, SocketAddr), step: (String, String)) {
    let named = ends.0.port() != 0 && ends.1.port() != 0;
    let birth = step.0 == "close" || step.0 == "listen" || step.1 == "listen";
    if named && !birth && step.0 != step.1 {
        let ends = (ends.0.to_string(), ends.1.to_string());
        paths.entry(ends).or_default().push(step);
    }
}

#[test]
fn a_snapshot_counts_what_ss_and_the_kernel_count() {
    require!(root, tracer, ss);
    let lab = Lab::new();
    let _scene = Scene::set(&lab);
    let ours = snapshot(&lab.ns, &[]);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for socket in &ours {
        assert_eq!(socket.kind(), "socket");
        *counts.entry(socket.text("state")).or_default() += 1;
    }
    assert_eq!(counts, ss::counts(&lab.ns));

    // The kernel's file shows minisockets by their substate, too.
    assert_eq!(counts, proc_net::counts(&lab.ns));
    let minis = |state: &str| {
        let mini = |s: &&Event| s.text("state") == state && s.value["mini"] == true;
        ours.iter().filter(mini).count()
    };
    assert_eq!(minis("fin_wait2"), 5);
    assert_eq!(minis("time_wait"), 4);
    assert_eq!(counts["fin_wait2"], 8);
}

#[test]
fn a_snapshot_says_what_ss_says_of_each_socket() {
    require!(root, tracer, ss);
    let lab = Lab::new();
    let _scene = Scene::set(&lab);
    let ours = snapshot(&lab.ns, &["--state", "connected"]);
    let theirs = ss::sockets(&lab.ns);
    let theirs: Vec<_> = theirs.iter().filter(|s| s.state != "listen").collect();
    assert_eq!(ours.len(), theirs.len());
    for socket in theirs {
        let mine = ours.iter().find(|e| e.id() == socket.id);
        let mine = mine.unwrap_or_else(|| panic!("no {socket:?}"));
        assert_eq!(mine.text("state"), socket.state);
        assert_eq!(mine.text("local"), socket.local);
        assert_eq!(mine.text("remote"), socket.remote);
        assert_eq!(mine.number("netns"), lab.ns.inode());
        if mine.value["mini"] != true {
            assert_eq!(mine.number("recv_q"), socket.recv_q, "{socket:?}");
            assert_eq!(mine.number("send_q"), socket.send_q, "{socket:?}");
        }
    }
}

#[test]
fn a_snapshot_of_all_namespaces_has_this_one_in_it() {
    require!(root, tracer, ss);
    let labs = [Lab::new(), Lab::new()];
    let _scenes = labs.each_ref().map(Scene::set);
    let all = snapshot(&labs[0].ns, &["--all-netns"]);
    for lab in &labs {
        let inode = lab.ns.inode();
        let mine = all.iter().filter(|e| e.value["netns"] == inode);
        let ids: BTreeSet<String> = mine.map(|e| e.id().to_owned()).collect();
        let theirs = ss::sockets(&lab.ns).into_iter().map(|s| s.id).collect();
        assert_eq!(ids, theirs);
    }
}

#[test]
fn the_stuck_are_those_that_ss_lists() {
    require!(root, tracer, ss);
    let lab = Lab::new();
    let _scene = Scene::set(&lab);
    let watch = lab.watch(&["--min-age", "0"]);
    let run = watch.stop();
    let stuck = run.events.iter().filter(|e| e.kind() == "stuck");
    let ours: BTreeSet<(String, String)> = stuck
        .map(|e| (e.id().to_owned(), e.text("state")))
        .collect();
    let lingering = ["close_wait", "fin_wait2", "time_wait"];
    let theirs = ss::sockets(&lab.ns).into_iter();
    let theirs = theirs
        .filter(|s| lingering.contains(&s.state.as_str()))
        .map(|s| (s.id, s.state))
        .collect();
    assert_eq!(ours, theirs);
}

#[test]
fn durations_of_close_wait_are_those_of_tcpstates() {
    require!(root, tracer, tcpstates);
    let lab = Lab::new();
    let tcpstates = Tcpstates::start(&lab);
    let watch = lab.watch_transitions();
    let (mut client, mut server) = (lab.peer(), lab.peer());
    let listener = server.act(&format!("listen L {}:0", lab.ip));
    let mut remotes = BTreeMap::new();
    for hold_ms in [1, 50, 250, 1000] {
        client.act(&format!("connect C {}", listener.local()));
        let s = server.act("accept S L");
        client.act("close C");
        server.act("wait S 8");
        std::thread::sleep(std::time::Duration::from_millis(hold_ms));
        server.act("close S");
        let left = watch.left(&s.id(), "close_wait");
        let port = s.remote.expect("connected").port();
        remotes.insert(port, left.number("duration_ns"));
    }
    let port = listener.local.expect("bound").port();
    let said = tcpstates.stop(port);
    let mut compared = 0;
    for change in said.iter().filter(|c| c.old == "close_wait") {
        let ours = remotes[&change.remote_port];
        let theirs = change.lasted.as_nanos() as u64;
        assert!(ours.abs_diff(theirs) <= 2_000_000 + theirs / 1000);
        compared += 1;
    }
    assert_eq!(compared, 4);
    watch.stop();
}

/// Sockets in every state that holds still: listeners, leaks accepted and not, half-closed
/// sockets, minisockets of both kinds, a FIN that nobody acknowledges.
struct Scene {
    _conns: Vec<Conn>,
    _leak: Crowd,
}

impl Scene {
    fn set(lab: &Lab) -> Scene {
        let mut conns: Vec<Conn> = (0..5).map(|_| lab.connect()).collect();
        conns.push(Conn::between(lab.peer(), lab.peer(), "[::1]"));
        for conn in &mut conns[..2] {
            conn.client.act("shutdown C wr");
            conn.client.act("wait C 5");
            conn.server.act("close S");
            conn.client.act("wait C 7");
        }
        conns[0].client.act("close C");
        conns[2].client.act("send C 32");
        conns[2].client.act("shutdown C wr");
        conns[2].client.act("wait C 5");
        conns[3].server.act("freeze S");
        conns[3].client.act("shutdown C wr");
        conns[4].cross_fins();
        // Two in a queue: one alive, one closed by its peer.
        let to = conns[5].listener.local();
        conns[5].client.act(&format!("connect D {to}"));
        conns[5].client.act(&format!("connect E {to}"));
        conns[5].client.act("shutdown E wr");
        conns[5].client.act("wait E 5");
        conns[5].client.act(&format!("connect F {to}"));
        conns[5].client.act("shutdown F wr");
        conns[5].client.act("wait F 5");
        let leak = Crowd::start(&lab.ns, &["leak", &lab.ip.to_string(), "5"]);
        leak.wait_for("done", LIMIT);
        // The peer's ACK of a FIN may be delayed. The one of the frozen peer never comes.
        until(LIMIT, "all FINs but one to be acknowledged", || {
            (ss::counts(&lab.ns).get("fin_wait1") == Some(&1)).then_some(())
        });
        Scene {
            _conns: conns,
            _leak: leak,
        }
    }
}

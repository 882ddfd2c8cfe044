//! Whose socket it is.

use tcptrace_tests::lab::{Conn, Lab};
use tcptrace_tests::oracle::ss;
use tcptrace_tests::peer::{Crowd, Peer};
use tcptrace_tests::require;
use tcptrace_tests::tcptrace::{Event, Tracer};
use tcptrace_tests::truth::Act;

#[test]
fn who_connected() {
    require!(root, tracer);
    let lab = Lab::new();
    let watch = watch(&lab);
    let mut conn = lab.connect();
    conn.server.act("close S");
    conn.client.act("wait C 8");
    let stuck = watch.stuck(&conn.c.id(), "close_wait");
    assert_owner(&stuck, "active", &conn.c);
    assert_eq!(stuck.text("comm"), "workload");
    watch.stop();
}

#[test]
fn which_thread_connected() {
    require!(root, tracer);
    let lab = Lab::new();
    let watch = watch(&lab);
    let (mut client, mut server) = (lab.peer(), lab.peer());
    let to = server.act(&format!("listen L {}:0", lab.ip)).local();
    let c = client.act(&format!("on dialer connect C {to}"));
    assert_ne!(c.tid, c.pid);
    server.act("accept S L");
    server.act("close S");
    client.act("wait C 8");
    let stuck = watch.stuck(&c.id(), "close_wait");
    assert_owner(&stuck, "active", &c);
    watch.stop();
}

#[test]
fn who_accepted() {
    require!(root, tracer);
    accepted_by("accept S L accept");
    accepted_by("accept S L accept4");
    accepted_by("on waiter accept S L accept4");
}

#[test]
fn who_accepted_by_io_uring() {
    require!(root, tracer, io_uring);
    let lab = Lab::new();
    let watch = watch(&lab);
    let (mut client, mut server) = (lab.peer(), lab.peer());
    let to = server.act(&format!("listen L {}:0", lab.ip)).local();
    client.act(&format!("connect C {to}"));
    let s = server.act("accept S L uring");
    client.act("close C");
    server.act("wait S 8");
    let stuck = watch.stuck(&s.id(), "close_wait");
    // No thread called accept(): that one is named is allowed, that another is, not.
    let tid = stuck.value["tid"].as_u64();
    assert!(tid.is_none_or(|tid| tid == u64::from(s.tid)), "{stuck:?}");
    assert_eq!(stuck.text("role"), "passive");
    assert_eq!(stuck.number("pid"), u64::from(s.pid));
    assert_eq!(stuck.holders(), [holder(&s)]);
    watch.stop();
}

#[test]
fn which_forked_child_accepted() {
    require!(root, tracer);
    let lab = Lab::new();
    let watch = watch(&lab);
    let (mut client, mut server) = (lab.peer(), lab.peer());
    let to = server.act(&format!("listen L {}:0", lab.ip)).local();
    for child in ["K1", "K2"] {
        server.act(&format!("fork {child}"));
    }
    for (child, name) in [("K1", "A"), ("K2", "B"), ("K1", "D")] {
        client.act(&format!("connect {name} {to}"));
        let s = server.act(&format!("in {child} accept {name} L"));
        assert_ne!(s.pid, server.pid());
        client.act(&format!("close {name}"));
        server.act(&format!("in {child} wait {name} 8"));
        assert_owner(&watch.stuck(&s.id(), "close_wait"), "passive", &s);
    }
    watch.stop();
}

#[test]
fn who_was_given_the_descriptor() {
    require!(root, tracer);
    let lab = Lab::new();
    let watch = watch(&lab);
    let mut conn = lab.connect();
    let mut heir = lab.peer();
    heir.act("mailbox box");
    conn.server.act("give S box");
    let taken = heir.act("take R box");
    assert_eq!(taken.id(), conn.s.id());
    conn.server.act("close S");
    conn.client.act("close C");
    heir.act("wait R 8");
    let stuck = watch.stuck(&taken.id(), "close_wait");
    assert_eq!(stuck.holders(), [holder(&taken)]);
    assert_eq!(stuck.number("pid"), u64::from(taken.pid));
    watch.stop();
}

#[test]
fn nobody_accepted_and_the_listener_is_to_blame() {
    require!(root, tracer, ss);
    let lab = Lab::new();
    let watch = watch(&lab);
    let (mut client, mut server) = (lab.peer(), lab.peer());
    let listener = server.act(&format!("listen L {}:0", lab.ip));
    let c = client.act(&format!("connect C {}", listener.local()));
    client.act("close C");
    let stuck = watch.wait_for("the queued socket", |e| {
        e.kind() == "stuck"
            && e.text("state") == "close_wait"
            && e.value["local"] == c.remote()
            && e.value["remote"] == c.local()
    });
    assert_eq!(stuck.text("role"), "unaccepted");
    assert_eq!(stuck.text("verdict"), "never_accepted");
    assert_eq!(stuck.number("pid"), u64::from(server.pid()));
    assert_eq!(stuck.value["owner_is_listener"], true);
    assert_eq!(stuck.text("comm"), "workload");
    assert!(stuck.value["fd"].is_null(), "{stuck:?}");
    assert!(stuck.holders().is_empty(), "{stuck:?}");

    // Accepted at last, it has an owner of its own.
    let late = server.act("accept S L");
    assert_eq!(late.id(), stuck.id());
    let close = server.act("close S");
    let resolved = watch.wait_for("it resolved", |e| {
        e.kind() == "resolved" && e.id() == late.id()
    });
    assert_eq!(resolved.text("role"), "passive");
    assert_eq!(resolved.number("pid"), u64::from(close.pid));
    watch.stop();
}

#[test]
fn what_is_older_than_the_tracer_names_every_holder() {
    require!(root, tracer);
    let lab = Lab::new();
    let mut conn = lab.connect();
    let child = conn.server.act("fork K").value.expect("a pid") as u64;
    conn.client.act("close C");
    conn.server.act("wait S 8");

    let mut queue = lab.peer();
    let listener = queue.act(&format!("listen L {}:0", lab.ip));
    let c = conn.client.act(&format!("connect Q {}", listener.local()));
    conn.client.act("close Q");
    ss::wait(&lab.ns, &c, "fin_wait2");

    let watch = watch(&lab);
    let stuck = watch.stuck(&conn.s.id(), "close_wait");
    let (pid, fd) = holder(&conn.s);
    let mut expected = [(pid, fd), (child, fd)];
    expected.sort_unstable();
    assert_eq!(stuck.holders(), expected);
    assert!(expected.iter().any(|(pid, _)| *pid == stuck.number("pid")));

    let queued = watch.wait_for("the queued socket", |e| {
        e.kind() == "stuck" && e.value["local"] == c.remote() && e.value["remote"] == c.local()
    });
    assert_eq!(queued.text("role"), "unaccepted");
    assert_eq!(queued.number("pid"), u64::from(queue.pid()));
    watch.stop();
}

#[test]
fn who_was_there_is_remembered() {
    require!(root, tracer);
    let lab = Lab::new();
    let watch = watch(&lab);
    let mut conn = lab.connect();
    // "mayfly"
    conn.client.act("name 6d6179666c79");
    let c = conn
        .client
        .act(&format!("connect D {}", conn.listener.local()));
    conn.server.act("accept T L");
    let gone = conn.client.exit();
    conn.server.act("wait T 8");
    conn.server.act("close T");

    let stuck = watch.stuck(&c.id(), "time_wait");
    assert_eq!(stuck.number("pid"), u64::from(gone.pid));
    assert_eq!(stuck.text("comm"), "mayfly");
    assert_eq!(stuck.value["mini"], true);
    assert!(stuck.holders().is_empty());
    watch.stop();
}

#[test]
fn the_bystander_of_softirq_is_never_shown() {
    require!(root, tracer, ss);
    let lab = Lab::new();
    lab.ns.sysctl("tcp_fin_timeout", "1");
    let watch = lab.watch(&["--state", "all", "--transitions", "--min-age", "0"]);
    let crowd: Vec<Crowd> = (0..2)
        .map(|_| Crowd::start(&lab.ns, &["busy", "bystander"]))
        .collect();
    let mut conns: Vec<Conn> = (0..10).map(|_| lab.connect()).collect();
    for (n, conn) in conns.iter_mut().enumerate() {
        let act = conn.client.act("close C");
        conn.server.act("wait S 8");
        // Half of the closed sockets die by the kernel's timer.
        if n % 2 == 0 {
            conn.server.act("close S");
            watch.left(&act.id(), "fin_wait2");
        }
    }
    for conn in &conns {
        watch.left(&conn.c.id(), "fin_wait2");
    }
    let run = watch.stop();
    let busy: Vec<u64> = crowd.iter().map(|c| u64::from(c.pid())).collect();
    for event in &run.events {
        assert_ne!(event.value["comm"], "bystander", "{event:?}");
        let pid = event.value["pid"].as_u64();
        assert!(!pid.is_some_and(|p| busy.contains(&p)), "{event:?}");
        let holders = event.value["holders"].as_array();
        for holder in holders.into_iter().flatten() {
            assert_ne!(holder["comm"], "bystander", "{event:?}");
        }
    }
}

fn watch(lab: &Lab) -> Tracer {
    lab.watch(&["--min-age", "200ms"])
}

/// A connection accepted by `command` belongs to whoever ran it.
#[track_caller]
fn accepted_by(command: &str) {
    let lab = Lab::new();
    let watch = watch(&lab);
    let (mut client, mut server): (Peer, Peer) = (lab.peer(), lab.peer());
    let to = server.act(&format!("listen L {}:0", lab.ip)).local();
    client.act(&format!("connect C {to}"));
    let s = server.act(command);
    client.act("close C");
    server.act("wait S 8");
    assert_owner(&watch.stuck(&s.id(), "close_wait"), "passive", &s);
    watch.stop();
}

/// The socket was acquired by `act` and has no other holder.
#[track_caller]
fn assert_owner(event: &Event, role: &str, act: &Act) {
    assert_eq!(event.text("role"), role);
    assert_eq!(event.number("pid"), u64::from(act.pid));
    assert_eq!(event.number("tid"), u64::from(act.tid));
    assert_eq!(event.number("fd"), u64::from(act.fd.expect("a socket")));
    assert_eq!(event.holders(), [holder(act)]);
    assert_eq!(event.value["local"], act.local());
    assert_eq!(event.value["remote"], act.remote());
}

fn holder(act: &Act) -> (u64, u64) {
    (act.pid.into(), act.fd.expect("a socket").into())
}

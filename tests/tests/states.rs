//! The ways through the TCP state machine, and what the tracer says of each step.

use tcptrace_tests::lab::{Conn, Lab};
use tcptrace_tests::oracle::ss;
use tcptrace_tests::require;
use tcptrace_tests::tcptrace::{Event, Run, Tracer, chosen, doctor};

#[test]
fn both_sides_of_a_connection_over_ipv4_ipv6_and_v4_mapped() {
    require!(root, tracer);
    let lab = Lab::new();
    let watch = lab.watch_transitions();
    let plain = lab.connect();
    let six = Conn::between(lab.peer(), lab.peer(), "[::1]");
    let mut server = lab.peer();
    let listener = server.act("listen L [::]:0");
    let port = listener.local.expect("bound").port();
    let to = format!("[::ffff:{}]:{port}", lab.ip);
    let mapped = Conn::to(lab.peer(), server, listener, &to);
    assert_eq!(mapped.c.remote(), format!("{}:{port}", lab.ip));

    let mut conns = [plain, six, mapped];
    for conn in &mut conns {
        close_client_first(conn);
        watch.left(&conn.s.id(), "last_ack");
        watch.left(&conn.c.id(), "fin_wait2");
    }
    let run = watch.stop();
    for conn in &conns {
        let c = path(&run, &conn.c.id());
        assert_eq!(c, "established fin_wait1 fin_wait2 time_wait");
        let s = path(&run, &conn.s.id());
        assert_eq!(s, "established close_wait last_ack close");
        for act in [&conn.c, &conn.s] {
            let mine = |e: &&Event| e.id() == act.id();
            let last = run.events.iter().rfind(mine).expect("events");
            assert_eq!(last.value["local"], act.local());
            assert_eq!(last.value["remote"], act.remote());
            assert_eq!(last.number("netns"), lab.ns.inode());
        }
    }
}

#[test]
fn fins_that_cross_lead_through_closing() {
    require!(root, tracer);
    let lab = Lab::new();
    let watch = lab.watch_transitions();
    let mut conn = lab.connect();
    conn.cross_fins();
    let run = watch.stop();
    let paths = [path(&run, &conn.c.id()), path(&run, &conn.s.id())];
    let closing = "established fin_wait1 closing time_wait";
    let told = || format!("{paths:?} of {:#?} {}", run.events, run.summary);
    assert!(paths.iter().any(|p| p == closing), "{}", told());
    assert!(paths.iter().all(|p| p.ends_with("time_wait")), "{}", told());
}

#[test]
fn a_half_closed_connection_still_carries_data() {
    require!(root, tracer);
    let lab = Lab::new();
    let watch = lab.watch(&["--min-age", "300ms"]);
    let mut conn = lab.connect();
    conn.client.act("shutdown C wr");
    conn.client.act("wait C 5");
    conn.server.act("send S 100");
    assert_eq!(conn.client.act("recv C 1000").value, Some(100));
    let half = watch.stuck(&conn.c.id(), "fin_wait2");
    assert_eq!(half.text("verdict"), "half_closed");
    assert_eq!(half.value["mini"], false);
    assert_eq!(half.number("pid"), u64::from(conn.client.pid()));
    let other = watch.stuck(&conn.s.id(), "close_wait");
    assert_eq!(other.text("verdict"), "fin_unread");
    assert_eq!(other.number("recv_q"), 1);
    watch.stop();
}

#[test]
fn an_owner_that_read_the_end_and_went_on_is_told_from_one_that_did_not() {
    require!(root, tracer);
    let lab = Lab::new();
    let watch = lab.watch(&["--state", "close_wait", "--min-age", "500ms"]);
    let mut conns: Vec<Conn> = (0..3).map(|_| lab.connect()).collect();
    conns[2].client.act("send C 600");
    for conn in &mut conns {
        conn.client.act("close C");
        conn.server.act("wait S 8");
    }
    assert_eq!(conns[0].server.act("recv S 10").value, Some(0));
    // Where receives are not seen, an empty queue is all that there is to tell.
    let read = match chosen(&doctor(), "eof").as_str() {
        "derived" => "drained",
        _ => "eof_read",
    };
    for (conn, verdict) in conns.iter().zip([read, "fin_unread", "data_unread"]) {
        let stuck = watch.stuck(&conn.s.id(), "close_wait");
        assert_eq!(stuck.text("verdict"), verdict);
    }
    watch.stop();
}

#[test]
fn linger_0_resets_the_connection() {
    require!(root, tracer);
    let lab = Lab::new();
    let watch = lab.watch_transitions();
    let mut conn = lab.connect();
    conn.client.act("linger C 0");
    conn.client.act("close C");
    assert_cause(&watch, &conn.c.id(), "established", "close", "reset_sent");
    assert_cause(
        &watch,
        &conn.s.id(),
        "established",
        "close",
        "reset_received",
    );
    watch.stop();
}

#[test]
fn closing_with_unread_data_resets_the_connection() {
    require!(root, tracer);
    let lab = Lab::new();
    let watch = lab.watch_transitions();
    let mut conn = lab.connect();
    conn.client.act("send C 10");
    conn.server.act("close S");
    assert_cause(&watch, &conn.s.id(), "established", "close", "reset_sent");
    assert_cause(
        &watch,
        &conn.c.id(),
        "established",
        "close",
        "reset_received",
    );
    watch.stop();
}

#[test]
fn a_reset_in_close_wait_leaves_a_dead_descriptor() {
    require!(root, tracer);
    let lab = Lab::new();
    let watch = lab.watch_transitions();
    let mut conn = lab.connect();
    conn.client.act("shutdown C wr");
    conn.server.act("wait S 8");
    conn.client.act("linger C 0");
    conn.client.act("close C");
    conn.server.act("wait S 7");
    assert_cause(
        &watch,
        &conn.s.id(),
        "close_wait",
        "close",
        "reset_received",
    );
    let dead = watch.wait_for("that the descriptor is still open", |e| {
        e.id() == conn.s.id() && e.value["verdict"] == "dead_fd_open"
    });
    assert_eq!(dead.number("pid"), u64::from(conn.server.pid()));
    watch.stop();
}

#[test]
fn ss_destroys_a_socket() {
    require!(root, tracer, sock_destroy);
    let lab = Lab::new();
    let watch = lab.watch_transitions();
    let mut conn = lab.connect();
    conn.client.act("shutdown C wr");
    conn.server.act("wait S 8");
    ss::destroy(&lab.ns, &conn.s);
    assert_cause(&watch, &conn.s.id(), "close_wait", "close", "destroyed");
    let told = watch.left(&conn.s.id(), "close_wait");
    assert_eq!(told.number("pid"), u64::from(conn.server.pid()), "not ss");
    watch.stop();
}

#[test]
fn a_socket_that_connects_again_is_another_connection() {
    require!(root, tracer);
    let lab = Lab::new();
    let watch = lab.watch_transitions();
    let mut conn = lab.connect();
    conn.client.act("disconnect C");
    conn.server.act("wait S 7");
    let to = conn.listener.local();
    let again = conn.client.act(&format!("reconnect C {to}"));
    assert_eq!(again.cookie, conn.c.cookie, "the same socket");
    conn.server.act("accept T L");
    conn.server.act("close T");
    conn.client.act("wait C 8");
    conn.client.act("close C");

    let first = conn.c.id();
    let second = format!("{first}.1");
    assert_cause(&watch, &first, "established", "close", "disconnect");
    let left = watch.left(&second, "close_wait");
    assert_eq!(left.value["local"], again.local());
    let run = watch.stop();
    assert_eq!(path(&run, &first), "established close");
    assert!(path(&run, &second).starts_with("established close_wait last_ack"));
}

#[test]
fn a_refused_connection_says_so() {
    require!(root, tracer);
    let lab = Lab::new();
    let watch = lab.watch_transitions();
    let mut client = lab.peer();
    let to = format!("{}:9", lab.ip);
    let refused = client.attempt(&format!("connect C {to}"));
    assert!(refused.error.is_some());
    let left = watch.wait_for("the refusal", |e| {
        e.is_transition() && e.value["remote"] == to.as_str() && e.value["old_state"] == "syn_sent"
    });
    assert_eq!(left.text("new_state"), "close");
    assert_eq!(left.text("cause"), "refused");
    assert_eq!(left.number("pid"), u64::from(client.pid()));
    watch.stop();
}

#[test]
fn a_listener_takes_its_queue_with_it() {
    require!(root, tracer);
    let lab = Lab::new();
    let watch = lab.watch_transitions();
    let (mut client, mut server) = (lab.peer(), lab.peer());
    let to = server.act(&format!("listen L {}:0", lab.ip)).local();
    let one = client.act(&format!("connect C {to}"));
    let two = client.act(&format!("connect D {to}"));
    client.act("shutdown D wr");
    client.act("wait D 5");
    server.act("close L");
    client.act("wait C 7");
    for (act, state) in [(one, "established"), (two, "close_wait")] {
        let left = watch.wait_for("the end of the queued socket", |e| {
            e.is_transition()
                && e.value["local"] == act.remote()
                && e.value["remote"] == act.local()
                && e.value["old_state"] == state
                && e.value["new_state"] == "close"
        });
        assert_eq!(left.text("cause"), "listener_closed");
        assert_eq!(left.text("role"), "unaccepted");
    }
    watch.stop();
}

#[test]
fn equal_tuples_in_two_namespaces_are_two_connections() {
    require!(root, tracer);
    let labs = [Lab::new(), Lab::new()];
    let netns = labs.each_ref().map(|lab| lab.ns.inode());
    let old = labs.each_ref().map(|lab| leak(lab, 5001));
    let watch = Tracer::watch(&["--state", "close_wait", "--min-age", "0"]);
    let new = labs.each_ref().map(|lab| leak(lab, 5002));
    for conns in [&old, &new] {
        assert_eq!(conns[0].s.local, conns[1].s.local);
        for (conn, inode) in conns.iter().zip(netns) {
            let stuck = watch.stuck(&conn.s.id(), "close_wait");
            assert_eq!(stuck.number("netns"), inode);
            assert_eq!(stuck.number("pid"), u64::from(conn.server.pid()));
        }
    }
    watch.stop();
}

/// The subflows of an MPTCP connection change their states in the kernel's workers, and what
/// they do is not what the application sees.
#[test]
fn mptcp_is_left_out() {
    require!(root, tracer, mptcp);
    let lab = Lab::new();
    let watch = lab.watch(&["--state", "all", "--transitions", "--min-age", "0"]);
    let (mut client, mut server) = (lab.peer(), lab.peer());
    let to = server.act(&format!("listen L {}:0 mptcp", lab.ip)).local();
    client.act(&format!("connect C {to} mptcp"));
    server.act("accept S L");
    client.act("close C");
    assert_eq!(server.act("recv S 1").value, Some(0));
    server.act("close S");
    server.act("close L");
    let run = watch.stop();
    assert!(run.events.is_empty(), "{:#?}", run.events);
    assert!(run.complete(), "{}", run.summary);
}

/// A connection in CLOSE_WAIT, both ends with ports that are given.
fn leak(lab: &Lab, port: u16) -> Conn {
    let (mut client, mut server) = (lab.peer(), lab.peer());
    let listener = server.act(&format!("listen L [::1]:{port}"));
    let c = client.act(&format!("connect C [::1]:{port} [::1]:{}", port + 1000));
    let s = server.act("accept S L");
    client.act("close C");
    server.act("wait S 8");
    Conn {
        client,
        server,
        listener,
        c,
        s,
    }
}

fn close_client_first(conn: &mut Conn) {
    conn.client.act("close C");
    conn.server.act("wait S 8");
    conn.server.act("close S");
}

/// The states that the connection went through since it was established.
fn path(run: &Run, id: &str) -> String {
    let steps = run.path(id);
    for pair in steps.windows(2) {
        assert_eq!(pair[0].1, pair[1].0, "{id} jumped: {steps:?}");
    }
    let states: Vec<&str> = steps.iter().map(|(_, new)| new.as_str()).collect();
    let from = states.iter().position(|s| *s == "established");
    let from = from.unwrap_or_else(|| panic!("{id} was never established: {steps:?}"));
    states[from..].join(" ")
}

#[track_caller]
fn assert_cause(watch: &Tracer, id: &str, old: &str, new: &str, cause: &str) {
    let left = watch.left(id, old);
    assert_eq!(left.text("new_state"), new);
    assert_eq!(left.text("cause"), cause);
}

//! How long sockets were in CLOSE_WAIT and FIN_WAIT2, against what their owners logged.

use std::time::Duration;

use tcptrace_tests::kernel::timer_span;
use tcptrace_tests::lab::{Conn, Lab};
use tcptrace_tests::oracle::ss;
use tcptrace_tests::require;
use tcptrace_tests::tcptrace::{Event, Run};
use tcptrace_tests::truth::Span;

const SEC: u64 = 1_000_000_000;

#[test]
fn close_wait_lasts_from_the_peers_fin_to_our_close() {
    require!(root, tracer);
    let lab = Lab::new();
    let watch = lab.watch_transitions();
    for hold_ms in [0, 1, 10, 100, 1000, 3000] {
        let mut conn = lab.connect();
        let fin = conn.client.act("close C");
        let seen = conn.server.act("wait S 8");
        std::thread::sleep(Duration::from_millis(hold_ms));
        let close = conn.server.act("close S");

        let left = watch.left(&conn.s.id(), "close_wait");
        assert_eq!(left.text("new_state"), "last_ack");
        assert_eq!(left.text("cause"), "close");
        assert_eq!(left.value["estimated"], false);
        Span::between((fin.before, seen.after), (close.before, close.after))
            .assert_holds(left.number("duration_ns"), "CLOSE_WAIT");
    }
    watch.stop();
}

#[test]
fn the_summary_measures_what_the_workload_logged() {
    require!(root, tracer);
    let lab = Lab::new();
    let watch = lab.watch(&["--state", "close_wait"]);
    let mut truths = Vec::new();
    for _ in 0..5 {
        let mut conn = lab.connect();
        let fin = conn.client.act("close C");
        let seen = conn.server.act("wait S 8");
        std::thread::sleep(Duration::from_millis(200));
        let close = conn.server.act("close S");
        truths.push(Span::between(
            (fin.before, seen.after),
            (close.before, close.after),
        ));
    }
    let mut open = lab.connect();
    open.client.act("close C");
    open.server.act("wait S 8");

    let run = watch.stop();
    assert!(run.complete(), "{}", run.summary);
    assert_eq!(run.count("close_wait", "entered"), 6);
    assert_eq!(run.count("close_wait", "left"), 5);
    assert_eq!(run.count("close_wait", "open"), 1);
    let all = Span {
        min: truths.iter().map(|t| t.min).min().expect("five"),
        max: truths.iter().map(|t| t.max).max().expect("five"),
    };
    for key in ["min_ns", "p50_ns", "p90_ns", "p99_ns", "p999_ns", "max_ns"] {
        all.assert_holds(run.count("close_wait", key), key);
    }
}

#[test]
fn a_half_closed_socket_is_in_fin_wait2_until_the_peer_closes() {
    require!(root, tracer);
    let lab = Lab::new();
    let watch = lab.watch_transitions();
    let mut conn = lab.connect();
    let shut = conn.client.act("shutdown C wr");
    let acked = conn.client.act("wait C 5");
    std::thread::sleep(Duration::from_millis(700));
    let fin = conn.server.act("close S");
    let over = conn.client.act("wait C 7");

    let left = watch.left(&conn.c.id(), "fin_wait2");
    assert_eq!(left.text("new_state"), "time_wait");
    assert_eq!(left.text("cause"), "peer_fin");
    Span::between((shut.before, acked.after), (fin.before, over.after))
        .assert_holds(left.number("duration_ns"), "FIN_WAIT2 of a full socket");
    watch.stop();
}

#[test]
fn a_closed_socket_with_a_silent_peer_is_in_fin_wait2_for_tcp_fin_timeout() {
    require!(root, tracer);
    let (left, run) = orphaned("3");
    assert_eq!(left.value["mini"], true);
    timer_span(3 * SEC).assert_holds(left.number("duration_ns"), "FIN_WAIT2 of an orphan");
    assert_eq!(run.count("fin_wait2", "left"), 1, "{}", run.summary);
}

#[test]
fn a_fin_ends_the_fin_wait2_of_a_closed_socket() {
    require!(root, tracer, ss);
    let lab = Lab::new();
    let watch = lab.watch_transitions();
    let mut conn = lab.connect();
    let close = conn.client.act("close C");
    let acked = ss::wait(&lab.ns, &close, "fin_wait2");
    std::thread::sleep(Duration::from_secs(1));
    let fin = conn.server.act("close S");
    let over = ss::wait(&lab.ns, &close, "time_wait");

    let left = watch.left(&conn.c.id(), "fin_wait2");
    assert_eq!(left.text("new_state"), "time_wait");
    assert_eq!(left.text("cause"), "peer_fin");
    Span::between((close.before, acked), (fin.before, over))
        .assert_holds(left.number("duration_ns"), "FIN_WAIT2 of a minisocket");
    watch.stop();
}

/// Above 60 s the kernel keeps the full socket for the excess and then a minisocket for the
/// excess again: 62 makes 2 + 2 s.
#[test]
fn an_orphan_with_fin_timeout_above_60_is_a_full_socket_first() {
    require!(root, tracer);
    let (left, _) = orphaned("62");
    let phase = timer_span(2 * SEC);
    let both = Span {
        min: 2 * phase.min,
        max: 2 * phase.max,
    };
    both.assert_holds(left.number("duration_ns"), "FIN_WAIT2 in two phases");
}

/// With that tcp_fin_timeout: the end of the FIN_WAIT2 of a closed socket with a silent peer, by the
/// timer.
#[track_caller]
fn orphaned(fin_timeout: &str) -> (Event, Run) {
    let lab = Lab::new();
    lab.ns.sysctl("tcp_fin_timeout", fin_timeout);
    let watch = lab.watch_transitions();
    let mut conn = lab.connect();
    conn.client.act("close C");
    let left = watch.left(&conn.c.id(), "fin_wait2");
    assert_eq!(left.text("new_state"), "close");
    assert_eq!(left.text("cause"), "timer");
    (left, watch.stop())
}

#[test]
fn an_orphan_that_asked_for_no_fin_wait2_has_none() {
    require!(root, tracer);
    let lab = Lab::new();
    let watch = lab.watch_transitions();
    let mut conn = lab.connect();
    conn.client.act("linger2 C -1");
    conn.client.act("close C");
    let left = watch.left(&conn.c.id(), "fin_wait2");
    assert_eq!(left.text("new_state"), "close");
    assert_eq!(left.text("cause"), "no_linger2");
    watch.stop();
}

#[test]
fn what_was_there_before_has_an_age_that_brackets_the_truth() {
    require!(root, tracer, ss);
    let lab = Lab::new();
    let mut leak = lab.connect();
    let fin = leak.client.act("close C");
    let seen = leak.server.act("wait S 8");
    ss::wait(&lab.ns, &fin, "fin_wait2");
    let mut half = lab.connect();
    half.client.act("shutdown C wr");
    half.client.act("wait C 5");
    std::thread::sleep(Duration::from_millis(1500));

    let watch = lab.watch(&["--min-age", "1s"]);
    for (act, state) in [(&leak.s, "close_wait"), (&leak.c, "fin_wait2")] {
        let stuck = watch.stuck(&act.id(), state);
        assert!(stuck.number("age_ns") > 0);
        // The line was written after the sleep and before we read it.
        stuck.assert_allows(Span {
            min: SEC,
            max: stuck.at - fin.before,
        });
    }
    let stuck = watch.stuck(&half.c.id(), "fin_wait2");
    assert_eq!(stuck.value["mini"], false);
    assert_eq!(stuck.text("verdict"), "half_closed");

    let close = leak.server.act("close S");
    let resolved = watch.wait_for("CLOSE_WAIT resolved", |e| {
        e.kind() == "resolved" && e.id() == leak.s.id() && e.text("state") == "close_wait"
    });
    resolved.assert_allows(Span::between(
        (fin.before, seen.after),
        (close.before, close.after),
    ));
    watch.stop();
}

#[test]
fn min_age_holds_a_line_back_until_the_socket_is_that_old() {
    require!(root, tracer);
    let lab = Lab::new();
    let watch = lab.watch(&["--state", "close_wait", "--min-age", "700ms"]);
    let mut brief = lab.connect();
    brief.client.act("close C");
    brief.server.act("wait S 8");
    brief.server.act("close S");
    let Conn {
        mut client,
        mut server,
        s,
        ..
    } = lab.connect();
    client.act("close C");
    server.act("wait S 8");
    let stuck = watch.stuck(&s.id(), "close_wait");
    assert!(stuck.number("age_ns") >= 700_000_000);
    let run = watch.stop();
    assert!(run.events.iter().all(|e| e.id() != brief.s.id()));
    assert_eq!(run.count("close_wait", "entered"), 2);
}

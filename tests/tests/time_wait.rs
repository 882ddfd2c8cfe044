//! How long TIME_WAIT was, and what ended it early.

use std::time::Duration;

use tcptrace_tests::kernel::{jiffy_ns, wheel_step_ns};
use tcptrace_tests::lab::{Conn, Lab};
use tcptrace_tests::oracle::ss;
use tcptrace_tests::peer::Peer;
use tcptrace_tests::require;
use tcptrace_tests::tcptrace::Tracer;
use tcptrace_tests::truth::{Act, Span};

const SEC: u64 = 1_000_000_000;

#[test]
fn time_wait_ends_by_its_timer_after_a_minute() {
    require!(root, tracer, ss);
    let lab = Lab::new();
    let watch = lab.watch_transitions();
    let acts: Vec<Act> = (0..5).map(|_| time_wait(&mut lab.connect())).collect();
    let mut crossed = lab.connect();
    crossed.cross_fins();

    for act in acts.iter().chain([&crossed.c, &crossed.s]) {
        let left = watch.left_within(Duration::from_secs(75), &act.id(), "time_wait");
        assert_eq!(left.text("new_state"), "close");
        assert_eq!(left.text("cause"), "timer");
        let truth = Span {
            min: 60 * SEC - jiffy_ns(),
            max: 60 * SEC + wheel_step_ns(60 * SEC) + 2 * jiffy_ns(),
        };
        let lasted = left.number("duration_ns");
        // The wheel is all the slack there is: not the 0.1 % of the measured durations.
        let late = 40_000_000;
        assert!(
            (truth.min..=truth.max + late).contains(&lasted),
            "TIME_WAIT of {lasted} ns, expected {truth:?}"
        );
    }
    let run = watch.stop();
    assert_eq!(run.count("time_wait", "left"), 7);
    assert_eq!(run.count("time_wait", "open"), 0);
}

#[test]
fn a_connect_takes_the_tuple_over() {
    require!(root, tracer, ss);
    let lab = Lab::new();
    lab.ns.sysctl("tcp_tw_reuse", "1");
    lab.ns.sysctl("ip_local_port_range", "41000 41000");
    let watch = lab.watch_transitions();
    let mut server = lab.peer();
    let listener = server.act(&format!("listen L {}:5000", lab.ip));
    let to = listener.local();
    let mut conn = Conn::to(lab.peer(), server, listener, &to);
    let begin = time_wait(&mut conn);
    // The kernel refuses at first: for a second, or before 6.14 until the next full second of its
    // clock, as the peer's timestamps have to grow.
    let reuse = until_connected(&mut conn.client, &to);
    assert_eq!(reuse.local, conn.c.local, "the same port");

    let left = ended(&lab, &watch, &begin, &reuse, "reused_by_connect");
    let ends = (reuse.before, reuse.after);
    Span::between((begin.before, begin.after), ends).assert_holds(left, "TIME_WAIT until reuse");
    watch.stop();
}

#[test]
fn a_new_syn_takes_the_tuple_over() {
    require!(root, tracer, ss);
    let lab = Lab::new();
    let watch = lab.watch_transitions();
    let mut conn = lab.connect();
    let close = conn.server.act("close S");
    conn.client.act("wait C 8");
    conn.client.act("close C");
    ss::wait(&lab.ns, &close, "time_wait");
    // The timestamps of the new SYN must be later than the last ones, which count in ms.
    std::thread::sleep(Duration::from_millis(50));
    let (to, from) = (conn.listener.local(), conn.c.local());
    let again = conn.client.act(&format!("connect D {to} {from}"));

    ended(&lab, &watch, &close, &again, "reused_by_syn");
    watch.stop();
}

#[test]
fn a_reset_ends_time_wait() {
    require!(root, tracer, ss);
    let lab = Lab::new();
    let watch = lab.watch_transitions();
    let mut conn = lab.connect();
    // The server has unread data and never gets the last ACK: it sits in LAST_ACK, and its
    // close() sends a RST with just the number that the TIME_WAIT side expects.
    conn.client.act("send C 1");
    let close = conn.client.act("close C");
    conn.server.act("wait S 8");
    ss::wait(&lab.ns, &close, "fin_wait2");
    conn.server.act("freeze S");
    conn.server.act("shutdown S wr");
    ss::wait(&lab.ns, &close, "time_wait");
    let reset = conn.server.act("close S");

    ended(&lab, &watch, &close, &reset, "reset_received");
    watch.stop();
}

#[test]
fn a_reset_ends_the_fin_wait2_of_a_minisocket() {
    require!(root, tracer, ss);
    let lab = Lab::new();
    let watch = lab.watch_transitions();
    let mut conn = lab.connect();
    let close = conn.client.act("close C");
    ss::wait(&lab.ns, &close, "fin_wait2");
    conn.server.act("linger S 0");
    let reset = conn.server.act("close S");
    ss::wait_gone(&lab.ns, &close);
    let left = watch.left(&close.id(), "fin_wait2");
    assert_eq!(left.text("new_state"), "close");
    assert_eq!(left.text("cause"), "reset_received");
    let longest = reset.after - close.before;
    assert!(left.number("duration_ns") <= longest + longest / 1000 + 2_000_000);
    watch.stop();
}

#[test]
fn sock_destroy_ends_time_wait() {
    require!(root, tracer, ss, sock_destroy_mini);
    let lab = Lab::new();
    let watch = lab.watch_transitions();
    let mut conn = lab.connect();
    let begin = time_wait(&mut conn);
    ss::wait(&lab.ns, &begin, "time_wait");
    ss::destroy(&lab.ns, &conn.c);
    ss::wait_gone(&lab.ns, &begin);
    let left = watch.left(&begin.id(), "time_wait");
    assert_eq!(left.text("cause"), "destroyed");
    watch.stop();
}

#[test]
fn the_end_of_the_namespace_ends_time_wait() {
    require!(root, tracer, ss);
    let lab = Lab::new();
    let watch = lab.watch_transitions();
    let mut conn = lab.connect();
    let begin = time_wait(&mut conn);
    watch.left(&begin.id(), "fin_wait2");
    drop(conn);
    drop(lab);
    let left = watch.left(&begin.id(), "time_wait");
    assert_eq!(left.text("cause"), "namespace_exit");
    watch.stop();
}

#[test]
fn without_room_for_a_minisocket_there_is_no_time_wait() {
    require!(root, tracer, ss);
    let lab = Lab::new();
    lab.ns.sysctl("tcp_max_tw_buckets", "0");
    let watch = lab.watch_transitions();
    let mut conn = lab.connect();
    conn.client.act("shutdown C wr");
    conn.client.act("wait C 5");
    conn.server.act("close S");
    conn.client.act("wait C 7");
    ss::wait_gone(&lab.ns, &conn.c);
    let left = watch.left(&conn.c.id(), "fin_wait2");
    assert_eq!(left.text("new_state"), "close");
    assert_eq!(left.text("cause"), "time_wait_overflow");
    let run = watch.stop();
    assert_eq!(run.count("time_wait", "entered"), 0);
}

/// Brings C of `conn` into TIME_WAIT. The act is the server's close, told of C: TIME_WAIT
/// began after `before`.
#[track_caller]
fn time_wait(conn: &mut Conn) -> Act {
    conn.client.act("shutdown C wr");
    conn.client.act("wait C 5");
    let fin = conn.server.act("close S");
    let over = conn.client.act("wait C 7");
    conn.client.act("close C");
    Act {
        before: fin.before,
        after: over.after,
        ..conn.c.clone()
    }
}

/// The TIME_WAIT of the socket of `begin` ended in `end` for that cause, and lasted as long as
/// it can have lasted. Its duration.
#[track_caller]
fn ended(lab: &Lab, watch: &Tracer, begin: &Act, end: &Act, cause: &str) -> u64 {
    ss::wait_gone(&lab.ns, begin);
    let left = watch.left(&begin.id(), "time_wait");
    assert_eq!(left.text("new_state"), "close");
    assert_eq!(left.text("cause"), cause);
    let lasted = left.number("duration_ns");
    let longest = end.after - begin.before;
    assert!(lasted <= longest + longest / 1000 + 2_000_000);
    lasted
}

/// Connects D as soon as the kernel lets the only port be used again.
#[track_caller]
fn until_connected(client: &mut Peer, to: &str) -> Act {
    tcptrace_tests::child::until(Duration::from_secs(10), "the port", || {
        let act = client.attempt(&format!("connect D {to}"));
        act.error.is_none().then_some(act)
    })
}

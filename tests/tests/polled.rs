//! Mode netlink: nothing is attached, sock_diag is asked again and again.

use std::time::Duration;

use tcptrace_tests::child::until;
use tcptrace_tests::kernel::{jiffy_ns, timer_span};
use tcptrace_tests::lab::{Conn, Lab};
use tcptrace_tests::oracle::ss;
use tcptrace_tests::require;
use tcptrace_tests::tcptrace::{Event, Tracer};
use tcptrace_tests::truth::Span;

const SEC: u64 = 1_000_000_000;
/// The interval, and what a loaded machine adds to it; twice, since a stay has two ends.
const WIDEST: u64 = 3 * SEC;

#[test]
fn a_leak_is_listed_with_its_owner_and_bounds() {
    require!(root, tracer);
    let lab = Lab::new();
    let watch = polled(&lab, &["--min-age", "300ms"]);
    let notice = watch.process().err.text();
    assert!(notice.contains("mode netlink"), "{notice}");
    let mut conn = lab.connect();
    let fin = conn.client.act("close C");
    let seen = conn.server.act("wait S 8");

    let stuck = watch.stuck(&conn.s.id(), "close_wait");
    assert_eq!(stuck.number("pid"), u64::from(conn.server.pid()));
    assert_eq!(stuck.text("verdict"), "fin_unread");
    assert_bounded(&stuck);
    // The kernel keeps in jiffies when the FIN came: told is up to one too many.
    assert!(stuck.number("age_ns") <= stuck.at - fin.before + jiffy_ns());

    std::thread::sleep(Duration::from_millis(700));
    let close = conn.server.act("close S");
    let resolved = watch.wait_for("CLOSE_WAIT resolved", |e| {
        e.kind() == "resolved" && e.id() == conn.s.id()
    });
    assert_bounded(&resolved);
    resolved.assert_allows(Span::between(
        (fin.before, seen.after),
        (close.before, close.after),
    ));
    let run = watch.stop();
    assert_eq!(run.summary["completeness"]["mode"], "netlink");
    assert_eq!(run.completeness("polled_ns"), SEC / 4);
    // What was not seen is no loss here, and the socket came in our time.
    assert!(run.complete(), "{}", run.summary);
    assert_eq!(run.count("close_wait", "before"), 0, "{}", run.summary);
    assert_eq!(run.count("close_wait", "entered"), 1);
    assert_eq!(run.count("close_wait", "estimated"), 1);
}

#[test]
fn the_first_line_has_the_owner_and_owners_are_filtered() {
    require!(root, tracer);
    let lab = Lab::new();
    let server = lab.peer();
    let pid = server.pid();
    let wanted = pid.to_string();
    let watch = polled(&lab, &["-s", "close_wait", "--min-age", "0", "-p", &wanted]);
    let mut conn = Conn::between(lab.peer(), server, &lab.ip.to_string());
    let mut other = lab.connect();
    for conn in [&mut other, &mut conn] {
        conn.client.act("close C");
        conn.server.act("wait S 8");
    }
    let stuck = watch.stuck(&conn.s.id(), "close_wait");
    assert_eq!(stuck.number("pid"), u64::from(pid));
    let run = watch.stop();
    assert!(run.events.iter().all(|e| e.id() == conn.s.id()), "{run:?}");
    assert_eq!(run.count("close_wait", "open"), 1, "{}", run.summary);
}

#[test]
fn the_times_of_minisockets_bracket_the_truth() {
    require!(root, tracer, ss);
    let lab = Lab::new();
    let watch = polled(&lab, &["--interval", "50ms", "--min-age", "0"]);
    let mut conn = lab.connect();
    let close = conn.server.act("close S");
    let acked = ss::wait(&lab.ns, &close, "fin_wait2");
    std::thread::sleep(Duration::from_millis(1200));
    let fin = conn.client.act("close C");
    let over = ss::wait(&lab.ns, &close, "time_wait");
    let left = resolved(&watch, &conn.s.id(), "fin_wait2");
    assert_eq!(left.text("new_state"), "time_wait");
    assert_eq!(left.text("cause"), "peer_fin");
    left.assert_allows(Span::between((close.before, acked), (fin.before, over)));

    std::thread::sleep(Duration::from_millis(1200));
    // A new SYN ends TIME_WAIT on every kernel; SOCK_DESTROY does not.
    let (to, from) = (conn.listener.local(), conn.c.local());
    let again = conn.client.act(&format!("connect D {to} {from}"));
    let left = resolved(&watch, &conn.s.id(), "time_wait");
    // Too early for the timer, and nothing tells who did it.
    assert_eq!(left.text("cause"), "end_not_seen");
    let ends = (again.before, again.after);
    left.assert_allows(Span::between((fin.before, over), ends));
    let run = watch.stop();
    assert!(run.complete(), "{}", run.summary);
    assert_eq!(run.completeness("polled_ns"), SEC / 20);
}

#[test]
fn an_orphans_time_in_fin_wait2_is_bracketed() {
    require!(root, tracer);
    let lab = Lab::new();
    lab.ns.sysctl("tcp_fin_timeout", "3");
    let watch = polled(&lab, &["--min-age", "0"]);
    let mut conn = lab.connect();
    conn.client.act("close C");
    let left = resolved(&watch, &conn.c.id(), "fin_wait2");
    assert_eq!(left.text("new_state"), "close");
    left.assert_allows(timer_span(3 * SEC));
    assert!(watch.stop().complete());
}

/// Shorter than a poll: at most that long, and never 0.
#[test]
fn what_is_too_short_to_be_measured_is_not_0() {
    require!(root, tracer);
    let lab = Lab::new();
    let watch = polled(
        &lab,
        &["--interval", "1s", "-s", "close_wait", "--min-age", "0"],
    );
    let stay = || {
        let mut conn = lab.connect();
        conn.client.act("close C");
        conn.server.act("wait S 8");
        conn
    };
    // Each begins before the one before it ends, so that every poll meets one. With pauses between
    // them, stays and polls that share a processor can fall into step, and all polls into pauses.
    let mut conn = stay();
    let mut stays = 0;
    until(Duration::from_secs(60), "a stay that was seen", || {
        let mut before = std::mem::replace(&mut conn, stay());
        std::thread::sleep(Duration::from_millis(100));
        before.server.act("close S");
        stays += 1;
        let seen = watch.events().iter().any(|e| e.kind() == "resolved");
        (seen && stays >= 20).then_some(())
    });
    let run = watch.stop();
    assert!(run.count("close_wait", "left") > 0, "{}", run.summary);
    assert!(run.count("close_wait", "left") < stays, "{}", run.summary);
    assert!(run.count("close_wait", "min_ns") > 0, "{}", run.summary);
    assert!(run.complete(), "{}", run.summary);
}

fn polled(lab: &Lab, args: &[&str]) -> Tracer {
    lab.watch(&[&["--hooks", "netlink"][..], args].concat())
}

#[track_caller]
fn resolved(watch: &Tracer, id: &str, state: &str) -> Event {
    let event = watch.wait_for(&format!("{id} resolved from {state}"), |e| {
        e.kind() == "resolved" && e.id() == id && e.text("state") == state
    });
    assert_bounded(&event);
    event
}

/// It is an estimate with two bounds that are worth something.
#[track_caller]
fn assert_bounded(event: &Event) {
    assert_eq!(event.value["estimated"], true, "{}", event.value);
    let (min, max) = (event.number("age_min_ns"), event.number("age_max_ns"));
    assert!(min <= max && max - min < WIDEST, "{}", event.value);
}

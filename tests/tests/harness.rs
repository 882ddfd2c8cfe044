//! The ground that the live tests stand on, checked without the tracer: what a workload logs is
//! what `ss`, `/proc/net/tcp` and the kernel's own trace say.

use std::time::Duration;

use tcptrace_tests::child::until;
use tcptrace_tests::lab::Lab;
use tcptrace_tests::oracle::tcpstates::Tcpstates;
use tcptrace_tests::oracle::tracefs::Recording;
use tcptrace_tests::oracle::{proc_net, ss};
use tcptrace_tests::peer::Crowd;
use tcptrace_tests::require;
use tcptrace_tests::truth::{Act, Span};

#[test]
fn a_socket_is_where_its_workload_says() {
    require!(root, ss);
    let lab = Lab::new();
    let mut conn = lab.connect();
    let closed = conn.client.act("close C");
    let seen = conn.server.act("wait S 8");
    ss::wait(&lab.ns, &closed, "fin_wait2");
    assert_eq!(closed.id(), conn.c.id());
    assert_eq!((seen.local, seen.remote), (conn.c.remote, conn.c.local));

    let theirs = ss::sockets(&lab.ns);
    let leaked = theirs.iter().find(|s| s.id == conn.s.id()).expect("S");
    assert_eq!(leaked.state, "close_wait");
    assert_eq!(leaked.local, conn.s.local());
    assert_eq!(leaked.remote, conn.s.remote());
    assert_eq!(leaked.recv_q, 1, "the FIN is unread");
    let mini = theirs.iter().find(|s| s.id == conn.c.id()).expect("C");
    assert_eq!(mini.state, "fin_wait2");
    assert!(mini.rest.contains("timer:(timewait"), "{}", mini.rest);

    let kernel = proc_net::sockets(&lab.ns);
    let leaked = kernel.iter().find(|s| s.local == conn.s.local.expect("S"));
    assert!(leaked.is_some_and(|s| s.state == "close_wait" || s.state == "listen"));
    assert_eq!(proc_net::counts(&lab.ns), ss::counts(&lab.ns));
}

#[test]
fn truth_brackets_what_the_kernel_traces() {
    require!(root, tracefs);
    let lab = Lab::new();
    let recording = Recording::start(lab.ip);
    let mut conn = lab.connect();
    let fin = conn.client.act("close C");
    let seen = conn.server.act("wait S 8");
    std::thread::sleep(Duration::from_millis(300));
    let close = conn.server.act("close S");

    let changes = until(Duration::from_secs(5), "LAST_ACK to end", || {
        let changes = recording.changes();
        let done = changes.iter().any(|c| c.old == "last_ack");
        done.then_some(changes)
    });
    let at = |act: &Act, old: &str, new: &str| {
        let found = changes
            .iter()
            .find(|c| Some(c.local) == act.local && c.old == old && c.new == new);
        found
            .unwrap_or_else(|| panic!("{old} to {new}: {changes:?}"))
            .at_us
            * 1000
    };
    let entered = at(&conn.s, "established", "close_wait");
    let left = at(&conn.s, "close_wait", "last_ack");
    // Microseconds are cut, not rounded.
    assert!(fin.before < entered + 1000 && entered < seen.after);
    assert!(close.before < left + 1000 && left < close.after);
    Span::between((fin.before, seen.after), (close.before, close.after))
        .assert_holds(left - entered, "CLOSE_WAIT by the kernel's trace");
    at(&conn.c, "fin_wait2", "close");
}

#[test]
fn tcpstates_agrees_about_close_wait() {
    require!(root, tcpstates);
    let lab = Lab::new();
    let tcpstates = Tcpstates::start(&lab);
    let mut conn = lab.connect();
    let fin = conn.client.act("close C");
    let seen = conn.server.act("wait S 8");
    std::thread::sleep(Duration::from_millis(200));
    let close = conn.server.act("close S");
    let port = conn.listener.local.expect("bound").port();
    let said = tcpstates.stop(port);
    let change = said
        .iter()
        .find(|c| c.old == "close_wait")
        .expect("CLOSE_WAIT");
    Span::between((fin.before, seen.after), (close.before, close.after))
        .assert_holds(change.lasted.as_nanos() as u64, "CLOSE_WAIT by tcpstates");
}

#[test]
fn peers_pass_descriptors_fork_and_use_io_uring() {
    require!(root, io_uring);
    let lab = Lab::new();
    let mut server = lab.peer();
    let listener = server.act(&format!("listen L {}:0", lab.ip));
    let to = listener.local();
    let mut client = lab.peer();

    client.act(&format!("connect C1 {to}"));
    let taken = server.act("accept S1 L uring");
    assert_eq!(taken.value, None);

    let child = server.act("fork K");
    client.act(&format!("connect C2 {to}"));
    let forked = server.act("in K accept S2 L accept4");
    assert_eq!(Some(i64::from(forked.pid)), child.value);
    assert_ne!(forked.pid, server.pid());

    let named = client.act(&format!("on dialer connect C3 {to}"));
    assert_eq!(named.pid, client.pid());
    assert_ne!(named.tid, named.pid);

    let mut heir = lab.peer();
    heir.act("mailbox box");
    server.act("give S1 box");
    let received = heir.act("take R box");
    assert_eq!(received.id(), taken.id());
}

#[test]
fn fins_can_cross() {
    require!(root, tracefs);
    let lab = Lab::new();
    let recording = Recording::start(lab.ip);
    let mut conn = lab.connect();
    conn.cross_fins();
    let changes = recording.changes();
    assert!(changes.iter().any(|c| c.new == "closing"), "{changes:?}");
}

#[test]
fn crowds_count_their_connections() {
    require!(root, ss);
    let lab = Lab::new();
    let ip = lab.ip.to_string();
    // On loopback connect() else takes over a TIME_WAIT older than a second, where the machine is
    // slow enough for there to be any.
    lab.ns.sysctl("tcp_tw_reuse", "0");
    let mut burst = Crowd::start(&lab.ns, &["burst", &ip, "1000", "2"]);
    let truth = burst.truth(Duration::from_secs(20));
    assert_eq!(truth["count"], 1000);
    assert_eq!(ss::counts(&lab.ns).get("time_wait"), Some(&1000));
    let leak = Crowd::start(&lab.ns, &["leak", &ip, "100"]);
    leak.wait_for("done", Duration::from_secs(20));
    assert_eq!(leak.truths().len(), 100);
    assert_eq!(ss::counts(&lab.ns).get("close_wait"), Some(&100));
    burst.exit();
}

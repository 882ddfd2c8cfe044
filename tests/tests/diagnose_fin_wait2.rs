//! Diagnoses of FIN_WAIT_2: of what was only shut down, and of what was closed, with peers that do not
//! close.

use std::time::Duration;

use serde_json::{Value, json};
use tcptrace_tests::child::{LIMIT, until};
use tcptrace_tests::diagnosis::{Diagnosing, Diagnosis, told};
use tcptrace_tests::lab::Lab;
use tcptrace_tests::oracle::{netstat, proc_net};
use tcptrace_tests::peer::{Crowd, Peer};
use tcptrace_tests::require;
use tcptrace_tests::truth::now_ns;

/// So many orphans are worth a word, whatever the limits are.
const MANY: usize = 1_000;

/// A client that shuts down so many connections, and a server that has accepted them.
#[track_caller]
fn shut_down(lab: &Lab, n: usize) -> [Peer; 2] {
    let (mut client, mut server) = (lab.peer(), lab.peer());
    let to = server.act(&format!("listen L {}:8080", lab.ip)).local();
    for i in 0..n {
        client.act(&format!("connect C{i} {to}"));
        server.act(&format!("accept S{i} L"));
        client.act(&format!("shutdown C{i} wr"));
        client.act(&format!("wait C{i} 5"));
    }
    [client, server]
}

#[test]
fn sockets_that_are_shut_down_and_not_closed() {
    require!(root, tracer);
    let lab = Lab::new();
    // It ends none of these.
    lab.ns.sysctl("tcp_fin_timeout", "1");
    for (n, severity) in [(10, "warning"), (1, "notice")] {
        let run = Diagnosing::start(&lab, &["--min-age", "1s"]);
        let begin = now_ns();
        let [mut client, mut server] = shut_down(&lab, n);
        std::thread::sleep(Duration::from_millis(2_200));
        let found = run.stop();
        let mut ids = found.ids();
        ids.sort_unstable();
        assert_eq!(ids, ["close_wait_server", "half_closed"], "{found:#?}");
        let finding = found.one("half_closed");
        assert_eq!(finding["severity"], severity, "{finding:#}");
        assert_eq!(finding["sockets"], n, "{finding:#}");
        let evidence = &finding["evidence"];
        assert_eq!(evidence["pid"], client.pid(), "{finding:#}");
        assert_eq!(evidence["count"], n, "{finding:#}");
        let oldest = evidence["oldest_age_ns"].as_u64().expect("an age");
        assert!((2_200_000_000..now_ns() - begin).contains(&oldest));
        let kernel = told(finding, "kernel");
        assert!(kernel.contains("never ends these"), "{kernel}");
        let fix = told(finding, "fix");
        assert!(fix.contains("read to the end"), "{fix}");
        let theirs = found.close_wait_of("close_wait_server", server.pid());
        assert_eq!(theirs.map(|f| &f["sockets"]), Some(&json!(n)));

        // The fix: who has shut down closes, when the peer has.
        for i in 0..n {
            server.act(&format!("close S{i}"));
            client.act(&format!("wait C{i} 7"));
            client.act(&format!("close C{i}"));
        }
        let run = Diagnosing::start(&lab, &["--min-age", "1s"]);
        std::thread::sleep(Duration::from_millis(1_100));
        let found = run.stop();
        assert_eq!(found.ids(), [""; 0], "{found:#?}");
    }
}

#[test]
fn what_is_shut_down_for_a_moment_is_well() {
    require!(root, tracer);
    let lab = Lab::new();
    let run = Diagnosing::start(&lab, &["--min-age", "1m"]);
    let _peers = shut_down(&lab, 10);
    let found = run.stop();
    assert_eq!(found.ids(), [""; 0], "{found:#?}");
}

/// What is found while so many connections are closed whose peers do not close.
#[track_caller]
fn close(lab: &Lab, n: usize) -> (Diagnosis, Crowd) {
    let run = Diagnosing::start(lab, &["--min-age", "500ms"]);
    let crowd = Crowd::start(&lab.ns, &["leak", &lab.ip.to_string(), &n.to_string()]);
    crowd.wait_for("done", LIMIT);
    until(LIMIT, &format!("{n} in CLOSE_WAIT"), || {
        let counts = proc_net::counts(&lab.ns);
        (counts.get("close_wait") == Some(&n)).then_some(())
    });
    std::thread::sleep(Duration::from_millis(700));
    (run.stop(), crowd)
}

/// Whether it finds that there are many orphans.
fn orphans(found: &Diagnosis) -> bool {
    found.ids().contains(&"fin_wait2_orphans")
}

/// `count`, `full` and `time_wait`.
fn numbers(finding: &Value) -> [Option<u64>; 3] {
    ["count", "full", "time_wait"].map(|name| finding["evidence"][name].as_u64())
}

#[test]
fn minisockets_in_fin_wait2_fill_the_table_of_time_wait() {
    require!(root, tracer);
    for (n, severity) in [(60, Some("warning")), (34, Some("notice")), (20, None)] {
        let lab = Lab::new();
        lab.ns.sysctl("tcp_max_tw_buckets", "64");
        let (found, mut crowd) = close(&lab, n);
        let Some(severity) = severity else {
            assert_eq!(found.ids(), ["close_wait_server"], "{found:#?}");
            continue;
        };
        let finding = found.one("fin_wait2_orphans");
        assert_eq!(finding["severity"], severity, "{finding:#}");
        assert_eq!(numbers(finding), [Some(n as u64), Some(0), Some(0)]);
        assert_eq!(finding["evidence"]["max_tw_buckets"], 64, "{finding:#}");
        let fix = told(finding, "fix");
        assert!(fix.contains("they have the CLOSE_WAIT"), "{fix}");
        // Whose these are is found, too.
        let theirs = found.close_wait_of("close_wait_server", crowd.pid());
        assert!(theirs.is_some(), "{found:#?}");

        // The fix: the peers close.
        crowd.exit();
        until(LIMIT, "the end of CLOSE_WAIT", || {
            let counts = proc_net::counts(&lab.ns);
            (counts.get("time_wait") == Some(&n)).then_some(())
        });
        let run = Diagnosing::start(&lab, &["--min-age", "500ms"]);
        std::thread::sleep(Duration::from_millis(700));
        let found = run.stop();
        // Now it is TIME_WAIT that fills it.
        assert_eq!(found.ids(), ["time_wait_pressure"], "{found:#?}");
        let finding = found.one("time_wait_pressure");
        assert_eq!(finding["severity"], severity, "{finding:#}");
    }
}

#[test]
fn there_is_no_fin_wait2_beyond_the_table() {
    require!(root, tracer);
    let lab = Lab::new();
    lab.ns.sysctl("tcp_max_tw_buckets", "64");
    let before = netstat::tcp_ext(&lab.ns, "TCPTimeWaitOverflow");
    let (found, _crowd) = close(&lab, 80);
    let refused = netstat::tcp_ext(&lab.ns, "TCPTimeWaitOverflow") - before;
    assert_ne!(refused, 0);
    assert!(orphans(&found), "{found:#?}");
    let finding = found.one("time_wait_overflow");
    assert_eq!(finding["evidence"]["overflows"], refused, "{finding:#}");
}

#[test]
fn orphans_are_full_sockets_where_tcp_fin_timeout_is_long() {
    require!(root, tracer);
    for (timeout, are_full, words) in [
        ("120", true, "stays full for 60 s"),
        ("60", false, "ends after that many seconds"),
    ] {
        let lab = Lab::new();
        lab.ns.sysctl("tcp_fin_timeout", timeout);
        let (found, _crowd) = close(&lab, MANY);
        let sockets = proc_net::sockets(&lab.ns);
        let orphans = sockets.iter().filter(|s| s.state == "fin_wait2");
        let full = orphans.filter(|s| !s.mini).count();
        // Where the last ACK comes while close() has the lock, the kernel keeps the full socket of one,
        // whatever the timeout is (`sock_owned_by_user` in `tcp_rcv_state_process`).
        assert!(
            (full > MANY / 2) == are_full,
            "{full} of {MANY} are full sockets"
        );
        let finding = found.one("fin_wait2_orphans");
        let counts = [Some(MANY as u64), Some(full as u64), Some(0)];
        assert_eq!(numbers(finding), counts, "{finding:#}");
        let severity = if full == 0 { "info" } else { "notice" };
        assert_eq!(finding["severity"], severity, "{finding:#}");
        let kernel = told(finding, "kernel");
        assert!(kernel.contains(words), "{kernel}");
    }
}

#[test]
fn orphans_whose_peers_close_soon_are_well() {
    require!(root, tracer);
    let lab = Lab::new();
    let run = Diagnosing::start(&lab, &["--min-age", "500ms"]);
    let crowd = Crowd::start(&lab.ns, &["burst", &lab.ip.to_string(), "1000", "2"]);
    crowd.truth(LIMIT);
    std::thread::sleep(Duration::from_millis(700));
    let found = run.stop();
    assert_eq!(found.ids(), [""; 0], "{found:#?}");
}

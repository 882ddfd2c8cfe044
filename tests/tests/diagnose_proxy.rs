//! Diagnoses of a proxy that does not see its clients leave, and blocks in a write.

use std::time::Duration;

use serde_json::json;
use tcptrace_tests::child::Process;
use tcptrace_tests::diagnosis::{Diagnosing, Diagnosis, told};
use tcptrace_tests::kernel::jiffy_ns;
use tcptrace_tests::lab::Lab;
use tcptrace_tests::oracle::netstat;
use tcptrace_tests::require;
use tcptrace_tests::software::{program, tell};

/// What its clients wait for an answer.
const PATIENCE_NS: u64 = 1_000_000_000;

/// Those that come while it serves: they fit into its queue.
const HELD: u32 = 4;

/// What its queue takes, with a backlog of 4, and those that come when it is full.
const QUEUE: u32 = 5;
const MORE: u32 = 3;

/// What a proxy, its clients and a tracer come to: clients that leave without an answer, one that
/// does not read, and more clients.
struct Story {
    lab: Lab,
    proxy: Process,
    found: Diagnosis,
    /// Of the kernel's count of connections that found no room.
    dropped: u64,
}

#[track_caller]
fn story(habit: &str) -> Story {
    let lab = Lab::new();
    let ip = lab.ip.to_string();
    let proxy = program(&lab, "proxy.py", &[&ip, "7000", habit]);
    let mut clients = program(&lab, "impatient.py", &[&ip, "7000"]);
    let run = Diagnosing::start(&lab, &["--min-age", "500ms"]);
    let before = netstat::tcp_ext(&lab.ns, "ListenOverflows");
    tell(&mut clients, &HELD.to_string(), "gone");
    tell(&mut clients, "big", "stalled");
    // Longer than a careful one writes.
    std::thread::sleep(Duration::from_millis(700));
    tell(&mut clients, &QUEUE.to_string(), "gone");
    tell(&mut clients, &MORE.to_string(), "gone");
    std::thread::sleep(Duration::from_millis(700));
    let found = run.stop();
    let dropped = netstat::tcp_ext(&lab.ns, "ListenOverflows") - before;
    Story {
        lab,
        proxy,
        found,
        dropped,
    }
}

#[test]
fn a_proxy_that_hangs_in_a_write_and_ignores_who_leaves() {
    require!(root, tracer, python_tools);
    let Story {
        lab,
        proxy,
        found,
        dropped,
    } = story("careless");
    let mut ids = found.ids();
    ids.sort_unstable();
    let expected = [
        "accept_queue_full",
        "blocked_writer",
        "close_wait_server",
        "close_wait_unaccepted",
    ];
    assert_eq!(ids, expected, "{found:#?}");

    let writer = found.one("blocked_writer");
    assert_eq!(writer["severity"], "critical", "{writer:#}");
    let evidence = &writer["evidence"];
    assert_eq!(evidence["pid"], proxy.pid(), "{writer:#}");
    assert_eq!(
        (&evidence["blocked"], &evidence["threads"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(evidence["call"], "sendto", "{writer:#}");
    let peer = evidence["peer"].as_str().unwrap_or_default();
    assert!(peer.starts_with("127.0.0.1:"), "{writer:#}");
    assert!(evidence["send_q"].as_u64() > Some(0), "{writer:#}");
    assert!(evidence["fd"].as_u64() > Some(2), "{writer:#}");
    assert!(told(writer, "also").contains("0 % CPU"), "{writer:#}");

    let queue = found.one("accept_queue_full");
    assert_eq!(queue["severity"], "critical", "{queue:#}");
    let evidence = &queue["evidence"];
    assert_eq!(evidence["pid"], proxy.pid(), "{queue:#}");
    assert_eq!(evidence["listener"], format!("{}:7000", lab.ip));
    assert!(dropped >= u64::from(MORE));
    assert_eq!(evidence["dropped"], dropped, "{queue:#}");
    assert_eq!(
        (&evidence["waiting"], &evidence["limit"]),
        (&json!(QUEUE), &json!(4))
    );
    assert_eq!(evidence["given_up"], QUEUE, "{queue:#}");
    assert!(told(queue, "what").contains("in sendto(fd"), "{queue:#}");

    let unaccepted = found.one("close_wait_unaccepted");
    let evidence = &unaccepted["evidence"];
    assert_eq!(evidence["pid"], proxy.pid(), "{unaccepted:#}");
    assert_eq!(evidence["count"], QUEUE, "{unaccepted:#}");
    assert_eq!(evidence["unread"], QUEUE, "{unaccepted:#}");

    let held = found.one("close_wait_server");
    let evidence = &held["evidence"];
    assert_eq!(evidence["processes"][0]["pid"], proxy.pid(), "{held:#}");
    assert_eq!(evidence["count"], HELD, "{held:#}");
    assert_eq!(evidence["closed_first"], "client", "{held:#}");
    assert_eq!(evidence["unread"]["nothing_end_read"], HELD, "{held:#}");
    assert_eq!(evidence["silence"]["kind"], "timeout", "{held:#}");
    let median = evidence["silence"]["median_ns"].as_u64();
    let least = PATIENCE_NS - 2 * jiffy_ns();
    assert!(median.is_some_and(|ns| ns >= least), "{held:#}");
    assert!(told(held, "fix").contains("EPOLLRDHUP"), "{held:#}");
}

#[test]
fn a_proxy_that_sees_its_clients_leave() {
    require!(root, tracer, python_tools);
    let Story { found, dropped, .. } = story("careful");
    assert_eq!(dropped, 0);
    assert_eq!(found.ids(), [""; 0], "{found:#?}");
}

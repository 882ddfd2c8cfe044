//! Queues and tables of the kernel that are full.

use super::*;

#[test]
fn a_full_table_of_time_wait_is_told_by_its_counter() {
    let mut bed = Bed::new(&[]);
    bed.read("net.ipv4.tcp_max_tw_buckets", "16");
    bed.read("TcpExt.TCPTimeWaitOverflow", "100");
    assert_eq!(bed.diagnosis().findings, []);
    bed.read("TcpExt.TCPTimeWaitOverflow", "142");
    let finding = bed.finding();
    assert_eq!(finding.id, Id::TimeWaitOverflow);
    assert_eq!(finding.evidence["overflows"], 42);
}

/// Where nothing but sk_drops tells, drops of SYNs for other reasons look like those of the accept queue.
#[test]
fn drops_without_an_overflow_are_not_of_the_accept_queue() {
    let mut listener = snapshot(TcpState::Listen, "10.0.0.1:80", "0.0.0.0:0");
    (listener.cookie, listener.send_q, listener.drops) = (1, 8, Some(3));
    let mut bed = Bed::new(&[listener]);
    listener.drops = Some(45);
    bed.feed(Input::Socket(listener));
    assert_eq!(bed.finding().id, Id::AcceptQueueFull);
    bed.read("TcpExt.ListenOverflows", "7");
    assert_eq!(bed.diagnosis().findings, []);
    bed.read("TcpExt.ListenOverflows", "49");
    assert_eq!(bed.finding().id, Id::AcceptQueueFull);
}

/// A listener for which nine half-open requests are one too many, and what the kernel counted.
fn flooded(syncookies: &str, counters: &[(&str, u64)]) -> Finding {
    let mut listener = snapshot(TcpState::Listen, "10.0.0.1:80", "0.0.0.0:0");
    (listener.cookie, listener.recv_q, listener.send_q) = (1, 0, 8);
    let mut there = vec![listener];
    for i in 0..9 {
        let remote = format!("10.9.9.9:{}", 5_000 + i);
        let mut request = snapshot(TcpState::SynRecv, "10.0.0.1:80", &remote);
        (request.cookie, request.inode) = (1_000 + i, 0);
        there.push(request);
    }
    let mut bed = Bed::new(&there);
    bed.held(&there[..1], 800, "web");
    bed.read("net.ipv4.tcp_syncookies", syncookies);
    bed.read("net.ipv4.tcp_max_syn_backlog", "12");
    bed.read("net.core.somaxconn", "4096");
    for (name, _) in counters {
        bed.read(name, "7");
    }
    assert_eq!(bed.diagnosis().findings, []);
    for (name, more) in counters {
        bed.read(name, &(7 + more).to_string());
    }
    bed.finding()
}

#[test]
fn syns_without_room_are_told_with_their_listener() {
    let finding = flooded(
        "1",
        &[
            ("TcpExt.TCPReqQFullDoCookies", 40),
            ("TcpExt.SyncookiesSent", 40),
            ("TcpExt.SyncookiesRecv", 1),
        ],
    );
    assert_eq!(
        (finding.id, finding.severity, finding.sockets),
        (Id::SynQueueFull, Severity::Warning, 9)
    );
    assert!(
        finding
            .headline
            .starts_with("10.0.0.1:80 answers SYNs with cookies: 40 in 10.0s")
    );
    assert_eq!(
        line(&finding, Label::Who),
        "10.0.0.1:80 of pid 800 web: 9 half-open, 9 fit"
    );
    let what = line(&finding, Label::What);
    assert!(what.contains("from 10.9.9.9"), "{what}");
    assert!(what.contains("of 40 cookies 1 came back: a SYN flood"));
    assert!(line(&finding, Label::Kernel).contains("listen()'s argument"));
    assert_eq!(line(&finding, Label::Now), "");

    let finding = flooded(
        "1",
        &[
            ("TcpExt.TCPReqQFullDoCookies", 40),
            ("TcpExt.SyncookiesSent", 40),
            ("TcpExt.SyncookiesRecv", 39),
        ],
    );
    assert_eq!(finding.severity, Severity::Notice);
    assert!(line(&finding, Label::Fix).contains("a greater backlog"));

    let finding = flooded("0", &[("TcpExt.TCPReqQFullDrop", 40)]);
    assert_eq!(finding.severity, Severity::Critical);
    assert!(line(&finding, Label::Now).contains("tcp_syncookies=1"));
}

/// Without cookies the last quarter of tcp_max_syn_backlog is not for strangers.
#[test]
fn drops_that_have_no_counter_are_those_of_strangers() {
    let finding = flooded("0", &[("TcpExt.ListenDrops", 5)]);
    assert_eq!(finding.severity, Severity::Critical);
    assert_eq!(finding.evidence["dropped"], 0);
    assert_eq!(finding.evidence["dropped_unproven"], 5);
}

#[test]
fn cookies_for_everybody_say_nothing_of_a_queue() {
    let mut bed = Bed::new(&[]);
    bed.read("net.ipv4.tcp_syncookies", "2");
    bed.read("TcpExt.TCPReqQFullDoCookies", "7");
    bed.read("TcpExt.TCPReqQFullDoCookies", "700");
    assert_eq!(bed.diagnosis().findings, []);
}

/// So many minisockets in a state, of connections that came to us.
fn minisockets(n: u16, state: TcpState, timer: Timer) -> Vec<SocketSnapshot> {
    let mut listener = snapshot(TcpState::Listen, "0.0.0.0:80", "0.0.0.0:0");
    (listener.cookie, listener.send_q) = (1, 128);
    let one = |i: u16| SocketSnapshot {
        cookie: 1_000 + u64::from(i),
        mini: true,
        inode: 0,
        timer,
        ..snapshot(state, "10.0.0.1:80", &format!("10.9.9.9:{}", 1_000 + i))
    };
    let all = (0..n).map(one);
    std::iter::once(listener).chain(all).collect()
}

#[test]
fn time_wait_far_from_every_limit_is_worth_a_word_and_no_finding() {
    let timer = Timer::TimeWait { left_ms: 50_000 };
    let mut bed = Bed::new(&minisockets(10_000, TcpState::TimeWait, timer));
    bed.read("net.ipv4.ip_local_port_range", "32768 60999");
    bed.read("net.ipv4.tcp_max_tw_buckets", "131072");
    let found = bed.diagnosis();
    assert_eq!(found.findings, []);
    let style = Style {
        terminal: None,
        color: false,
        top: 10,
    };
    let text = to_text(&found, style);
    assert!(
        text.contains("; 10,000 in TIME_WAIT are harmless"),
        "{text}"
    );
    for (most, severity) in [("20000", Severity::Notice), ("11000", Severity::Warning)] {
        bed.read("net.ipv4.tcp_max_tw_buckets", most);
        let finding = bed.finding();
        assert_eq!(
            (finding.id, finding.severity, finding.sockets),
            (Id::TimeWaitPressure, severity, 10_000)
        );
    }
    // Where the limit is not known nobody can say that it is far.
    bed.read("net.ipv4.tcp_max_tw_buckets", "?");
    assert_eq!(bed.finding().severity, Severity::Notice);
}

#[test]
fn orphans_fill_the_table_of_time_wait() {
    let timer = Timer::TimeWait { left_ms: 50_000 };
    let mut there = minisockets(60, TcpState::FinWait2, timer);
    there.extend((0..30).map(|i| SocketSnapshot {
        cookie: 9_000 + i,
        mini: true,
        inode: 0,
        timer,
        ..snapshot(
            TcpState::TimeWait,
            "10.0.0.1:80",
            &format!("10.9.9.8:{}", 1_000 + i),
        )
    }));
    let mut bed = Bed::new(&there);
    bed.read("net.ipv4.tcp_max_tw_buckets", "1000");
    assert_eq!(bed.diagnosis().findings, []);
    bed.read("net.ipv4.tcp_max_tw_buckets", "96");
    let finding = bed.finding();
    assert_eq!(
        (finding.id, finding.severity, finding.sockets),
        (Id::FinWait2Orphans, Severity::Warning, 60)
    );
    assert_eq!(finding.evidence["time_wait"], 30);
    assert!(line(&finding, Label::Kernel).contains("94 % of net.ipv4.tcp_max_tw_buckets (96)"));
}

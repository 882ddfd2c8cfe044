//! Hosts that are ill, each in one way, and one that is well.

mod full;

use std::sync::Arc;

use super::*;
use crate::cause::Cause;
use crate::change::Change;
use crate::filter::Filter;
use crate::host::{Activity, Blocked, Reading};
use crate::input::{Definition, Input, Loss, SocketSnapshot, Sweep, Timer};
use crate::owner::{Comm, Holder, Process};
use crate::report::snapshot::tests::{S, snapshot};
use crate::state::StateSet;
use crate::tracker::{Minisockets, Options};

const NETNS: u32 = 4;

/// When the trace begins.
const BEGAN: Mono = Mono(1_000 * S);

/// A trace of ten seconds of sockets that are there and stay.
struct Bed {
    tracker: Tracker,
    tally: Tally,
}

impl Bed {
    fn new(sockets: &[SocketSnapshot]) -> Bed {
        let mut bed = Bed {
            tracker: Tracker::new(Options {
                filter: Filter {
                    states: StateSet::all(),
                    min_age_ns: S,
                    ..Filter::default()
                },
                transitions: Tally::told(),
                minisockets: Minisockets::Seen,
                mode: "full".to_owned(),
                ..Options::default()
            }),
            tally: Tally::new(5 * S),
        };
        for (at, later_ms) in [(BEGAN, 0), (BEGAN.plus(10 * S), 10_000)] {
            bed.feed(Input::Sweep(Sweep::Begin { at }));
            for socket in sockets {
                let later = |ms: Option<u32>| ms.map(|ms| ms + later_ms);
                bed.feed(Input::Socket(SocketSnapshot {
                    at,
                    last_ack_recv_ms: later(socket.last_ack_recv_ms),
                    last_data_recv_ms: later(socket.last_data_recv_ms),
                    last_data_sent_ms: later(socket.last_data_sent_ms),
                    ..*socket
                }));
            }
            bed.feed(Input::Sweep(Sweep::End {
                at,
                netns: vec![NETNS],
                partly: Vec::new(),
                hidden: 0,
            }));
        }
        bed
    }

    fn feed(&mut self, input: Input) {
        let mut changes = Vec::new();
        let began = self.tracker.now().minus(self.tracker.span_ns());
        self.tally.begun(began);
        self.tracker.apply(&input, &mut changes);
        changes.iter().for_each(|change| self.tally.change(change));
    }

    fn define(&mut self, definition: Definition) {
        self.feed(Input::Define(definition));
    }

    fn held(&mut self, sockets: &[SocketSnapshot], pid: u32, name: &str) {
        let comm = Comm::from_bytes(name.as_bytes());
        self.define(Definition::Process(Process {
            pid,
            comm,
            cmdline: Some(Arc::from(format!("{name} --serve"))),
            ..Process::default()
        }));
        for (fd, socket) in (3..).zip(sockets) {
            self.define(Definition::Holders {
                cookie: socket.cookie,
                holders: vec![Holder { pid, fd, comm }],
            });
        }
    }

    fn read(&mut self, name: &str, value: &str) {
        self.define(Definition::Reading(Reading {
            netns: NETNS,
            name: Arc::from(name),
            value: Arc::from(value),
        }));
    }

    fn diagnosis(&self) -> Diagnosis {
        let completeness = self.tracker.summary().completeness;
        let host = Host {
            name: "web-3".to_owned(),
            kernel: "6.1".to_owned(),
            ..Host::default()
        };
        Diagnosis::new(&self.tracker, &self.tally, 5 * S, completeness, host)
    }

    /// The only finding.
    fn finding(&self) -> Finding {
        let diagnosis = self.diagnosis();
        let [finding] = &diagnosis.findings[..] else {
            panic!("one finding, not {:#?}", diagnosis.findings);
        };
        finding.clone()
    }
}

/// So many sockets in one state, each with its own local port and cookie.
fn sockets(n: u16, state: TcpState, remote: &str) -> Vec<SocketSnapshot> {
    let one = |i: u16| SocketSnapshot {
        cookie: 1_000 + u64::from(i),
        inode: 50 + u32::from(i),
        ..snapshot(state, &format!("10.0.0.1:{}", 33_000 + i), remote)
    };
    (0..n).map(one).collect()
}

/// In CLOSE_WAIT for 20 s, after so long a silence.
fn left(mut sockets: Vec<SocketSnapshot>, silent_ms: u32, recv_q: u32) -> Vec<SocketSnapshot> {
    for (i, socket) in (0..).zip(&mut sockets) {
        socket.recv_q = recv_q;
        socket.last_ack_recv_ms = Some(20_000);
        socket.last_data_recv_ms = Some(20_000 + silent_ms + i % 5);
        socket.last_data_sent_ms = Some(20_004 + silent_ms + i % 5);
    }
    sockets
}

fn line(finding: &Finding, label: Label) -> String {
    let lines = finding.lines.iter().filter(|(l, _)| *l == label);
    let texts: Vec<&str> = lines.map(|(_, text)| text.as_str()).collect();
    texts.join(" / ")
}

#[test]
fn a_healthy_host_gets_one_line() {
    let mut bed = Bed::new(&sockets(20, TcpState::Established, "10.0.0.9:443"));
    bed.read("net.ipv4.ip_local_port_range", "32768 60999");
    bed.define(Definition::Activity(Activity {
        at: BEGAN.plus(9 * S),
        pid: 4711,
        files: Some(30),
        files_max: Some(1_024),
        threads: 4,
        blocked: Vec::new(),
    }));
    let diagnosis = bed.diagnosis();
    assert_eq!(diagnosis.findings, []);
    let style = Style {
        terminal: None,
        color: true,
        top: 5,
    };
    assert_eq!(
        to_text(&diagnosis, style),
        "nothing found: 20 connections, traced for 10.0s\ndata: complete; estimated durations (~): 20; \
         mode full\n"
    );
}

#[test]
fn a_pool_that_keeps_what_the_peer_has_closed() {
    let there = left(sockets(120, TcpState::CloseWait, "10.0.0.9:443"), 15_000, 1);
    let mut bed = Bed::new(&there);
    bed.held(&there, 4711, "gunicorn");
    bed.define(Definition::Activity(Activity {
        at: BEGAN.plus(9 * S),
        pid: 4711,
        files: Some(130),
        files_max: Some(1_024),
        threads: 1,
        blocked: Vec::new(),
    }));
    let finding = bed.finding();
    assert_eq!(
        (finding.id, finding.severity, finding.sockets),
        (Id::CloseWaitClient, Severity::Warning, 120)
    );
    let silence = &finding.evidence["silence"];
    assert_eq!(silence["kind"], "timeout");
    assert_eq!(
        (silence["n"].as_u64(), silence["of"].as_u64()),
        (Some(120), Some(120))
    );
    let median = silence["median_ns"].as_u64().expect("a time");
    assert!(median.abs_diff(15 * S) <= 10_000_000, "{median}");
    assert!(
        line(&finding, Label::Who).starts_with(
            "pid 4711 gunicorn (gunicorn --serve) · fd 130 of 1,024 · with 10.0.0.9:443"
        )
    );
    assert!(line(&finding, Label::What).contains("the peer's idle timeout is ≈ 15.0s"));
    assert_eq!(
        line(&finding, Label::App),
        "never read the FIN: Recv-Q 1 ×120"
    );
    assert!(line(&finding, Label::Kernel).contains("SO_KEEPALIVE is off on all 120"));
    assert!(line(&finding, Label::Fix).contains("less than 15.0s"));
    assert!(line(&finding, Label::Not).contains("tcp_keepalive_time"));
}

/// Each is closed 7 s after its peer: there are always as many, however many come.
#[test]
fn what_comes_and_goes_does_not_grow() {
    let mut bed = Bed::new(&[]);
    let mut view = crate::infer::view(
        &snapshot(TcpState::CloseWait, "10.0.0.1:33000", "10.0.0.9:443"),
        &crate::infer::Listeners::default(),
        None,
        crate::owner::Owner::default(),
    );
    (view.owner.pid, view.age) = (Some(4711), crate::time::Age::Exact(7 * S));
    for tenth in 0..=100 {
        view.at = BEGAN.plus(tenth * S / 10);
        bed.tally.change(&Change::Transition {
            view: view.clone(),
            next: TcpState::LastAck,
            cause: Cause::Close,
        });
    }
    let mut course = bed.tally.released[&(Some(4711), true)].clone();
    // Those that are still there have been stuck for up to two seconds.
    for tenth in 81..=100 {
        course.add(BEGAN.plus(tenth * S / 10), 1);
    }
    let growth = course.growth(BEGAN.plus(5 * S), BEGAN.plus(10 * S));
    assert_eq!(growth, growth::Growth::No);
}

#[test]
fn every_peer_has_an_idle_timeout_of_its_own() {
    let long = left(sockets(40, TcpState::CloseWait, "10.0.0.9:443"), 15_000, 1);
    let mut short = left(sockets(30, TcpState::CloseWait, "10.0.0.8:80"), 5_000, 1);
    for socket in &mut short {
        socket.cookie += 1_000;
    }
    let there = [long, short].concat();
    let mut bed = Bed::new(&there);
    bed.held(&there, 4711, "gunicorn");
    let finding = bed.finding();
    let what = line(&finding, Label::What);
    assert!(
        what.contains("the idle timeout of 10.0.0.9:443 is ≈ 15.0s (n = 40")
            && what.contains(", of 10.0.0.8:80 ≈ 5.0s (n = 30"),
        "{what}"
    );
    // The shortest is what a pool has to go by.
    assert!(line(&finding, Label::Fix).contains("less than 5.0s"));
    assert_eq!(finding.evidence["timeouts"][1]["peer"], "10.0.0.8:80");
}

#[test]
fn keepalive_ends_them_some_day() {
    let mut there = left(sockets(3, TcpState::CloseWait, "10.0.0.9:443"), 15_000, 25);
    for socket in &mut there {
        socket.timer = Timer::Keepalive { left_ms: 30_000 };
    }
    let mut bed = Bed::new(&there);
    bed.held(&there, 4711, "gunicorn");
    bed.read("net.ipv4.tcp_keepalive_intvl", "75");
    bed.read("net.ipv4.tcp_keepalive_probes", "9");
    let finding = bed.finding();
    assert_eq!(finding.severity, Severity::Notice);
    let kernel = line(&finding, Label::Kernel);
    assert!(kernel.contains("probes all 3 (SO_KEEPALIVE)"), "{kernel}");
    assert!(
        kernel.contains("within ~30.0s") && kernel.contains("~11m15s"),
        "{kernel}"
    );
    let app = line(&finding, Label::App);
    assert!(app.contains("TLS close_notify (Recv-Q 25)"), "{app}");
    assert!(!line(&finding, Label::Not).contains("tcp_keepalive_time"));
}

#[test]
fn ports_are_named_by_what_holds_them() {
    for (state, held_by, fix) in [
        (TcpState::CloseWait, "close_wait", "close these sockets"),
        (TcpState::TimeWait, "time_wait", "reuse connections"),
    ] {
        let mut there = left(sockets(90, state, "10.0.0.9:443"), 15_000, 1);
        for socket in there.iter_mut().filter(|_| state == TcpState::TimeWait) {
            (socket.mini, socket.inode) = (true, 0);
            socket.timer = Timer::TimeWait { left_ms: 50_000 };
        }
        let mut bed = Bed::new(&there);
        bed.read("net.ipv4.ip_local_port_range", "33000 33099");
        bed.read("net.ipv4.ip_local_reserved_ports", "33099");
        bed.read("net.ipv4.tcp_tw_reuse", "2");
        let diagnosis = bed.diagnosis();
        let finding = diagnosis.findings.iter().find(|f| f.id == Id::PortsNear);
        let finding = finding.expect("the ports");
        assert_eq!(finding.evidence["held_by"], held_by);
        assert_eq!(
            (&finding.evidence["used"], &finding.evidence["usable"]),
            (&90.into(), &99.into())
        );
        assert!(line(finding, Label::Fix).contains(fix));
        let reuse = line(finding, Label::Kernel).contains("tcp_tw_reuse = 2 is for loopback only");
        assert_eq!(reuse, state == TcpState::TimeWait);
    }
}

#[test]
fn a_connect_without_a_port_says_who_wanted_one() {
    let mut bed = Bed::new(&[]);
    let comm = Comm::from_bytes(b"crawler");
    let mut view = crate::infer::view(
        &snapshot(TcpState::SynSent, "0.0.0.0:0", "10.0.0.9:443"),
        &crate::infer::Listeners::default(),
        None,
        crate::owner::Owner::default(),
    );
    (view.owner.pid, view.owner.comm) = (Some(77), Some(comm));
    bed.tally.change(&Change::Transition {
        view,
        next: TcpState::Close,
        cause: Cause::NoPort,
    });
    let finding = bed.finding();
    assert_eq!(
        (finding.id, finding.severity),
        (Id::PortsExhausted, Severity::Critical)
    );
    assert!(
        line(&finding, Label::What).contains("EADDRNOTAVAIL")
            && line(&finding, Label::What).contains("pid 77 crawler")
    );
}

#[test]
fn a_thread_that_cannot_write_is_found_with_its_socket() {
    let mut there = sockets(1, TcpState::Established, "10.1.2.3:9000");
    there[0].send_q = 2_600_000;
    there[0].last_data_sent_ms = Some(194_000);
    let mut bed = Bed::new(&there);
    bed.held(&there, 800, "proxy");
    bed.define(Definition::Activity(Activity {
        at: BEGAN.plus(10 * S),
        pid: 800,
        files: Some(60),
        files_max: None,
        threads: 1,
        blocked: vec![Blocked {
            tid: 800,
            comm: Comm::from_bytes(b"proxy"),
            call: Arc::from("sendto"),
            fd: 52,
            inode: 50,
            since: BEGAN,
        }],
    }));
    let finding = bed.finding();
    assert_eq!(
        (finding.id, finding.severity),
        (Id::BlockedWriter, Severity::Critical)
    );
    let what = line(&finding, Label::What);
    assert_eq!(
        what,
        "thread 800 (proxy) in sendto(fd 52 -> 10.1.2.3:9000), Send-Q 2,600,000, for ~204s"
    );
    assert!(line(&finding, Label::Also).contains("no thread is left"));
}

#[test]
fn who_was_never_accepted_belongs_to_a_listener() {
    let mut listener = snapshot(TcpState::Listen, "10.0.0.1:7000", "0.0.0.0:0");
    (listener.cookie, listener.recv_q, listener.send_q) = (1, 9, 8);
    let mut there = vec![listener];
    for (i, mut socket) in left(sockets(9, TcpState::CloseWait, "10.9.9.9:5000"), 0, 6)
        .into_iter()
        .enumerate()
    {
        socket.inode = 0;
        let remote = format!("10.9.9.9:{}", 5_000 + i);
        socket.tuple = snapshot(TcpState::CloseWait, "10.0.0.1:7000", &remote).tuple;
        there.push(socket);
    }
    let mut bed = Bed::new(&there);
    bed.held(&there[..1], 800, "proxy");
    bed.read("net.core.somaxconn", "4096");
    let diagnosis = bed.diagnosis();
    let ids: Vec<Id> = diagnosis.findings.iter().map(|f| f.id).collect();
    assert_eq!(ids.len(), 2, "{ids:?}");
    let given_up = diagnosis
        .findings
        .iter()
        .find(|f| f.id == Id::CloseWaitUnaccepted);
    let given_up = given_up.expect("those that were given up");
    assert_eq!(given_up.sockets, 9);
    assert_eq!(given_up.evidence["pid"], 800);
    let full = diagnosis
        .findings
        .iter()
        .find(|f| f.id == Id::AcceptQueueFull);
    let full = full.expect("the queue");
    assert!(
        full.headline.contains("9 wait to be accepted, 9 fit"),
        "{}",
        full.headline
    );
    assert!(line(full, Label::Kernel).contains("listen()'s argument; net.core.somaxconn is 4096"));
}

#[test]
fn descriptors_run_out() {
    let there = sockets(2, TcpState::Established, "10.0.0.9:443");
    let mut bed = Bed::new(&there);
    bed.held(&there, 4711, "app");
    bed.define(Definition::Activity(Activity {
        at: BEGAN.plus(10 * S),
        pid: 4711,
        files: Some(1_000),
        files_max: Some(1_024),
        threads: 1,
        blocked: Vec::new(),
    }));
    let finding = bed.finding();
    assert_eq!(
        (finding.id, finding.severity),
        (Id::FdLimit, Severity::Critical)
    );
    assert_eq!(
        finding.headline,
        "pid 4711 app has 1,000 of 1,024 file descriptors (98 %)"
    );
}

#[test]
fn a_service_knows_its_clients_of_the_same_host() {
    let mut there = sockets(60, TcpState::TimeWait, "10.0.0.1:0");
    for (i, socket) in (0..).zip(&mut there) {
        let remote = format!("10.0.0.{}:{}", if i < 50 { 1 } else { 7 }, 40_000 + i);
        socket.tuple = snapshot(TcpState::TimeWait, "10.0.0.1:8081", &remote).tuple;
        (socket.mini, socket.inode) = (true, 0);
        socket.timer = Timer::TimeWait { left_ms: 50_000 };
    }
    let mut listener = snapshot(TcpState::Listen, "10.0.0.1:8081", "0.0.0.0:0");
    (listener.cookie, listener.send_q) = (1, 511);
    there.push(listener);
    let mut bed = Bed::new(&there);
    bed.read("net.ipv4.tcp_max_tw_buckets", "64");
    let mut view = crate::infer::view(
        &snapshot(TcpState::Established, "10.0.0.1:40000", "10.0.0.1:8081"),
        &crate::infer::Listeners::default(),
        None,
        crate::owner::Owner::default(),
    );
    let comm = Comm::from_bytes(b"nginx");
    (view.owner.pid, view.owner.comm) = (Some(77), Some(comm));
    bed.tally.change(&Change::Transition {
        view,
        next: TcpState::CloseWait,
        cause: Cause::PeerFin,
    });
    let finding = bed.finding();
    assert_eq!(finding.id, Id::TimeWaitPressure);
    let what = line(&finding, Label::What);
    let from = "60 (100 %) are what came to :8081; from 10.0.0.1 ×50, 10.0.0.7 ×10 (on this host pid 77 nginx)";
    assert!(what.starts_with(from), "{what}");
    let fix = line(&finding, Label::Fix);
    assert!(
        fix.contains("keep-alive between pid 77 nginx and :8081"),
        "{fix}"
    );
}

#[test]
fn what_is_half_closed_has_no_timer() {
    let mut there = sockets(1, TcpState::FinWait2, "10.0.0.9:443");
    there[0].last_ack_recv_ms = Some(20_000);
    there[0].last_data_sent_ms = Some(20_000);
    let mut bed = Bed::new(&there);
    bed.held(&there, 4711, "app");
    let finding = bed.finding();
    assert_eq!(
        (finding.id, finding.severity),
        (Id::HalfClosed, Severity::Notice)
    );
}

#[test]
fn mptcp_is_worth_a_word() {
    let mut bed = Bed::new(&[]);
    bed.feed(Input::Lost(Loss {
        mptcp: 3,
        ..Loss::default()
    }));
    assert_eq!(bed.finding().severity, Severity::Info);
}

#[test]
fn a_page_fits_its_terminal() {
    let there = left(sockets(120, TcpState::CloseWait, "10.0.0.9:443"), 15_000, 1);
    let mut bed = Bed::new(&there);
    bed.held(&there, 4711, "gunicorn");
    for wide in [40, 80, 132] {
        let style = Style {
            terminal: Some(wide),
            color: false,
            top: 5,
        };
        let text = to_text(&bed.diagnosis(), style);
        for line in text.lines() {
            assert!(crate::report::table::width(line) <= wide, "{line}");
        }
        assert!(text.contains("close_wait_client"), "{text}");
    }
}

#[test]
fn an_object_has_what_the_text_has() {
    let there = left(sockets(120, TcpState::CloseWait, "10.0.0.9:443"), 15_000, 1);
    let bed = Bed::new(&there);
    let diagnosis = bed.diagnosis();
    let object = serde_json::to_value(DiagnosisLine::new(&diagnosis)).expect("an object");
    assert_eq!(object["type"], "diagnosis");
    assert_eq!(object["states"]["close_wait"], 120);
    let finding = &object["findings"][0];
    assert_eq!(finding["id"], "close_wait_client");
    assert_eq!(finding["advice"][0]["label"], "fix");
    assert_eq!(finding["evidence"]["count"], 120);
    let fail_on: FailOn = "warning".parse().expect("a severity");
    assert!(fail_on.why(&diagnosis, &bed.tracker).is_some());
    let fail_on: FailOn = "close_wait > 120".parse().expect("a condition");
    assert_eq!(fail_on.why(&diagnosis, &bed.tracker), None);
}

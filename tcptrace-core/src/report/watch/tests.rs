//! What the lines look like.

use std::net::SocketAddr;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::owner::{Comm, Holder, Owner};
use crate::report::table::width;
use crate::stack::{Frame, Stack, StackId};
use crate::time::Age;
use crate::tuple::{ConnId, Role, Tuple};

const S: u64 = 1_000_000_000;

fn view() -> View {
    let end = |text: &str| text.parse::<SocketAddr>().unwrap();
    View {
        at: Mono(62 * S),
        id: ConnId {
            cookie: 0x31ec,
            generation: 0,
        },
        tuple: Tuple::new(end("10.1.0.5:41822"), end("10.0.0.9:443"), None),
        role: Some(Role::Active),
        state: TcpState::CloseWait,
        age: Age::Exact(30 * S),
        mini: false,
        owner: Owner {
            pid: Some(4711),
            comm: Some(Comm::from_bytes(b"python3")),
            fd: Some(812),
            cmdline: Some("python3 -m shop".into()),
            ..Owner::default()
        },
        recv_q: Some(25),
        send_q: None,
        keepalive: None,
        verdict: Some(Verdict::CloseNotifyUnread),
        acquired_at: None,
        eof_at: None,
    }
}

fn unaccepted() -> View {
    let mut view = view();
    view.owner.pid = Some(800);
    view.owner.comm = Some(Comm::from_bytes(b"proxy"));
    view.owner.by_listener = true;
    view.tuple.local.set_port(7000);
    view.age = Age::Between {
        min: 6_725 * S,
        max: None,
    };
    view.recv_q = None;
    view.verdict = Some(Verdict::NeverAccepted);
    view
}

fn resolved(view: View) -> Change {
    Change::Resolved {
        view,
        next: TcpState::LastAck,
        cause: Cause::Close,
    }
}

fn printer(width: Option<usize>, time: Option<TimeStyle>, transitions: bool) -> Printer {
    let style = Style {
        width,
        time,
        transitions,
        ..Style::default()
    };
    let anchor = WallAnchor {
        mono: Mono(0),
        wall_ns: 1_700_000_000 * S as i64,
    };
    Printer::new(style, anchor)
}

#[track_caller]
fn check(printer: &Printer, changes: &[Change], expected: &[&str]) {
    let lines = changes.iter().map(|change| printer.line(change));
    let printed: Vec<String> = [printer.header()].into_iter().chain(lines).collect();
    assert_eq!(printed, expected, "\n{}", printed.join("\n"));
}

fn lingering() -> [Change; 3] {
    [
        Change::Stuck(view()),
        Change::Stuck(unaccepted()),
        resolved(view()),
    ]
}

fn transitions() -> [Change; 2] {
    let mut opening = view();
    opening.state = TcpState::SynSent;
    opening.age = Age::Exact(12_345_678);
    let mut dead = view();
    dead.verdict = Some(Verdict::DeadFdOpen);
    [
        Change::Transition {
            view: opening,
            next: TcpState::Established,
            cause: Cause::Handshake,
        },
        Change::Resolved {
            view: dead,
            next: TcpState::Close,
            cause: Cause::ResetReceived,
        },
    ]
}

#[test]
fn a_pipe_gets_every_column() {
    check(
        &printer(None, None, false),
        &lingering(),
        &[
            "    AGE  STATE        PID/FD        COMM             LOCAL                  PEER                       RQ  VERDICT",
            "  30.0s  CLOSE_WAIT   4711/812      python3          10.1.0.5:41822         10.0.0.9:443               25  close_notify unread",
            " ~1h52m  CLOSE_WAIT   - [:7000]     proxy            10.1.0.5:7000          10.0.0.9:443                ?  never accepted, listener pid 800",
            "resolved  30.0s  CLOSE_WAIT -> LAST_ACK  closed by its owner  4711/812 python3  10.1.0.5:41822 -> 10.0.0.9:443",
        ],
    );
}

#[test]
fn so_does_a_wide_terminal() {
    let time = Some(TimeStyle::Utc);
    check(
        &printer(Some(200), time, false),
        &lingering(),
        &[
            "TIME                          AGE  STATE        PID/FD        COMM             LOCAL                  PEER                       RQ  VERDICT",
            "2023-11-14T22:14:22.000Z    30.0s  CLOSE_WAIT   4711/812      python3          10.1.0.5:41822         10.0.0.9:443               25  close_notify unread",
            "2023-11-14T22:14:22.000Z   ~1h52m  CLOSE_WAIT   - [:7000]     proxy            10.1.0.5:7000          10.0.0.9:443                ?  never accepted, listener pid 800",
            "2023-11-14T22:14:22.000Z  resolved  30.0s  CLOSE_WAIT -> LAST_ACK  closed by its owner  4711/812 python3  10.1.0.5:41822 -> 10.0.0.9:443",
        ],
    );
}

#[test]
fn a_usual_terminal_gets_what_matters() {
    let time = Some(TimeStyle::SinceStart);
    check(
        &printer(Some(80), time, false),
        &lingering(),
        &[
            "TIME          AGE  STATE       PID/FD    COMM      PEER             VERDICT",
            "62.000      30.0s  CLOSE_WAIT  4711/812  python3   10.0.0.9:443     close_notif…",
            "62.000     ~1h52m  CLOSE_WAIT  - [:700…  proxy     10.0.0.9:443     never accep…",
            "62.000  resolved  30.0s  CLOSE_WAIT -> LAST_ACK  closed by its owner  4711/812 …",
        ],
    );
}

#[test]
fn a_narrow_terminal_gets_whose_and_how_long() {
    check(
        &printer(Some(40), None, false),
        &lingering(),
        &[
            "    AGE  STATE        PID/FD    COMM",
            "  30.0s  CLOSE_WAIT   4711/812  python3",
            " ~1h52m  CLOSE_WAIT   - [:700…  proxy",
            "resolved  30.0s  CLOSE_WAIT -> LAST_ACK…",
        ],
    );
}

#[test]
fn transitions_look_like_those_of_tcpstates() {
    check(
        &printer(None, None, true),
        &transitions(),
        &[
            "ID        PID      COMM             LOCAL                  PEER                   OLD -> NEW                            MS  CAUSE",
            "31ec      4711     python3          10.1.0.5:41822         10.0.0.9:443           SYN_SENT    -> ESTABLISHED        12.345  handshake",
            "resolved  30.0s  CLOSE_WAIT -> CLOSE  reset by peer, fd 812 still open  4711/812 python3  10.1.0.5:41822 -> 10.0.0.9:443",
        ],
    );
    check(
        &printer(Some(80), None, true),
        &transitions(),
        &[
            "PID      COMM      PEER                 OLD -> NEW                            MS",
            "4711     python3   10.0.0.9:443         SYN_SENT    -> ESTABLISHED        12.345",
            "resolved  30.0s  CLOSE_WAIT -> CLOSE  reset by peer, fd 812 still open  4711/81…",
        ],
    );
    check(
        &printer(Some(40), None, true),
        &transitions(),
        &[
            "PID      OLD -> NEW",
            "4711     SYN_SENT    -> ESTABLISHED",
            "resolved  30.0s  CLOSE_WAIT -> CLOSE  r…",
        ],
    );
}

#[test]
fn wide_adds_the_command_and_its_container() {
    let style = Style {
        wide: true,
        ..Style::default()
    };
    let printer = Printer::new(style, WallAnchor::default());
    let line = printer.line(&Change::Stuck(view()));
    assert!(line.ends_with("  -             python3 -m shop"), "{line}");
}

#[test]
fn times_are_written_as_asked() {
    let time = |style| printer(None, Some(style), false).time(Mono(62 * S + 1_999_999));
    let hour_east = TimeZone::fixed(jiff::tz::offset(1));
    assert_eq!(time(TimeStyle::Local(hour_east)).unwrap(), "23:14:22.001");
    assert_eq!(time(TimeStyle::Utc).unwrap(), "2023-11-14T22:14:22.001Z");
    assert_eq!(time(TimeStyle::SinceStart).unwrap(), "62.001");
    assert_eq!(time(TimeStyle::Monotonic).unwrap(), "62001999999");
}

#[test]
fn unknown_is_never_zero() {
    let mut view = view();
    view.owner = Owner::default();
    view.age = Age::Unknown;
    view.recv_q = None;
    view.verdict = None;
    let line = printer(None, None, false).line(&Change::Stuck(view));
    assert_eq!(
        line.split_whitespace().collect::<Vec<_>>(),
        [
            "?",
            "CLOSE_WAIT",
            "?",
            "?",
            "10.1.0.5:41822",
            "10.0.0.9:443",
            "?"
        ]
    );
}

proptest! {
    #[test]
    fn no_line_is_too_wide_and_no_control_character_gets_out(
        terminal in 1usize..250,
        comm in proptest::collection::vec(any::<u8>(), 0..16),
        cmdline in ".{0,60}",
        container in proptest::option::of(".{0,20}"),
        fd: u32,
        holders in 0usize..3,
        by_listener: bool,
        wide: bool,
        transitions: bool,
        timed: bool,
        next in 0usize..13,
    ) {
        let mut view = view();
        let comm = Comm::from_bytes(&comm);
        let holder = Holder { pid: 1, fd, comm };
        view.acquired_at = Some(Arc::new(Stack {
            id: StackId(1),
            frames: [Frame {
                function: Some(cmdline.as_str().into()),
                ..Frame::default()
            }]
            .into(),
            cut: Some(cmdline.as_str().into()),
        }));
        view.owner = Owner {
            pid: Some(u32::MAX),
            comm: Some(comm),
            fd: Some(fd),
            holders: vec![holder; holders],
            cmdline: Some(cmdline.into()),
            container: container.map(Into::into),
            by_listener,
            ..Owner::default()
        };
        let style = Style {
            width: Some(terminal),
            time: timed.then_some(TimeStyle::Utc),
            wide,
            transitions,
            stack: true,
            color: false,
        };
        let printer = Printer::new(style, WallAnchor::default());
        let (next, cause) = (crate::state::ALL[next], Cause::TimeWaitOverflow);
        for change in [
            Change::Stuck(view.clone()),
            Change::Resolved { view: view.clone(), next, cause },
            Change::Transition { view, next, cause },
        ] {
            let lines = printer.line(&change);
            for line in lines.split('\n') {
                prop_assert!(width(line) <= terminal, "{} > {terminal}: {line}", width(line));
                prop_assert!(!line.chars().any(char::is_control), "{line:?}");
            }
        }
        prop_assert!(width(&printer.header()) <= terminal);
    }
}

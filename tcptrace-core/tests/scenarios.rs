//! Text scenarios: inputs above a line of dashes, what the tracker makes of them below it.
//!
//! One input a line, `TIME WHAT …` with TIME in seconds:
//!
//! ```text
//! watch close_wait,time_wait min-age=1s transitions      options, first line
//! 1.0 state 7 EST CW 10.0.0.1:80 10.0.0.2:999 flags=…   cookie, old, new, local, remote, key=value…
//! 1.0 accept 7 10.0.0.1:80 10.0.0.2:999 actor=31/nginx fd=5
//! 1.0 mini 7 FW2 armed|cancelled|expired|segment 10.0.0.1:80 10.0.0.2:999 timeout=60 cause=…
//! 1.0 eof 7 actor=31/nginx
//! 1.0 begin | end | tick
//! 1.0 overflow 7 10.0.0.1:80 0.0.0.0:0 dropped=9 queue=5 limit=4
//! 1.0 socket 7 CW 10.0.0.1:80 10.0.0.2:999 inode=5 recv_q=1 ack=2000 data=2500 mini left=100
//! 1.0 holders 7 31/5/nginx 32/5/nginx
//! 1.0 process 31 nginx
//! 1.0 lost ring_full=3
//! 0.0 stack 3 connect app.py:7:fetch …                  number, frames, the innermost first
//! 1.0 seen 7 connect|accept|eof|close 3 pid=31
//! 1.0 summary
//! 1.0 ledgers                                            what became of what was acquired where
//! 1.0 leaks by=stack                                     the report of sockets that nobody closes
//! ```
//!
//! `BLESS=1` rewrites what stands below the dashes.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use tcptrace_common::event;
use tcptrace_core::cause::Cause;
use tcptrace_core::change::{Change, View};
use tcptrace_core::filter::Filter;
use tcptrace_core::input::*;
use tcptrace_core::owner::{Actor, Comm, Holder, Process};
use tcptrace_core::recording::{Capture, Ending, Session, Writer};
use tcptrace_core::report::leaks::{Leaks, Question, Trends};
use tcptrace_core::report::leaks_text;
use tcptrace_core::stack::{Frame, FrameKind, Point, Seen, Stack, StackId};
use tcptrace_core::state::{StateSet, TcpState};
use tcptrace_core::time::{Mono, WallAnchor, duration_text, parse_duration};
use tcptrace_core::tracker::{Ledger, Minisockets, Options, Tracker};
use tcptrace_core::tuple::{Role, Tuple};

#[test]
fn scenarios() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<_> = fs::read_dir(dir)
        .expect("scenarios")
        .map(|e| e.expect("entry").path())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    let mut failed = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("reads");
        let (inputs, expected) = text.split_once("\n----\n").expect("has a line of dashes");
        let got = run(inputs);
        if std::env::var_os("BLESS").is_some() {
            fs::write(&file, format!("{inputs}\n----\n{got}")).expect("writes");
        } else if got != expected {
            failed.push(format!(
                "{}:\n--- expected\n{expected}--- got\n{got}",
                file.display()
            ));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Makes the recording with stacks that is stored, and stays what it is.
#[test]
#[ignore = "writes tests/recordings/stacks-1.2.rec, which is kept as version 1.2 wrote it"]
fn a_scenario_as_a_recording() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(dir.join("tests/scenarios/leaks.txt")).expect("reads");
    let (text, _) = text.split_once("\n----\n").expect("has a line of dashes");
    let options = options(lines(text).next().expect("options"));
    let session = Session {
        recording: *b"a scenario, made",
        part: 1,
        anchor: WallAnchor {
            mono: Mono(0),
            wall_ns: 1_795_000_000_000_000_000,
        },
        capture: Capture {
            mode: options.mode,
            minisockets: options.minisockets,
            overflows_seen: true,
            states: StateSet::all(),
            shown: options.filter.states,
            min_age_ns: options.filter.min_age_ns,
            ..Capture::default()
        },
        ..Session::default()
    };
    let mut out = Vec::new();
    let mut writer = Writer::begin(&session, &mut out);
    let words = lines(text).skip(1).map(Words::of);
    for words in words.filter(|words| words.what != "leaks") {
        writer.append(&words.input()).expect("it fits");
    }
    writer.end(Ending::Ended, &mut out);
    fs::write(dir.join("../tests/recordings/stacks-1.2.rec"), out).expect("writes");
}

/// The lines that say something.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(|l| !l.trim().is_empty() && !l.starts_with('#'))
}

fn run(text: &str) -> String {
    let mut lines = lines(text);
    let options = options(lines.next().expect("options"));
    let by = text
        .lines()
        .find_map(|line| line.split_once(" leaks by=")?.1.parse().ok());
    let mut trends = Trends::new(Question {
        by: by.unwrap_or_default(),
        min_age_ns: options.filter.min_age_ns,
    });
    let mut tracker = Tracker::new(options);
    let mut out = String::new();
    for line in lines {
        let words = Words::of(line);
        if words.what == "summary" {
            for s in tracker.summary().states {
                let oldest = s.oldest_open.map_or("-".to_owned(), |a| a.to_string());
                let max = s.durations.map_or("-".to_owned(), |d| d.max_ns.to_string());
                out += &format!(
                    "summary {} entered {} left {} open {} oldest {oldest} estimated {} max {max}\n",
                    s.state.name(),
                    s.entered,
                    s.left,
                    s.open,
                    s.estimated,
                );
            }
            for o in tracker.summary().overflows {
                let about = if o.estimated { "~" } else { "" };
                let pid = o.view.owner.pid.map_or("?".to_owned(), |p| p.to_string());
                let at = o.view.tuple.local;
                out += &format!("summary overflow {at} pid {pid} {about}{}\n", o.dropped);
            }
            out += &format!("reconciled {}\n", tracker.summary().completeness.reconciled);
            continue;
        }
        if words.what == "ledgers" {
            for (stack, ledger) in tracker.ledgers() {
                out += &tell_ledger(stack, ledger);
            }
            continue;
        }
        if words.what == "leaks" {
            let completeness = tracker.summary().completeness;
            let anchor = WallAnchor::default();
            let leaks = Leaks::new(&tracker, trends.clone(), completeness, anchor);
            out += &leaks_text::to_text(
                &leaks,
                leaks_text::Style {
                    terminal: None,
                    color: false,
                    top: 10,
                    full_stacks: false,
                },
            );
            continue;
        }
        let mut changes = Vec::new();
        let input = words.input();
        trends.input(&input, &tracker);
        tracker.apply(&input, &mut changes);
        for change in changes {
            out += &tell(&change);
        }
    }
    out
}

fn options(line: &str) -> Options {
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[0], "watch");
    let get = |key: &str| words.iter().find_map(|w| w.strip_prefix(key));
    let watched: StateSet = words[1].parse().expect("states");
    Options {
        filter: Filter {
            states: watched,
            min_age_ns: parse_duration(get("min-age=").unwrap_or("1s")).expect("age"),
            ..Filter::default()
        },
        transitions: match words.contains(&"transitions") {
            true => StateSet::all(),
            false => StateSet::EMPTY,
        },
        by: Vec::new(),
        minisockets: match (words.contains(&"sampled"), words.contains(&"ignored")) {
            (true, _) => Minisockets::Sampled,
            (_, true) => Minisockets::Ignored,
            _ => Minisockets::Seen,
        },
        overflows_seen: !words.contains(&"sampled"),
        stacks: words.contains(&"stacks"),
        ledgers: true,
        selective: false,
        polled_ns: get("polled=").map(|d| parse_duration(d).expect("interval")),
        mode: "full".to_owned(),
    }
}

struct Words<'a> {
    at: Mono,
    what: &'a str,
    rest: Vec<&'a str>,
    keys: BTreeMap<&'a str, &'a str>,
}

impl<'a> Words<'a> {
    fn of(line: &'a str) -> Words<'a> {
        let mut words = line.split_whitespace();
        let at: f64 = words.next().expect("time").parse().expect("seconds");
        let what = words.next().expect("what");
        let (keys, rest): (Vec<&str>, Vec<&str>) = words.partition(|w| w.contains('='));
        Words {
            at: Mono((at * 1e9).round() as u64),
            what,
            rest,
            keys: keys
                .into_iter()
                .map(|w| w.split_once('=').expect("key=value"))
                .collect(),
        }
    }

    fn number(&self, key: &str) -> u32 {
        self.keys.get(key).map_or(0, |v| v.parse().expect("number"))
    }

    fn cookie(&self) -> u64 {
        self.rest[0].parse().expect("cookie")
    }

    fn state(&self, index: usize) -> TcpState {
        let set: StateSet = self.rest[index].parse().expect("state");
        set.iter().next().expect("one state")
    }

    fn tuple(&self, index: usize) -> Tuple {
        let addr = |i: usize| -> SocketAddr { self.rest[i].parse().expect("address") };
        Tuple::new(addr(index), addr(index + 1), Some(1))
    }

    fn actor(&self) -> Option<Actor> {
        let (pid, comm) = self.keys.get("actor")?.split_once('/').expect("pid/comm");
        let pid = pid.parse().expect("pid");
        let comm = Comm::from_bytes(comm.as_bytes());
        Some(Actor {
            pid,
            tid: pid,
            start_ns: 1,
            cgroup: 0,
            comm,
        })
    }

    fn event(&self, body: EventBody) -> Input {
        let cookie = self.cookie();
        Input::Kernel(Event {
            at: self.at,
            cpu: 0,
            cookie,
            sk: u64::from(self.number("sk")),
            body,
        })
    }

    fn input(&self) -> Input {
        match self.what {
            "state" => self.event(EventBody::State(StateChange {
                old: self.state(1),
                new: self.state(2),
                tuple: self.tuple(3),
                flags: self.keys.get("flags").map_or(0, |names| flags(names)),
                err: self.number("err"),
                recv_q: self.number("recv_q"),
                send_q: self.number("send_q"),
                actor: self.actor(),
            })),
            "accept" => self.event(EventBody::Accept {
                tuple: self.tuple(1),
                actor: self.actor().expect("actor"),
                fd: self.keys.contains_key("fd").then(|| self.number("fd")),
                state: TcpState::Established,
            }),
            "close" => self.event(EventBody::Close {
                actor: self.actor().expect("actor"),
                exiting: false,
            }),
            "left_out" => self.event(EventBody::LeftOut),
            "eof" => self.event(EventBody::Eof {
                actor: self.actor().expect("actor"),
            }),
            "mini" => self.event(EventBody::Mini {
                substate: self.state(1),
                tuple: self.tuple(3),
                op: match self.rest[2] {
                    "armed" => MiniOp::Armed {
                        timeout_ns: u64::from(self.number("timeout")) * 1_000_000_000,
                    },
                    "cancelled" => MiniOp::Cancelled {
                        cause: self.cause(),
                        actor: self.actor(),
                    },
                    "killed" => MiniOp::Killed {
                        cause: self.cause(),
                    },
                    "expired" => MiniOp::Expired,
                    "segment" => MiniOp::Segment,
                    other => panic!("unknown operation {other}"),
                },
            }),
            "begin" => Input::Sweep(Sweep::Begin { at: self.at }),
            "end" => Input::Sweep(Sweep::End {
                at: self.at,
                netns: vec![1],
                partly: Vec::new(),
                hidden: 0,
            }),
            "tick" => Input::Tick(self.at),
            "socket" => Input::Socket(self.socket()),
            "holders" => Input::Define(Definition::Holders {
                cookie: self.cookie(),
                holders: self.rest[1..].iter().map(|w| holder(w)).collect(),
            }),
            "process" => Input::Define(Definition::Process(Process {
                pid: self.rest[0].parse().expect("pid"),
                comm: Comm::from_bytes(self.rest[1].as_bytes()),
                ..Process::default()
            })),
            "fin_timeout" => Input::Define(Definition::FinTimeout {
                netns: 1,
                ns: u64::from(self.number("s")) * 1_000_000_000,
            }),
            "overflow" => Input::Overflow(Overflow {
                at: self.at,
                first: self.at,
                cookie: self.cookie(),
                tuple: self.tuple(1),
                dropped: u64::from(self.number("dropped")),
                queue: self.number("queue"),
                limit: self.number("limit"),
            }),
            "stack" => Input::Define(Definition::Stack(Stack {
                id: StackId(self.rest[0].parse().expect("number")),
                frames: self.rest[1..].iter().map(|w| frame(w)).collect(),
                cut: None,
            })),
            "seen" => Input::Stack(Seen {
                at: self.at,
                cookie: self.cookie(),
                point: match self.rest[1] {
                    "connect" => Point::Connect,
                    "accept" => Point::Accept,
                    "eof" => Point::Eof,
                    "close" => Point::Close,
                    other => panic!("unknown point {other}"),
                },
                pid: self.number("pid"),
                tid: self.number("pid"),
                stack: StackId(self.rest[2].parse().expect("stack")),
            }),
            "lost" => Input::Lost(Loss {
                ring_full: u64::from(self.number("ring_full")),
                ..Loss::default()
            }),
            other => panic!("unknown input {other}"),
        }
    }

    fn cause(&self) -> Cause {
        match self.keys.get("cause").copied() {
            Some("reused_by_connect") => Cause::ReusedByConnect,
            Some("reset_received") => Cause::ResetReceived,
            Some("destroyed") => Cause::Destroyed,
            _ => Cause::Unknown,
        }
    }

    fn socket(&self) -> SocketSnapshot {
        let ms = |key: &str| self.keys.get(key).map(|v| v.parse().expect("ms"));
        let mini = self.rest.contains(&"mini");
        SocketSnapshot {
            at: self.at,
            cookie: self.cookie(),
            tuple: self.tuple(2),
            state: self.state(1),
            mini,
            inode: self.number("inode"),
            uid: 0,
            recv_q: self.number("recv_q"),
            send_q: self.number("send_q"),
            timer: match ms("left") {
                Some(left_ms) if mini => Timer::TimeWait { left_ms },
                Some(left_ms) => Timer::Keepalive { left_ms },
                None => Timer::Off,
            },
            last_ack_recv_ms: ms("ack"),
            last_data_recv_ms: ms("data"),
            last_data_sent_ms: None,
            cgroup: None,
            shutdown: None,
            drops: self
                .keys
                .contains_key("drops")
                .then(|| self.number("drops")),
            mptcp: self.rest.contains(&"mptcp"),
        }
    }
}

/// `app.py:7:fetch` of Python, `connect@/lib/libc.so.6`, else the name of a function.
fn frame(word: &str) -> Frame {
    match word.split(':').collect::<Vec<_>>()[..] {
        [file, line, function] => Frame {
            function: Some(function.into()),
            file: Some(file.into()),
            line: Some(line.parse().expect("line")),
            kind: FrameKind::Python,
            ..Frame::default()
        },
        _ => {
            let (function, module) = word.split_once('@').unwrap_or((word, ""));
            Frame {
                function: Some(function.into()),
                module: (!module.is_empty()).then(|| module.into()),
                ..Frame::default()
            }
        }
    }
}

/// `ledger 3: acquired 3 = open 1 + closed 1 (4 x1) held 3.0s + exit 1`.
fn tell_ledger(stack: StackId, ledger: &Ledger) -> String {
    let mut text = format!(
        "ledger {}: acquired {} = open {} + closed {}",
        stack.0, ledger.acquired, ledger.open, ledger.closed
    );
    for (place, count) in &ledger.places {
        text += &format!(" ({} x{count})", place.0);
    }
    if let Some(longest) = ledger.held.max_ns() {
        text += &format!(" held at most {}", duration_text(longest));
    }
    for (cause, count) in &ledger.otherwise {
        text += &format!(" + {} {count}", cause.name());
    }
    text + "\n"
}

fn flags(names: &str) -> u16 {
    names
        .split(',')
        .map(|name| match name {
            "owned" => event::STATE_OWNED | event::STATE_ACTOR,
            "last_fput" => event::STATE_LAST_FPUT,
            "exiting" => event::STATE_EXITING,
            "no_socket" => event::STATE_NO_SOCKET,
            "dead" => event::STATE_DEAD,
            "no_linger2" => event::STATE_NO_LINGER2,
            other => panic!("unknown flag {other}"),
        })
        .fold(0, |all, one| all | one)
}

fn holder(word: &str) -> Holder {
    let mut parts = word.split('/');
    let mut next = || parts.next().expect("pid/fd/comm");
    Holder {
        pid: next().parse().expect("pid"),
        fd: next().parse().expect("fd"),
        comm: Comm::from_bytes(next().as_bytes()),
    }
}

fn tell(change: &Change) -> String {
    match change {
        Change::Stuck(view) => format!("stuck {}\n", describe(view)),
        Change::Resolved { view, next, cause } => {
            format!(
                "resolved {} -> {} {}\n",
                describe(view),
                next.name(),
                cause.name()
            )
        }
        Change::Transition { view, next, cause } => {
            format!(
                "transition {} -> {} {}\n",
                describe(view),
                next.name(),
                cause.name()
            )
        }
        Change::Overflow {
            view,
            dropped,
            estimated,
        } => {
            let about = if *estimated { "~" } else { "" };
            format!("overflow {} {about}{dropped}\n", describe(view))
        }
    }
}

fn describe(view: &View) -> String {
    let mut text = format!("{} {} {}", view.id, view.state.name(), view.age);
    if view.mini {
        text += " mini";
    }
    text += view.role.map_or(" role?", |r| match r {
        Role::Active => " active",
        Role::Passive => " passive",
        Role::Unaccepted => " unaccepted",
    });
    match (view.owner.pid, view.owner.comm) {
        (Some(pid), Some(comm)) => text += &format!(" {pid}/{comm}"),
        _ => text += " owner?",
    }
    if let Some(fd) = view.owner.fd {
        text += &format!(" fd {fd}");
    }
    if view.owner.remembered {
        text += " remembered";
    }
    if let Some(verdict) = view.verdict {
        text += &format!(" {}", verdict.name());
    }
    for (what, stack) in [("acquired", &view.acquired_at), ("eof", &view.eof_at)] {
        if let Some(stack) = stack {
            text += &format!(" {what} at {}", stack.id.0);
        }
    }
    text
}

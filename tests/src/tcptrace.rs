//! The tracer as its user has it: a program with arguments, JSON lines and exit codes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::child::{LIMIT, Line, Process};
use crate::kernel::jiffy_ns;
use crate::netns::Netns;
use crate::pace::{patient, replays};
use crate::truth::Span;

/// Name of the recording of a [`Tracer`].
const RECORDING: &str = "it.rec";

/// `TCPTRACE_BIN`, else the release build of this target directory.
pub fn tracer_path() -> PathBuf {
    match std::env::var_os("TCPTRACE_BIN") {
        Some(path) => path.into(),
        None => {
            let test = std::env::current_exe().expect("the path of this test");
            let target = test.ancestors().nth(3).expect("target/PROFILE/deps/test");
            target.join("release/tcptrace")
        }
    }
}

/// What `watch` is told of the mechanisms it may use: those in `TCPTRACE_HOOKS`, else nothing.
pub fn hooks() -> Vec<String> {
    let hooks = std::env::var("TCPTRACE_HOOKS").ok();
    let arguments = hooks.map(|hooks| ["--hooks".to_owned(), hooks]);
    arguments.into_iter().flatten().collect()
}

/// A command that runs the tracer; where it traces, with [`hooks`] unless it is told others.
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(tracer_path());
    let (verb, rest) = args.split_at(args.len().min(1));
    command.args(verb);
    if matches!(verb, ["watch" | "record"]) && !args.contains(&"--hooks") {
        command.args(hooks());
    }
    command.args(rest);
    command
}

/// What doctor says of the mechanisms that are tried.
#[track_caller]
pub fn doctor() -> Value {
    let hooks = std::env::var("TCPTRACE_HOOKS");
    doctor_of(&hooks.unwrap_or_default())
}

/// `tcptrace doctor --json`, with these hooks only; an empty list: all.
#[track_caller]
pub fn doctor_of(hooks: &str) -> Value {
    let mut command = command(&["doctor", "--json"]);
    if !hooks.is_empty() {
        command.args(["--hooks", hooks]);
    }
    let output = command.output().expect("doctor runs");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The mechanism that serves an event.
pub fn chosen(doctor: &Value, event: &str) -> String {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let events = list(&doctor["plan"]["events"]);
    let candidates = events.iter().filter(|e| e["event"] == event);
    let chosen = candidates
        .flat_map(|e| list(&e["candidates"]))
        .find(|c| c["decision"] == "chosen");
    let mechanism = chosen.map(|c| c["mechanism"].clone());
    mechanism
        .and_then(|m| m.as_str().map(str::to_owned))
        .unwrap_or_default()
}

/// `tcptrace snapshot --json` in `ns`: its lines.
#[track_caller]
pub fn snapshot(ns: &Netns, args: &[&str]) -> Vec<Event> {
    let mut command = ns.command(tracer_path());
    command.args(["snapshot", "--json"]).args(args);
    let mut process = Process::spawn(&mut command);
    let status = process.wait(LIMIT);
    assert!(status.success(), "{status}: {}", process.err.text());
    let events = process.out.all();
    events.iter().map(Event::read).collect()
}

/// Waits until a `watch` or `record` says that it is attached and has listed what was there.
#[track_caller]
pub fn wait_until_watching(process: &Process) {
    let ready = process.err.find(0, LIMIT, |line| {
        line.text.contains("already there").then_some(())
    });
    assert!(ready.is_some(), "not watching: {}", process.err.text());
}

/// A running `tcptrace watch --json`, which is recorded if [`replays`]: at its end, what it printed is
/// compared with what a replay prints.
#[derive(Debug)]
pub struct Tracer {
    process: Process,
    args: Vec<String>,
    /// Where it is recorded.
    directory: Option<TempDir>,
}

impl Tracer {
    /// Starts it and waits until it watches.
    #[track_caller]
    pub fn watch(args: &[&str]) -> Tracer {
        let directory = replays().then(|| tempfile::tempdir().expect("a directory"));
        let mut command = command(&[&["watch", "--json"], args].concat());
        if let Some(directory) = &directory {
            // Whoever the tracer runs as.
            let anybody = fs::Permissions::from_mode(0o777);
            fs::set_permissions(directory.path(), anybody).expect("its mode");
            command.arg("--record");
            command.arg(directory.path().join(RECORDING));
        }
        let process = Process::spawn(&mut command);
        wait_until_watching(&process);
        Tracer {
            process,
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            directory,
        }
    }

    /// The first event that `wanted` accepts, now or within the limit.
    #[track_caller]
    pub fn wait_for(&self, what: &str, wanted: impl FnMut(&Event) -> bool) -> Event {
        self.wait_long_for(what, LIMIT, wanted)
    }

    /// [`Tracer::wait_for`] with a limit of its own.
    #[track_caller]
    pub fn wait_long_for(
        &self,
        what: &str,
        limit: Duration,
        mut wanted: impl FnMut(&Event) -> bool,
    ) -> Event {
        let found = self.process.out.find(0, limit, |line| {
            let event = Event::read(line);
            wanted(&event).then_some(event)
        });
        found.unwrap_or_else(|| {
            let said = self.process.out.all();
            let tail: Vec<&str> = said
                .iter()
                .rev()
                .map(|l| l.text.as_str())
                .take(40)
                .collect();
            let tail: String = tail.iter().rev().map(|l| format!("{l}\n")).collect();
            let err = self.process.err.text();
            panic!(
                "no {what} within {} s; of {} lines the last are:\n{tail}{err}",
                patient(limit).as_secs(),
                said.len()
            )
        })
    }

    /// The line about `id` that it is stuck in `state`.
    #[track_caller]
    pub fn stuck(&self, id: &str, state: &str) -> Event {
        self.wait_for(&format!("{id} stuck in {state}"), |e| {
            e.kind() == "stuck" && e.id() == id && e.text("state") == state
        })
    }

    /// The transition of `id` out of `state`.
    #[track_caller]
    pub fn left(&self, id: &str, state: &str) -> Event {
        self.left_within(LIMIT, id, state)
    }

    /// [`Tracer::left`] with a limit of its own.
    #[track_caller]
    pub fn left_within(&self, limit: Duration, id: &str, state: &str) -> Event {
        self.wait_long_for(&format!("transition of {id} from {state}"), limit, |e| {
            e.is_transition() && e.id() == id && e.text("old_state") == state
        })
    }

    /// Every event so far.
    pub fn events(&self) -> Vec<Event> {
        self.process.out.all().iter().map(Event::read).collect()
    }

    /// Sends SIGINT and waits for the end, which must be a summary and exit code 0.
    #[track_caller]
    pub fn stop(self) -> Run {
        self.stop_within(LIMIT)
    }

    /// [`Tracer::stop`] with a limit of its own.
    #[track_caller]
    pub fn stop_within(self, limit: Duration) -> Run {
        self.process.signal(Signal::INT);
        self.end(limit)
    }

    /// Waits for the end, which must be a summary and exit code 0.
    #[track_caller]
    pub fn end(mut self, limit: Duration) -> Run {
        let status = self.process.wait(limit);
        let err = self.process.err.text();
        assert!(status.success(), "{status}: {err}");
        if let Some(directory) = &self.directory {
            self.assert_replays(directory);
        }
        let mut events = self.events();
        let summary = events.pop().expect("a summary");
        assert_eq!(summary.kind(), "summary", "the last line is {summary:?}");
        Run {
            events,
            summary: summary.value,
            err,
            status,
        }
    }

    /// What was recorded gives the same lines as the run.
    #[track_caller]
    fn assert_replays(&self, directory: &TempDir) {
        let mut replay = Command::new(tracer_path());
        replay.args(["replay", "--json"]);
        replay.arg(directory.path().join(RECORDING));
        let mut args = self.args.iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                // How it was traced; each has a value.
                "--btf" | "--hooks" | "--interval" | "--ring-size" | "--duration" | "-d" => {
                    args.next();
                }
                _ => {
                    replay.arg(arg);
                }
            }
        }
        let replayed = replay.output().expect("a replay");
        let err = String::from_utf8_lossy(&replayed.stderr);
        assert!(replayed.status.success(), "{replay:?}: {err}");
        let replayed = String::from_utf8_lossy(&replayed.stdout);
        let said = self.process.out.text();
        let mut pairs = replayed.lines().zip(said.lines());
        if let Some((again, live)) = pairs.find(|(again, live)| again != live) {
            panic!("live:   {live}\nreplay: {again}");
        }
        let (again, live) = (replayed.lines().count(), said.lines().count());
        assert_eq!(again, live, "lines of the replay and of the run");
    }

    /// Its process, for tests about signals.
    pub fn process(&self) -> &Process {
        &self.process
    }
}

/// What a tracer said in all.
#[derive(Debug)]
pub struct Run {
    /// The lines before the summary.
    pub events: Vec<Event>,
    /// The last line.
    pub summary: Value,
    /// Its notices.
    pub err: String,
    /// How it ended.
    pub status: ExitStatus,
}

impl Run {
    /// `states.STATE.KEY` of the summary; 0 where the state did not occur.
    pub fn count(&self, state: &str, key: &str) -> u64 {
        let states = &self.summary["states"];
        assert!(states.is_object(), "no states in {}", self.summary);
        states[state][key].as_u64().unwrap_or(0)
    }

    /// `completeness.KEY` of the summary.
    #[track_caller]
    pub fn completeness(&self, key: &str) -> u64 {
        let value = &self.summary["completeness"][key];
        value
            .as_u64()
            .unwrap_or_else(|| panic!("no completeness.{key} in {}", self.summary))
    }

    /// Whether it says that nothing is missing.
    pub fn complete(&self) -> bool {
        self.summary["completeness"]["complete"] == Value::Bool(true)
    }

    /// What it says it missed, events of all kinds.
    pub fn missed(&self) -> u64 {
        let reasons = [
            "ring_full",
            "recursion_missed",
            "map_full",
            "read_faults",
            "undecodable",
        ];
        reasons.iter().map(|key| self.completeness(key)).sum()
    }

    /// The transitions of `id`, in order, as (old, new); without no-ops.
    pub fn path(&self, id: &str) -> Vec<(String, String)> {
        self.events
            .iter()
            .filter(|e| e.is_transition() && e.id() == id)
            .map(|e| (e.text("old_state"), e.text("new_state")))
            .collect()
    }
}

/// One JSON line.
#[derive(Clone, Debug)]
pub struct Event {
    /// CLOCK_MONOTONIC ns when the test read it.
    pub at: u64,
    /// The object.
    pub value: Value,
}

impl Event {
    #[track_caller]
    fn read(line: &Line) -> Event {
        Event {
            at: line.at,
            value: serde_json::from_str(&line.text)
                .unwrap_or_else(|e| panic!("not JSON ({e}): {}", line.text)),
        }
    }

    /// `type`.
    pub fn kind(&self) -> &str {
        self.value["type"].as_str().unwrap_or_default()
    }

    /// `id`.
    pub fn id(&self) -> &str {
        self.value["id"].as_str().unwrap_or_default()
    }

    /// Whether it is a transition that changes the state: close() of a socket that has sent
    /// its FIN is announced as a change to the same state.
    pub fn is_transition(&self) -> bool {
        self.kind() == "transition" && self.value["old_state"] != self.value["new_state"]
    }

    /// A text.
    #[track_caller]
    pub fn text(&self, key: &str) -> String {
        let value = self.value[key].as_str();
        value
            .unwrap_or_else(|| panic!("no text {key} in {}", self.value))
            .to_owned()
    }

    /// A number.
    #[track_caller]
    pub fn number(&self, key: &str) -> u64 {
        let value = self.value[key].as_u64();
        value.unwrap_or_else(|| panic!("no number {key} in {}", self.value))
    }

    /// `holders` as sorted (pid, fd).
    #[track_caller]
    pub fn holders(&self) -> Vec<(u64, u64)> {
        let list = self.value["holders"].as_array();
        let list = list.unwrap_or_else(|| panic!("no holders in {}", self.value));
        let number = |v: &Value| v.as_u64().expect("pid and fd are numbers");
        let mut holders: Vec<(u64, u64)> = list
            .iter()
            .map(|h| (number(&h["pid"]), number(&h["fd"])))
            .collect();
        holders.sort_unstable();
        holders
    }

    /// Fails unless the line's age or duration, or its bounds where it is estimated, allow for
    /// the truth, give or take the project's tolerance of 2 ms + 0.1 %; and a jiffy where it is
    /// estimated, in which the kernel keeps what an estimate is made of.
    #[track_caller]
    pub fn assert_allows(&self, truth: Span) {
        let told = match self.kind() {
            "stuck" | "socket" => self.number("age_ns"),
            _ => self.number("duration_ns"),
        };
        if self.value["estimated"] == false {
            return truth.assert_holds(told, &self.value.to_string());
        }
        let low = self.value["age_min_ns"].as_u64().unwrap_or(told);
        let high = self.value["age_max_ns"].as_u64().unwrap_or(u64::MAX);
        let slack = 2_000_000 + truth.max / 1000 + jiffy_ns();
        assert!(
            low <= truth.max + slack && truth.min <= high.saturating_add(slack),
            "{truth:?} is not between the bounds of {}",
            self.value
        );
    }
}

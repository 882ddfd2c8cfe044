//! How the program behaves: exit codes, signals, pipes, terminals.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use tcptrace_tests::child::{LIMIT, Process, until};
use tcptrace_tests::lab::{Conn, Lab};
use tcptrace_tests::pace::patient;
use tcptrace_tests::peer::Crowd;
use tcptrace_tests::require;
use tcptrace_tests::tcptrace::{
    Tracer, chosen, command, doctor, hooks, tracer_path, wait_until_watching,
};

#[test]
fn interrupts_and_durations_end_with_a_summary() {
    require!(root, tracer);
    for signal in [Signal::INT, Signal::TERM] {
        let lab = Lab::new();
        let watch = lab.watch(&[]);
        watch.process().signal(signal);
        let run = watch.end(LIMIT);
        assert!(run.complete(), "{}", run.summary);
    }
    let lab = Lab::new();
    let begin = Instant::now();
    let run = lab.watch(&["-d", "1s"]).end(LIMIT);
    assert!(begin.elapsed() >= Duration::from_secs(1));
    assert!(run.complete(), "{}", run.summary);
}

#[test]
fn a_closed_pipe_is_no_error() {
    require!(root, tracer);
    let lab = Lab::new();
    let netns = lab.ns.inode().to_string();
    let mut child = command(&["watch", "--json", "--state", "all", "--transitions"])
        .args(["--netns", &netns])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the tracer");
    let mut err = BufReader::new(child.stderr.take().expect("piped"));
    let mut notice = String::new();
    while !notice.contains("watching") {
        assert_ne!(err.read_line(&mut notice).expect("stderr"), 0, "{notice}");
    }
    drop(lab.connect());
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    out.read_line(&mut String::new()).expect("a line");
    drop(out);
    let status = until(LIMIT, "the tracer to notice", || {
        drop(lab.connect());
        child.try_wait().expect("waitpid")
    });
    assert_eq!(status.code(), Some(0));
    let mut rest = String::new();
    err.read_to_string(&mut rest).expect("stderr");
    assert!(!rest.to_lowercase().contains("pipe"), "{rest}");
    assert!(!rest.contains("panicked"), "{rest}");
}

#[test]
fn usage_errors_are_told_and_exit_2() {
    require!(tracer);
    for (args, word) in [
        (&["watch", "--no-such-flag"][..], "--no-such-flag"),
        (&["watch", "--state", "clsoe_wait"], "clsoe_wait"),
        (&["watch", "--min-age", "soon"], "soon"),
        (&["watch", "-d", "never"], "never"),
        (&["watch", "--laddr", "10.0.0.0/99"], "10.0.0.0/99"),
        (&["watch", "-L", "70000"], "70000"),
        (&["watch", "--interval", "1ms"], "--interval"),
        (&["snapshot", "--state", "clsoe_wait"], "clsoe_wait"),
        (&["no-such-verb"], "no-such-verb"),
    ] {
        let output = run(command(args));
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
        let err = text(&output.stderr);
        assert!(err.contains(word), "{args:?}: {err}");
    }
}

#[test]
fn help_has_examples_and_goes_to_stdout() {
    require!(tracer);
    for verb in ["watch", "record", "replay", "snapshot", "doctor"] {
        let output = run(command(&[verb, "--help"]));
        assert_eq!(output.status.code(), Some(0));
        let help = text(&output.stdout);
        assert!(help.to_lowercase().contains("examples"), "{verb}: {help}");
    }
    let output = run(command(&["--version"]));
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_process_that_is_not_there_is_told() {
    require!(root, tracer);
    // Above the largest pid that Linux ever gives.
    let output = run(command(&["watch", "-d", "1s", "-p", "4194305"]));
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let err = text(&output.stderr);
    assert!(err.starts_with("tcptrace: "), "{err}");
    assert!(err.contains("4194305"), "{err}");
}

#[test]
fn without_privileges_watch_says_what_it_needs() {
    require!(root, tracer, setpriv);
    let nobody = Nobody::new();
    let mut watch = nobody.command(&["watch", "-d", "1s"]);
    watch.args(hooks());
    let output = run(watch);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(output.stdout.is_empty());
    let err = text(&output.stderr);
    assert!(err.starts_with("tcptrace: "), "{err}");
    assert!(err.contains("hint: "), "{err}");
    assert!(err.contains("CAP_BPF") || err.contains("sudo"), "{err}");
    // Polling would run, but is not what was asked for.
    assert!(err.contains("--hooks netlink"), "{err}");
}

#[test]
fn without_privileges_a_snapshot_shows_what_it_can() {
    require!(root, tracer, setpriv);
    let nobody = Nobody::new();
    let lab = Lab::new();
    let _conn = lab.connect();
    let mut in_ns = lab.ns.command("setpriv");
    in_ns.args(nobody.setpriv()).args(["snapshot", "--json"]);
    let output = run(in_ns);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(text(&output.stdout).lines().count(), 3, "{output:?}");
    let err = text(&output.stderr);
    assert!(!err.is_empty(), "it says that owners are hidden");
}

#[test]
fn without_privileges_doctor_says_that_watch_cannot_run() {
    require!(root, tracer, setpriv);
    let output = run(Nobody::new().command(&["doctor", "--json"]));
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(text(&output.stdout).contains("\"doctor\""), "{output:?}");
}

/// What `doctor` tells people to grant is enough, and nothing of it can be left away.
#[test]
fn the_named_capabilities_are_enough_and_needed() {
    require!(root, tracer, setpriv);
    let nobody = Nobody::new();
    let lab = Lab::new();
    let leaked = leak(&lab);
    let watch = |caps: &str| {
        let mut command = lab.ns.command("setpriv");
        let args = ["watch", "--json", "-d", "1s", "--min-age", "0"];
        command.args(nobody.setpriv_with(caps)).args(args);
        command.args(hooks());
        run(command)
    };
    let (leaked, owner) = (leaked.s.id(), leaked.server.pid());

    let doctor = doctor();
    let least = capabilities(&doctor["privileges"]["least"]);
    let granted = watch(&least.join(","));
    assert_eq!(granted.status.code(), Some(0), "{granted:?}");
    let said = text(&granted.stdout);
    assert!(said.contains(&format!("\"id\":\"{leaked}\"")), "{said}");
    assert!(
        said.contains(&format!("\"mode\":{}", doctor["mode"])),
        "{said}"
    );
    // Other users' processes may be in namespaces that cannot be looked into: that is said.
    assert!(said.contains("\"complete\":false"), "{said}");

    if chosen(&doctor, "minisocket") == "tp_btf" {
        let syslog = least.iter().filter(|cap| *cap != "+syslog");
        let without_syslog = watch(&syslog.cloned().collect::<Vec<_>>().join(","));
        assert_eq!(without_syslog.status.code(), Some(0), "{without_syslog:?}");
        let said = text(&without_syslog.stdout);
        assert!(said.contains("\"mode\":\"partial\""), "{said}");
    }

    // All that doctor names: nothing is hidden any more, whoever's it is.
    let all = watch(&capabilities(&doctor["privileges"]["setcap"]).join(","));
    assert_eq!(all.status.code(), Some(0), "{all:?}");
    let said = text(&all.stdout);
    assert!(said.contains(&format!("\"id\":\"{leaked}\"")), "{said}");
    assert!(said.contains(&format!("\"pid\":{owner}")), "{said}");
    let summary = said.lines().last().unwrap_or_default();
    assert!(summary.contains("\"unlisted\":0"), "{summary}");

    for (cap, missing) in [("+perfmon", "CAP_PERFMON"), ("+bpf", "CAP_BPF")] {
        let caps = least.iter().filter(|have| *have != cap);
        let caps = caps.cloned().collect::<Vec<_>>().join(",");
        let refused = watch(&caps);
        assert_eq!(refused.status.code(), Some(3), "{caps}: {refused:?}");
        assert!(text(&refused.stderr).contains(missing), "{refused:?}");
    }
}

/// `cap_bpf,cap_perfmon+ep` as setpriv(1) takes it.
fn capabilities(setcap: &Value) -> Vec<String> {
    let list = setcap.as_str().expect("a list").split('+').next();
    let names = list.unwrap_or_default().split(',');
    names
        .map(|name| format!("+{}", name.trim_start_matches("cap_")))
        .collect()
}

/// Once it watches, it can do no more than it must.
#[test]
fn privileges_that_are_not_needed_any_more_are_given_up() {
    require!(root, tracer, setpriv);
    const DAC_READ_SEARCH: u64 = 1 << 2;
    const NET_ADMIN: u64 = 1 << 12;
    const SYS_PTRACE: u64 = 1 << 19;
    const SYS_ADMIN: u64 = 1 << 21;
    let lab = Lab::new();
    // Descriptors of other users' processes, where no iterator lists them.
    let proc_fd = match chosen(&doctor(), "owners") == "proc" {
        true => DAC_READ_SEARCH | SYS_PTRACE,
        false => 0,
    };
    let foreign = lab.watch(&[]);
    assert_kept(
        foreign.process(),
        NET_ADMIN | SYS_PTRACE | SYS_ADMIN | proc_fd,
    );
    // What it has kept is enough for what comes after: a socket elsewhere, with its owner.
    let mut leaked = lab.connect();
    leaked.client.act("close C");
    leaked.server.act("wait S 8");
    let stuck = foreign.stuck(&leaked.s.id(), "close_wait");
    assert_eq!(stuck.number("pid"), u64::from(leaked.server.pid()));
    assert_eq!(stuck.number("recv_q"), 1);
    assert!(foreign.stop().complete());

    let own = std::fs::metadata("/proc/self/ns/net").expect("our namespace");
    let own = std::os::unix::fs::MetadataExt::ino(&own).to_string();
    let alone = Tracer::watch(&["--netns", &own]);
    assert_kept(alone.process(), NET_ADMIN | proc_fd);
    assert_eq!(alone.stop().completeness("unlisted"), 0);

    let nobody = Nobody::new();
    let mut command = Command::new("setpriv");
    let least = capabilities(&doctor()["privileges"]["least"]);
    let granted = nobody.setpriv_with(&least.join(","));
    let mut process = Process::spawn(command.args(granted).arg("watch").args(hooks()));
    wait_until_watching(&process);
    let kept = least.iter().any(|cap| cap == "+net_admin");
    assert_kept(&process, if kept { NET_ADMIN } else { 0 });
    process.signal(Signal::INT);
    assert!(process.wait(LIMIT).success());
}

/// Every set of capabilities holds at most `kept`, and CAP_BPF where the kernel asks for it.
#[track_caller]
fn assert_kept(process: &Process, kept: u64) {
    const BPF: u64 = 1 << 39;
    let status = format!("/proc/{}/status", process.pid());
    let status = std::fs::read_to_string(status).expect("it runs");
    let line = |key: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(key));
        value
            .unwrap_or_else(|| panic!("no {key} in {status}"))
            .trim()
    };
    let set = |key| u64::from_str_radix(line(key), 16).expect("hexadecimal");
    assert_eq!(line("NoNewPrivs:"), "1");
    for key in ["CapPrm:", "CapEff:"] {
        assert_eq!(set(key) & !BPF, kept, "{status}");
    }
    for key in ["CapInh:", "CapAmb:"] {
        assert_eq!(set(key), 0, "{status}");
    }
    // To empty it takes CAP_SETPCAP, which root has.
    let root = line("Uid:").starts_with("0\t");
    assert!(!root || set("CapBnd:") == 0, "{status}");
}

#[test]
fn the_last_line_for_people_says_whether_anything_is_missing() {
    require!(root, tracer);
    let lab = Lab::new();
    let _leak = leak(&lab);
    let netns = lab.ns.inode().to_string();
    let output = run(command(&["watch", "--netns", &netns, "-d", "2s"]));
    assert!(output.status.success(), "{output:?}");
    let said = text(&output.stdout);
    let last = said.lines().last().unwrap_or_default();
    assert!(last.contains("complete"), "{said}");
}

#[test]
fn doctor_answers() {
    require!(root, tracer);
    let output = run(command(&["doctor", "--json"]));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = text(&output.stdout);
    for key in ["\"mode\"", "\"facts\"", "\"plan\""] {
        assert!(said.contains(key), "no {key} in {said}");
    }
}

/// A program that a kernel does not load is replaced by a dearer one, and all other tests pass.
#[test]
fn no_program_is_refused() {
    require!(root, tracer);
    let mut doctor = command(&["doctor", "--json"]);
    doctor.args(hooks());
    let output = run(doctor);
    let said = text(&output.stdout);
    let told: Value = serde_json::from_str(&said).expect("JSON");
    let events = told["plan"]["events"].as_array().expect("events");
    let candidates = events
        .iter()
        .flat_map(|e| e["candidates"].as_array().expect("candidates"));
    let refused: Vec<_> = candidates
        .filter(|c| {
            c["why"]
                .as_str()
                .is_some_and(|why| why.contains("refused to load"))
        })
        .collect();
    assert!(refused.is_empty(), "{refused:#?}");
}

#[test]
fn doctor_tells_what_the_programs_cost() {
    require!(root, tracer);
    let lab = Lab::new();
    let mut doctor = command(&["doctor", "--json", "--cost=2s", "--state", "all"]);
    doctor.args(hooks());
    let doctor = std::thread::spawn(move || run(doctor));
    while !doctor.is_finished() {
        let mut crowd = Crowd::start(&lab.ns, &["burst", &lab.ip.to_string(), "100", "1"]);
        crowd.truth(LIMIT);
        crowd.exit();
        // There may be one processor.
        std::thread::sleep(Duration::from_millis(50));
    }
    let output = doctor.join().expect("it ran");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let told: Value = serde_json::from_str(&text(&output.stdout)).expect("JSON");
    let cost = &told["cost"];
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("a number: {cost}"));
    assert!(number(&cost["span_ns"]) >= 2_000_000_000, "{cost}");
    let programs = cost["programs"].as_array().expect("programs");
    let of_states = |p: &&Value| {
        p["name"]
            .as_str()
            .is_some_and(|name| name.starts_with("state"))
    };
    let (runs, time) = programs
        .iter()
        .filter(of_states)
        .fold((0, 0), |(runs, time), p| {
            (runs + number(&p["runs"]), time + number(&p["run_time_ns"]))
        });
    assert!(runs > 0 && time >= runs, "{cost}");
    assert!(
        number(&cost["events"]) > 0 && number(&cost["bytes"]) > 0,
        "{cost}"
    );
    assert_eq!(cost["ring_full"], 0, "{cost}");
}

#[test]
fn lines_fit_a_terminal_of_40_columns() {
    require!(root, tracer, script);
    let lab = Lab::new();
    let _leaks: Vec<Conn> = (0..3).map(|_| leak(&lab)).collect();
    let tracer = tracer_path();
    let tracer = tracer.display();
    let netns = lab.ns.inode();
    for verb in [
        format!(
            "watch --netns {netns} --min-age 0 -d 1s {}",
            hooks().join(" ")
        ),
        "snapshot".to_owned(),
    ] {
        let on_terminal = format!("stty cols 40 rows 20; exec {tracer} {verb} 2>/dev/null");
        let mut script = lab.ns.command("script");
        script.args(["-qec", &on_terminal, "/dev/null"]);
        let output = run(script);
        let said = text(&output.stdout);
        assert!(said.to_lowercase().contains("close"), "{verb}: {said}");
        for line in said.lines() {
            let width = plain(line).chars().count();
            assert!(width <= 40, "{verb}: {width} columns: {line:?}");
        }
    }
}

#[test]
fn a_name_full_of_escape_sequences_stays_a_name() {
    require!(root, tracer);
    let lab = Lab::new();
    let mut conn = lab.connect();
    // ESC ] 0 ; x BEL ESC [ 3 1 m CR LF
    conn.server.act("name 1b5d303b78071b5b33316d0d0a");
    let to = conn.listener.local();
    conn.client.act(&format!("connect D {to}"));
    let s = conn.server.act("accept T L");
    conn.client.act("close D");
    conn.server.act("wait T 8");

    let netns = lab.ns.inode().to_string();
    for json in [&[][..], &["--json"]] {
        let watch = ["watch", "--netns", &netns, "--min-age", "0", "-d", "1s"];
        let watch = run(command(&[&watch[..], json].concat()));
        let mut snapshot = lab.ns.command(tracer_path());
        snapshot.arg("snapshot").args(json);
        for output in [watch, run(snapshot)] {
            assert!(output.status.success(), "{output:?}");
            for bytes in [&output.stdout, &output.stderr] {
                let raw = bytes.iter().find(|b| b.is_ascii_control() && **b != b'\n');
                assert_eq!(raw, None, "{}", text(bytes).escape_debug());
            }
            let said = text(&output.stdout);
            let port = s.remote.expect("connected").port().to_string();
            assert!(said.contains(&port), "{said}");
        }
    }
}

#[test]
fn the_tracer_can_be_stopped_at_once() {
    require!(root, tracer);
    for _ in 0..5 {
        let mut process = Process::spawn(&mut command(&["watch", "--json"]));
        // Before, while or after it attaches, wherever this finds it.
        std::thread::sleep(Duration::from_millis(50));
        process.signal(Signal::INT);
        let status = process.wait(LIMIT);
        let quiet = status.success() || status.signal() == Some(2);
        assert!(quiet, "{status}: {}", process.err.text());
    }
    Tracer::watch(&[]).stop();
}

/// A connection in CLOSE_WAIT.
fn leak(lab: &Lab) -> Conn {
    let mut conn = lab.connect();
    conn.client.act("close C");
    conn.server.act("wait S 8");
    conn
}

/// The line without colours.
fn plain(line: &str) -> String {
    let mut plain = String::new();
    let mut parts = line.split("\u{1b}[");
    plain.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        plain.extend(rest.chars().skip(1));
    }
    plain
}

/// Runs the tracer as a user without any rights, from a place where such a user may go.
struct Nobody {
    dir: tempfile::TempDir,
}

impl Nobody {
    fn new() -> Nobody {
        let dir = tempfile::tempdir().expect("a directory");
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(dir.path(), open).expect("chmod");
        let nobody = Nobody { dir };
        std::fs::copy(tracer_path(), nobody.tracer()).expect("a copy of the tracer");
        nobody
    }

    fn tracer(&self) -> PathBuf {
        self.dir.path().join("tcptrace")
    }

    /// The arguments of setpriv that leave just these capabilities, up to and with the tracer.
    fn setpriv_with(&self, caps: &str) -> Vec<String> {
        let user = "--reuid=65534 --regid=65534 --clear-groups";
        let user = user.split(' ').map(str::to_owned);
        let sets = ["inh-caps", "ambient-caps", "bounding-set"];
        let caps = sets.map(|set| format!("--{set}=-all,{caps}"));
        user.chain(caps)
            .chain([self.tracer().display().to_string()])
            .collect()
    }

    /// The arguments of setpriv, up to and with the tracer.
    fn setpriv(&self) -> Vec<String> {
        let tracer = self.tracer().display().to_string();
        let flags = "--reuid=65534 --regid=65534 --clear-groups --bounding-set=-all";
        let flags = flags.split(' ').map(str::to_owned);
        flags.chain([tracer]).collect()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        command.args(self.setpriv()).args(args);
        command
    }
}

/// Runs it to its end, which must come within the limit.
#[track_caller]
fn run(mut command: Command) -> Output {
    command.stdin(Stdio::null());
    let limit = patient(LIMIT).as_secs();
    // SAFETY: alarm is async-signal-safe; it survives exec, so the program is killed at the
    // limit.
    unsafe {
        command.pre_exec(move || {
            libc::alarm(limit as libc::c_uint);
            Ok(())
        })
    };
    command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

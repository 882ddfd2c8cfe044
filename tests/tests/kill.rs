//! `kill`: what is destroyed, what is not, and what is told and kept of it. `ss` counts before and
//! after.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::pipe::fcntl_setpipe_size;
use rustix::process::Signal;
use serde_json::Value;
use tcptrace_tests::child::{LIMIT, Process, until};
use tcptrace_tests::lab::{Conn, Lab};
use tcptrace_tests::oracle::ss;
use tcptrace_tests::require;
use tcptrace_tests::tcptrace::tracer_path;
use tempfile::TempDir;

/// A run of `kill` in a lab's namespace, with a directory of its own.
struct Killer<'a> {
    lab: &'a Lab,
    directory: TempDir,
}

/// What a run said.
struct Told {
    code: Option<i32>,
    lines: Vec<Value>,
    err: String,
}

impl Killer<'_> {
    fn new(lab: &Lab) -> Killer<'_> {
        let directory = tempfile::tempdir().expect("a directory");
        Killer { lab, directory }
    }

    /// `tcptrace kill --json` with these arguments.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.lab.ns.command(tracer_path());
        command.args(["kill", "--json"]).args(args);
        command.current_dir(self.directory.path());
        command
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> Told {
        told(self.command(args).output().expect("kill runs"))
    }

    /// `kill --yes`, which succeeds.
    #[track_caller]
    fn destroy(&self, args: &[&str]) -> Told {
        let told = self.run(&[args, &["--yes"]].concat());
        assert_eq!(told.code, Some(0), "{}", told.err);
        told
    }

    /// The files of evidence.
    fn evidence(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.directory.path()).expect("its directory");
        entries.map(|e| e.expect("an entry").path()).collect()
    }
}

fn told(output: Output) -> Told {
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let lines = text.lines();
    Told {
        code: output.status.code(),
        lines: lines
            .map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}")))
            .collect(),
        err: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

impl Told {
    /// Ids of the sockets that came to this.
    fn ids(&self, outcome: &str) -> Vec<String> {
        let lines = self.lines.iter().filter(|l| l["outcome"] == outcome);
        lines
            .map(|l| l["id"].as_str().expect("an id").to_owned())
            .collect()
    }

    /// A number of the last line.
    #[track_caller]
    fn sum(&self, key: &str) -> u64 {
        let last = self.lines.last().expect("a summary");
        assert_eq!(last["type"], "kill_summary");
        last[key]
            .as_u64()
            .unwrap_or_else(|| panic!("{key}: {last}"))
    }
}

/// Connections whose server has closed: C is in CLOSE_WAIT, and S in FIN_WAIT_2, which it
/// reaches later than C, since an ACK may be delayed.
fn leak(lab: &Lab, count: usize) -> Vec<Conn> {
    let leaked = (0..count).map(|_| {
        let mut conn = lab.connect();
        conn.server.act("close S");
        conn.client.act("wait C 8");
        conn
    });
    let leaked = leaked.collect();
    until(LIMIT, "every ACK of a FIN", || {
        (!counts(lab).contains_key("fin_wait1")).then_some(())
    });
    leaked
}

fn connect_at(lab: &Lab, ip: &str) -> Conn {
    Conn::between(lab.peer(), lab.peer(), ip)
}

#[track_caller]
fn is_there(lab: &Lab, id: &str) -> bool {
    ss::sockets(&lab.ns).iter().any(|s| s.id == id)
}

fn counts(lab: &Lab) -> BTreeMap<String, usize> {
    ss::counts(&lab.ns)
}

#[test]
fn a_dry_run_changes_nothing() {
    require!(root, tracer, ss);
    let lab = Lab::new();
    let leaked = leak(&lab, 2);
    let before = counts(&lab);
    let killer = Killer::new(&lab);
    let told = killer.run(&["-s", "close_wait"]);
    assert_eq!(told.code, Some(0), "{}", told.err);
    let mut ids = told.ids("would_destroy");
    ids.sort();
    let mut wanted: Vec<String> = leaked.iter().map(|conn| conn.c.id()).collect();
    wanted.sort();
    assert_eq!(ids, wanted);
    assert_eq!(told.sum("selected"), 2);
    assert_eq!(told.lines.last().expect("a summary")["dry_run"], true);
    assert_eq!(counts(&lab), before);
    assert_eq!(killer.evidence(), [] as [PathBuf; 0]);

    let mut command = lab.ns.command(tracer_path());
    let output = command
        .args(["kill", "-s", "close_wait"])
        .output()
        .expect("kill runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(
        text.contains("would destroy 2 sockets: close_wait 2\n"),
        "{text}"
    );
    assert!(text.contains("the peers of 2 get a RST\n"), "{text}");
    assert!(text.contains("nothing was done: --yes does it"), "{text}");
}

#[test]
fn what_was_selected_is_destroyed_and_nothing_else() {
    require!(root, tracer, sock_destroy);
    let lab = Lab::new();
    let mut leaked = leak(&lab, 5);
    let other = lab.connect();
    let before = counts(&lab);
    let killer = Killer::new(&lab);
    let told = killer.destroy(&["-s", "close_wait", "--evidence", "it.jsonl"]);
    for (key, number) in [
        ("selected", 5),
        ("destroyed", 5),
        ("gone", 0),
        ("refused", 0),
        ("spared", 0),
        ("still_there", 0),
    ] {
        assert_eq!(told.sum(key), number, "{key}");
    }
    let after = counts(&lab);
    assert_eq!(after.get("close_wait"), None, "{after:?}");
    for state in ["established", "listen"] {
        assert_eq!(after.get(state), before.get(state), "{state}");
    }
    assert!(is_there(&lab, &other.c.id()) && is_there(&lab, &other.s.id()));
    for conn in &mut leaked {
        // The descriptor is open; its state is CLOSE. A read gives the end, which had come, and the
        // first write tells why.
        assert_eq!(conn.client.act("state C").value, Some(7));
        assert_eq!(conn.client.act("recv C 1").value, Some(0));
        let error = conn.client.attempt("send C 1").error.expect("an error");
        assert!(error.contains("103"), "{error}");
    }

    let path = killer.directory.path().join("it.jsonl");
    let evidence = fs::read_to_string(path).expect("the evidence");
    let lines: Vec<Value> = evidence
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines[0]["type"], "evidence");
    assert_eq!(lines[0]["sockets"], 5);
    assert_eq!(lines.len(), 6);
    for conn in &leaked {
        let line = lines.iter().find(|l| l["id"] == conn.c.id().as_str());
        let line = line.unwrap_or_else(|| panic!("{} is not in {evidence}", conn.c.id()));
        assert_eq!(line["type"], "socket");
        assert_eq!(line["pid"], conn.client.pid());
        assert_eq!(line["state"], "close_wait");
    }
}

#[test]
fn evidence_is_never_overwritten() {
    require!(root, tracer, ss);
    let lab = Lab::new();
    let leaked = leak(&lab, 1);
    let killer = Killer::new(&lab);
    let path = killer.directory.path().join("it.jsonl");
    fs::write(&path, "old\n").expect("a file");
    let told = killer.run(&["-s", "close_wait", "--yes", "--evidence", "it.jsonl"]);
    assert_eq!(told.code, Some(2), "{}", told.err);
    assert!(told.err.contains("it.jsonl exists already"), "{}", told.err);
    assert_eq!(fs::read_to_string(&path).expect("it"), "old\n");
    assert!(is_there(&lab, &leaked[0].c.id()));
}

#[test]
fn evidence_belongs_to_who_called_sudo_and_to_nobody_else() {
    require!(root, tracer, sock_destroy);
    let lab = Lab::new();
    let _leaked = leak(&lab, 1);
    let killer = Killer::new(&lab);
    let mut command = killer.command(&["-s", "close_wait", "--yes"]);
    command.envs([("SUDO_UID", "65534"), ("SUDO_GID", "65533")]);
    let told = told(command.output().expect("kill runs"));
    assert_eq!(told.code, Some(0), "{}", told.err);
    let [path] = &killer.evidence()[..] else {
        panic!("{:?}", killer.evidence());
    };
    let name = path.file_name().expect("a name").to_string_lossy();
    assert!(
        name.starts_with("tcptrace-kill-2") && name.ends_with("Z.jsonl"),
        "{name}"
    );
    let metadata = path.metadata().expect("it");
    assert_eq!((metadata.uid(), metadata.gid()), (65534, 65533));
    assert_eq!(metadata.mode() & 0o777, 0o600);
}

#[test]
fn the_rate_is_kept() {
    require!(root, tracer, sock_destroy);
    let lab = Lab::new();
    let _leaked = leak(&lab, 6);
    let killer = Killer::new(&lab);
    let began = Instant::now();
    let told = killer.destroy(&["-s", "close_wait", "--rate", "10/s"]);
    assert_eq!(told.sum("destroyed"), 6);
    // The first one at once, the sixth 500 ms after it.
    assert!(began.elapsed() >= Duration::from_millis(500));
}

/// It stands still where nobody reads what it says: then sockets go, and move.
#[test]
fn what_goes_or_moves_meanwhile_is_told_and_left_alone() {
    require!(root, tracer, sock_destroy);
    const COUNT: usize = 40;
    let lab = Lab::new();
    let (mut client, mut server) = (lab.peer(), lab.peer());
    let to = server.act(&format!("listen L {}:0", lab.ip)).local();
    let mut names = BTreeMap::new();
    for number in 0..COUNT {
        let name = format!("C{number}");
        let act = client.act(&format!("connect {name} {to}"));
        server.act("accept S L");
        server.act("close S");
        client.act(&format!("wait {name} 8"));
        names.insert(act.id(), (name, act));
    }
    let killer = Killer::new(&lab);
    let mut command = killer.command(&["-s", "close_wait", "--yes", "--rate", "100000/s"]);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let child = child.expect("kill runs");
    let out = child.stdout.as_ref().expect("piped");
    fcntl_setpipe_size(out, 4096).expect("F_SETPIPE_SZ");
    until(LIMIT, "the pipe to be full", || {
        let call = fs::read_to_string(format!("/proc/{}/syscall", child.id()));
        let call = call.expect("what it does");
        let write = format!("{} ", libc::SYS_write);
        call.starts_with(&write).then_some(())
    });
    let left: Vec<_> = ss::sockets(&lab.ns)
        .into_iter()
        .filter(|s| s.state == "close_wait")
        .map(|s| &names[&s.id])
        .collect();
    let [gone, moved, ..] = &left[..] else {
        panic!("{left:?}");
    };
    ss::destroy(&lab.ns, &gone.1);
    // LAST_ACK lasts while nothing gets through.
    client.act(&format!("freeze {}", moved.0));
    client.act(&format!("close {}", moved.0));
    ss::wait(&lab.ns, &moved.1, "last_ack");
    let told = told(child.wait_with_output().expect("its end"));
    assert_eq!(told.code, Some(0), "{}", told.err);
    assert_eq!(told.ids("gone"), [gone.1.id()]);
    assert_eq!(told.ids("moved"), [moved.1.id()]);
    assert_eq!(told.ids("destroyed").len(), COUNT - 2);
}

#[test]
fn an_interrupt_ends_it_with_the_report() {
    require!(root, tracer, sock_destroy);
    let lab = Lab::new();
    let _leaked = leak(&lab, 3);
    let killer = Killer::new(&lab);
    let args = ["-s", "close_wait", "--yes", "--rate", "1/s"];
    let mut process = Process::spawn(&mut killer.command(&args));
    let first = process.out.find(0, LIMIT, |_| Some(()));
    first.expect("a first socket");
    process.signal(Signal::INT);
    let status = process.wait(LIMIT);
    assert!(status.success(), "{}", process.err.text());
    let last = process.out.all().pop().expect("a summary");
    let last: Value = serde_json::from_str(&last.text).expect("JSON");
    let number = |key: &str| last[key].as_u64().expect("a number");
    assert!(number("not_reached") >= 1, "{last}");
    assert_eq!(number("destroyed") + number("not_reached"), 3, "{last}");
    let left = counts(&lab).get("close_wait").copied().unwrap_or(0) as u64;
    assert_eq!(left, number("not_reached"));
}

#[test]
fn without_the_privilege_nothing_is_done() {
    require!(root, tracer, ss, setpriv);
    let lab = Lab::new();
    let leaked = leak(&lab, 1);
    let killer = Killer::new(&lab);
    let mut command = lab.ns.command("setpriv");
    command.args(["--bounding-set", "-net_admin", "--inh-caps", "-net_admin"]);
    command
        .arg(tracer_path())
        .args(["kill", "-s", "close_wait", "--yes"]);
    let output = command.current_dir(killer.directory.path()).output();
    let output = output.expect("kill runs");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{err}");
    assert!(
        err.contains("CAP_NET_ADMIN") && err.contains("hint: "),
        "{err}"
    );
    assert!(is_there(&lab, &leaked[0].c.id()));
    assert_eq!(killer.evidence(), [] as [PathBuf; 0]);
}

/// An ancestor's sockets are hidden from who has CAP_NET_ADMIN alone: one of them may be the session's.
#[test]
fn who_may_not_see_its_session_may_not_end_it() {
    require!(root, tracer, ss, setpriv);
    let lab = Lab::new();
    let leaked = leak(&lab, 1);
    let killer = Killer::new(&lab);
    let anybody = fs::Permissions::from_mode(0o777);
    fs::set_permissions(killer.directory.path(), anybody).expect("its mode");
    let copy = killer.directory.path().join("tcptrace");
    fs::copy(tracer_path(), &copy).expect("a copy of the tracer");
    let mut command = lab.ns.command("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    for set in ["inh-caps", "ambient-caps", "bounding-set"] {
        command.arg(format!("--{set}=-all,+net_admin"));
    }
    command
        .arg(&copy)
        .args(["kill", "-s", "close_wait", "--yes"]);
    let output = command.current_dir(killer.directory.path()).output();
    let output = output.expect("kill runs");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{err}");
    assert!(err.contains("whose sockets may not be looked at"), "{err}");
    assert!(is_there(&lab, &leaked[0].c.id()));
    assert_eq!(killer.evidence(), [copy]);
}

#[test]
fn the_session_is_spared() {
    require!(root, tracer, sock_destroy);
    let lab = Lab::new();
    // One connection is held by an ancestor, this test; one is named by SSH_CONNECTION; one is neither's.
    let mut server = lab.peer();
    let to = server
        .act(&format!("listen L {}:0", lab.ip))
        .local
        .expect("an end");
    let mut held = lab
        .ns
        .enter(|| TcpStream::connect(to).expect("a connection"));
    let named = lab.connect();
    let other = lab.connect();
    let ends = [
        named.c.local.expect("an end"),
        named.c.remote.expect("an end"),
    ];
    let [client, peer] = ends.map(|end| format!("{} {}", end.ip(), end.port()));
    let killer = Killer::new(&lab);
    let mut command = killer.command(&["--yes", "-s", "established"]);
    command.env("SSH_CONNECTION", format!("{client} {peer}"));
    let told = told(command.output().expect("kill runs"));
    assert_eq!(told.code, Some(0), "{}", told.err);
    // The RST of one end takes the other one with it, or not yet.
    let mut ended = [told.ids("destroyed"), told.ids("gone")].concat();
    ended.sort();
    let mut wanted = [other.c.id(), other.s.id()];
    wanted.sort();
    assert_eq!(ended, wanted);
    assert_eq!(told.sum("spared"), 4);
    assert!(is_there(&lab, &named.c.id()) && is_there(&lab, &named.s.id()));
    held.write_all(b"x").expect("it is still connected");
    server.act("accept S L");
    assert_eq!(server.act("recv S 10").value, Some(1));
}

#[test]
fn both_families_and_other_namespaces_are_reached() {
    require!(root, tracer, sock_destroy);
    let lab = Lab::new();
    let mut conns: Vec<Conn> = ["127.0.0.1", "[::1]"]
        .map(|ip| connect_at(&lab, ip))
        .into_iter()
        .collect();
    // IPv4 over a socket of IPv6.
    let mut server = lab.peer();
    let listener = server.act("listen L [::]:0");
    let port = listener.local.expect("an end").port();
    let to = format!("{}:{port}", lab.ip);
    conns.push(Conn::to(lab.peer(), server, listener, &to));
    for conn in &mut conns {
        conn.client.act("close C");
        conn.server.act("wait S 8");
    }
    // From outside of the namespace, by its number.
    let directory = tempfile::tempdir().expect("a directory");
    let netns = lab.ns.inode().to_string();
    let mut command = Command::new(tracer_path());
    command.args([
        "kill",
        "--json",
        "--yes",
        "-s",
        "close_wait",
        "--netns",
        &netns,
    ]);
    let told = told(
        command
            .current_dir(directory.path())
            .output()
            .expect("kill runs"),
    );
    assert_eq!(told.code, Some(0), "{}", told.err);
    let mut destroyed = told.ids("destroyed");
    destroyed.sort();
    let mut wanted: Vec<String> = conns.iter().map(|conn| conn.s.id()).collect();
    wanted.sort();
    assert_eq!(destroyed, wanted);
    assert_eq!(counts(&lab).get("close_wait"), None);
}

#[test]
fn minisockets_are_destroyed() {
    require!(root, tracer, sock_destroy_mini);
    let lab = Lab::new();
    let mut conns = [lab.connect(), lab.connect()];
    for conn in &mut conns {
        conn.client.act("close C");
    }
    conns[0].server.act("close S");
    ss::wait(&lab.ns, &conns[0].c, "time_wait");
    ss::wait(&lab.ns, &conns[1].c, "fin_wait2");
    let told = Killer::new(&lab).destroy(&["-s", "time_wait,fin_wait2"]);
    assert_eq!(told.sum("destroyed"), 2);
    assert_eq!(told.sum("still_there"), 0);
    for conn in &conns {
        assert!(!is_there(&lab, &conn.c.id()));
    }
    // Nobody was told.
    assert!(is_there(&lab, &conns[1].s.id()));
}

#[test]
fn half_open_requests_are_destroyed() {
    require!(root, tracer, sock_destroy);
    let lab = Lab::new();
    let mut server = lab.peer();
    let to = server.act(&format!("listen L {}:0", lab.ip)).local();
    server.act("defer_accept L");
    let mut client = lab.peer();
    client.act(&format!("connect C {to}"));
    assert_eq!(counts(&lab).get("syn_recv"), Some(&1));
    let told = Killer::new(&lab).destroy(&["-s", "syn_recv"]);
    assert_eq!(told.sum("destroyed"), 1);
    assert_eq!(counts(&lab).get("syn_recv"), None);
}

#[test]
fn listeners_are_destroyed_only_where_they_are_named() {
    require!(root, tracer, sock_destroy);
    let lab = Lab::new();
    // On a port of its own choice, which stays bound when the listener is gone.
    let (client, mut server) = (lab.peer(), lab.peer());
    let to = format!("{}:8080", lab.ip);
    let listener = server.act(&format!("listen L {to}"));
    let conn = Conn::to(client, server, listener, &to);
    let port = "8080";
    let killer = Killer::new(&lab);
    let told = killer.destroy(&["-L", port, "--evidence", "1.jsonl"]);
    assert_eq!(told.ids("spared"), [conn.listener.id()]);
    assert_eq!(told.ids("destroyed"), [conn.s.id()]);
    assert!(is_there(&lab, &conn.listener.id()));
    let told = killer.destroy(&["-s", "listen", "-L", port, "--evidence", "2.jsonl"]);
    assert_eq!(told.ids("destroyed"), [conn.listener.id()]);
    assert_eq!(told.sum("still_there"), 0);
    assert!(!is_there(&lab, &conn.listener.id()));
}

#[test]
fn listeners_of_one_port_are_found_one_after_the_other() {
    require!(root, tracer, sock_destroy);
    let lab = Lab::new();
    let mut servers = [lab.peer(), lab.peer()];
    let at = format!("{}:8080", lab.ip);
    let mut ids = Vec::new();
    for server in &mut servers {
        for name in ["L", "M", "N"] {
            ids.push(server.act(&format!("listen {name} {at} shared")).id());
        }
    }
    let killer = Killer::new(&lab);
    let told = killer.destroy(&["-s", "listen", "-L", "8080"]);
    let mut destroyed = told.ids("destroyed");
    destroyed.sort();
    ids.sort();
    assert_eq!(destroyed, ids);
    assert_eq!(counts(&lab).get("listen"), None);
}

#[test]
fn subflows_of_mptcp_are_left_alone() {
    require!(root, tracer, sock_destroy, mptcp);
    let lab = Lab::new();
    let (mut client, mut server) = (lab.peer(), lab.peer());
    let to = server.act(&format!("listen L {}:0 mptcp", lab.ip)).local();
    client.act(&format!("connect C {to} mptcp"));
    server.act("accept S L");
    let before = counts(&lab);
    let told = Killer::new(&lab).destroy(&["-s", "established"]);
    assert_eq!(told.sum("spared"), 2, "{:?}", told.lines);
    assert_eq!(counts(&lab), before);
}

#[test]
fn nothing_selected_is_nothing_done() {
    require!(root, tracer);
    let lab = Lab::new();
    let killer = Killer::new(&lab);
    let told = killer.destroy(&["-s", "close_wait"]);
    assert_eq!(told.sum("selected"), 0);
    assert_eq!(killer.evidence(), [] as [PathBuf; 0]);
}

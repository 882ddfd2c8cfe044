//! A filter shows all that match and nothing else, of what was there and of what comes.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use std::{fs, thread};

use tcptrace_tests::child::{LIMIT, until};
use tcptrace_tests::lab::{Conn, Lab};
use tcptrace_tests::maps;
use tcptrace_tests::oracle::ss;
use tcptrace_tests::require;
use tcptrace_tests::require::cgroup2_mount;
use tcptrace_tests::tcptrace::{Tracer, snapshot};
use tcptrace_tests::truth::Act;

#[test]
fn by_process() {
    require!(root, tracer, ss);
    let mut stage = Stage::new();
    let (alice, bob) = (stage.conn.client.pid(), stage.conn.server.pid());
    stage.shows(&["-p", &alice.to_string()], |s| s.pid == alice);
    let both = format!("{alice},{bob}");
    stage.shows(&["-p", &both], |_| true);
}

/// Dumps come every 10 s, and two that do not show a socket end it: what a filter keeps from
/// them must not count as gone.
#[test]
fn by_process_over_several_dumps() {
    require!(root, tracer, ss);
    let lab = Lab::new();
    let mut conn = lab.connect();
    let pid = conn.client.pid().to_string();
    let by_pid = lab.watch(&["-p", &pid, "--min-age", "0"]);
    let elsewhere = lab.watch(&["-L", "1-9", "--state", "close_wait,time_wait"]);
    conn.client.act("close C");
    conn.server.act("wait S 8");
    conn.server.act("close S");
    let id = conn.c.id();
    by_pid.stuck(&id, "time_wait");
    thread::sleep(Duration::from_secs(25));
    let run = by_pid.stop();
    let ended = run
        .events
        .iter()
        .any(|e| e.kind() == "resolved" && e.text("state") == "time_wait");
    assert!(!ended, "{:?}", run.events);
    assert_eq!(run.count("time_wait", "open"), 1);
    assert!(run.complete(), "{}", run.summary);
    let run = elsewhere.stop();
    assert!(run.complete(), "{}", run.summary);
    assert_eq!(run.count("time_wait", "open"), 0);
}

#[test]
fn by_name() {
    require!(root, tracer, ss);
    let mut stage = Stage::new();
    let alice = stage.conn.client.pid();
    stage.shows(&["--comm", "alice"], |s| s.pid == alice);
    stage.shows(&["--comm", "b*"], |s| s.pid != alice);
}

#[test]
fn by_port() {
    require!(root, tracer, ss);
    let mut stage = Stage::new();
    let port = stage.conn.listener.local.expect("bound").port();
    let text = port.to_string();
    stage.shows(&["-L", &text], |s| s.local.port() == port);
    stage.shows(&["-D", &text], |s| s.remote.port() == port);
    stage.shows(&["--port", &text], |s| {
        s.local.port() == port || s.remote.port() == port
    });
    stage.shows(&["--port", "1"], |_| false);
}

#[test]
fn by_address() {
    require!(root, tracer, ss);
    let mut stage = Stage::new();
    let ip = IpAddr::V4(stage.lab.ip);
    let text = ip.to_string();
    stage.shows(&["--laddr", &text], |s| s.local.ip() == ip);
    stage.shows(&["--raddr", &format!("{text}/32")], |s| s.remote.ip() == ip);
    stage.shows(&["--laddr", "127.0.0.0/8"], |s| s.local.is_ipv4());
    stage.shows(&["--raddr", "::/0"], |s| s.remote.is_ipv6());
    stage.shows(&["--laddr", "::1"], |s| s.local.is_ipv6());
    stage.shows(&["--raddr", "10.0.0.0/8"], |_| false);
}

#[test]
fn by_family() {
    require!(root, tracer, ss);
    let mut stage = Stage::new();
    stage.shows(&["-4"], |s| s.local.is_ipv4());
    stage.shows(&["-6"], |s| s.local.is_ipv6());
}

#[test]
fn by_cgroup() {
    require!(root, tracer, ss, cgroup2);
    let cgroup = Cgroup::new();
    let mut stage = Stage::new();
    let alice = stage.conn.client.pid();
    cgroup.add(alice);
    stage.shows(&["--cgroup", &cgroup.path], |s| s.pid == alice);
}

#[test]
fn by_role() {
    require!(root, tracer, ss);
    let mut stage = Stage::new();
    for role in ["active", "passive", "unaccepted"] {
        stage.shows(&["--role", role], |s| s.role == role);
    }
}

#[test]
fn by_several_at_once() {
    require!(root, tracer, ss);
    let mut stage = Stage::new();
    let bob = stage.conn.server.pid();
    let args = ["-p", &bob.to_string(), "-4", "--role", "passive"];
    stage.shows(&args, |s| {
        s.pid == bob && s.local.is_ipv4() && s.role == "passive"
    });
}

/// What a second filter leaves out takes no room in the map of those that the first one follows:
/// neither if it was there, nor at its birth (connect, handshake, accept), nor, where its own port
/// was not known yet at its birth, when it is gone.
#[test]
fn by_owner_and_more_remembers_no_others() {
    require!(root, tracer, bpftool);
    let (lab, elsewhere) = (Lab::new(), Lab::new());
    let (mut client, mut server) = (lab.peer(), lab.peer());
    let wanted = server.act(&format!("listen L {}:0", lab.ip));
    let other = server.act(&format!("listen O {}:0", lab.ip));
    let port = wanted.local.expect("bound").port().to_string();
    let pid = client.pid().to_string();
    let watch = |filter: &[&str]| lab.watch(&[&["--state", "close_wait"], filter].concat());
    client.act(&format!("connect C.0 {}", other.local()));
    server.act("accept S.0 O");
    let remembered = |watch: &Tracer| maps::entries(watch.process().pid(), "SELECTED");
    let of_process = watch(&["-p", &pid, "-D", &port]);
    let passive = watch(&["--role", "passive", "-L", &port]);
    let active = watch(&["--role", "active", "-L", "1"]);

    client.act(&format!("connect C {}", wanted.local()));
    server.act("accept S L");
    let _elsewhere = elsewhere.connect();
    for n in 1..3 {
        client.act(&format!("connect C.{n} {}", other.local()));
        server.act(&format!("accept S.{n} O"));
    }
    assert_eq!(remembered(&of_process), 1);
    assert_eq!(remembered(&passive), 1);
    for n in 0..3 {
        client.act(&format!("close C.{n}"));
        server.act(&format!("close S.{n}"));
    }
    // Of C nobody has told since its birth.
    until(LIMIT, "those that are gone to be forgotten", || {
        (remembered(&active) == 1).then_some(())
    });
}

#[test]
fn by_namespace() {
    require!(root, tracer, ss);
    let mut stages = [Stage::new(), Stage::new()];
    let [one, two] = &mut stages;
    one.add();
    two.add();
    let watch = one.lab.watch(&["--state", "close_wait", "--min-age", "0"]);
    one.add();
    two.add();
    let run = watch.stop();
    let inode = one.lab.ns.inode();
    for event in run.events {
        assert_eq!(event.number("netns"), inode);
    }
}

/// A cgroup of our own. Dropped after the processes in it.
struct Cgroup {
    dir: PathBuf,
    /// As `/proc/PID/cgroup` has it.
    path: String,
}

impl Cgroup {
    fn new() -> Cgroup {
        let path = format!("/tcptrace-test-{}", std::process::id());
        let dir = cgroup2_mount().expect("cgroup2").join(&path[1..]);
        fs::create_dir(&dir).expect("a cgroup");
        Cgroup { dir, path }
    }

    fn add(&self, pid: u32) {
        fs::write(self.dir.join("cgroup.procs"), pid.to_string()).expect("moves a process");
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The kernel takes a process out of its cgroup some time after it was waited for.
        for _ in 0..200 {
            if fs::remove_dir(&self.dir).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        eprintln!("{} stays", self.dir.display());
    }
}

/// Two processes, alice and bob, and sockets in CLOSE_WAIT that belong to them.
struct Stage {
    lab: Lab,
    conn: Conn,
    six: Act,
    sockets: Vec<Leak>,
}

/// A socket in CLOSE_WAIT.
struct Leak {
    id: String,
    local: SocketAddr,
    remote: SocketAddr,
    role: &'static str,
    pid: u32,
}

impl Stage {
    fn new() -> Stage {
        let lab = Lab::new();
        let (mut alice, mut bob) = (lab.peer(), lab.peer());
        alice.act("name 616c696365");
        bob.act("name 626f62");
        let six = bob.act("listen L6 [::1]:0");
        Stage {
            conn: Conn::between(alice, bob, &lab.ip.to_string()),
            lab,
            six,
            sockets: Vec::new(),
        }
    }

    /// With the filter, `snapshot` shows the sockets that `wanted` accepts, and `watch` those of
    /// before its start as well as those of after it.
    #[track_caller]
    fn shows(&mut self, filter: &[&str], wanted: impl Fn(&Leak) -> bool) {
        self.add();
        let mut args = vec!["--state", "close_wait"];
        args.extend(filter);
        let shown = snapshot(&self.lab.ns, &args);
        let shown: BTreeSet<String> = shown.iter().map(|e| e.id().to_owned()).collect();
        assert_eq!(shown, self.ids(&wanted), "snapshot {filter:?}");

        args.extend(["--min-age", "0"]);
        let watch = self.lab.watch(&args);
        self.add();
        let run = watch.stop();
        let stuck = run.events.iter().filter(|e| e.kind() == "stuck");
        let shown: BTreeSet<String> = stuck.map(|e| e.id().to_owned()).collect();
        let expected = self.ids(&wanted);
        assert_eq!(shown, expected, "watch {filter:?}");
        let count = run.count("close_wait", "before") + run.count("close_wait", "entered");
        assert_eq!(count, expected.len() as u64, "{}", run.summary);
    }

    fn ids(&self, wanted: impl Fn(&Leak) -> bool) -> BTreeSet<String> {
        let wanted = self.sockets.iter().filter(|s| wanted(s));
        wanted.map(|s| s.id.clone()).collect()
    }

    /// One more of each kind: accepted by bob over IPv4 and IPv6, connected by alice, and one
    /// in bob's queue.
    fn add(&mut self) {
        let n = self.sockets.len();
        let (four, six) = (self.conn.listener.local(), self.six.local());
        for (name, to, listener) in [("S4", &four, "L"), ("S6", &six, "L6")] {
            let Conn { client, server, .. } = &mut self.conn;
            client.act(&format!("connect {name} {to}"));
            let s = server.act(&format!("accept {name}.{n} {listener}"));
            client.act(&format!("close {name}"));
            server.act(&format!("wait {name}.{n} 8"));
            self.note(&s, "passive");
        }
        let Conn { client, server, .. } = &mut self.conn;
        let c = client.act(&format!("connect C.{n} {four}"));
        server.act("accept T L");
        server.act("close T");
        client.act(&format!("wait C.{n} 8"));
        self.note(&c, "active");

        // A listener of its own: the queue of L is needed empty.
        let Conn { client, server, .. } = &mut self.conn;
        let own = server.act(&format!("listen Q.{n} {}:0", self.lab.ip));
        let q = client.act(&format!("connect Q {}", own.local()));
        client.act("close Q");
        ss::wait(&self.lab.ns, &q, "fin_wait2");
        let theirs = ss::sockets(&self.lab.ns);
        let queued = theirs.iter().find(|s| s.remote == q.local());
        let queued = Leak {
            id: queued.expect("in the queue").id.clone(),
            local: q.remote.expect("connected"),
            remote: q.local.expect("bound"),
            role: "unaccepted",
            pid: self.conn.server.pid(),
        };
        self.sockets.push(queued);
    }

    fn note(&mut self, act: &Act, role: &'static str) {
        self.sockets.push(Leak {
            id: act.id(),
            local: act.local.expect("bound"),
            remote: act.remote.expect("connected"),
            role,
            pid: act.pid,
        });
    }
}

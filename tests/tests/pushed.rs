//! Filters that the programs in the kernel apply: none keeps back what matches, by any chain. That they
//! let too much pass does not show, since user space applies the whole filter again.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use tcptrace_tests::child::{LIMIT, until};
use tcptrace_tests::lab::Lab;
use tcptrace_tests::maps;
use tcptrace_tests::require;
use tcptrace_tests::require::cgroup2_mount;
use tcptrace_tests::stage::Stage;
use tcptrace_tests::tcptrace::Tracer;

#[test]
fn by_what_the_programs_know_of_a_socket() {
    require!(root, tracer, ss, cgroup2);
    let cgroup = Cgroup::new();
    let mut stage = Stage::new();
    let (alice, bob) = (stage.alice(), stage.bob());
    cgroup.add(alice);
    let port = stage.port().to_string();
    let ip = IpAddr::V4(stage.lab.ip).to_string();
    let (a, b) = (alice.to_string(), bob.to_string());
    let to = ["-p", &a, "-D", &port, "--raddr", &ip, "--role", "active"];
    let from = ["-L", &port, "--laddr", &ip, "--role", "passive", "-4"];
    stage.shows(&[
        (&["-p", &b], &|s| s.pid == bob),
        (&["--cgroup", &cgroup.path], &|s| s.pid == alice),
        (&to, &|s| s.pid == alice),
        (&from, &|s| {
            s.pid == bob && s.local.is_ipv4() && s.role == "passive"
        }),
        (&["-6", "--raddr", "::/0"], &|s| s.local.is_ipv6()),
        (&["--port", &port], &|s| {
            [s.local, s.remote]
                .iter()
                .any(|end| end.port().to_string() == port)
        }),
    ]);
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

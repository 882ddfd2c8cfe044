//! Stacks of interpreters and servers as Debian ships them, compared with what a debugger says of them.
#![allow(missing_docs, reason = "tests")]

mod common;

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{CONNECT, EPOLL_PWAIT, EPOLL_WAIT, RECVFROM, Running, have, names, take};
use tcptrace_stacks::{By, End, Limits, Stacks, Trace};

fn trace_of(running: &Running, call: u64) -> Trace {
    let taken = running.sample(call);
    Trace::clone(&Stacks::new(Limits::default()).trace(&taken.sample()))
}

/// Where it is on the system, not a wrapper of a version manager.
fn system(tool: &str) -> Option<String> {
    have(tool).then_some(())?;
    let places = ["/usr/bin", "/usr/sbin"].map(|d| format!("{d}/{tool}"));
    places.into_iter().find(|p| Path::new(p).exists())
}

/// The debugger has no better names for what is stripped, but goes the same way.
fn same_where_named(ours: &[String], theirs: &[String]) {
    assert_eq!(ours.len(), theirs.len(), "{ours:?}\n{theirs:?}");
    for (ours_name, theirs_name) in ours.iter().zip(theirs) {
        let unknown = ours_name == "??" || theirs_name == "??";
        assert!(unknown || ours_name == theirs_name, "{ours:?}\n{theirs:?}");
    }
}

#[test]
fn python_in_recv() {
    let Some(python) = system("python3") else {
        return;
    };
    let program = "import socket\n\
        a, b = socket.socketpair()\n\
        def read(n): return a.recv(n)\n\
        class Reader:\n    def __call__(self, n): return read(n)\n\
        print(sorted([3, 2], key=Reader()))\n";
    let running = Running::start(Command::new(python).args(["-I", "-c", program]));
    let trace = trace_of(&running, RECVFROM);
    assert_eq!(trace.end, End::Root, "{trace:#?}");
    let ours = names(&trace);
    same_where_named(&ours, &running.debugger(RECVFROM));
    assert!(
        ours.iter()
            .any(|n| n.starts_with("PyEval_EvalFrame") || n == "PyEval_EvalCode"),
        "{ours:?}"
    );
}

#[test]
fn python_in_connect() {
    let Some(python) = system("python3") else {
        return;
    };
    // The queue of a listener is full after two connections: the third waits.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let port = listener.local_addr().unwrap().port();
    let program = format!(
        "import socket\n\
         def dial(): s = socket.socket(); s.connect(('127.0.0.1', {port})); return s\n\
         print([dial() for _ in range(9)])\n"
    );
    let running = Running::start(Command::new(python).args(["-I", "-c", &program]));
    let trace = trace_of(&running, CONNECT);
    assert_eq!(trace.end, End::Root, "{trace:#?}");
    let ours = names(&trace);
    assert_eq!(ours[0], "connect");
    same_where_named(&ours, &running.debugger(CONNECT));
}

#[test]
fn nginx() {
    let Some(nginx) = system("nginx") else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().display();
    let configuration = directory.path().join("nginx.conf");
    let text = format!(
        "daemon off; master_process off; pid {path}/pid; error_log {path}/log;\n\
         events {{}}\n\
         http {{ access_log off; client_body_temp_path {path}; proxy_temp_path {path};\n\
         fastcgi_temp_path {path}; uwsgi_temp_path {path}; scgi_temp_path {path};\n\
         server {{ listen unix:{path}/socket; }} }}\n"
    );
    fs::write(&configuration, text).unwrap();
    let running = Running::start(Command::new(nginx).arg("-c").arg(&configuration));
    let trace = trace_of(&running, EPOLL_WAIT);
    assert_eq!(trace.end, End::Root, "{trace:#?}");
    let ours = names(&trace);
    assert!(
        ours.iter().any(|n| n == "ngx_process_events_and_timers"),
        "{ours:?}"
    );
    same_where_named(&ours, &running.debugger(EPOLL_WAIT));
}

/// Generated code has frame pointers, and names only if node is asked to write them.
#[test]
fn node() {
    let Some(node) = system("node") else {
        return;
    };
    let program = "const child = require('child_process');\n\
        const stdio = ['inherit', 'pipe', 'pipe'];\n\
        function inner() { child.execFileSync('/bin/cat', [], { stdio }); }\n\
        function outer() { inner(); return 1; }\n\
        outer();\n";
    let arguments = [
        "--perf-basic-prof",
        "--interpreted-frames-native-stack",
        "-e",
        program,
    ];
    // What it starts waits for the end of our pipe.
    let mut command = Command::new(node);
    let running = Running::start(command.args(arguments).stdin(Stdio::piped()));
    running.main_in(EPOLL_PWAIT);
    let taken = take(running.pid(), running.pid(), 64 * 1024);
    let trace = Stacks::new(Limits::default()).trace(&taken.sample());
    let ours = names(&trace);
    let _ = fs::remove_file(format!("/tmp/perf-{}.map", running.pid()));
    assert_eq!(trace.end, End::Root, "{trace:#?}");
    assert_eq!(ours.last().map(String::as_str), Some("start"), "{ours:?}");
    let has = |part: &str| {
        let named =
            |f: &&tcptrace_stacks::Frame| f.function.as_deref().is_some_and(|n| n.contains(part));
        trace.frames.iter().find(named).map(|f| f.by)
    };
    assert_eq!(has("inner"), Some(By::FramePointer), "{trace:#?}");
    assert_eq!(has("outer"), Some(By::FramePointer), "{trace:#?}");
}

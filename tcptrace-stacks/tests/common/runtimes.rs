//! Interpreters and servers as Debian ships them, waiting in a system call.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::{Running, have};

/// What a program needs for as long as it runs.
pub(crate) enum Needed {
    Nothing,
    Listener(#[expect(dead_code, reason = "it is only kept open")] TcpListener),
    Directory(#[expect(dead_code, reason = "it is only kept")] TempDir),
}

/// Where a tool is on the system, not a wrapper of a version manager.
fn system(tool: &str) -> Option<String> {
    have(tool).then_some(())?;
    let places = ["/usr/bin", "/usr/sbin"].map(|d| format!("{d}/{tool}"));
    places.into_iter().find(|p| Path::new(p).exists())
}

/// In recvfrom(), called by functions and methods that native code calls back.
pub(crate) fn python_in_recv() -> Option<(Running, Needed)> {
    let program = "import socket\n\
        a, b = socket.socketpair()\n\
        def read(n): return a.recv(n)\n\
        class Reader:\n    def __call__(self, n): return read(n)\n\
        print(sorted([3, 2], key=Reader()))\n";
    let mut command = Command::new(system("python3")?);
    let running = Running::start(command.args(["-I", "-c", program]));
    Some((running, Needed::Nothing))
}

/// In connect(), to a listener whose queue is full.
pub(crate) fn python_in_connect() -> Option<(Running, Needed)> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let port = listener.local_addr().unwrap().port();
    let program = format!(
        "import socket\n\
         def dial(): s = socket.socket(); s.connect(('127.0.0.1', {port})); return s\n\
         print([dial() for _ in range(9)])\n"
    );
    let mut command = Command::new(system("python3")?);
    let running = Running::start(command.args(["-I", "-c", &program]));
    Some((running, Needed::Listener(listener)))
}

/// In epoll_wait().
pub(crate) fn nginx() -> Option<(Running, Needed)> {
    let nginx = system("nginx")?;
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
    Some((running, Needed::Directory(directory)))
}

/// In epoll_pwait() of its first thread, waiting for a command that ends with our pipe.
pub(crate) fn node() -> Option<(Running, Needed)> {
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
    let mut command = Command::new(system("node")?);
    // It writes a log where it is, too.
    let directory = tempfile::tempdir().unwrap();
    command.args(arguments).stdin(Stdio::piped());
    let running = Running::start(command.current_dir(directory.path()));
    running.main_in(super::EPOLL_PWAIT);
    Some((running, Needed::Directory(directory)))
}

/// In accept(), called by a function of its own.
pub(crate) fn java(option: &str) -> Option<(Running, Needed)> {
    let java = system("java")?;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("Waits.java");
    let program = "import java.net.ServerSocket;\n\
        public class Waits {\n\
        static void take() throws Exception { new ServerSocket(0).accept(); }\n\
        public static void main(String[] a) throws Exception { take(); }\n}\n";
    fs::write(&file, program).unwrap();
    let mut command = Command::new(java);
    let running = Running::start(command.arg(option).arg(&file));
    Some((running, Needed::Directory(directory)))
}

//! Skip rules. A test says what it needs in its first line:
//!
//! ```ignore
//! require!(root, tracer, ss);
//! ```
//!
//! Where something is missing the test prints a line and passes, unless `TCPTRACE_REQUIRE=all`
//! or `CI=true` is set: then it fails and names what is missing. What the kernel is known not to
//! have is listed in `TCPTRACE_WITHOUT`, by the names of the needs: that is left out even then.

use std::io::Write as _;
use std::path::PathBuf;

use crate::tcptrace::tracer_path;

/// Leaves the test unless everything named is there. The names are the functions of
/// [`mod@crate::require`].
#[macro_export]
macro_rules! require {
    ($($need:ident),+ $(,)?) => {
        $(if let Err(why) = $crate::require::$need() {
            $crate::require::missing(stringify!($need), &why);
            return;
        })+
    };
}

/// Fails under `TCPTRACE_REQUIRE=all` or `CI=true` unless it is known to be missing, else prints the
/// skip line (past the test harness' capture, so that a skip is always seen).
#[track_caller]
pub fn missing(need: &str, why: &str) {
    assert!(
        is_left_out(need) || !strict(),
        "this test needs {need}: {why}"
    );
    let name = std::thread::current().name().unwrap_or("?").to_owned();
    let line = format!("skip {name}: needs {need}: {why}\n");
    std::io::stderr()
        .write_all(line.as_bytes())
        .expect("stderr");
}

fn strict() -> bool {
    let is = |key, value: &str| std::env::var(key).is_ok_and(|v| v == value);
    is("TCPTRACE_REQUIRE", "all") || is("CI", "true")
}

/// Whether `TCPTRACE_WITHOUT` lists it.
fn is_left_out(need: &str) -> bool {
    let without = std::env::var("TCPTRACE_WITHOUT").unwrap_or_default();
    without.split(',').any(|known| known == need)
}

/// The answer of a skip rule.
pub type Need = Result<(), String>;

/// Effective user 0.
pub fn root() -> Need {
    match rustix::process::geteuid().is_root() {
        true => Ok(()),
        false => Err("not root".to_owned()),
    }
}

/// The tracer has been built.
pub fn tracer() -> Need {
    let path = tracer_path();
    match path.is_file() {
        true => Ok(()),
        false => Err(format!(
            "no {}: cargo build --release, or TCPTRACE_BIN=path",
            path.display()
        )),
    }
}

/// iproute2's `ss`.
pub fn ss() -> Need {
    program("ss")
}

/// libbpf-tools' `tcpstates`.
pub fn tcpstates() -> Need {
    program("tcpstates")
}

/// util-linux' `script`, which runs a program on a terminal of its own.
pub fn script() -> Need {
    program("script")
}

/// util-linux' `setpriv`.
pub fn setpriv() -> Need {
    program("setpriv")
}

/// Wireshark's `tshark`.
pub fn tshark() -> Need {
    program("tshark")
}

/// A C compiler.
pub fn gcc() -> Need {
    program("gcc")
}

/// A C++ compiler.
pub fn gxx() -> Need {
    program("g++")
}

/// A Go compiler.
pub fn go() -> Need {
    program("go")
}

/// A compiler of Java, and what runs it.
pub fn java() -> Need {
    program("javac").and_then(|()| program("jcmd"))
}

/// Node.js.
pub fn node() -> Need {
    program("node")
}

/// A debugger.
pub fn gdb() -> Need {
    program("gdb")
}

/// nginx.
pub fn nginx() -> Need {
    file("/usr/sbin/nginx")
}

/// util-linux' `unshare`.
pub fn unshare() -> Need {
    program("unshare")
}

/// The `openssl` command.
pub fn openssl() -> Need {
    program("openssl")
}

/// Tomcat, to be embedded.
pub fn tomcat() -> Need {
    file(crate::software::TOMCAT)
}

/// Apache HttpClient 4, and what it needs.
pub fn httpclient() -> Need {
    crate::software::HTTPCLIENT
        .iter()
        .try_for_each(|jar| file(jar))
}

/// redis-server and redis-benchmark.
pub fn redis() -> Need {
    program("redis-server")?;
    program("redis-benchmark")
}

/// net-tools' `netstat`.
pub fn netstat() -> Need {
    program("netstat")
}

/// The Python packages that read exports.
pub fn python_tools() -> Need {
    let path = crate::export::python_path();
    match path.is_file() {
        true => Ok(()),
        false => Err(format!(
            "no {}: `cargo xtask test` makes it, from tests/tools/requirements.txt",
            path.display()
        )),
    }
}

/// The kernel describes its types.
pub fn btf() -> Need {
    match std::fs::exists("/sys/kernel/btf/vmlinux") {
        Ok(true) => Ok(()),
        _ => Err("no /sys/kernel/btf/vmlinux".to_owned()),
    }
}

/// The kernel's own `bpftool`.
pub fn bpftool() -> Need {
    program("bpftool")
}

/// The trace file system, with the tracepoint of state changes.
pub fn tracefs() -> Need {
    crate::oracle::tracefs::supported().map_err(|e| e.to_string())
}

/// SOCK_DESTROY (CONFIG_INET_DIAG_DESTROY).
pub fn sock_destroy() -> Need {
    ss()?;
    let lab = crate::lab::Lab::new();
    let mut conn = lab.connect();
    crate::oracle::ss::destroy(&lab.ns, &conn.c);
    match conn.client.act("state C").value {
        Some(7) => Ok(()),
        _ => Err("the kernel refuses SOCK_DESTROY".to_owned()),
    }
}

/// SOCK_DESTROY of minisockets, too; 5.10 refuses it.
pub fn sock_destroy_mini() -> Need {
    sock_destroy()?;
    let lab = crate::lab::Lab::new();
    let mut conn = lab.connect();
    let close = conn.client.act("close C");
    crate::oracle::ss::wait(&lab.ns, &close, "fin_wait2");
    crate::oracle::ss::destroy(&lab.ns, &conn.c);
    let left = crate::oracle::ss::sockets(&lab.ns);
    match left.iter().any(|socket| socket.id == close.id()) {
        false => Ok(()),
        true => Err("the kernel refuses SOCK_DESTROY of minisockets".to_owned()),
    }
}

/// io_uring may be used.
pub fn io_uring() -> Need {
    crate::uring::supported().map_err(|e| e.to_string())
}

/// MPTCP is built in and switched on.
pub fn mptcp() -> Need {
    let addr = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    match crate::sock::listen(crate::sock::Protocol::Mptcp, addr, 1) {
        Ok(_) => Ok(()),
        Err(e) => Err(e.to_string()),
    }
}

/// cgroup v2 is mounted, alone or beside v1.
pub fn cgroup2() -> Need {
    match cgroup2_mount() {
        Some(_) => Ok(()),
        None => Err("no cgroup2 in /proc/self/mounts".to_owned()),
    }
}

/// Where cgroup v2 is mounted.
pub fn cgroup2_mount() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let mut mounts = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>());
    let mount = mounts.find(|fields| fields.get(2) == Some(&"cgroup2"))?;
    Some(PathBuf::from(mount[1]))
}

fn file(path: &str) -> Need {
    match std::fs::exists(path) {
        Ok(true) => Ok(()),
        _ => Err(format!("no {path}")),
    }
}

fn program(name: &str) -> Need {
    let dirs = std::env::var("PATH").unwrap_or_default();
    let found = std::env::split_paths(&dirs)
        .map(|dir: PathBuf| dir.join(name))
        .any(|path| path.is_file());
    match found {
        true => Ok(()),
        false => Err(format!("no {name} in PATH")),
    }
}

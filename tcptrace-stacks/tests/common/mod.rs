//! Stopping a child of ours at a system call, and asking a debugger about it.
#![allow(dead_code, reason = "not every test needs all of it")]
#![allow(clippy::unwrap_used, reason = "tests")]

pub(crate) mod programs;
pub(crate) mod runtimes;

use std::fs;
use std::os::unix::fs::FileExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use tcptrace_stacks::{Frame, Process, Regs, Sample, Trace};

pub(crate) const RECVFROM: u64 = 45;
pub(crate) const CONNECT: u64 = 42;
pub(crate) const ACCEPT: u64 = 43;
pub(crate) const ACCEPT4: u64 = 288;
pub(crate) const EPOLL_WAIT: u64 = 232;
pub(crate) const EPOLL_PWAIT: u64 = 281;

/// A sample that owns its stack.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    pub(crate) process: Process,
    pub(crate) regs: Regs,
    pub(crate) stack: Vec<u8>,
}

impl Taken {
    pub(crate) fn sample(&self) -> Sample<'_> {
        self.short(self.stack.len())
    }

    /// With so many bytes of the stack.
    pub(crate) fn short(&self, bytes: usize) -> Sample<'_> {
        Sample {
            process: self.process,
            regs: self.regs,
            stack: &self.stack[..bytes.min(self.stack.len())],
        }
    }
}

/// A child that ends with us.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Running {
        command.stdout(std::process::Stdio::null());
        Running(
            command
                .spawn()
                .unwrap_or_else(|e| panic!("{command:?}: {e}")),
        )
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// The thread that waits in that system call.
    pub(crate) fn thread_in(&self, call: u64) -> u32 {
        thread_in(self.pid(), call)
    }

    /// Waits until the first thread is in that system call.
    pub(crate) fn main_in(&self, call: u64) {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(20) {
            let text = fs::read_to_string(format!("/proc/{}/syscall", self.pid()));
            if text.unwrap_or_default().starts_with(&format!("{call} ")) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("{} does not come to wait in system call {call}", self.pid());
    }

    /// A sample of the thread that waits in that system call.
    pub(crate) fn sample(&self, call: u64) -> Taken {
        take(self.pid(), self.thread_in(call), 64 * 1024)
    }

    /// The frames of that thread as a debugger sees them, the innermost first.
    pub(crate) fn debugger(&self, call: u64) -> Vec<String> {
        debugger(self.pid(), self.thread_in(call))
    }
}

pub(crate) fn thread_in(pid: u32, call: u64) -> u32 {
    let wanted = format!("{call} ");
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(20) {
        for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
            let tid = task.unwrap().file_name().into_string().unwrap();
            let text = fs::read_to_string(format!("/proc/{pid}/task/{tid}/syscall"));
            if text.unwrap_or_default().starts_with(&wanted) {
                return tid.parse().unwrap();
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("no thread of {pid} comes to wait in system call {call}");
}

/// What the kernel program would see of a thread.
pub(crate) fn take(pid: u32, tid: u32, bytes: usize) -> Taken {
    let thread = Pid::from_raw(tid.cast_signed());
    ptrace::seize(thread, ptrace::Options::empty()).unwrap();
    ptrace::interrupt(thread).unwrap();
    waitpid(thread, Some(nix::sys::wait::WaitPidFlag::__WALL)).unwrap();
    let r = ptrace::getregs(thread).unwrap();
    let stack = memory(pid, r.rsp, bytes);
    ptrace::detach(thread, None).unwrap();
    Taken {
        process: identity(pid),
        regs: Regs {
            ip: r.rip,
            sp: r.rsp,
            bp: r.rbp,
            bx: r.rbx,
            r12: r.r12,
            r13: r.r13,
            r14: r.r14,
            r15: r.r15,
        },
        stack,
    }
}

/// Memory up to where it ends.
fn memory(pid: u32, at: u64, bytes: usize) -> Vec<u8> {
    let file = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut out = Vec::new();
    let mut page = [0; 4096];
    while out.len() < bytes {
        let length = 4096 - (at as usize + out.len()) % 4096;
        match file.read_at(&mut page[..length], at + out.len() as u64) {
            Ok(read) if read > 0 => out.extend_from_slice(&page[..read]),
            _ => break,
        }
    }
    out.truncate(bytes);
    out
}

pub(crate) fn identity(pid: u32) -> Process {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let behind = stat.rfind(')').unwrap();
    let field = |number: usize| {
        let field = stat[behind..].split_ascii_whitespace().nth(number - 2);
        field.unwrap().parse::<u64>().unwrap()
    };
    Process {
        pid,
        start_ns: field(22) * 10_000_000,
        start_stack: field(28),
    }
}

/// The frames of a thread as gdb sees them.
fn debugger(pid: u32, tid: u32) -> Vec<String> {
    let output = Command::new("gdb")
        .args(["-nx", "-batch", "-p", &pid.to_string()])
        .args([
            "-iex",
            "set auto-load off",
            "-iex",
            "set debuginfod enabled off",
        ])
        .args(["-ex", "set width 0"])
        .args([
            "-ex",
            "set backtrace past-main on",
            "-ex",
            "set backtrace past-entry on",
        ])
        .args(["-ex", "set print frame-arguments none"])
        .args([
            "-ex",
            "thread apply all backtrace",
            "-ex",
            "echo Thread 1 of process\\n",
            "-ex",
            "backtrace",
        ])
        .output()
        .expect("gdb");
    let text = String::from_utf8_lossy(&output.stdout);
    let mut ours = false;
    let mut frames = Vec::new();
    for line in text.lines() {
        if line.starts_with("Thread ") {
            // Of a program without threads it shows them only if it is asked for no thread.
            let lwp = |behind| line.contains(&format!("LWP {tid}{behind}"));
            let only = frames.is_empty() && line == "Thread 1 of process";
            ours = lwp(')') || lwp(' ') || only;
        } else if ours && line.starts_with('#') {
            let (_, rest) = line.split_once(' ').unwrap();
            let rest = rest.trim_start();
            let rest = match rest.split_once(" in ") {
                Some((address, name)) if address.starts_with("0x") => name,
                _ => rest,
            };
            frames.push(plain(rest));
        }
    }
    assert!(!frames.is_empty(), "{text}");
    // It does not know that nobody calls the outermost function of Go.
    if frames.ends_with(&["runtime.goexit".to_owned(), "??".to_owned()]) {
        frames.pop();
    }
    frames
}

/// A name without what compilers and debuggers write differently: arguments, type parameters, hashes,
/// and the underscores of libc's aliases.
pub(crate) fn plain(name: &str) -> String {
    let mut depth = 0;
    let mut out = String::new();
    let mut arguments = false;
    for c in name.trim().chars() {
        match c {
            '<' => depth += 1,
            '>' => depth -= 1,
            '(' if depth == 0 => arguments = true,
            _ if depth == 0 && !arguments => out.push(c),
            _ => {}
        }
    }
    let mut name = out
        .trim()
        .split("::h")
        .next()
        .unwrap()
        .trim_end_matches("::");
    for part in ["__libc_", "__GI_", "__", "_"] {
        name = name.strip_prefix(part).unwrap_or(name);
    }
    let name = name.strip_suffix("_impl").unwrap_or(name);
    // Debuggers know which namespace an inlined function is of.
    let name = name.split('@').next().unwrap();
    name.rsplit("::")
        .next()
        .unwrap()
        .trim_start_matches('_')
        .to_owned()
}

/// Our names for the same comparison.
pub(crate) fn names(trace: &Trace) -> Vec<String> {
    trace.frames.iter().map(name).collect()
}

fn name(frame: &Frame) -> String {
    frame
        .function
        .as_deref()
        .map_or_else(|| "??".to_owned(), plain)
}

/// Whether a tool is there. On CI it has to be.
pub(crate) fn have(tool: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|d| d.join(tool).is_file()));
    assert!(found || std::env::var_os("CI").is_none(), "no {tool}");
    found
}

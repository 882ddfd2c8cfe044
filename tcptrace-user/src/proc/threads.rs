//! What threads of a process do at this moment, from `/proc/PID/task`.

use std::fs;
use std::io;
use std::path::Path;

/// Threads of one process that are looked at.
pub(crate) const MAX_THREADS: usize = 256;

/// A thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Thread {
    /// Its id.
    pub(crate) tid: u32,
    /// Its name, as it is.
    pub(crate) comm: String,
    /// What it does.
    pub(crate) doing: Doing,
}

/// What a thread does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Doing {
    /// It waits in a call on a descriptor.
    OnFd(&'static str, u32),
    /// It waits in another call.
    Call(String),
    /// It runs, or waits for a CPU.
    Running,
    /// It waits in the kernel, in no call: for memory, say.
    InKernel,
    /// That may not be read.
    Hidden,
}

/// The first [`MAX_THREADS`] threads of a process, and how many there are.
///
/// # Errors
/// If there is no such process.
pub(crate) fn threads(pid: u32) -> io::Result<(Vec<Thread>, usize)> {
    let directory = Path::new("/proc").join(pid.to_string()).join("task");
    let entries = fs::read_dir(&directory)?;
    let tids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut tids: Vec<u32> = tids.collect();
    tids.sort_unstable();
    let shown = tids.iter().take(MAX_THREADS);
    let threads = shown.filter_map(|tid| thread(&directory, *tid)).collect();
    Ok((threads, tids.len()))
}

/// `None`: it has ended since.
fn thread(directory: &Path, tid: u32) -> Option<Thread> {
    let directory = directory.join(tid.to_string());
    let comm = fs::read(directory.join("comm")).ok()?;
    let comm = String::from_utf8_lossy(&comm).trim_end().to_owned();
    let doing = match fs::read_to_string(directory.join("syscall")) {
        Ok(text) => {
            let wchan = || fs::read_to_string(directory.join("wchan")).ok();
            doing(&text, wchan)
        }
        Err(_) => Doing::Hidden,
    };
    Some(Thread { tid, comm, doing })
}

/// The inode of the socket that a process has open as this descriptor.
pub(crate) fn socket(pid: u32, fd: u32) -> Option<u32> {
    let link = fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok()?;
    let inode = link.to_str()?.strip_prefix("socket:[")?;
    inode.strip_suffix(']')?.parse().ok()
}

/// How often a thread has been taken from a CPU: as long as that stays the same, it has not run.
pub(crate) fn switches(pid: u32, tid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/task/{tid}/status")).ok()?;
    let of = |line: &str| line.split_once("ctxt_switches:")?.1.trim().parse().ok();
    let both: Vec<u64> = status.lines().filter_map(of).collect();
    (both.len() == 2).then(|| both.iter().sum())
}

/// Reads `44 0x34 0x7f… …`, `running`, and `-1 0x… 0x…`.
fn doing(text: &str, wchan: impl FnOnce() -> Option<String>) -> Doing {
    let mut words = text.split_whitespace();
    let number = match words.next() {
        None => return Doing::Hidden,
        Some("running") => return Doing::Running,
        Some("-1") => return Doing::InKernel,
        Some(number) => number,
    };
    let first = words.next().and_then(|word| word.strip_prefix("0x"));
    let first = first.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    // The upper half of an int is what happened to be there.
    let fd = first.map(|argument| argument as u32);
    match (number.parse().ok().and_then(call), fd) {
        (Some((name, true)), Some(fd)) => Doing::OnFd(name, fd),
        (Some((name, _)), _) => Doing::Call(name.to_owned()),
        (None, _) => Doing::Call(match wchan().as_deref() {
            None | Some("" | "0") => format!("call {number}"),
            Some(function) => format!("call {number} ({function})"),
        }),
    }
}

/// The name of a call of x86-64, and whether its first argument is a descriptor.
fn call(number: u32) -> Option<(&'static str, bool)> {
    Some(match number {
        0 => ("read", true),
        1 => ("write", true),
        7 => ("poll", false),
        19 => ("readv", true),
        20 => ("writev", true),
        23 => ("select", false),
        34 => ("pause", false),
        35 => ("nanosleep", false),
        40 => ("sendfile", true),
        42 => ("connect", true),
        43 => ("accept", true),
        44 => ("sendto", true),
        45 => ("recvfrom", true),
        46 => ("sendmsg", true),
        47 => ("recvmsg", true),
        61 => ("wait4", false),
        202 => ("futex", false),
        230 => ("clock_nanosleep", false),
        232 => ("epoll_wait", true),
        270 => ("pselect6", false),
        271 => ("ppoll", false),
        281 => ("epoll_pwait", true),
        288 => ("accept4", true),
        299 => ("recvmmsg", true),
        307 => ("sendmmsg", true),
        426 => ("io_uring_enter", true),
        441 => ("epoll_pwait2", true),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd as _;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn what_proc_says_is_read() {
        let of = |text| doing(text, || Some("hrtimer_nanosleep".to_owned()));
        let text = "44 0x34 0x7f05 0x1000 0x4000 0x0 0x0 0x7ffd 0x7f06\n";
        assert_eq!(of(text), Doing::OnFd("sendto", 52));
        assert_eq!(of("202 0x7f 0x80 0x0"), Doing::Call("futex".to_owned()));
        assert_eq!(of("running\n"), Doing::Running);
        assert_eq!(of("-1 0x7ffd 0x7f06\n"), Doing::InKernel);
        assert_eq!(of(""), Doing::Hidden);
        let unknown = Doing::Call("call 999 (hrtimer_nanosleep)".to_owned());
        assert_eq!(of("999 0x1"), unknown);
        assert_eq!(doing("x", || None), Doing::Call("call x".to_owned()));
    }

    #[test]
    fn a_thread_that_waits_for_data_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("its address");
        let mut client = TcpStream::connect(address).expect("a connection");
        let fd = client.as_raw_fd() as u32;
        let (server, _) = listener.accept().expect("its other end");
        let reader = std::thread::spawn(move || client.read(&mut [0; 16]));
        let waits = |thread: &Thread| thread.doing == Doing::OnFd("recvfrom", fd);
        let until = Instant::now() + Duration::from_secs(10);
        let mut found = false;
        while !found && Instant::now() < until {
            let (threads, _) = threads(std::process::id()).expect("this process");
            found = threads.iter().any(waits);
        }
        assert!(found && socket(std::process::id(), fd).is_some());
        drop(server);
        let _ = reader.join();
        assert!(threads(u32::MAX).is_err());
    }
}

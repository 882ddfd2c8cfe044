//! What threads of the owners of leaked sockets do when a live report is drawn up.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use tcptrace_core::change::View;
use tcptrace_core::report::leaks::Leaks;
use tcptrace_core::tracker::Tracker;

use crate::proc::threads::{self, Doing, MAX_THREADS, Thread};

/// Processes that are looked at.
const MAX_PIDS: usize = 16;

/// Threads of a process that are told of one by one: those that wait at a socket.
const MAX_TOLD: usize = 4;

/// The threads of a process.
enum Process {
    Lives { threads: Vec<Thread>, all: usize },
    Gone,
}

/// Tells each of the first groups of a report what its owners do.
pub(super) fn tell(leaks: &mut Leaks, top: usize, tracker: &Tracker) {
    let shown = leaks.groups.iter().take(top);
    let pids = shown.flat_map(|group| group.owners.iter().filter_map(|(owner, _)| owner.pid));
    let mut processes = BTreeMap::new();
    for pid in pids {
        if processes.len() < MAX_PIDS {
            processes.entry(pid).or_insert_with(|| look(pid));
        }
    }
    let sockets = sockets(&processes);
    let wanted: BTreeSet<u32> = sockets.values().copied().collect();
    let views = tracker.by_inodes(&wanted);
    let view = |pid, fd| views.get(sockets.get(&(pid, fd))?);
    for group in leaks.groups.iter_mut().take(top) {
        let pids = group.owners.iter().filter_map(|(owner, _)| owner.pid);
        let known = pids.filter_map(|pid| Some((pid, processes.get(&pid)?)));
        group.now = known
            .flat_map(|(pid, process)| lines(pid, process, |fd| view(pid, fd)))
            .collect();
    }
}

fn look(pid: u32) -> Process {
    match threads::threads(pid) {
        Ok((threads, all)) => Process::Lives { threads, all },
        Err(_) => Process::Gone,
    }
}

/// The inodes of the sockets that threads wait at, by process and descriptor.
fn sockets(processes: &BTreeMap<u32, Process>) -> BTreeMap<(u32, u32), u32> {
    let mut sockets = BTreeMap::new();
    for (pid, process) in processes {
        let Process::Lives { threads, .. } = process else {
            continue;
        };
        for thread in threads {
            if let Doing::OnFd(_, fd) = thread.doing
                && let Some(inode) = threads::socket(*pid, fd)
            {
                sockets.insert((*pid, fd), inode);
            }
        }
    }
    sockets
}

/// `thread 4712 (worker): blocked in sendto(fd 52 -> 10.1.2.3:9000, Send-Q 2600000)`, and how many do
/// something else.
fn lines<'a>(pid: u32, process: &Process, view: impl Fn(u32) -> Option<&'a View>) -> Vec<String> {
    let Process::Lives { threads, all } = process else {
        return vec![format!("process {pid} is gone")];
    };
    let mut lines = Vec::new();
    let mut others: BTreeMap<String, usize> = BTreeMap::new();
    for thread in threads {
        let at_socket = match thread.doing {
            Doing::OnFd(name, fd) => view(fd).map(|view| (name, fd, view)),
            _ => None,
        };
        match at_socket {
            Some((name, fd, view)) if lines.len() < MAX_TOLD => {
                lines.push(format!(
                    "thread {} ({}): blocked in {name}(fd {fd} -> {}{})",
                    thread.tid,
                    thread.comm,
                    peer(view.tuple.remote),
                    queues(view)
                ));
            }
            _ => *others.entry(words(&thread.doing)).or_default() += 1,
        }
    }
    let mut others: Vec<(String, usize)> = others.into_iter().collect();
    others.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let others: Vec<String> = others
        .iter()
        .map(|(what, n)| format!("{n} {what}"))
        .collect();
    let first = match all.checked_sub(MAX_THREADS) {
        None | Some(0) => String::new(),
        Some(_) => format!(", the first {MAX_THREADS} of {all}"),
    };
    if !others.is_empty() {
        lines.push(format!("threads of {pid}{first}: {}", others.join(", ")));
    }
    lines
}

fn peer(remote: SocketAddr) -> String {
    match remote.port() {
        0 => "a listener's connections".to_owned(),
        _ => remote.to_string(),
    }
}

fn queues(view: &View) -> String {
    match view.send_q {
        Some(bytes) if bytes > 0 => format!(", Send-Q {bytes}"),
        _ => String::new(),
    }
}

fn words(doing: &Doing) -> String {
    match doing {
        Doing::OnFd(name, _) => format!("in {name}"),
        Doing::Call(name) => format!("in {name}"),
        Doing::Running => "running".to_owned(),
        Doing::InKernel => "in the kernel".to_owned(),
        Doing::Hidden => "that may not be looked at".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_do_the_same_are_counted() {
        let thread = |tid, doing| Thread {
            tid,
            comm: "w".to_owned(),
            doing,
        };
        let futex = || Doing::Call("futex".to_owned());
        let process = Process::Lives {
            threads: vec![
                thread(1, Doing::Running),
                thread(2, futex()),
                thread(3, futex()),
                thread(4, Doing::OnFd("read", 3)),
            ],
            all: 300,
        };
        assert_eq!(
            lines(7, &process, |_| None),
            ["threads of 7, the first 256 of 300: 2 in futex, 1 in read, 1 running"]
        );
        assert_eq!(lines(7, &Process::Gone, |_| None), ["process 7 is gone"]);
    }
}

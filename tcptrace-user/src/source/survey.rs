//! A look beyond the sockets: settings and counters of namespaces, and what the processes with the
//! most sockets have open and wait for. What is read here is what a diagnosis needs and no event
//! tells.

use std::collections::BTreeMap;
use std::sync::Arc;

use tcptrace_core::host::{Activity, Blocked, Reading};
use tcptrace_core::input::Definition;
use tcptrace_core::owner::Comm;
use tcptrace_core::time::Mono;
use tcptrace_core::tracker::Tracker;

use crate::clock;
use crate::netns::Netns;
use crate::proc::files;
use crate::proc::threads::{self, Doing, Thread};

/// Processes that are looked at: those with the most sockets.
const MAX_PIDS: usize = 32;

/// Threads of a process that are told of one by one.
const MAX_BLOCKED: usize = 16;

/// Calls that end when the peer takes something: a thread waits in them for the network.
const CALLS: [&str; 7] = [
    "write", "writev", "sendto", "sendmsg", "sendmmsg", "sendfile", "connect",
];

/// Time between two looks, ns.
const EVERY: u64 = 60_000_000_000;

/// Looks now and then.
#[derive(Default)]
pub(crate) struct Survey {
    /// When the next one is due.
    due: Mono,
    /// Threads that waited at the last look: how often they had been switched, and when that was first
    /// so.
    waiting: BTreeMap<u32, (u64, Mono)>,
}

impl Survey {
    /// Whether it is time.
    pub(crate) fn is_due(&self, now: Mono) -> bool {
        now >= self.due
    }

    /// Looks at everything.
    pub(crate) fn take(&mut self, namespaces: &[Netns], tracker: &Tracker) -> Vec<Definition> {
        let now = clock::mono();
        self.due = now.plus(EVERY);
        let mut told = Vec::new();
        for namespace in namespaces {
            // Where one may not look, nothing is known.
            for (name, value) in namespace.readings().unwrap_or_default() {
                told.push(Definition::Reading(Reading {
                    netns: namespace.inode,
                    name: Arc::from(name),
                    value: Arc::from(value),
                }));
            }
        }
        let mut waiting = BTreeMap::new();
        for pid in tracker.busiest(MAX_PIDS) {
            let activity = self.activity(pid, now, &mut waiting);
            told.extend(activity.map(Definition::Activity));
        }
        self.waiting = waiting;
        told
    }

    /// `None`: the process is gone.
    fn activity(
        &self,
        pid: u32,
        at: Mono,
        waiting: &mut BTreeMap<u32, (u64, Mono)>,
    ) -> Option<Activity> {
        let (seen, all) = threads::threads(pid).ok()?;
        let blocked = seen.iter().filter_map(|thread| {
            let (blocked, switches) = self.blocked(pid, thread, at)?;
            waiting.insert(blocked.tid, (switches, blocked.since));
            Some(blocked)
        });
        Some(Activity {
            at,
            pid,
            files: files::open(pid),
            files_max: files::limit(pid),
            threads: all as u32,
            blocked: blocked.take(MAX_BLOCKED).collect(),
        })
    }

    fn blocked(&self, pid: u32, thread: &Thread, at: Mono) -> Option<(Blocked, u64)> {
        let Doing::OnFd(call, fd) = thread.doing else {
            return None;
        };
        if !CALLS.contains(&call) {
            return None;
        }
        let inode = threads::socket(pid, fd)?;
        let switches = threads::switches(pid, thread.tid)?;
        let since = match self.waiting.get(&thread.tid) {
            Some((then, since)) if *then == switches => *since,
            _ => at,
        };
        let blocked = Blocked {
            tid: thread.tid,
            comm: Comm::from_bytes(thread.comm.as_bytes()),
            call: Arc::from(call),
            fd,
            inode,
            since,
        };
        Some((blocked, switches))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_thread_that_cannot_write_has_waited_since_it_was_first_seen() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("its address");
        let mut client = TcpStream::connect(address).expect("a connection");
        let (server, _) = listener.accept().expect("its other end");
        let writer = std::thread::spawn(move || while client.write_all(&[0; 65_536]).is_ok() {});
        let mut survey = Survey::default();
        let mut look = |at| {
            let mut waiting = BTreeMap::new();
            let activity = survey.activity(std::process::id(), Mono(at), &mut waiting);
            survey.waiting = waiting;
            activity.expect("this process")
        };
        let until = Instant::now() + Duration::from_secs(20);
        // It stands still when two looks find the same wait.
        let mut at = 0;
        let found = loop {
            at += 1;
            let activity = look(at);
            let waits = activity.blocked.iter().find(|b| b.since < Mono(at));
            if waits.is_some() || Instant::now() > until {
                break waits.cloned();
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        let found = found.expect("a thread that waits");
        assert!(["sendto", "write"].contains(&&*found.call), "{found:?}");
        drop(server);
        let _ = writer.join();
    }
}

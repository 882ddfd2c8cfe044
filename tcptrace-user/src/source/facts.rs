//! What is looked up before a connection is shown: the socket as it is now, who holds it, and
//! who those processes are.

use std::collections::BTreeMap;

use tcptrace_core::input::{Definition, SocketSnapshot};
use tcptrace_core::owner::{Comm, Holder};
use tcptrace_core::state::StateSet;
use tcptrace_core::tracker::{Tracker, Wanted};

use crate::clock;
use crate::kernel::probes::Probes;
use crate::netns;
use crate::proc;

/// Up to so many sockets are asked for one by one, if their ports are known; beyond, a dump is
/// cheaper.
const ONE_BY_ONE: usize = 64;

/// Who has which socket open, everywhere, as of the last scan.
#[derive(Default)]
pub(crate) struct HolderScan {
    by_cookie: BTreeMap<u64, Vec<Holder>>,
    /// Where there is no iterator: by the inode of the socket's file.
    by_inode: Option<proc::Owners>,
}

impl HolderScan {
    /// Scans the files of all processes.
    pub(crate) fn run(&mut self, probes: Option<&mut Probes>) {
        self.by_cookie.clear();
        self.by_inode = None;
        let listed = probes.filter(|p| p.lists_holders()).is_some_and(|probes| {
            let listed = probes.holders(|held| {
                self.by_cookie.entry(held.cookie).or_default().push(Holder {
                    pid: held.tgid,
                    fd: held.fd,
                    comm: Comm::from_kernel(held.comm),
                });
            });
            listed.is_ok()
        });
        if listed {
            for holders in self.by_cookie.values_mut() {
                holders.sort_unstable();
                holders.dedup();
            }
        } else {
            self.by_inode = proc::holders().ok();
        }
    }

    /// Who has it open; `None`: not known.
    pub(crate) fn of(&self, cookie: u64, inode: Option<u32>) -> Option<&[Holder]> {
        match (&self.by_inode, inode) {
            (None, _) => Some(self.by_cookie.get(&cookie).map_or(&[], Vec::as_slice)),
            // Somebody holds a socket that has a file.
            (Some(owners), Some(inode)) => {
                let holders = owners.of(inode);
                let hidden = owners.hidden_processes > 0 && inode != 0 && holders.is_empty();
                (!hidden).then_some(holders)
            }
            (Some(_), None) => None,
        }
    }
}

/// The wanted sockets as they are now. One that is gone is not among them.
pub(crate) fn look_up(wanted: &[Wanted]) -> Vec<SocketSnapshot> {
    let mut by_netns: BTreeMap<u32, Vec<&Wanted>> = BTreeMap::new();
    for one in wanted.iter().filter(|w| !w.mini) {
        by_netns
            .entry(one.tuple.netns.unwrap_or(0))
            .or_default()
            .push(one);
    }
    let mut sockets = Vec::new();
    let inodes: Vec<u32> = by_netns.keys().copied().collect();
    // None would mean all.
    if inodes.is_empty() {
        return sockets;
    }
    let found = netns::wanted(&inodes).map(|found| found.namespaces);
    for namespace in found.unwrap_or_default() {
        let Some(here) = by_netns.get(&namespace.inode) else {
            continue;
        };
        let Ok(mut inside) = namespace.look_inside() else {
            continue;
        };
        // Before the kernel is asked: what it says is no older, and events since then are newer.
        let asked = clock::mono();
        let by_itself = here.len() <= ONE_BY_ONE && here.iter().all(|w| w.tuple.local.port() != 0);
        if by_itself {
            for one in here {
                let socket = inside.diag.get(&one.tuple, one.cookie).ok().flatten();
                sockets.extend(socket.map(|s| SocketSnapshot { at: asked, ..s }));
            }
        } else {
            let mut cookies: Vec<u64> = here.iter().map(|w| w.cookie).collect();
            cookies.sort_unstable();
            // What a broken dump leaves out is shown without these facts.
            let _ = inside.diag.dump(StateSet::all(), &mut |socket| {
                if cookies.binary_search(&socket.cookie).is_ok() {
                    sockets.push(SocketSnapshot {
                        at: asked,
                        ..socket
                    });
                }
            });
        }
    }
    sockets
}

/// The holders of the wanted sockets and of the listeners of those never accepted, and the
/// processes that are new among them.
pub(crate) fn definitions(
    wanted: &[Wanted],
    sockets: &[SocketSnapshot],
    scan: &HolderScan,
    tracker: &Tracker,
    listener_inodes: &BTreeMap<u64, u32>,
) -> Vec<Definition> {
    let inodes: BTreeMap<u64, u32> = sockets.iter().map(|s| (s.cookie, s.inode)).collect();
    let mut processes: BTreeMap<u32, Option<Comm>> = BTreeMap::new();
    let mut definitions = Vec::new();
    let mut define = |cookie: u64, inode: Option<u32>| {
        let Some(holders) = scan.of(cookie, inode) else {
            return;
        };
        processes.extend(holders.iter().map(|h| (h.pid, Some(h.comm))));
        definitions.push(Definition::Holders {
            cookie,
            holders: holders.to_vec(),
        });
    };
    for one in wanted.iter().filter(|w| !w.mini) {
        define(one.cookie, inodes.get(&one.cookie).copied());
    }
    let listeners: std::collections::BTreeSet<u64> = wanted
        .iter()
        .filter(|w| w.unaccepted)
        .flat_map(|w| tracker.listeners_of(&w.tuple))
        .collect();
    for cookie in listeners {
        define(cookie, listener_inodes.get(&cookie).copied());
    }
    for pid in wanted.iter().filter_map(|w| w.pid) {
        processes.entry(pid).or_default();
    }
    let new = processes
        .into_iter()
        .filter(|(pid, comm)| !tracker.knows_process(*pid, *comm));
    definitions.extend(
        new.filter_map(|(pid, _)| proc::process(pid))
            .map(Definition::Process),
    );
    definitions
}

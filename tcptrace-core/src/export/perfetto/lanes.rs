//! Tracks of processes, and the lanes below them.

use std::collections::{BTreeMap, BTreeSet};

use super::descriptor;
use super::proto::{self, ProcessDescriptor, TrackDescriptor};
use crate::owner::Owner;
use crate::time::Mono;

/// A track on which one connection is at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lane {
    /// Its uuid.
    pub(super) track: u64,
    /// Whose; `None`: of those of whom it is not known.
    pid: Option<u32>,
}

/// All processes that have, or had, connections.
#[derive(Debug)]
pub(super) struct Processes {
    by_pid: BTreeMap<Option<u32>, Process>,
    next_uuid: u64,
}

#[derive(Debug)]
struct Process {
    track: u64,
    lanes: i32,
    /// Lanes on which nothing is any more, and since when.
    free: BTreeSet<(Mono, u64)>,
}

impl Processes {
    pub(super) fn new(first_uuid: u64) -> Processes {
        Processes {
            by_pid: BTreeMap::new(),
            next_uuid: first_uuid,
        }
    }

    /// The track of the process.
    pub(super) fn track(&mut self, owner: &Owner, out: &mut Vec<u8>) -> u64 {
        self.process(owner, out).track
    }

    /// A lane that has been free since `began`: of those, the one that has been the shortest, so that
    /// the others are left for what began before. So there are as many as there were connections at
    /// a time.
    pub(super) fn lane(&mut self, owner: &Owner, began: Mono, out: &mut Vec<u8>) -> Lane {
        let process = self.process(owner, out);
        let free = process.free.range(..=(began, u64::MAX)).next_back();
        if let Some(free) = free.copied() {
            process.free.remove(&free);
            return Lane {
                track: free.1,
                pid: owner.pid,
            };
        }
        process.lanes += 1;
        let (parent, number) = (process.track, process.lanes);
        let track = self.next_uuid;
        self.next_uuid += 1;
        let lane = TrackDescriptor {
            uuid: Some(track),
            name: Some(format!("connections {number}")),
            parent_uuid: Some(parent),
            sibling_order_rank: Some(number),
            sibling_merge_behavior: Some(proto::NOT_MERGED),
            ..TrackDescriptor::default()
        };
        descriptor(lane, out);
        Lane {
            track,
            pid: owner.pid,
        }
    }

    /// Nothing is on this lane from then on.
    pub(super) fn free(&mut self, lane: Lane, since: Mono) {
        if let Some(process) = self.by_pid.get_mut(&lane.pid) {
            process.free.insert((since, lane.track));
        }
    }

    fn process(&mut self, owner: &Owner, out: &mut Vec<u8>) -> &mut Process {
        let next_uuid = &mut self.next_uuid;
        self.by_pid.entry(owner.pid).or_insert_with(|| {
            let track = *next_uuid;
            *next_uuid += 1;
            // A process' track has the process' name.
            let process = owner.pid.map(|pid| ProcessDescriptor {
                pid: i32::try_from(pid).ok(),
                process_name: owner.comm.map(|comm| comm.to_string()),
            });
            let name = process.is_none().then(|| "owner not known".to_owned());
            let described = TrackDescriptor {
                uuid: Some(track),
                name,
                process,
                child_ordering: Some(proto::EXPLICIT),
                ..TrackDescriptor::default()
            };
            descriptor(described, out);
            Process {
                track,
                lanes: 0,
                free: BTreeSet::new(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_lanes_as_connections_at_a_time() {
        let mut processes = Processes::new(16);
        let owner = Owner {
            pid: Some(7),
            ..Owner::default()
        };
        let mut out = Vec::new();
        // Ends are told in their order, beginnings are not.
        for (began, ended) in [(0, 10), (5, 20), (11, 30), (21, 31), (9, 32), (33, 40)] {
            let lane = processes.lane(&owner, Mono(began), &mut out);
            processes.free(lane, Mono(ended));
        }
        assert_eq!(processes.by_pid[&Some(7)].lanes, 3);
        let other = Owner::default();
        let lane = processes.lane(&other, Mono(50), &mut out);
        assert_eq!(lane.pid, None);
    }
}

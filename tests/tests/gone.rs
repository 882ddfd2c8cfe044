//! What the tracer leaves behind in the kernel: nothing, however it ends.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;
use tcptrace_tests::child::{LIMIT, Process, until};
use tcptrace_tests::require;
use tcptrace_tests::tcptrace::{Tracer, command, wait_until_watching};

#[test]
fn nothing_is_left_after_an_orderly_end() {
    require!(root, tracer, bpftool);
    let tracer = Tracer::watch(&["--state", "all"]);
    let ours = Objects::of(tracer.process().pid());
    ours.assert_loaded();
    tracer.stop();
    ours.assert_gone();
}

#[test]
fn nothing_is_left_after_a_kill() {
    require!(root, tracer, bpftool);
    let mut process = Process::spawn(&mut command(&["watch", "--json", "--state", "all"]));
    wait_until_watching(&process);
    let ours = Objects::of(process.pid());
    ours.assert_loaded();
    process.signal(Signal::KILL);
    process.wait(LIMIT);
    ours.assert_gone();
}

/// A doctor loads the same programs, checks itself, and goes, too soon to be looked at: whatever the
/// kernel has since then is some process' that lives.
#[test]
fn a_doctor_leaves_nothing() {
    require!(root, tracer, bpftool);
    let before = Objects::all();
    let mut process = Process::spawn(&mut command(&["doctor"]));
    assert!(process.wait(LIMIT).success());
    until(LIMIT, "the kernel to free what the doctor loaded", || {
        let mut new = Objects::all();
        new.subtract(&before);
        let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
        for pid in processes.filter_map(|p| p.file_name().to_str()?.parse().ok()) {
            new.subtract(&Objects::of(pid));
        }
        new.is_empty().then_some(())
    });
}

/// Ids of what a process has open.
#[derive(Debug, Default)]
struct Objects {
    programs: BTreeSet<u64>,
    maps: BTreeSet<u64>,
    links: BTreeSet<u64>,
}

impl Objects {
    /// All that the kernel has, as bpftool sees it.
    #[track_caller]
    fn all() -> Objects {
        Objects {
            programs: ids_of("prog"),
            maps: ids_of("map"),
            links: ids_of("link"),
        }
    }

    fn subtract(&mut self, other: &Objects) {
        self.programs.retain(|id| !other.programs.contains(id));
        self.maps.retain(|id| !other.maps.contains(id));
        self.links.retain(|id| !other.links.contains(id));
    }

    fn is_empty(&self) -> bool {
        self.programs.is_empty() && self.maps.is_empty() && self.links.is_empty()
    }

    /// As `/proc/PID/fdinfo` tells. Others may load programs of the same names meanwhile.
    fn of(pid: u32) -> Objects {
        let mut objects = Objects::default();
        let Ok(fds) = std::fs::read_dir(format!("/proc/{pid}/fdinfo")) else {
            return objects;
        };
        for fd in fds.flatten() {
            let info = std::fs::read_to_string(fd.path()).unwrap_or_default();
            let id = |key| {
                let line = info.lines().find_map(|line| line.strip_prefix(key));
                line.and_then(|id| id.trim().parse::<u64>().ok())
            };
            // A link's descriptor names its program, too.
            match (id("link_id:"), id("map_id:"), id("prog_id:")) {
                (Some(link), _, program) => {
                    objects.links.insert(link);
                    objects.programs.extend(program);
                }
                (_, Some(map), _) => {
                    objects.maps.insert(map);
                }
                (_, _, program) => objects.programs.extend(program),
            }
        }
        objects
    }

    /// What the kernel still has of these, as bpftool sees it.
    fn left(&self) -> Vec<(&'static str, u64)> {
        let kinds = [
            ("prog", &self.programs),
            ("map", &self.maps),
            ("link", &self.links),
        ];
        let left = kinds.into_iter().flat_map(|(kind, ids)| {
            let all = ids_of(kind);
            let left: Vec<u64> = ids.intersection(&all).copied().collect();
            left.into_iter().map(move |id| (kind, id))
        });
        left.collect()
    }

    #[track_caller]
    fn assert_loaded(&self) {
        assert!(!self.programs.is_empty(), "{self:?}");
        assert!(!self.maps.is_empty(), "{self:?}");
        assert!(!self.links.is_empty(), "{self:?}");
        let all = self.programs.len() + self.maps.len() + self.links.len();
        assert_eq!(self.left().len(), all, "bpftool does not see {self:?}");
    }

    /// The kernel frees them after a grace period of RCU.
    #[track_caller]
    fn assert_gone(&self) {
        until(LIMIT, &format!("the kernel to free {self:?}"), || {
            self.left().is_empty().then_some(())
        });
    }
}

/// `bpftool prog|map|link show`.
#[track_caller]
fn ids_of(kind: &str) -> BTreeSet<u64> {
    let output = Command::new("bpftool")
        .args(["-j", kind, "show"])
        .stdin(Stdio::null())
        .output()
        .expect("bpftool");
    // One that ends while it is listed is an error among the others.
    let objects: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("bpftool {kind} show: {e}: {output:?}"));
    let objects = objects.as_array().cloned().unwrap_or_default();
    objects.iter().filter_map(|o| o["id"].as_u64()).collect()
}

//! The maps of a tracer, as `bpftool` sees them.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};

use serde_json::Value;

/// How many entries the map `name` of the process `pid` has.
#[track_caller]
pub fn entries(pid: u32, name: &str) -> usize {
    dump(pid, name).len()
}

/// The bytes of its values.
#[track_caller]
pub fn values(pid: u32, name: &str) -> Vec<Vec<u8>> {
    let byte = |byte: &Value| {
        let digits = byte.as_str().and_then(|text| text.strip_prefix("0x"));
        u8::from_str_radix(digits.expect("0x"), 16).expect("a byte")
    };
    let bytes = |entry: Value| {
        entry["value"]
            .as_array()
            .expect("bytes")
            .iter()
            .map(byte)
            .collect()
    };
    dump(pid, name).into_iter().map(bytes).collect()
}

#[track_caller]
fn dump(pid: u32, name: &str) -> Vec<Value> {
    let own = open(pid);
    let named = bpftool(&["show", "name", name]);
    let ids = list(named).into_iter().filter_map(|map| map["id"].as_u64());
    let ids: Vec<u64> = ids.filter(|id| own.contains(id)).collect();
    let [id] = ids[..] else {
        panic!("{ids:?} are the maps {name} of {pid}");
    };
    list(bpftool(&["dump", "id", &id.to_string()]))
}

/// Ids of the maps that a process has open.
#[track_caller]
fn open(pid: u32) -> BTreeSet<u64> {
    let fds = fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("a process");
    let map = |info: String| {
        let id = info.lines().find_map(|line| line.strip_prefix("map_id:"))?;
        id.trim().parse().ok()
    };
    let infos = fds.flatten().map(|fd| fs::read_to_string(fd.path()));
    infos.flatten().filter_map(map).collect()
}

/// What `bpftool map` answers: a list, or the one element of one.
#[track_caller]
fn bpftool(args: &[&str]) -> Value {
    let output = Command::new("bpftool")
        .args(["-j", "map"])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("bpftool");
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("bpftool map {args:?}: {e}: {output:?}"))
}

fn list(answer: Value) -> Vec<Value> {
    match answer {
        Value::Array(list) => list,
        one => vec![one],
    }
}

//! Stacks as lines that flame graphs are made of.

use std::collections::BTreeMap;

use super::super::frames;
use super::{Leaks, Sample};
use crate::text::escape;

/// What stands for the frames of a socket without a stack.
const NO_STACK: &str = "[no stack]";

/// Sockets by the process' name and the frames, the outermost first.
pub fn paths(leaks: &Leaks) -> BTreeMap<Vec<String>, u64> {
    let samples = leaks.groups.iter().flat_map(|group| &group.samples);
    let mut paths = BTreeMap::new();
    for sample in samples {
        *paths.entry(path(sample)).or_default() += sample.count;
    }
    paths
}

fn path(sample: &Sample) -> Vec<String> {
    let comm = sample.owner.comm.as_deref().unwrap_or("?");
    let mut path = vec![plain(comm)];
    match &sample.at {
        Some(stack) => {
            path.extend(stack.cut.iter().map(|why| format!("… ({})", plain(why))));
            let frames = stack.frames.iter().rev();
            path.extend(frames.map(|frame| plain(&frames::name(frame))));
        }
        None => path.push(NO_STACK.to_owned()),
    }
    path
}

/// `;` parts frames.
fn plain(name: &str) -> String {
    escape(name).replace(';', ":")
}

/// `app;run (worker.py:12);connect (libc.so.6) 12`: a line per stack.
pub fn to_folded(leaks: &Leaks) -> String {
    let paths = paths(leaks).into_iter();
    let lines = paths.map(|(path, count)| format!("{} {count}\n", path.join(";")));
    lines.collect()
}

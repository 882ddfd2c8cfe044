//! Reports of leaks, and the stacks in them.

use serde_json::Value;

use crate::lab::Lab;
use crate::recording::Run;
use crate::tcptrace::{hooks, tracer_path};

/// `tcptrace leaks --json` in the lab's namespace, until it is stopped.
#[track_caller]
pub fn leaks(lab: &Lab, args: &[&str]) -> Run {
    let mut command = std::process::Command::new(tracer_path());
    let netns = lab.ns.inode().to_string();
    command.args(["leaks", "--json", "--min-age", "0", "--netns", &netns]);
    command.args(hooks()).args(args);
    Run::start(&mut command)
}

/// Its report.
#[track_caller]
pub fn stop(mut run: Run) -> Value {
    serde_json::from_slice(&run.stop()).expect("one object")
}

/// The functions of a stack, the innermost first; an unnamed one is `?`.
pub fn functions(place: &Value) -> Vec<&str> {
    let frames = place["frames"].as_array().into_iter().flatten();
    frames
        .map(|f| f["function"].as_str().unwrap_or("?"))
        .collect()
}

/// Whether these functions are on it in this order, the innermost first, whatever is between.
#[track_caller]
pub fn assert_calls(place: &Value, wanted: &[&str]) {
    let functions = functions(place);
    let mut rest = functions.iter();
    for name in wanted {
        let found = rest.any(|function| function.contains(name));
        assert!(found, "{name} of {wanted:?} is not in {functions:?}");
    }
}

//! Who never closed it, in which code: stacks of real programs, from the moment of their calls.

use std::io::Write as _;
use std::time::Duration;

use serde_json::Value;
use tcptrace_tests::child::{LIMIT, Process};
use tcptrace_tests::lab::Lab;
use tcptrace_tests::recording::Run;
use tcptrace_tests::require;
use tcptrace_tests::tcptrace::{hooks, tracer_path};

/// `tcptrace leaks --json` in the lab's namespace, until it is stopped.
#[track_caller]
fn leaks(lab: &Lab, args: &[&str]) -> Run {
    let mut command = std::process::Command::new(tracer_path());
    let netns = lab.ns.inode().to_string();
    command.args(["leaks", "--json", "--min-age", "0", "--netns", &netns]);
    command.args(hooks()).args(args);
    Run::start(&mut command)
}

#[track_caller]
fn stop(mut run: Run) -> Value {
    serde_json::from_slice(&run.stop()).expect("one object")
}

/// The functions of a stack, the innermost first; an unnamed one is `?`.
fn functions(place: &Value) -> Vec<&str> {
    let frames = place["frames"].as_array().into_iter().flatten();
    frames
        .map(|f| f["function"].as_str().unwrap_or("?"))
        .collect()
}

/// Whether these functions are on it in this order, the innermost first, whatever is between.
#[track_caller]
fn assert_calls(place: &Value, wanted: &[&str]) {
    let functions = functions(place);
    let mut rest = functions.iter();
    for name in wanted {
        let found = rest.any(|function| function.contains(name));
        assert!(found, "{name} of {wanted:?} is not in {functions:?}");
    }
}

#[test]
fn the_code_that_acquired_and_the_code_that_closed() {
    require!(root, tracer);
    let lab = Lab::new();
    let run = leaks(&lab, &[]);
    // Two are left open, one is closed.
    let mut kept = [lab.connect(), lab.connect()];
    let mut closed = lab.connect();
    for conn in kept.iter_mut().chain([&mut closed]) {
        conn.client.act("close C");
        conn.server.act("wait S 8");
    }
    closed.server.act("recv S 10");
    closed.server.act("close S");
    kept[0].server.act("recv S 10");
    std::thread::sleep(Duration::from_millis(300));
    let told = stop(run);
    assert_eq!(told["total"], 2, "{told}");
    assert_eq!(told["completeness"]["complete"], true, "{told}");
    let groups = told["groups"].as_array().expect("groups");
    // One line of code accepted them, in two processes.
    assert_eq!(groups.len(), 1, "{told}");
    let group = &groups[0];
    assert_eq!(group["closed_first"], "peer", "{told}");
    let acquired = &group["acquired_at"][0];
    assert_eq!(acquired["by"], "accept", "{told}");
    assert_eq!(acquired["all"]["acquired"], 3, "{told}");
    assert_eq!(acquired["all"]["closed"], 1, "{told}");
    assert_calls(acquired, &["accept", "Script::run", "main"]);
    let place = &acquired["all"]["closed_at"][0];
    assert_eq!(place["count"], 1, "{told}");
    assert_calls(place, &["Script::run", "main"]);
    let read = &group["eof_at"][0];
    assert_eq!(read["count"], 1, "{told}");
    assert_calls(read, &["Script::run", "main"]);
}

#[test]
fn frame_pointers_are_followed_and_budgets_kept() {
    require!(root, tracer);
    let lab = Lab::new();
    let run = leaks(&lab, &["--stacks", "fp", "--stack-rate", "1"]);
    let mut conns: Vec<_> = (0..4).map(|_| lab.connect()).collect();
    for conn in &mut conns {
        conn.client.act("close C");
        conn.server.act("wait S 8");
    }
    let told = stop(run);
    assert_eq!(told["total"], 4, "{told}");
    let over = told["stacks"]["over_budget"].as_u64().expect("a count");
    assert!(over > 0, "{told}");
    // What was not taken makes no event incomplete.
    assert_eq!(told["completeness"]["complete"], true, "{told}");
}

#[test]
fn none_is_taken_where_none_is_wanted() {
    require!(root, tracer);
    let lab = Lab::new();
    let run = leaks(&lab, &["--stacks", "none"]);
    let mut conn = lab.connect();
    conn.client.act("close C");
    conn.server.act("wait S 8");
    let told = stop(run);
    assert_eq!(told["total"], 1, "{told}");
    assert_eq!(told["groups"][0]["key"]["stack"], Value::Null, "{told}");
}

#[test]
fn a_python_service_that_forgets_its_responses() {
    require!(root, tracer, python_tools);
    let lab = Lab::new();
    let mut command = lab.ns.command(tcptrace_tests::export::python_path());
    let program = tcptrace_tests::export::directory("programs").join("service.py");
    command.arg(&program);
    command.args([&lab.ip.to_string(), "7", "13"]);
    let mut service = Process::spawn(&mut command);
    let wait = |service: &Process, what: &str| {
        let found = service
            .out
            .find(0, LIMIT, |line| line.text.contains(what).then_some(()));
        assert!(found.is_some(), "no {what}: {}", service.err.text());
    };
    wait(&service, "");
    let run = leaks(&lab, &[]);
    std::thread::sleep(Duration::from_secs(1));
    writeln!(service.stdin(), "go").expect("the pipe to it");
    wait(&service, "done");
    std::thread::sleep(Duration::from_millis(500));
    let told = stop(run);
    let group = &told["groups"][0];
    assert_eq!(group["count"], 7, "{told}");
    assert_eq!(group["owners"][0]["pid"], service.pid(), "{told}");
    let acquired = &group["acquired_at"][0];
    assert_eq!(acquired["all"]["acquired"], 7, "{told}");
    assert_eq!(acquired["all"]["closed"], 0, "{told}");
    let calls = ["connect", "create_connection", "ask", "fetch_item", "main"];
    assert_calls(acquired, &calls);
    let line = frame(acquired, "fetch_item");
    assert_eq!(line["kind"], "python", "{told}");
    let number = line["line"].as_u64().expect("a line") as usize;
    let source = std::fs::read_to_string(&program).expect("the program");
    assert_eq!(
        source.lines().nth(number - 1),
        Some("    FORGOTTEN.append((session, ask(session, url)))")
    );
    assert!(
        line["file"]
            .as_str()
            .is_some_and(|f| f.ends_with("service.py"))
    );
    // The same code closed what it acquired for another.
    let kin = &acquired["kin"];
    assert_eq!(kin["shared"]["function"], "ask", "{told}");
    assert_eq!(kin["all"]["acquired"], 13, "{told}");
    assert_eq!(kin["all"]["closed"], 13, "{told}");
    assert_eq!(kin["all"]["closed_at"][0]["count"], 13, "{told}");
    let calls = ["close", "release", "fetch_page", "main"];
    assert_calls(&kin["all"]["closed_at"][0], &calls);
}

fn frame<'a>(place: &'a Value, function: &str) -> &'a Value {
    let frames = place["frames"].as_array().expect("frames");
    let found = frames.iter().find(|frame| frame["function"] == function);
    found.unwrap_or_else(|| panic!("no {function} in {frames:?}"))
}

//! Who never closed it, in which code: programs of other languages.

use std::io::Write as _;
use std::time::Duration;

use serde_json::Value;
use tcptrace_tests::child::{LIMIT, Process};
use tcptrace_tests::export::{directory, python_path};
use tcptrace_tests::lab::Lab;
use tcptrace_tests::leaks::{assert_calls, leaks, stop};
use tcptrace_tests::require;

#[test]
fn a_python_service_that_forgets_its_responses() {
    require!(root, tracer, python_tools);
    let lab = Lab::new();
    let mut command = lab.ns.command(python_path());
    let program = directory("programs").join("service.py");
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

//! A server as Debian ships it, stripped.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use tcptrace_tests::export::output;
use tcptrace_tests::lab::Lab;
use tcptrace_tests::leaks::{assert_calls, functions, leaks, stop};
use tcptrace_tests::require;
use tcptrace_tests::software::Nginx;

const NGINX: &str = "/usr/sbin/nginx";

#[test]
fn nginx_is_told_by_what_it_exports() {
    require!(root, tracer, nginx, openssl);
    let lab = Lab::new();
    let at = SocketAddr::from((lab.ip, 8080));
    let _nginx = Nginx::start(&lab, &format!("server {{ listen {at}; }}"), &[8080]);
    let run = leaks(&lab, &["--state", "established"]);
    let mut client = lab.peer();
    client.act(&format!("connect C {at}"));
    std::thread::sleep(Duration::from_millis(300));
    let told = stop(run);
    let groups = told["groups"].as_array().expect("groups");
    let accepted = groups
        .iter()
        .find(|group| group["owners"][0]["comm"] == "nginx");
    let accepted = accepted.unwrap_or_else(|| panic!("no group of nginx: {told}"));
    assert_eq!(accepted["count"], 1, "{told}");
    let acquired = &accepted["acquired_at"][0];
    assert_eq!(acquired["by"], "accept", "{told}");
    assert!(acquired["cut"].is_null(), "{told}");
    assert_calls(acquired, &["accept", "ngx_process_events_and_timers"]);
    // What has no name in the file has none here.
    let exported = output(Command::new("nm").args(["--dynamic", "--defined-only", NGINX]));
    let exported: Vec<&str> = exported
        .lines()
        .filter_map(|line| line.split(' ').nth(2))
        .collect();
    let notes = output(Command::new("readelf").args(["--notes", NGINX]));
    for frame in acquired["frames"].as_array().expect("frames") {
        if frame["module"] != NGINX {
            continue;
        }
        let build_id = frame["build_id"].as_str().expect("a build id");
        assert!(notes.contains(build_id), "{frame}: {notes}");
        assert_ne!(frame["address"], 0, "{frame}");
        if let Some(function) = frame["function"].as_str() {
            assert!(exported.contains(&function), "{frame}");
        }
    }
    let own = functions(acquired);
    assert!(own.iter().any(|name| name.starts_with("ngx_")), "{own:?}");
}

//! A filter shows all that match and nothing else, of what was there and of what comes.

use std::net::IpAddr;

use tcptrace_tests::require;
use tcptrace_tests::stage::Stage;

#[test]
fn by_process_and_name() {
    require!(root, tracer, ss);
    let mut stage = Stage::new();
    let (alice, bob) = (stage.alice(), stage.bob());
    let both = format!("{alice},{bob}");
    stage.shows(&[
        (&["-p", &alice.to_string()], &|s| s.pid == alice),
        (&["-p", &both], &|_| true),
        (&["--comm", "alice"], &|s| s.pid == alice),
        (&["--comm", "b*"], &|s| s.pid == bob),
    ]);
}

#[test]
fn by_port() {
    require!(root, tracer, ss);
    let mut stage = Stage::new();
    let port = stage.port();
    let text = port.to_string();
    stage.shows(&[
        (&["-L", &text], &|s| s.local.port() == port),
        (&["-D", &text], &|s| s.remote.port() == port),
        (&["--port", &text], &|s| {
            s.local.port() == port || s.remote.port() == port
        }),
        (&["--port", "1"], &|_| false),
    ]);
}

#[test]
fn by_address_and_family() {
    require!(root, tracer, ss);
    let mut stage = Stage::new();
    let ip = IpAddr::V4(stage.lab.ip);
    let text = ip.to_string();
    stage.shows(&[
        (&["--laddr", &text], &|s| s.local.ip() == ip),
        (&["--raddr", &format!("{text}/32")], &|s| {
            s.remote.ip() == ip
        }),
        (&["--laddr", "127.0.0.0/8"], &|s| s.local.is_ipv4()),
        (&["--raddr", "::/0"], &|s| s.remote.is_ipv6()),
        (&["--laddr", "::1"], &|s| s.local.is_ipv6()),
        (&["--raddr", "10.0.0.0/8"], &|_| false),
        (&["-4"], &|s| s.local.is_ipv4()),
        (&["-6"], &|s| s.local.is_ipv6()),
    ]);
}

#[test]
fn by_role() {
    require!(root, tracer, ss);
    let mut stage = Stage::new();
    let bob = stage.bob().to_string();
    let several = ["-p", &bob, "-4", "--role", "passive"];
    stage.shows(&[
        (&["--role", "active"], &|s| s.role == "active"),
        (&["--role", "passive"], &|s| s.role == "passive"),
        (&["--role", "unaccepted"], &|s| s.role == "unaccepted"),
        (&several, &|s| s.role == "passive" && s.local.is_ipv4()),
    ]);
}

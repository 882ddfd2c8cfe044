//! Diagnoses of local ports that run out, and of TIME_WAIT.

use std::time::Duration;

use serde_json::{Value, json};
use tcptrace_tests::child::{LIMIT, Process, until};
use tcptrace_tests::diagnosis::{Diagnosing, Diagnosis, told};
use tcptrace_tests::lab::Lab;
use tcptrace_tests::oracle::{netstat, proc_net};
use tcptrace_tests::require;
use tcptrace_tests::software::{Nginx, program, tell};

/// What connect() says when it finds no port.
const ERRNO: &str = "[Errno 99] Cannot assign requested address";

/// nginx of which connections that are idle for so many seconds are closed.
#[track_caller]
fn nginx(lab: &Lab, keep_alive: u64) -> Nginx {
    let server = format!(
        "server {{ listen {0}:8080; listen {0}:8081; keepalive_timeout {keep_alive}s; keepalive_requests 1000000;
         location / {{ return 200 ok; }} }}",
        lab.ip
    );
    Nginx::start(lab, &server, &[8080, 8081])
}

#[track_caller]
fn crawler(lab: &Lab, habit: &str) -> Process {
    program(
        lab,
        "crawler.py",
        &[&format!("http://{}:8080/", lab.ip), habit],
    )
}

/// The same at the other port.
#[track_caller]
fn elsewhere(lab: &Lab, habit: &str) -> Process {
    let url = format!("http://{}:8081/", lab.ip);
    program(lab, "crawler.py", &[&url, habit])
}

/// Waits until there are so many in a state.
#[track_caller]
fn wait_counted(lab: &Lab, state: &str, n: usize) {
    until(LIMIT, &format!("{n} in {state}"), || {
        (proc_net::counts(&lab.ns).get(state) == Some(&n)).then_some(())
    });
}

/// Waits until no connection is left, but in TIME_WAIT.
#[track_caller]
fn wait_ended(lab: &Lab) {
    until(LIMIT, "the end of all connections", || {
        let counts = proc_net::counts(&lab.ns);
        let mut states = counts.keys().map(String::as_str);
        let ended = states.all(|state| matches!(state, "listen" | "time_wait"));
        ended.then_some(())
    });
}

/// What is found while a crawler asks so often, of which so many are in `state` at the end.
#[track_caller]
fn crawl(lab: &Lab, crawler: &mut Process, times: (u32, &str), held: (&str, usize)) -> Diagnosis {
    crawl_in_steps(lab, crawler, 1, times, held)
}

/// The same in so many steps, a fifth of a second each.
#[track_caller]
fn crawl_in_steps(
    lab: &Lab,
    crawler: &mut Process,
    steps: u32,
    (times, answer): (u32, &str),
    held: (&str, usize),
) -> Diagnosis {
    let run = Diagnosing::start(lab, &["--min-age", "500ms"]);
    for step in 0..steps {
        if step > 0 {
            std::thread::sleep(Duration::from_millis(200));
        }
        tell(crawler, &times.to_string(), answer);
    }
    wait_counted(lab, held.0, held.1);
    // More than a second beyond the minimum age: less tells no growth.
    std::thread::sleep(Duration::from_millis(1_700));
    run.stop()
}

/// 50 ports, of which 42 and then all are held in this state.
#[track_caller]
fn exhaust(lab: &Lab, habit: &str, state: &str) -> [Value; 2] {
    lab.ns.sysctl("ip_local_port_range", "40000 40049");
    let mut crawler = crawler(lab, habit);
    let found = crawl_in_steps(lab, &mut crawler, 21, (2, "done"), (state, 42));
    let near = found.one("ports_near").clone();
    let evidence = &near["evidence"];
    assert_eq!(near["severity"], "warning", "{near:#}");
    assert_eq!(
        (&evidence["used"], &evidence["usable"]),
        (&json!(42), &json!(50))
    );
    assert_eq!(evidence["held_by"], state, "{near:#}");
    assert_eq!(evidence["states"][state], 42, "{near:#}");
    let headline = near["headline"].as_str().unwrap_or_default();
    assert!(headline.contains("none is left in"), "{headline}");
    assert_eq!(evidence["growth"], 42, "{near:#}");
    assert_owner(&near, &crawler, 42);

    // Nothing more comes: then nobody can say when none is left.
    let found = crawl(lab, &mut crawler, (1, "done"), (state, 43));
    let near = found.one("ports_near").clone();
    let headline = near["headline"].as_str().unwrap_or_default();
    assert!(!headline.contains("none is left"), "{headline}");
    assert_eq!(near["evidence"]["growth"], 1, "{near:#}");
    assert_eq!(near["evidence"]["growth_per_s"], Value::Null, "{near:#}");

    let found = crawl(lab, &mut crawler, (8, ERRNO), (state, 50));
    let full = found.one("ports_exhausted").clone();
    let evidence = &full["evidence"];
    assert_eq!(full["severity"], "critical", "{full:#}");
    assert_eq!(
        (&evidence["used"], &evidence["usable"]),
        (&json!(50), &json!(50))
    );
    assert_eq!(evidence["destination"], format!("{}:8080", lab.ip));
    assert_eq!(evidence["held_by"], state, "{full:#}");
    assert_eq!(evidence["eaddrnotavail"], 1, "{full:#}");
    // A minisocket from before the start has no owner any more.
    let known = match state {
        "time_wait" => 7,
        _ => 50,
    };
    assert_owner(&full, &crawler, known);
    let what = told(&full, "what");
    assert!(what.contains(&format!(
        "(99), Cannot assign requested address: pid {}",
        crawler.pid()
    )));
    [near, full]
}

#[track_caller]
fn assert_owner(finding: &Value, process: &Process, known: u64) {
    let owners = &finding["evidence"]["owners"];
    assert_eq!(owners.as_array().map(Vec::len), Some(1), "{finding:#}");
    assert_eq!(owners[0]["pid"], process.pid(), "{finding:#}");
    assert_eq!(owners[0]["count"], known, "{finding:#}");
    let who = told(finding, "who");
    let pid = format!("pid {} python", process.pid());
    assert!(who.contains(&pid), "{finding:#}");
}

#[test]
fn ports_that_close_wait_holds() {
    require!(root, tracer, python_tools, nginx, openssl);
    let lab = Lab::new();
    let _nginx = nginx(&lab, 1);
    for finding in exhaust(&lab, "forgets", "close_wait") {
        let fix = told(&finding, "fix");
        assert!(fix.contains("CLOSE_WAIT has no time limit"), "{fix}");
        let not = told(&finding, "not");
        assert!(not.contains("no TIME_WAIT holds these ports"), "{not}");
    }
}

#[test]
fn ports_that_time_wait_holds() {
    require!(root, tracer, python_tools, nginx, openssl);
    let lab = Lab::new();
    lab.ns.sysctl("tcp_tw_reuse", "0");
    let _nginx = nginx(&lab, 60);
    for finding in exhaust(&lab, "closes", "time_wait") {
        let kernel = told(&finding, "kernel");
        assert!(kernel.contains("tcp_tw_reuse = 0"), "{kernel}");
    }
}

#[test]
fn ports_that_are_reused() {
    require!(root, tracer, python_tools, nginx, openssl);
    let lab = Lab::new();
    lab.ns.sysctl("ip_local_port_range", "40000 40049");
    let _nginx = nginx(&lab, 60);
    let mut crawler = crawler(&lab, "reuses");
    let found = crawl(&lab, &mut crawler, (100, "done"), ("established", 2));
    assert_eq!(found.ids(), [""; 0], "{found:#?}");
}

#[test]
fn ports_that_bind_takes_for_all_destinations() {
    require!(root, tracer, python_tools, nginx, openssl);
    for (habit, answer) in [("binds", ERRNO), ("lets", "done")] {
        let lab = Lab::new();
        lab.ns.sysctl("ip_local_port_range", "40000 40049");
        let _nginx = nginx(&lab, 60);
        let mut binder = crawler(&lab, habit);
        let mut other = elsewhere(&lab, "reuses");
        let run = Diagnosing::start(&lab, &["--min-age", "500ms"]);
        tell(&mut binder, "50", "done");
        tell(&mut other, "1", answer);
        let found = run.stop();
        let to = format!("{}:8081", lab.ip);
        let about = |finding: &&Value| finding["evidence"]["destination"] == to;
        let finding = found.findings().iter().find(about);
        if habit == "lets" {
            assert_eq!(finding, None, "{found:#?}");
            continue;
        }
        let finding = finding.unwrap_or_else(|| panic!("{found:#?}"));
        assert_eq!(finding["id"], "ports_exhausted", "{finding:#}");
        assert_eq!(finding["evidence"]["eaddrnotavail"], 1, "{finding:#}");
        let what = told(finding, "what");
        assert!(what.contains(&format!("pid {}", other.pid())), "{what}");
        let fix = told(finding, "fix");
        assert!(fix.contains("IP_BIND_ADDRESS_NO_PORT"), "{fix}");
    }
}

/// The services that a finding about TIME_WAIT tells of.
#[track_caller]
fn services(finding: &Value) -> &Vec<Value> {
    let services = finding["evidence"]["services"].as_array();
    services.expect("services")
}

/// Of a service: how many are in TIME_WAIT, and how many we and the peer closed first.
fn closes(service: &Value) -> [u64; 3] {
    ["count", "closed_by_us", "closed_by_peer"].map(|name| service[name].as_u64().unwrap_or(0))
}

#[test]
fn connections_that_a_client_aborts() {
    require!(root, tracer, python_tools, nginx, openssl);
    let lab = Lab::new();
    let _nginx = nginx(&lab, 60);
    let mut crawler = crawler(&lab, "aborts");
    let run = Diagnosing::start(&lab, &[]);
    tell(&mut crawler, "25", "done");
    wait_ended(&lab);
    let found = run.stop();
    assert_eq!(found.ids(), ["aborted_closes"; 2], "{found:#?}");
    let resets = |service: &str| {
        let all = found.findings().iter().map(|finding| &finding["evidence"]);
        let mut of_it = all.filter(|evidence| evidence["service"] == service);
        let evidence = of_it.next().unwrap_or_else(|| panic!("{found:#?}"));
        ["reset_by_us", "reset_by_peer"].map(|name| evidence[name].as_u64())
    };
    assert_eq!(resets(&format!("{}:8080", lab.ip)), [Some(25), Some(0)]);
    assert_eq!(resets(":8080"), [Some(0), Some(25)]);
}

#[test]
fn time_wait_of_a_server_that_closes_first() {
    require!(root, tracer, python_tools, nginx, openssl);
    let lab = Lab::new();
    lab.ns.sysctl("tcp_max_tw_buckets", "64");
    let nginx = nginx(&lab, 0);
    let mut crawler = crawler(&lab, "follows");
    let found = crawl(&lab, &mut crawler, (60, "done"), ("time_wait", 60));
    assert_eq!(found.ids(), ["time_wait_pressure"], "{found:#?}");
    let finding = found.one("time_wait_pressure");
    assert_eq!(finding["severity"], "warning", "{finding:#}");
    let evidence = &finding["evidence"];
    assert_eq!(
        (&evidence["count"], &evidence["max_tw_buckets"]),
        (&json!(60), &json!(64))
    );
    let [service] = &services(finding)[..] else {
        panic!("one service: {finding:#}");
    };
    assert_eq!(service["service"], ":8080", "{finding:#}");
    assert_eq!(service["role"], "passive", "{finding:#}");
    assert_eq!(closes(service), [60, 60, 0], "{finding:#}");
    let clients = &service["clients_here"];
    assert_eq!(clients[0]["pid"], crawler.pid(), "{finding:#}");
    assert_eq!(clients[0]["count"], 60, "{finding:#}");
    let what = told(finding, "what");
    let pid = nginx.process.pid();
    let who = format!("we closed 60 of 60 first, pid {pid} nginx");
    assert!(what.contains(&who), "{what}");
    assert_eq!(evidence["tw_reuse_applies"], 0, "{finding:#}");
    let kernel = told(finding, "kernel");
    assert!(kernel.contains("tcp_tw_reuse would do nothing"), "{kernel}");

    let before = netstat::tcp_ext(&lab.ns, "TCPTimeWaitOverflow");
    let run = Diagnosing::start(&lab, &[]);
    tell(&mut crawler, "40", "done");
    wait_ended(&lab);
    let found = run.stop();
    let refused = netstat::tcp_ext(&lab.ns, "TCPTimeWaitOverflow") - before;
    assert_ne!(refused, 0);
    let finding = found.one("time_wait_overflow");
    assert_eq!(finding["evidence"]["overflows"], refused, "{finding:#}");
}

/// What a proxy says to its upstream: nothing, and that it would keep the connection.
const SILENT: &str = "";
const KEEPS: &str = "proxy_http_version 1.1; proxy_set_header Connection \"\";";

/// What is found while an nginx asks another one 60 times, for a client that keeps its connection.
#[track_caller]
fn proxied(upstream: &str, says: &str, held: (&str, usize)) -> (Lab, Nginx, Diagnosis) {
    let lab = Lab::new();
    lab.ns.sysctl("tcp_max_tw_buckets", "64");
    let ip = lab.ip;
    let server = format!(
        "keepalive_timeout 60s; keepalive_requests 1000000; upstream app {{ server {ip}:8081; {upstream} }}
         server {{ listen {ip}:8080; location / {{ proxy_pass http://app; {says} }} }}
         server {{ listen {ip}:8081; location / {{ return 200 ok; }} }}"
    );
    let nginx = Nginx::start(&lab, &server, &[8080, 8081]);
    let mut crawler = crawler(&lab, "reuses");
    let found = crawl(&lab, &mut crawler, (60, "done"), held);
    (lab, nginx, found)
}

#[test]
fn time_wait_of_an_upstream_that_is_told_to_close() {
    require!(root, tracer, python_tools, nginx, openssl);
    let (_lab, nginx, found) = proxied("", SILENT, ("time_wait", 60));
    assert_eq!(found.ids(), ["time_wait_pressure"], "{found:#?}");
    let finding = found.one("time_wait_pressure");
    let [service] = &services(finding)[..] else {
        panic!("one service: {finding:#}");
    };
    assert_eq!(service["service"], ":8081", "{finding:#}");
    assert_eq!(service["role"], "passive", "{finding:#}");
    assert_eq!(closes(service), [60, 60, 0], "{finding:#}");
    // The other end is of this host, too, and says who it is.
    let pid = nginx.process.pid();
    let client = json!({"pid": pid, "comm": "nginx", "count": 60});
    assert_eq!(service["clients_here"], json!([client]), "{finding:#}");
    let what = told(finding, "what");
    assert!(
        what.contains(&format!("(on this host pid {pid} nginx)")),
        "{what}"
    );
    let kernel = told(finding, "kernel");
    assert!(kernel.contains("tcp_tw_reuse would do nothing"), "{kernel}");
    let fix = told(finding, "fix");
    let between = format!("keep-alive between pid {pid} nginx and :8081");
    assert!(fix.contains(&between), "{fix}");
}

#[test]
fn time_wait_of_a_proxy_that_does_not_keep_its_upstream() {
    require!(root, tracer, python_tools, nginx, openssl);
    let (lab, nginx, found) = proxied("", KEEPS, ("time_wait", 60));
    assert_eq!(found.ids(), ["time_wait_pressure"], "{found:#?}");
    let finding = found.one("time_wait_pressure");
    let [service] = &services(finding)[..] else {
        panic!("one service: {finding:#}");
    };
    assert_eq!(service["service"], format!("{}:8081", lab.ip));
    assert_eq!(service["role"], "active", "{finding:#}");
    assert_eq!(closes(service), [60, 60, 0], "{finding:#}");
    let what = told(finding, "what");
    let who = format!(
        "we closed 60 of 60 first, pid {} nginx",
        nginx.process.pid()
    );
    assert!(what.contains(&who), "{what}");
    let kernel = told(finding, "kernel");
    assert!(
        kernel.contains("tcp_tw_reuse can apply to the 100 %"),
        "{kernel}"
    );
    let fix = told(finding, "fix");
    assert!(fix.contains("keep-alive to the upstream"), "{fix}");
}

#[test]
fn a_proxy_that_keeps_its_upstream() {
    require!(root, tracer, python_tools, nginx, openssl);
    let (_lab, _nginx, found) = proxied("keepalive 16;", KEEPS, ("established", 4));
    assert_eq!(found.ids(), [""; 0], "{found:#?}");
}

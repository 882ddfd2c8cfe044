//! Diagnoses of pools: clients of the field that keep what their servers have closed.

use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};
use tcptrace_tests::child::{LIMIT, Process, until};
use tcptrace_tests::diagnosis::{Diagnosing, told};
use tcptrace_tests::kernel::jiffy_ns;
use tcptrace_tests::lab::Lab;
use tcptrace_tests::oracle::proc_net;
use tcptrace_tests::require;
use tcptrace_tests::software::{HTTPCLIENT, Java, Nginx, TOMCAT, program, tell};
use tcptrace_tests::truth::{Span, now_ns};

/// When the servers here close what is idle.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// Connections of each pool.
const POOL: usize = 12;

/// `server` blocks, one for each way to listen.
fn servers(lab: &Lab, listens: &[&str]) -> String {
    let one = |listen: &&str| {
        format!(
            "server {{ listen {}:{listen}; keepalive_timeout {}s; location / {{ return 200 ok; }} }}\n",
            lab.ip,
            KEEP_ALIVE.as_secs()
        )
    };
    listens.iter().map(one).collect()
}

/// Lets the pools ask, and waits until so many of their connections have been closed by the server, for a
/// second. How long these were silent, in ns: the server counts from the question on at the earliest.
#[track_caller]
fn linger(lab: &Lab, pools: &mut [Process], closed: usize) -> Span {
    let begin = now_ns();
    let answers = pools.iter_mut().map(|pool| {
        let ready = tell(pool, "go", "ready");
        let longest = ready.split(' ').nth(1).expect("a time");
        longest.parse::<u64>().expect("a number")
    });
    let longest = answers.max().unwrap_or_default();
    std::thread::sleep(KEEP_ALIVE);
    until(LIMIT, &format!("{closed} in CLOSE_WAIT"), || {
        let counts = proc_net::counts(&lab.ns);
        (counts.get("close_wait") == Some(&closed)).then_some(())
    });
    let max = now_ns() - begin;
    std::thread::sleep(Duration::from_millis(1_100));
    let min = KEEP_ALIVE.as_nanos() as u64 - longest - 2 * jiffy_ns();
    Span { min, max }
}

/// The finding knows the server's timeout.
#[track_caller]
fn assert_timeout(finding: &Value, silent: Span) {
    let silence = &finding["evidence"]["silence"];
    assert_eq!(silence["kind"], "timeout", "{finding:#}");
    assert_eq!(
        (&silence["n"], &silence["of"]),
        (&json!(POOL), &json!(POOL))
    );
    for name in ["early_ns", "median_ns"] {
        let ns = silence[name].as_u64().expect("a time");
        silent.assert_holds(ns, name);
    }
}

#[test]
fn a_pool_that_outlives_the_keep_alive_of_its_server() {
    require!(root, tracer, python_tools, nginx, openssl);
    let lab = Lab::new();
    let _nginx = Nginx::start(&lab, &servers(&lab, &["8080"]), &[8080]);
    let url = format!("http://{}:8080/", lab.ip);
    let n = POOL.to_string();
    let mut pools = ["forgets", "closes"].map(|habit| program(&lab, "pool.py", &[&url, &n, habit]));
    let run = Diagnosing::start(&lab, &["--min-age", "1s"]);
    let silent = linger(&lab, &mut pools, POOL);
    let found = run.stop();
    // Of the one that closes there is nothing to say.
    assert_eq!(found.ids(), ["close_wait_client"], "{found:#?}");
    let finding = found.one("close_wait_client");
    assert_eq!(finding["severity"], "warning", "{finding:#}");
    let evidence = &finding["evidence"];
    let processes = &evidence["processes"];
    assert_eq!(processes.as_array().map(Vec::len), Some(1), "{finding:#}");
    assert_eq!(processes[0]["pid"], pools[0].pid(), "{finding:#}");
    assert_eq!(evidence["count"], POOL, "{finding:#}");
    assert_eq!(evidence["closed_first"], "peer", "{finding:#}");
    assert_eq!(evidence["unread"]["fin"], POOL, "{finding:#}");
    assert_eq!(evidence["keepalive"], json!({"on": 0, "off": POOL}));
    let peers = json!([{"peer": format!("{}:8080", lab.ip), "count": POOL}]);
    assert_eq!(evidence["peers"], peers);
    assert_timeout(finding, silent);
    let what = told(finding, "what");
    assert!(what.contains("the peer's idle timeout is ≈"), "{what}");
    let fix = told(finding, "fix");
    assert!(
        fix.contains("drop idle connections before the peer"),
        "{fix}"
    );
    let not = told(finding, "not");
    assert!(not.contains("tcp_keepalive_time"), "{not}");
}

#[test]
fn what_was_not_read_of_plain_and_of_tls_connections() {
    require!(root, tracer, python_tools, nginx, openssl);
    let lab = Lab::new();
    let tls = |port, version| format!("{port} ssl; ssl_protocols {version}");
    let listens = [
        "8080".to_owned(),
        tls(8442, "TLSv1.2; ssl_ciphers ECDHE+AESGCM"),
        tls(8443, "TLSv1.3"),
    ];
    let listens = listens.each_ref().map(String::as_str);
    let _nginx = Nginx::start(&lab, &servers(&lab, &listens), &[8080, 8442, 8443]);
    let n = POOL.to_string();
    let mut pools = [
        ("http", 8080, "ignores"),
        ("https", 8442, "forgets"),
        ("https", 8443, "forgets"),
    ]
    .map(|(scheme, port, habit)| {
        let url = format!("{scheme}://{}:{port}/", lab.ip);
        program(&lab, "pool.py", &[&url, &n, habit])
    });
    let run = Diagnosing::start(&lab, &["--min-age", "1s"]);
    let silent = linger(&lab, &mut pools, 3 * POOL);
    let found = run.stop();
    assert_eq!(found.ids(), ["close_wait_client"; 3], "{found:#?}");
    for (pool, unread, words) in [
        (&pools[0], "nothing_end_read", "read the end and ignored it"),
        (&pools[1], "close_notify", "close_notify (Recv-Q 32)"),
        (&pools[2], "close_notify", "close_notify (Recv-Q 25)"),
    ] {
        let finding = found.close_wait_of("close_wait_client", pool.pid());
        let finding = finding.unwrap_or_else(|| panic!("{found:#?}"));
        assert_eq!(finding["evidence"]["unread"][unread], POOL, "{finding:#}");
        let app = told(finding, "app");
        assert!(app.contains(words), "{app}");
        assert_timeout(finding, silent);
    }
}

#[test]
fn keepalive_ends_them_when_the_peer_has_forgotten() {
    require!(root, tracer, python_tools, nginx, openssl);
    let lab = Lab::new();
    let _nginx = Nginx::start(&lab, &servers(&lab, &["8080"]), &[8080]);
    let url = format!("http://{}:8080/", lab.ip);
    let n = POOL.to_string();
    let pool = || [program(&lab, "pool.py", &[&url, &n, "keepalive"])];
    // The server's kernel answers the probes for as long as it knows the connection.
    let mut probing = pool();
    let run = Diagnosing::start(&lab, &["--min-age", "1s"]);
    linger(&lab, &mut probing, POOL);
    let found = run.stop();
    let finding = found.one("close_wait_client");
    let evidence = &finding["evidence"];
    assert_eq!(evidence["keepalive"], json!({"on": POOL, "off": 0}));
    let within = evidence["next_probe_within_ns"].as_u64();
    assert!(within.is_some_and(|ns| ns <= 1_000_000_000), "{finding:#}");
    let kernel = told(finding, "kernel");
    assert!(!kernel.contains("never ends these"), "{kernel}");
    assert!(!told(finding, "not").contains("tcp_keepalive_time"));
    drop(probing);

    lab.ns.sysctl("tcp_fin_timeout", "1");
    let mut probing = pool();
    let run = Diagnosing::start(&lab, &["--min-age", "1s"]);
    linger(&lab, &mut probing, POOL);
    until(LIMIT, "the end of CLOSE_WAIT", || {
        let counts = proc_net::counts(&lab.ns);
        (!counts.contains_key("close_wait")).then_some(())
    });
    let found = run.stop();
    assert_eq!(found.ids(), [""; 0], "{found:#?}");
}

#[test]
fn a_pool_that_takes_all_descriptors() {
    require!(root, tracer, python_tools, nginx, openssl);
    let lab = Lab::new();
    let _nginx = Nginx::start(&lab, &servers(&lab, &["8080"]), &[8080]);
    let url = format!("http://{}:8080/", lab.ip);
    let n = POOL.to_string();
    let mut pools = [program(&lab, "pool.py", &[&url, &n, "forgets"])];
    let open = format!("/proc/{}/fd", pools[0].pid());
    let count = || std::fs::read_dir(&open).expect("its descriptors").count() as u64;
    let most = count() + POOL as u64 + 1;
    limit_descriptors(pools[0].pid(), most);
    let run = Diagnosing::start(&lab, &["--min-age", "1s"]);
    linger(&lab, &mut pools, POOL);
    let found = run.stop();
    assert_eq!(found.ids(), ["close_wait_client", "fd_limit"], "{found:#?}");
    let finding = found.one("fd_limit");
    assert_eq!(finding["severity"], "warning", "{finding:#}");
    let evidence = &finding["evidence"];
    assert_eq!(evidence["pid"], pools[0].pid(), "{finding:#}");
    assert_eq!(evidence["files"], count(), "{finding:#}");
    assert_eq!(evidence["files_max"], most, "{finding:#}");
    let what = told(finding, "what");
    assert!(what.contains(&format!("{POOL} in CLOSE_WAIT")), "{what}");
    // All came at once: when the limit is reached nobody can say.
    let finding = found.one("close_wait_client");
    assert_eq!(finding["evidence"]["growth"], POOL, "{finding:#}");
    let also = told(finding, "also");
    assert!(!also.contains("limit of descriptors"), "{also}");
}

#[test]
fn a_crawler_that_takes_more_and_more_descriptors() {
    require!(root, tracer, python_tools, nginx, openssl);
    let lab = Lab::new();
    let _nginx = Nginx::start(&lab, &servers(&lab, &["8080"]), &[8080]);
    let url = format!("http://{}:8080/", lab.ip);
    let mut crawler = program(&lab, "crawler.py", &[&url, "forgets"]);
    limit_descriptors(crawler.pid(), 200);
    let run = Diagnosing::start(&lab, &["--min-age", "1s"]);
    for _ in 0..40 {
        tell(&mut crawler, "1", "done");
        std::thread::sleep(Duration::from_millis(200));
    }
    let found = run.stop();
    assert_eq!(found.ids(), ["close_wait_client"], "{found:#?}");
    let finding = found.one("close_wait_client");
    let rate = finding["evidence"]["growth_per_s"].as_f64();
    assert!(rate.is_some_and(|rate| rate <= 5.0), "{finding:#}");
    let also = told(finding, "also");
    assert!(
        also.contains("limit of descriptors is reached in"),
        "{also}"
    );
}

/// What a process may have open.
#[track_caller]
fn limit_descriptors(pid: u32, most: u64) {
    let limit = Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    let pid = Pid::from_raw(pid as i32);
    prlimit(pid, Resource::Nofile, limit).expect("prlimit");
}

#[test]
fn a_pool_that_comes_back_late() {
    require!(root, tracer, python_tools, nginx, openssl);
    let lab = Lab::new();
    let patient = format!(
        "server {{ listen {}:8081; keepalive_timeout 60s; location / {{ return 200 ok; }} }}",
        lab.ip
    );
    let servers = servers(&lab, &["8080"]) + &patient;
    let _nginx = Nginx::start(&lab, &servers, &[8080, 8081]);
    let n = POOL.to_string();
    let mut pools = [8080, 8081].map(|port| {
        let url = format!("http://{}:{port}/", lab.ip);
        program(&lab, "pool.py", &[&url, &n, "returns"])
    });
    let run = Diagnosing::start(&lab, &["--min-age", "1s"]);
    let begin = now_ns();
    linger(&lab, &mut pools, POOL);
    for pool in &mut pools {
        tell(pool, "go", "ready");
    }
    let most = now_ns() - begin;
    let found = run.stop();
    // Of the one whose server waits longer there is nothing to say.
    assert_eq!(found.ids(), ["idle_timeout_mismatch"], "{found:#?}");
    let finding = found.one("idle_timeout_mismatch");
    assert_eq!(finding["severity"], "notice", "{finding:#}");
    let evidence = &finding["evidence"];
    assert_eq!(evidence["service"], format!("{}:8080", lab.ip));
    assert_eq!(evidence["count"], POOL, "{finding:#}");
    let late = Span {
        min: 1_000_000_000,
        max: most - KEEP_ALIVE.as_nanos() as u64 + 2 * jiffy_ns(),
    };
    for name in ["close_wait_p50_ns", "close_wait_p99_ns"] {
        let ns = evidence[name].as_u64().expect("a time");
        late.assert_holds(ns, name);
    }
    let fix = told(finding, "fix");
    assert!(
        fix.contains("shorter than the peer's keep-alive timeout"),
        "{fix}"
    );
}

#[test]
fn pools_that_outlive_the_keep_alive_of_tomcat() {
    require!(root, tracer, python_tools, java, tomcat, httpclient);
    let lab = Lab::new();
    let java = Java::compile(&["Server", "Pool"], &[&[TOMCAT], &HTTPCLIENT[..]].concat());
    let connectors = [(8080, KEEP_ALIVE), (8081, 30 * KEEP_ALIVE)];
    let _tomcat = java.tomcat(&lab, &connectors);
    let [short, long] = connectors.map(|(port, _)| format!("http://{}:{port}/", lab.ip));
    let n = POOL.to_string();
    let python = |habit| program(&lab, "pool.py", &[&short, &n, habit]);
    let java = |habit| java.program(&lab, "Pool", &[&n, habit, &short, &long]);
    let mut pools = [
        python("forgets"),
        java("forgets"),
        python("closes"),
        java("evicts"),
    ];
    let run = Diagnosing::start(&lab, &["--min-age", "1s"]);
    let silent = linger(&lab, &mut pools, 2 * POOL);
    // What the other connector has is kept, and is none of this.
    assert!(proc_net::counts(&lab.ns)["established"] >= POOL);
    let found = run.stop();
    // Of those that close and evict there is nothing to say.
    assert_eq!(found.ids(), ["close_wait_client"; 2], "{found:#?}");
    for (pool, name) in pools.iter().zip(["python", "java"]) {
        let finding = found.close_wait_of("close_wait_client", pool.pid());
        let finding = finding.unwrap_or_else(|| panic!("{found:#?}"));
        let who = told(finding, "who");
        assert!(who.contains(name), "{who}");
        let evidence = &finding["evidence"];
        let peers = json!([{"peer": format!("{}:8080", lab.ip), "count": POOL}]);
        assert_eq!(evidence["peers"], peers, "{finding:#}");
        assert_eq!(evidence["unread"]["fin"], POOL, "{finding:#}");
        assert_eq!(evidence["keepalive"], json!({"on": 0, "off": POOL}));
        assert_timeout(finding, silent);
        let fix = told(finding, "fix");
        assert!(fix.contains("let the pool drop idle connections"), "{fix}");
    }
}

//! Where nothing is wrong nothing is found, and counts are those that everybody counts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tcptrace_tests::child::{LIMIT, Process, until};
use tcptrace_tests::diagnosis::Diagnosing;
use tcptrace_tests::export::output;
use tcptrace_tests::lab::Lab;
use tcptrace_tests::oracle::state_name;
use tcptrace_tests::recording::bustle;
use tcptrace_tests::require;
use tcptrace_tests::software::{Nginx, program, tell, wait_listening};
use tcptrace_tests::tcptrace::{snapshot, tracer_path};

/// Runs of the tracer, each while everything works.
const RUNS: usize = 20;

/// For so long: twice the age from which a socket is stuck, so that what stays in a state becomes a
/// finding; rates count from a second on; shares, counters and queues at any time.
const RUN: Duration = Duration::from_secs(2);

#[test]
fn nothing_is_found_where_nothing_is_wrong() {
    require!(root, tracer, python_tools, nginx, openssl, redis);
    let lab = Lab::new();
    let ip = lab.ip.to_string();
    let _app = program(&lab, "upstream.py", &[&ip, "8081"]);
    let servers = format!(
        "server {{ listen {ip}:8080; keepalive_timeout 60s; keepalive_requests 1000000;
         location / {{ return 200 ok; }} location /app {{ proxy_pass http://{ip}:8081; }} }}"
    );
    let _nginx = Nginx::start(&lab, &servers, &[8080]);
    let mut redis = lab.ns.command("redis-server");
    redis.args([
        "--bind",
        &ip,
        "--port",
        "6379",
        "--save",
        "",
        "--appendonly",
        "no",
    ]);
    let redis = Process::spawn(&mut redis);
    wait_listening(&lab, &[6379], &redis);
    let mut load = lab.ns.command("redis-benchmark");
    load.args([
        "-h", &ip, "-l", "-q", "-c", "20", "-n", "20000", "-t", "get,set",
    ]);
    let _load = Process::spawn(&mut load);
    let crawler = |path: &str, habit| {
        let url = format!("http://{ip}:8080/{path}");
        program(&lab, "crawler.py", &[&url, habit])
    };
    let mut crawlers = [
        crawler("", "reuses"),
        crawler("", "closes"),
        crawler("app", "closes"),
    ];
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for crawler in &mut crawlers {
            let over = &over;
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    tell(crawler, "5", "done");
                    std::thread::sleep(Duration::from_millis(50));
                }
            });
        }
        let found = (0..RUNS).map(|_| {
            let run = Diagnosing::start(&lab, &["--min-age", "1s"]);
            std::thread::sleep(RUN);
            run.stop()
        });
        let found: Vec<_> = found.collect();
        over.store(true, Ordering::Relaxed);
        for found in found {
            // After a minute those who close each connection have ten thousand in TIME_WAIT.
            assert_eq!(found.ids(), [""; 0], "{found:#?}");
        }
    });
}

#[test]
fn subflows_of_mptcp_are_worth_a_word() {
    require!(root, tracer, mptcp);
    for (protocol, ids) in [("mptcp", &["mptcp_noise"][..]), ("", &[])] {
        let lab = Lab::new();
        let run = Diagnosing::start(&lab, &["--min-age", "1s"]);
        let (mut client, mut server) = (lab.peer(), lab.peer());
        let listen = format!("listen L {}:0 {protocol}", lab.ip);
        let to = server.act(&listen).local();
        client.act(&format!("connect C {to} {protocol}"));
        server.act("accept S L");
        client.act("send C 10");
        server.act("recv S 10");
        std::thread::sleep(Duration::from_millis(1_100));
        let found = run.stop();
        assert_eq!(found.ids(), ids, "{found:#?}");
        for finding in found.findings() {
            assert_eq!(finding["severity"], "info", "{finding:#}");
            let events = finding["evidence"]["events"].as_u64();
            assert!(events.is_some_and(|n| n > 0), "{finding:#}");
        }
    }
}

/// How the field counts.
const SS: &str = "ss -ant | awk 'NR > 1 {++S[$1]} END {for (a in S) print S[a], a}'";
const NETSTAT: &str = "netstat -nat | awk '/^tcp/ {++S[$NF]} END {for (a in S) print S[a], a}'";
const CONNECTIONS: &str = "netstat -n | awk '/^tcp/ {++S[$NF]} END {for (a in S) print S[a], a}'";

#[test]
fn counts_are_those_of_netstat_ss_and_sockstat() {
    require!(root, tracer, ss, netstat);
    let lab = Lab::new();
    let _bustle = bustle(&lab);
    let _open: Vec<_> = (0..5).map(|_| lab.connect()).collect();
    let shell = |script: &str| output(lab.ns.command("sh").args(["-c", script]));
    let (ours, summaries, theirs, sockstat) = until(LIMIT, "an instant without a change", || {
        let before = counted(&shell(SS));
        let ours = snapshot(&lab.ns, &["--by", "state"]).remove(0).value;
        let mut summary = lab.ns.command(tracer_path());
        let summaries = [
            output(summary.args(["snapshot", "--summary"])),
            shell("ss -s"),
        ];
        let theirs = [NETSTAT, CONNECTIONS].map(|script| counted(&shell(script)));
        let sockstat = shell("cat /proc/net/sockstat");
        (before == counted(&shell(SS))).then_some((
            ours,
            summaries,
            [&[before], &theirs[..]].concat(),
            sockstat,
        ))
    });
    let groups = ours["groups"].as_array().expect("groups");
    let groups = groups.iter().map(|group| {
        let state = group["state"].as_str().expect("a state");
        (state.to_owned(), group["count"].as_u64().expect("a count"))
    });
    let mut groups: BTreeMap<String, u64> = groups.collect();
    assert!(groups.len() >= 5, "{groups:?}");
    assert_eq!(groups, theirs[0], "ss");
    assert_eq!(groups, theirs[1], "netstat");
    // sockstat counts full sockets as used, and all minisockets as tw.
    let states = ours["states"].as_object().expect("states");
    let minis = states.values().filter_map(|state| state["mini"].as_u64());
    let minis: u64 = minis.sum();
    let full = groups.values().sum::<u64>() - minis;
    assert_eq!(number(&sockstat, "inuse"), full, "{sockstat}");
    assert_eq!(number(&sockstat, "tw"), minis, "{sockstat}");
    // `ss -s` takes CLOSE_WAIT for established, as it is counted since 6.10, and has tw from sockstat.
    let [summary, ss_s] = summaries;
    assert_ne!(groups["close_wait"], 0);
    let estab = groups["close_wait"] + groups["established"];
    assert_eq!(number(&ss_s, "(estab"), estab, "{ss_s}");
    assert_eq!(number(&ss_s, "timewait"), minis, "{ss_s}");
    let said = format!("`ss -s` calls {estab} of these estab");
    assert!(summary.contains(&said), "{summary}");
    groups.remove("listen");
    assert_eq!(groups, theirs[2], "netstat, connections only");
}

/// `3 CLOSE-WAIT` per line, by our names.
fn counted(text: &str) -> BTreeMap<String, u64> {
    let line = |line: &str| {
        let (count, state) = line.split_once(' ').expect("a count and a state");
        (state_name(state), count.parse().expect("a count"))
    };
    text.lines().map(line).collect()
}

/// What follows this word in `TCP: inuse 5 orphan 0 tw 3 …`, or in `TCP:   5 (estab 2, closed 1, …)`.
fn number(text: &str, name: &str) -> u64 {
    let line = text.lines().find(|line| line.starts_with("TCP:"));
    let mut words = line.expect("TCP").split_whitespace();
    words.find(|word| *word == name).expect("the word");
    let number = words.next().map(|n| n.trim_end_matches([',', ')']));
    number.and_then(|n| n.parse().ok()).expect("a number")
}

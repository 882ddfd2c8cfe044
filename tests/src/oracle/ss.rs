//! iproute2's `ss`.

use std::collections::BTreeMap;
use std::process::Command;

use crate::child::{LIMIT, until};
use crate::netns::Netns;
use crate::oracle::{count, state_name};
use crate::truth::{Act, now_ns};

/// A line of `ss -Htanoe`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// The state in the tracer's spelling.
    pub state: String,
    /// Recv-Q.
    pub recv_q: u64,
    /// Send-Q.
    pub send_q: u64,
    /// `ip:port`; a v4-mapped address as IPv4.
    pub local: String,
    /// `ip:port`.
    pub remote: String,
    /// The cookie in hexadecimal.
    pub id: String,
    /// The rest: timer, uid, inode, cgroup.
    pub rest: String,
}

/// Every TCP socket of the namespace.
#[track_caller]
pub fn sockets(ns: &Netns) -> Vec<Socket> {
    run(ns.command("ss").arg("-Htanoe"))
        .lines()
        .map(parse)
        .collect()
}

/// How many there are of each state.
#[track_caller]
pub fn counts(ns: &Netns) -> BTreeMap<String, usize> {
    count(sockets(ns).into_iter().map(|s| s.state))
}

/// Waits until the socket of `act`, which its owner may have closed, is in `state`.
/// CLOCK_MONOTONIC ns when it was.
#[track_caller]
pub fn wait(ns: &Netns, act: &Act, state: &str) -> u64 {
    let what = format!("{} to be in {state}", act.id());
    until(LIMIT, &what, || {
        let sockets = sockets(ns);
        let found = sockets.iter().any(|s| s.id == act.id() && s.state == state);
        found.then(now_ns)
    })
}

/// Waits until the socket of `act` is not there any more.
#[track_caller]
pub fn wait_gone(ns: &Netns, act: &Act) {
    let what = format!("{} to be gone", act.id());
    until(LIMIT, &what, || {
        let gone = sockets(ns).iter().all(|s| s.id != act.id());
        gone.then_some(())
    });
}

/// `ss -K` of the socket of `act`.
#[track_caller]
pub fn destroy(ns: &Netns, act: &Act) {
    let (local, remote) = (
        act.local.expect("a bound socket"),
        act.remote.expect("a connected socket"),
    );
    run(ns.command("ss").args([
        "-HKtan",
        "src",
        &local.to_string(),
        "dst",
        &remote.to_string(),
    ]));
}

#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.output().expect("ss");
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {err}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn parse(line: &str) -> Socket {
    let mut words = line.split_whitespace();
    let mut word = || words.next().unwrap_or_else(|| panic!("ss: {line}"));
    let state = state_name(word());
    let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("ss: {line}"));
    let (recv_q, send_q) = (number(word()), number(word()));
    let (local, remote) = (plain(word()), plain(word()));
    let rest: Vec<&str> = words.collect();
    let id = rest.iter().find_map(|w| w.strip_prefix("sk:"));
    Socket {
        state,
        recv_q,
        send_q,
        local,
        remote,
        id: id.unwrap_or_default().to_owned(),
        rest: rest.join(" "),
    }
}

fn plain(addr: &str) -> String {
    match addr.strip_prefix("[::ffff:") {
        Some(mapped) => mapped.replacen(']', "", 1),
        None => addr.to_owned(),
    }
}

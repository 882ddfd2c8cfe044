//! The log of a workload: what was done, when at the earliest and when at the latest.

use std::net::SocketAddr;

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

/// CLOCK_MONOTONIC, ns: the clock of the kernel programs.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// One thing that a workload did. It happened after `before` and, as far as the call itself
/// is concerned, before `after`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Act {
    /// The command.
    pub verb: String,
    /// CLOCK_MONOTONIC ns before the call.
    pub before: u64,
    /// CLOCK_MONOTONIC ns after it.
    pub after: u64,
    /// The process.
    pub pid: u32,
    /// The thread.
    pub tid: u32,
    /// The socket's descriptor.
    pub fd: Option<u32>,
    /// The socket's cookie.
    pub cookie: Option<u64>,
    /// The socket's end, v4-mapped addresses as IPv4; as it was before the call where the call
    /// undoes it.
    pub local: Option<SocketAddr>,
    /// The peer's end.
    pub remote: Option<SocketAddr>,
    /// What the call returned, where that says something.
    pub value: Option<i64>,
    /// Why it failed.
    pub error: Option<String>,
}

impl Act {
    /// One JSON object.
    pub fn to_json(&self) -> Value {
        json!({
            "verb": self.verb, "before": self.before, "after": self.after,
            "pid": self.pid, "tid": self.tid, "fd": self.fd, "cookie": self.cookie,
            "local": self.local.map(|a| a.to_string()),
            "remote": self.remote.map(|a| a.to_string()),
            "value": self.value, "error": self.error,
        })
    }

    /// Reads what [`Act::to_json`] wrote.
    pub fn from_json(line: &str) -> Act {
        let v: Value = serde_json::from_str(line).expect("a truth line is JSON");
        let text = |key: &str| v[key].as_str().map(str::to_owned);
        let addr = |key: &str| v[key].as_str().map(|a| a.parse().expect("an address"));
        Act {
            verb: text("verb").expect("verb"),
            before: v["before"].as_u64().expect("before"),
            after: v["after"].as_u64().expect("after"),
            pid: v["pid"].as_u64().expect("pid") as u32,
            tid: v["tid"].as_u64().expect("tid") as u32,
            fd: v["fd"].as_u64().map(|n| n as u32),
            cookie: v["cookie"].as_u64(),
            local: addr("local"),
            remote: addr("remote"),
            value: v["value"].as_i64(),
            error: text("error"),
        }
    }

    /// The cookie as the tracer and `ss -e` write it.
    pub fn id(&self) -> String {
        format!("{:x}", self.cookie.expect("the act was on a socket"))
    }

    /// `ip:port` of the socket's end.
    pub fn local(&self) -> String {
        self.local.expect("a bound socket").to_string()
    }

    /// `ip:port` of the peer's end.
    pub fn remote(&self) -> String {
        self.remote.expect("a connected socket").to_string()
    }
}

/// How long something can have lasted, ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// At least.
    pub min: u64,
    /// At most.
    pub max: u64,
}

impl Span {
    /// From an event that came after `begin.0` and before `begin.1` to one that came after
    /// `end.0` and before `end.1`.
    pub fn between(begin: (u64, u64), end: (u64, u64)) -> Span {
        Span {
            min: end.0.saturating_sub(begin.1),
            max: end.1 - begin.0,
        }
    }

    /// Fails unless `ns` lies in the span, give or take the project's tolerance of
    /// 2 ms + 0.1 %.
    #[track_caller]
    pub fn assert_holds(self, ns: u64, what: &str) {
        let low = self.min.saturating_sub(2_000_000 + self.min / 1000);
        let high = self.max + 2_000_000 + self.max / 1000;
        assert!(
            (low..=high).contains(&ns),
            "{what}: {ns} ns is not within {low}..={high} ns (truth {self:?})"
        );
    }
}

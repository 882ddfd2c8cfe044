//! The summary of a run: how many sockets entered and left each state, how long they stayed, and
//! how far that can be trusted.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::cause::Cause;
use crate::change::View;
use crate::state::TcpState;
use crate::time::{Age, Mono, WallAnchor};
use crate::tuple::Role;

/// The summary.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// How long was watched, ns.
    pub span_ns: u64,
    /// All sockets, by state.
    pub states: Vec<StateLine>,
    /// What `groups` are grouped by.
    pub by: Vec<Key>,
    /// The same by group, in the order in which they are shown.
    pub groups: Vec<Group>,
    /// The listeners whose accept queue was full, the one that dropped most first.
    pub overflows: Vec<OverflowLine>,
    /// What is missing.
    pub completeness: Completeness,
}

/// What was seen of one state.
#[derive(Clone, Debug, PartialEq)]
pub struct StateLine {
    /// The state.
    pub state: TcpState,
    /// Sockets that were in it when the watch began, or of which only its end was seen.
    pub before: u64,
    /// Sockets that entered it since. `before + entered = left + open`.
    pub entered: u64,
    /// Sockets that left it.
    pub left: u64,
    /// Sockets that are still in it.
    pub open: u64,
    /// Of all these, those whose time in the state is not exact.
    pub estimated: u64,
    /// The longest that one of those that are still in it has been.
    pub oldest_open: Option<Age>,
    /// How long those that left had been in it; `None`: none left, or none whose time is known.
    pub durations: Option<Durations>,
}

/// A distribution of durations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durations {
    /// Shortest.
    pub min_ns: u64,
    /// Median.
    pub p50_ns: u64,
    /// 90th percentile.
    pub p90_ns: u64,
    /// 99th percentile.
    pub p99_ns: u64,
    /// 99.9th percentile.
    pub p999_ns: u64,
    /// Longest.
    pub max_ns: u64,
}

/// The sockets that have something in common.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// What they have in common, one per [`Summary::by`]; `None`: not known.
    pub key: Vec<Option<String>>,
    /// These sockets by state.
    pub lines: Vec<StateLine>,
}

/// What a listener dropped because its accept queue was full.
#[derive(Clone, Debug, PartialEq)]
pub struct OverflowLine {
    /// The listener: `recv_q` is its queue, `send_q` the limit, when it last happened.
    pub view: View,
    /// When it first happened.
    pub first: Mono,
    /// SYNs and last ACKs of handshakes that were dropped.
    pub dropped: u64,
    /// What was dropped for other reasons is in that number.
    pub estimated: bool,
}

/// What of the truth is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Completeness {
    /// Events that found the ring buffer full.
    pub ring_full: u64,
    /// Events during which the kernel skipped our program, and no twin made up for it.
    pub recursion_missed: u64,
    /// Sockets that found no room in a kernel map.
    pub map_full: u64,
    /// Kernel memory that could not be read.
    pub read_faults: u64,
    /// Events that could not be decoded.
    pub undecodable: u64,
    /// Sockets whose start or end was not seen and was found out by looking at all of them.
    pub reconciled: u64,
    /// Network namespaces, or processes that may be in others, whose older sockets could not be
    /// listed.
    pub unlisted: u64,
    /// Bytes of the recording that could not be read.
    pub unread_bytes: u64,
    /// Places at which the recording has a gap, or breaks off.
    pub gaps: u64,
    /// Events of MPTCP subflows, left out on purpose.
    pub mptcp: u64,
    /// Durations that are not exact.
    pub estimated: u64,
    /// Stacks that were wanted and not taken, found no room, or were named too late.
    #[serde(skip_serializing_if = "is_zero")]
    pub stacks_not_taken: u64,
    /// All sockets were looked at every so many ns, and what was shorter was not seen; `None`:
    /// events told.
    pub polled_ns: Option<u64>,
    /// `full`, `partial` or `netlink`.
    pub mode: String,
    /// What else a reader has to know.
    pub notes: Vec<String>,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Completeness {
    /// Whether nothing is missing. What was left out on purpose or is marked as estimated is not.
    pub fn complete(&self) -> bool {
        self.missing().all(|(n, _)| n == 0)
    }

    /// What can be missing, how often it is, and in words.
    pub(crate) fn missing(&self) -> impl Iterator<Item = (u64, &'static str)> {
        [
            (self.ring_full, "events that found the ring buffer full"),
            (
                self.recursion_missed,
                "events during which our program was busy",
            ),
            (self.map_full, "sockets that found a kernel map full"),
            (self.read_faults, "failed reads of kernel memory"),
            (self.undecodable, "events that could not be decoded"),
            (self.reconciled, "sockets whose start or end was not seen"),
            (
                self.unlisted,
                "namespaces or processes whose older sockets are hidden",
            ),
            (
                self.unread_bytes,
                "bytes of the recording that could not be read",
            ),
            (self.gaps, "gaps in the recording"),
        ]
        .into_iter()
    }
}

/// The `summary` line of `watch` in JSON.
#[derive(Clone, Debug, Serialize)]
pub struct SummaryLine<'a> {
    r#type: &'static str,
    ts: String,
    #[serde(flatten)]
    summary: SummaryObject<'a>,
}

impl<'a> SummaryLine<'a> {
    /// Of a summary drawn up at `at`.
    pub fn new(summary: &'a Summary, at: Mono, anchor: WallAnchor) -> SummaryLine<'a> {
        SummaryLine {
            r#type: "summary",
            ts: anchor.rfc3339(at),
            summary: SummaryObject::new(summary, anchor),
        }
    }
}

/// A summary, whatever it is part of.
#[derive(Clone, Debug, Serialize)]
pub(super) struct SummaryObject<'a> {
    span_ns: u64,
    states: Map<String, Value>,
    groups: Vec<GroupObject>,
    overflows: Vec<Value>,
    completeness: CompletenessObject<'a>,
}

impl<'a> SummaryObject<'a> {
    pub(super) fn new(summary: &'a Summary, anchor: WallAnchor) -> SummaryObject<'a> {
        let group = |group: &Group| GroupObject {
            key: key_object(&summary.by, &group.key),
            states: states(&group.lines),
        };
        let overflows = summary.overflows.iter();
        SummaryObject {
            span_ns: summary.span_ns,
            states: states(&summary.states),
            groups: summary.groups.iter().map(group).collect(),
            overflows: overflows.map(|o| overflow(o, anchor)).collect(),
            completeness: CompletenessObject::new(&summary.completeness),
        }
    }
}

/// `{"comm": "python3", "peer": null}`.
pub(super) fn key_object(by: &[Key], values: &[Option<String>]) -> Map<String, Value> {
    let names = by.iter().map(|key| key.name().to_owned());
    names.zip(values.iter().map(|value| json!(value))).collect()
}

#[derive(Clone, Debug, Serialize)]
struct GroupObject {
    key: Map<String, Value>,
    states: Map<String, Value>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct CompletenessObject<'a> {
    complete: bool,
    #[serde(flatten)]
    missing: &'a Completeness,
}

impl<'a> CompletenessObject<'a> {
    pub(crate) fn new(missing: &'a Completeness) -> CompletenessObject<'a> {
        CompletenessObject {
            complete: missing.complete(),
            missing,
        }
    }
}

fn overflow(line: &OverflowLine, anchor: WallAnchor) -> Value {
    let view = &line.view;
    json!({
        "id": view.id.to_string(),
        "local": view.tuple.local.to_string(),
        "netns": view.tuple.netns,
        "pid": view.owner.pid,
        "comm": view.owner.comm.map(|c| c.to_text()),
        "container": view.owner.container.as_deref(),
        "dropped": line.dropped,
        "estimated": line.estimated,
        "recv_q": view.recv_q,
        "send_q": view.send_q,
        "first_ts": anchor.rfc3339(line.first),
        "last_ts": anchor.rfc3339(view.at),
    })
}

fn states(lines: &[StateLine]) -> Map<String, Value> {
    let named = |line: &StateLine| (line.state.name().to_owned(), state(line));
    lines.iter().map(named).collect()
}

fn state(line: &StateLine) -> Value {
    let duration = |of: fn(&Durations) -> u64| line.durations.as_ref().map(of);
    json!({
        "before": line.before,
        "entered": line.entered,
        "left": line.left,
        "open": line.open,
        "estimated": line.estimated,
        "oldest_open_ns": line.oldest_open.and_then(Age::at_least),
        "oldest_open_estimated": line.oldest_open.map(Age::is_estimated),
        "min_ns": duration(|d| d.min_ns),
        "p50_ns": duration(|d| d.p50_ns),
        "p90_ns": duration(|d| d.p90_ns),
        "p99_ns": duration(|d| d.p99_ns),
        "p999_ns": duration(|d| d.p999_ns),
        "max_ns": duration(|d| d.max_ns),
    })
}

/// What sockets can be grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// The state.
    State,
    /// The owner's name.
    Comm,
    /// The owner.
    Pid,
    /// The peer's address, with its port where we connected to it.
    Peer,
    /// The server's port.
    Port,
    /// The owner's container.
    Container,
    /// Why they left the state.
    Cause,
}

const KEYS: [Key; 7] = [
    Key::State,
    Key::Comm,
    Key::Pid,
    Key::Peer,
    Key::Port,
    Key::Container,
    Key::Cause,
];

impl Key {
    /// The name on the command line and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Key::State => "state",
            Key::Comm => "comm",
            Key::Pid => "pid",
            Key::Peer => "peer",
            Key::Port => "port",
            Key::Container => "container",
            Key::Cause => "cause",
        }
    }

    /// The title of its column.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Key::State => "STATE",
            Key::Comm => "COMM",
            Key::Pid => "PID",
            Key::Peer => "PEER",
            Key::Port => "PORT",
            Key::Container => "CONTAINER",
            Key::Cause => "CAUSE",
        }
    }

    /// The value of a connection; `None`: not known. `cause`: why it left its state, if it did.
    pub fn of(self, view: &View, cause: Option<Cause>) -> Option<String> {
        let (local, remote) = (view.tuple.local, view.tuple.remote);
        match self {
            Key::State => Some(view.state.name().to_owned()),
            Key::Comm => view.owner.comm.map(|c| c.to_text()),
            Key::Pid => view.owner.pid.map(|p| p.to_string()),
            // A client's port is one of thousands: it would make a group of every connection.
            Key::Peer if remote.port() == 0 => None,
            Key::Peer => Some(match view.role {
                Some(Role::Active) => remote.to_string(),
                _ => remote.ip().to_string(),
            }),
            Key::Port => view.role.map(|role| match role {
                Role::Active => remote.port().to_string(),
                Role::Passive | Role::Unaccepted => local.port().to_string(),
            }),
            Key::Container => view.owner.container.as_deref().map(str::to_owned),
            Key::Cause => cause.map(|c| c.name().to_owned()),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Why a text names no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no key: use state, comm, pid, peer, port, container or cause")]
pub struct KeyError(String);

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Key, KeyError> {
        let name = text.trim().to_ascii_lowercase();
        let key = KEYS.into_iter().find(|key| key.name() == name);
        key.ok_or_else(|| KeyError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back() {
        for key in KEYS {
            assert_eq!(key.name().parse(), Ok(key));
        }
        assert!("colour".parse::<Key>().is_err());
    }

    #[test]
    fn what_is_not_known_is_null_and_what_is_open_is_no_duration() {
        let summary = Summary {
            span_ns: 62_000_000_000,
            states: vec![StateLine {
                state: TcpState::CloseWait,
                before: 0,
                entered: 251,
                left: 0,
                open: 251,
                estimated: 251,
                oldest_open: Some(Age::Between { min: 9, max: None }),
                durations: None,
            }],
            by: vec![Key::Comm],
            groups: vec![Group {
                key: vec![None],
                lines: Vec::new(),
            }],
            overflows: Vec::new(),
            completeness: Completeness {
                reconciled: 1,
                ..Completeness::default()
            },
        };
        let line = SummaryLine::new(&summary, Mono(0), WallAnchor::default());
        let text = serde_json::to_string(&line).unwrap();
        assert!(
            text.starts_with(r#"{"type":"summary","ts":"1970-"#),
            "{text}"
        );
        let json: Value = serde_json::from_str(&text).unwrap();
        let line = &json["states"]["close_wait"];
        assert_eq!(line["open"], 251);
        assert_eq!(line["max_ns"], Value::Null);
        assert_eq!(line["oldest_open_ns"], 9);
        assert_eq!(line["oldest_open_estimated"], true);
        assert_eq!(json["groups"][0]["key"]["comm"], Value::Null);
        assert_eq!(json["completeness"]["complete"], false);
    }
}

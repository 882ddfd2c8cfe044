//! What `snapshot` reports: every socket, groups of them, or their number.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::json::SocketFacts;
use super::summary::Key;
use crate::change::View;
use crate::state::TcpState;
use crate::time::{Age, Mono, WallAnchor};
use crate::tuple::Role;

/// A socket and what only sock_diag knows of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Socket {
    /// The connection.
    pub view: View,
    /// The rest.
    pub facts: SocketFacts,
}

/// Sorts for reading: by state, in each the oldest first and unknown ages last, then by address.
pub fn sort(sockets: &mut [Socket]) {
    sockets.sort_by_cached_key(|s| {
        let v = &s.view;
        (v.state, Reverse(v.age.at_least()), v.tuple, v.id)
    });
}

/// Sockets that have their keys in common.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// The values of the keys, in the order they were asked for; `None`: not known.
    pub key: Vec<Option<String>>,
    /// How many.
    pub count: u64,
    /// The greatest age that is known of one.
    pub oldest: Age,
}

/// Groups sockets; the greatest group first, equal ones by their keys.
pub fn group(sockets: &[Socket], by: &[Key]) -> Vec<Group> {
    let mut groups: BTreeMap<Vec<Option<String>>, (u64, Age)> = BTreeMap::new();
    for socket in sockets {
        let key = by.iter().map(|key| key.of(&socket.view, None)).collect();
        let (count, oldest) = groups.entry(key).or_insert((0, Age::Unknown));
        *count += 1;
        *oldest = older(*oldest, socket.view.age);
    }
    let mut sorted: Vec<Group> = groups
        .into_iter()
        .map(|(key, (count, oldest))| Group { key, count, oldest })
        .collect();
    sorted.sort_by_key(|g| Reverse(g.count));
    sorted
}

/// A group as an object: its keys by name, then its numbers.
fn group_json(group: &Group, by: &[Key]) -> Map<String, Value> {
    let names = by.iter().map(|key| key.name().to_owned());
    let mut object: Map<String, Value> = names.zip(group.key.iter().map(|v| json!(v))).collect();
    object.insert("count".to_owned(), json!(group.count));
    object.insert("oldest_age_ns".to_owned(), json!(group.oldest.at_least()));
    object.insert("estimated".to_owned(), json!(group.oldest.is_estimated()));
    object
}

fn older(a: Age, b: Age) -> Age {
    match a.at_least().cmp(&b.at_least()) {
        Ordering::Less => b,
        Ordering::Equal | Ordering::Greater => a,
    }
}

/// How many sockets there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// All of them.
    pub total: u64,
    /// Those of each state that has any.
    pub states: BTreeMap<&'static str, Count>,
}

/// The sockets of one state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// All of them.
    pub count: u64,
    /// Those that a process, or the kernel itself, has open.
    pub held: u64,
    /// Those in a listener's queue.
    pub unaccepted: u64,
    /// Minisockets.
    pub mini: u64,
}

impl Summary {
    /// Counts the sockets.
    pub fn of(sockets: &[Socket]) -> Summary {
        let mut summary = Summary::default();
        for socket in sockets {
            let view = &socket.view;
            let count = summary.states.entry(view.state.name()).or_default();
            summary.total += 1;
            count.count += 1;
            count.held += u64::from(socket.facts.inode.is_some());
            count.unaccepted += u64::from(view.role == Some(Role::Unaccepted));
            count.mini += u64::from(view.mini);
        }
        summary
    }

    fn state(&self, state: TcpState) -> Count {
        self.states.get(state.name()).copied().unwrap_or_default()
    }
}

/// `TCP 27,430: close_wait 27,352 (held 27,224, unaccepted 128) …`, the largest number first,
/// and a line for each well-known summary that counts otherwise.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TCP {}:", thousands(self.total))?;
        let mut states: Vec<_> = self.states.iter().collect();
        states.sort_by_key(|(_, count)| Reverse(count.count));
        for (name, count) in states {
            write!(f, " {name} {}", thousands(count.count))?;
            let parts: Vec<String> = details(name, *count)
                .into_iter()
                .map(|(word, n)| format!("{word} {}", thousands(n)))
                .collect();
            if !parts.is_empty() {
                write!(f, " ({})", parts.join(", "))?;
            }
        }
        writeln!(f)?;
        let close_wait = self.state(TcpState::CloseWait).count;
        if close_wait > 0 {
            let estab = thousands(close_wait + self.state(TcpState::Established).count);
            writeln!(
                f,
                "`ss -s` calls {estab} of these estab: its source, CurrEstab, counts CLOSE_WAIT too (since mid-2024)"
            )?;
        }
        let mini = self.state(TcpState::FinWait2).mini;
        if mini > 0 {
            let tw = thousands(mini + self.state(TcpState::TimeWait).count);
            writeln!(
                f,
                "/proc/net/sockstat calls {tw} of these tw: it counts FIN_WAIT_2 minisockets too"
            )?;
        }
        Ok(())
    }
}

fn details(state: &str, count: Count) -> Vec<(&'static str, u64)> {
    let all: &[(&'static str, u64)] = match state {
        "close_wait" => &[("held", count.held), ("unaccepted", count.unaccepted)],
        "fin_wait2" => &[("held", count.held), ("mini", count.mini)],
        "established" => &[("unaccepted", count.unaccepted)],
        _ => &[],
    };
    all.iter().copied().filter(|(_, n)| *n > 0).collect()
}

/// `27,352`.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The `summary` line of a snapshot in JSON.
#[derive(Clone, Debug, Serialize)]
pub struct SummaryLine<'a> {
    r#type: &'static str,
    ts: String,
    #[serde(flatten)]
    summary: &'a Summary,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<Map<String, Value>>,
}

impl<'a> SummaryLine<'a> {
    /// Of the sockets seen at `at`.
    pub fn new(
        summary: &'a Summary,
        groups: &[Group],
        by: &[Key],
        at: Mono,
        anchor: WallAnchor,
    ) -> SummaryLine<'a> {
        SummaryLine {
            r#type: "summary",
            ts: anchor.rfc3339(at),
            summary,
            groups: groups.iter().map(|g| group_json(g, by)).collect(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::infer::{Listeners, view};
    use crate::input::{SocketSnapshot, Timer};
    use crate::owner::{Comm, Owner};
    use crate::tuple::Tuple;

    /// A second and a minute, ns.
    pub(crate) const S: u64 = 1_000_000_000;
    pub(crate) const MINUTE: u64 = 60 * S;

    /// A held full socket without timer.
    pub(crate) fn snapshot(state: TcpState, local: &str, remote: &str) -> SocketSnapshot {
        SocketSnapshot {
            at: Mono(0),
            cookie: 0x31ec,
            tuple: Tuple::new(
                local.parse().expect("local"),
                remote.parse().expect("remote"),
                Some(4),
            ),
            state,
            mini: false,
            inode: 7,
            uid: 1_000,
            recv_q: 0,
            send_q: 0,
            timer: Timer::Off,
            last_ack_recv_ms: None,
            last_data_recv_ms: None,
            last_data_sent_ms: None,
            cgroup: None,
            shutdown: None,
            drops: None,
            mptcp: false,
        }
    }

    fn socket(state: TcpState, age_ms: Option<u32>, pid: Option<u32>) -> Socket {
        let mut s = snapshot(state, "10.0.0.1:4000", "10.0.0.9:443");
        s.last_ack_recv_ms = age_ms;
        let owner = Owner {
            pid,
            comm: pid.map(|_| Comm::from_bytes(b"app")),
            ..Owner::default()
        };
        Socket {
            view: view(&s, &Listeners::default(), None, owner),
            facts: SocketFacts {
                inode: Some(7),
                uid: Some(0),
                timer: "off",
                timer_left_ms: None,
            },
        }
    }

    #[test]
    fn groups_are_counted_and_sorted() {
        use TcpState::{CloseWait, Established};
        let sockets = [
            socket(Established, None, None),
            socket(CloseWait, Some(5), Some(1)),
            socket(CloseWait, Some(9), Some(1)),
            socket(CloseWait, None, Some(2)),
        ];
        let groups = group(&sockets, &[Key::State, Key::Pid]);
        let object = |g: &Group| Value::Object(group_json(g, &[Key::State, Key::Pid]));
        assert_eq!(
            object(&groups[0]),
            json!({
                "state": "close_wait", "pid": "1", "count": 2,
                "oldest_age_ns": 9_000_000, "estimated": true,
            })
        );
        assert_eq!(groups.len(), 3);
        assert_eq!(object(&groups[2])["pid"], Value::Null);
        let groups = group(&sockets, &[Key::Peer]);
        assert_eq!(groups[0].key, [Some("10.0.0.9:443".to_owned())]);
        assert_eq!(groups[0].count, 4);
    }

    #[test]
    fn the_oldest_stand_first() {
        use TcpState::{CloseWait, Established};
        let mut sockets = [
            socket(CloseWait, None, Some(1)),
            socket(CloseWait, Some(5), Some(2)),
            socket(Established, None, Some(3)),
            socket(CloseWait, Some(9), Some(4)),
        ];
        sort(&mut sockets);
        let pids = sockets.map(|s| s.view.owner.pid);
        assert_eq!(pids, [Some(3), Some(4), Some(2), Some(1)]);
    }

    #[test]
    fn the_summary_says_where_others_count_otherwise() {
        use TcpState::{CloseWait, Established, FinWait2, TimeWait};
        let mut sockets = vec![
            socket(CloseWait, None, None),
            socket(CloseWait, None, None),
            socket(Established, None, None),
            socket(FinWait2, None, None),
            socket(TimeWait, None, None),
        ];
        sockets[1].view.role = Some(Role::Unaccepted);
        sockets[1].facts.inode = None;
        for mini in &mut sockets[3..] {
            mini.view.mini = true;
            mini.facts.inode = None;
        }
        let summary = Summary::of(&sockets);
        assert_eq!(
            summary.to_string(),
            "TCP 5: close_wait 2 (held 1, unaccepted 1) established 1 fin_wait2 1 (mini 1) \
             time_wait 1\n\
             `ss -s` calls 3 of these estab: its source, CurrEstab, counts CLOSE_WAIT too (since mid-2024)\n\
             /proc/net/sockstat calls 2 of these tw: it counts FIN_WAIT_2 minisockets too\n"
        );
        let line = SummaryLine::new(&summary, &[], &[], Mono(0), WallAnchor::default());
        let text = serde_json::to_string(&line).expect("an object");
        assert!(
            text.starts_with(
                r#"{"type":"summary","ts":"1970-01-01T00:00:00.000000000Z","total":5,"#
            )
        );
        assert!(text.contains(r#""close_wait":{"count":2,"held":1,"unaccepted":1,"mini":0}"#));
        assert_eq!(Summary::default().to_string(), "TCP 0:\n");
    }

    #[test]
    fn numbers_are_readable() {
        let of = |n| thousands(n);
        assert_eq!(
            [of(0), of(999), of(1_000), of(27_352)],
            ["0", "999", "1,000", "27,352"]
        );
        assert_eq!(of(1_234_567), "1,234,567");
    }
}

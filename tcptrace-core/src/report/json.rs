//! JSON lines: one object per line, `type` first, fields in a fixed order, unknown is `null`.

use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};

use super::{cells, frames};
use crate::cause::Cause;
use crate::change::{Change, View};
use crate::owner::Holder;
use crate::state::TcpState;
use crate::time::{Age, WallAnchor};

/// A connection as an object. What the kinds of lines add stands behind the common fields.
#[derive(Clone, Debug)]
pub struct Line<'a> {
    view: &'a View,
    anchor: WallAnchor,
    kind: Kind,
    holders: Holders,
    duration: Duration,
}

/// Whether the time in the state is still growing.
#[derive(Clone, Copy, Debug)]
enum Duration {
    /// `age_ns`.
    Age,
    /// `duration_ns`.
    Final,
}

/// Facts of one socket of a snapshot that a [`View`] does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketFacts {
    /// Inode of the file; `None` where no process has it.
    pub inode: Option<u32>,
    /// User; `None` for minisockets and half-open requests.
    pub uid: Option<u32>,
    /// The timer that runs: `off`, `retransmit`, `keepalive`, `timewait`, `probe`.
    pub timer: &'static str,
    /// ms until it runs out.
    pub timer_left_ms: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Stuck,
    Resolved(TcpState, Cause),
    Transition(TcpState, Cause),
    Overflow { dropped: u64, estimated: bool },
    Socket(SocketFacts),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holders {
    Known,
    Unknown,
}

impl<'a> Line<'a> {
    /// A `stuck`, `resolved`, `transition` or `overflow` line.
    pub fn change(change: &'a Change, anchor: WallAnchor) -> Line<'a> {
        let (view, kind, duration) = match change {
            Change::Stuck(view) => (view, Kind::Stuck, Duration::Age),
            Change::Resolved { view, next, cause } => {
                (view, Kind::Resolved(*next, *cause), Duration::Final)
            }
            Change::Transition { view, next, cause } => {
                (view, Kind::Transition(*next, *cause), Duration::Final)
            }
            Change::Overflow {
                view,
                dropped,
                estimated,
            } => {
                let (dropped, estimated) = (*dropped, *estimated);
                (view, Kind::Overflow { dropped, estimated }, Duration::Age)
            }
        };
        let nobody = view.mini || view.owner.by_listener || view.owner.remembered;
        Line {
            view,
            anchor,
            kind,
            holders: holders(view, nobody),
            duration,
        }
    }

    /// A `socket` line of a snapshot.
    pub fn socket(view: &'a View, facts: SocketFacts, anchor: WallAnchor) -> Line<'a> {
        Line {
            view,
            anchor,
            kind: Kind::Socket(facts),
            holders: holders(view, facts.inode.is_none()),
            duration: Duration::Age,
        }
    }
}

/// An empty list says that nobody holds it; where that is not known, it is `null`.
fn holders(view: &View, nobody: bool) -> Holders {
    match view.owner.holders.is_empty() && !nobody {
        true => Holders::Unknown,
        false => Holders::Known,
    }
}

/// Someone who has a socket open.
#[derive(Serialize)]
pub(super) struct HolderObject {
    pid: u32,
    fd: u32,
    comm: String,
}

impl From<&Holder> for HolderObject {
    fn from(holder: &Holder) -> HolderObject {
        HolderObject {
            pid: holder.pid,
            fd: holder.fd,
            comm: holder.comm.to_text(),
        }
    }
}

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let view = self.view;
        let owner = &view.owner;
        let mut out = serializer.serialize_struct("Line", 32)?;
        let kind = match self.kind {
            Kind::Stuck => "stuck",
            Kind::Resolved(..) => "resolved",
            Kind::Transition(..) => "transition",
            Kind::Overflow { .. } => "overflow",
            Kind::Socket(_) => "socket",
        };
        out.serialize_field("type", kind)?;
        out.serialize_field("ts", &self.anchor.rfc3339(view.at))?;
        out.serialize_field("id", &view.id.to_string())?;
        out.serialize_field("state", view.state.name())?;
        match self.duration {
            Duration::Age => out.serialize_field("age_ns", &view.age.at_least())?,
            Duration::Final => out.serialize_field("duration_ns", &view.age.at_least())?,
        }
        out.serialize_field("estimated", &view.age.is_estimated())?;
        if let Age::Between { min, max } = view.age {
            out.serialize_field("age_min_ns", &min)?;
            out.serialize_field("age_max_ns", &max)?;
        }
        out.serialize_field("local", &cells::end(view.tuple.local))?;
        out.serialize_field("remote", &cells::end(view.tuple.remote))?;
        out.serialize_field("netns", &view.tuple.netns)?;
        out.serialize_field("role", &view.role.map(|r| r.name()))?;
        out.serialize_field("pid", &owner.pid)?;
        out.serialize_field("tid", &owner.tid)?;
        out.serialize_field("comm", &owner.comm.map(|c| c.to_text()))?;
        out.serialize_field("fd", &owner.fd)?;
        let holders = (self.holders == Holders::Known).then(|| {
            owner
                .holders
                .iter()
                .map(HolderObject::from)
                .collect::<Vec<_>>()
        });
        out.serialize_field("holders", &holders)?;
        out.serialize_field("owner_is_listener", &owner.by_listener)?;
        out.serialize_field("cmdline", &owner.cmdline.as_deref())?;
        out.serialize_field("cgroup", &owner.cgroup.as_deref())?;
        out.serialize_field("container", &owner.container.as_deref())?;
        out.serialize_field("recv_q", &view.recv_q)?;
        out.serialize_field("send_q", &view.send_q)?;
        out.serialize_field("mini", &view.mini)?;
        out.serialize_field("keepalive", &view.keepalive)?;
        out.serialize_field("verdict", &view.verdict.map(|v| v.name()))?;
        match self.kind {
            Kind::Stuck => {
                for (name, cut, at) in [
                    ("acquired_at", "acquired_at_cut", &view.acquired_at),
                    ("eof_at", "eof_at_cut", &view.eof_at),
                ] {
                    if let Some(stack) = at {
                        out.serialize_field(name, &frames::objects(stack))?;
                        out.serialize_field(cut, &stack.cut.as_deref())?;
                    }
                }
            }
            Kind::Resolved(next, cause) | Kind::Transition(next, cause) => {
                out.serialize_field("old_state", view.state.name())?;
                out.serialize_field("new_state", next.name())?;
                out.serialize_field("cause", cause.name())?;
            }
            Kind::Overflow { dropped, estimated } => {
                out.serialize_field("dropped", &dropped)?;
                out.serialize_field("dropped_estimated", &estimated)?;
            }
            Kind::Socket(facts) => {
                out.serialize_field("inode", &facts.inode)?;
                out.serialize_field("uid", &facts.uid)?;
                out.serialize_field("timer", facts.timer)?;
                out.serialize_field("timer_left_ms", &facts.timer_left_ms)?;
            }
        }
        out.end()
    }
}

#[cfg(test)]
mod tests {
    use super::super::snapshot::tests::{S, snapshot};
    use super::*;
    use crate::infer::{Listeners, view};
    use crate::owner::{Comm, Owner};

    fn close_wait() -> View {
        let mut s = snapshot(TcpState::CloseWait, "10.1.0.5:41822", "[2001:db8::9]:443");
        s.last_ack_recv_ms = Some(30_000);
        s.recv_q = 25;
        let comm = Comm::from_bytes(b"py\x1b[31m");
        let owner = Owner {
            pid: Some(4711),
            comm: Some(comm),
            fd: Some(9),
            holders: vec![Holder {
                pid: 4711,
                fd: 9,
                comm,
            }],
            ..Owner::default()
        };
        view(&s, &Listeners::default(), None, owner)
    }

    #[test]
    fn a_stuck_line_has_every_field_in_order() {
        let change = Change::Stuck(close_wait());
        let line = serde_json::to_string(&Line::change(&change, WallAnchor::default()))
            .expect("an object");
        assert_eq!(
            line,
            concat!(
                r#"{"type":"stuck","ts":"1970-01-01T00:00:00.000000000Z","id":"31ec","#,
                r#""state":"close_wait","age_ns":30000000000,"estimated":true,"#,
                r#""age_min_ns":30000000000,"age_max_ns":null,"local":"10.1.0.5:41822","#,
                r#""remote":"[2001:db8::9]:443","netns":4,"role":"active","pid":4711,"tid":null,"#,
                r#""comm":"py\u001b[31m","fd":9,"#,
                r#""holders":[{"pid":4711,"fd":9,"comm":"py\u001b[31m"}],"#,
                r#""owner_is_listener":false,"cmdline":null,"cgroup":null,"container":null,"#,
                r#""recv_q":25,"send_q":0,"mini":false,"keepalive":false,"#,
                r#""verdict":"close_notify_unread"}"#
            )
        );
    }

    #[test]
    fn what_has_ended_has_a_duration() {
        let mut view = close_wait();
        view.age = Age::Exact(2 * S);
        view.owner = Owner::default();
        let change = Change::Resolved {
            view,
            next: TcpState::LastAck,
            cause: Cause::Close,
        };
        let line = Line::change(&change, WallAnchor::default());
        let value = serde_json::to_value(&line).expect("an object");
        assert_eq!(value["duration_ns"], 2 * S);
        assert_eq!(value["estimated"], false);
        assert_eq!(value.get("age_ns"), None);
        assert_eq!(value.get("age_min_ns"), None);
        assert_eq!(value["new_state"], "last_ack");
        assert_eq!(value["cause"], "close");
        assert!(value["holders"].is_null() && value["pid"].is_null());
    }

    #[test]
    fn nobody_is_not_unknown() {
        let mut view = close_wait();
        view.owner = Owner::default();
        let mut facts = SocketFacts {
            inode: Some(7),
            uid: None,
            timer: "off",
            timer_left_ms: None,
        };
        let holders = |facts| {
            let line = Line::socket(&view, facts, WallAnchor::default());
            serde_json::to_value(&line).expect("an object")["holders"].clone()
        };
        assert!(holders(facts).is_null());
        facts.inode = None;
        assert_eq!(holders(facts), serde_json::json!([]));
    }
}

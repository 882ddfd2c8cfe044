//! The report as one object.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::super::frames;
use super::super::summary::CompletenessObject;
use super::{Acquired, Fate, Group, Key, Leaks, Place, Trend};
use crate::stack::Point;

/// The report as one object.
#[derive(Clone, Debug, Serialize)]
pub struct LeaksLine<'a> {
    r#type: &'static str,
    from: String,
    to: String,
    span_ns: u64,
    by: &'static str,
    states: Vec<&'static str>,
    min_age_ns: u64,
    total: u64,
    groups: Vec<Value>,
    stacks: Value,
    completeness: CompletenessObject<'a>,
}

impl<'a> LeaksLine<'a> {
    /// Of this report.
    pub fn new(leaks: &'a Leaks) -> LeaksLine<'a> {
        LeaksLine {
            r#type: "leaks",
            from: leaks.anchor.rfc3339(leaks.from),
            to: leaks.anchor.rfc3339(leaks.to),
            span_ns: leaks.to.since(leaks.from),
            by: leaks.question.by.name(),
            states: leaks.states.iter().map(|state| state.name()).collect(),
            min_age_ns: leaks.question.min_age_ns,
            total: leaks.total,
            groups: leaks.groups.iter().map(|g| group(g, leaks)).collect(),
            stacks: json!(leaks.stacks.map(|missing| json!({
                "over_budget": missing.lost.over_budget,
                "full": missing.lost.full,
                "unreadable": missing.lost.unreadable,
                "refused": missing.refused,
                "late": missing.late,
            }))),
            completeness: CompletenessObject::new(&leaks.completeness),
        }
    }
}

fn group(group: &Group, leaks: &Leaks) -> Value {
    let minutes = leaks.to.since(leaks.from) as f64 / 60e9;
    let per_min = group.acquired_since.filter(|_| minutes > 0.0);
    let states = group.states.iter();
    let states: Map<String, Value> = states
        .map(|(state, count)| (state.name().to_owned(), json!(count)))
        .collect();
    let verdicts = group.verdicts.iter();
    let verdicts: Map<String, Value> = verdicts
        .filter_map(|(verdict, count)| Some(((*verdict)?.name().to_owned(), json!(count))))
        .collect();
    json!({
        "key": key(&group.key),
        "count": group.count,
        "inferred": group.inferred,
        "share": group.size() as f64 / leaks.total.max(1) as f64,
        "acquired_since": group.acquired_since,
        "acquired_since_per_min": per_min.map(|n| n as f64 / minutes),
        "trend": trend(group),
        "states": states,
        "oldest_age_ns": group.oldest.at_least(),
        "oldest_age_estimated": group.oldest.is_estimated(),
        "p50_age_ns": group.half.at_least(),
        "p50_age_estimated": group.half.is_estimated(),
        "owners": group.owners.iter().map(|(owner, count)| json!({
            "pid": owner.pid,
            "comm": owner.comm,
            "container": owner.container,
            "count": count,
        })).collect::<Vec<_>>(),
        "peers": group.peers.iter().map(|(peer, count)| json!({
            "peer": peer,
            "count": count,
        })).collect::<Vec<_>>(),
        "closed_first": group.closed_first(),
        "verdicts": verdicts,
        "recv_q_min": group.recv_q.map(|(least, _)| least),
        "recv_q_max": group.recv_q.map(|(_, most)| most),
        "acquired_at": group.acquired.iter().map(acquired).collect::<Vec<_>>(),
        "eof_read": group.eof_read,
        "eof_unread": group.eof_unread,
        "eof_at": places(&group.eof_at),
        "now": group.now,
    })
}

fn key(key: &Key) -> Value {
    match key {
        Key::Stack(stack) => json!({"stack": stack.map(|id| id.0)}),
        Key::Pid(pid) => json!({"pid": pid}),
        Key::Peer(peer) => json!({"peer": peer}),
        Key::Container(container) => json!({"container": container}),
    }
}

fn trend(group: &Group) -> Value {
    let counts = group.counts;
    let (direction, per_min) = match counts.trend() {
        Trend::Unknown => return Value::Null,
        Trend::Growing(by) => ("growing", by),
        Trend::Steady => ("steady", 0.0),
        Trend::Shrinking(by) => ("shrinking", -by),
    };
    json!({
        "direction": direction,
        "per_min": per_min,
        "start": counts.start,
        "middle": counts.middle,
        "end": counts.end,
        "span_ns": counts.span_ns,
    })
}

fn acquired(acquired: &Acquired) -> Value {
    let mut object = place(&acquired.at, acquired.count);
    let by = match acquired.point {
        Point::Accept => "accept",
        _ => "connect",
    };
    object.insert("by".to_owned(), json!(by));
    object.insert("all".to_owned(), fate(&acquired.fate));
    let kin = acquired.kin.as_ref().map(|kin| {
        json!({
            "shared": frames::object(&kin.shared),
            "all": fate(&kin.fate),
        })
    });
    object.insert("kin".to_owned(), json!(kin));
    Value::Object(object)
}

fn fate(fate: &Fate) -> Value {
    let otherwise: Map<String, Value> = fate
        .otherwise
        .iter()
        .map(|(cause, count)| (cause.name().to_owned(), json!(count)))
        .collect();
    json!({
        "acquired": fate.acquired,
        "closed": fate.closed,
        "closed_at": places(&fate.places),
        "held_p50_ns": fate.held_ns.map(|[half, _]| half),
        "held_p99_ns": fate.held_ns.map(|[_, most]| most),
        "ended_otherwise": otherwise,
    })
}

fn places(places: &[(Place, u64)]) -> Vec<Value> {
    let places = places.iter();
    places.map(|(at, count)| place(at, *count).into()).collect()
}

/// A stack that found no room has frames of `null`.
fn place(at: &Place, count: u64) -> Map<String, Value> {
    let at = at.as_deref();
    let fields = [
        ("count", json!(count)),
        ("stack", json!(at.map(|stack| stack.id.0))),
        ("frames", at.map_or(Value::Null, frames::objects)),
        ("cut", json!(at.and_then(|stack| stack.cut.as_deref()))),
    ];
    let fields = fields.into_iter();
    fields
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

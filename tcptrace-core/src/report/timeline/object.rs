//! A step of a connection's life in JSON.

use serde::Serialize;

use super::{Life, Step, What};
use crate::report::json::HolderObject;
use crate::time::{Mono, WallAnchor};
use crate::tuple::ConnId;

/// A step as an object; unknown is `null`.
#[derive(Serialize)]
pub(super) struct StepObject {
    r#type: &'static str,
    ts: String,
    id: String,
    offset_ns: u64,
    what: &'static str,
    local: String,
    remote: String,
    netns: Option<u32>,
    old_state: Option<&'static str>,
    new_state: Option<&'static str>,
    cause: Option<&'static str>,
    duration_ns: Option<u64>,
    estimated: Option<bool>,
    pid: Option<u32>,
    tid: Option<u32>,
    comm: Option<String>,
    fd: Option<u32>,
    holders: Option<Vec<HolderObject>>,
    lost: Option<u64>,
}

pub(super) fn object(
    id: ConnId,
    life: &Life,
    began: Mono,
    step: &Step,
    anchor: WallAnchor,
) -> StepObject {
    let mut object = StepObject {
        r#type: "step",
        ts: anchor.rfc3339(step.at),
        id: id.to_string(),
        offset_ns: step.at.since(began),
        what: "",
        local: life.tuple.local.to_string(),
        remote: life.tuple.remote.to_string(),
        netns: life.tuple.netns,
        old_state: None,
        new_state: None,
        cause: None,
        duration_ns: None,
        estimated: None,
        pid: step.who.as_ref().map(|w| w.pid),
        tid: step.who.as_ref().and_then(|w| w.tid),
        comm: step.who.as_ref().map(|w| w.comm.clone()),
        fd: None,
        holders: None,
        lost: None,
    };
    object.what = match &step.what {
        What::Found(state, age) => {
            object.new_state = Some(state.name());
            object.duration_ns = age.at_least();
            object.estimated = Some(age.is_estimated());
            "found"
        }
        What::Moved {
            old,
            new,
            cause,
            after,
        } => {
            object.old_state = Some(old.name());
            object.new_state = Some(new.name());
            object.cause = Some(cause.name());
            object.duration_ns = after.at_least();
            object.estimated = Some(after.is_estimated());
            "moved"
        }
        What::Accepted(fd) => {
            object.fd = *fd;
            "accepted"
        }
        What::EndRead => "end_read",
        What::DescriptorClosed => "descriptor_closed",
        What::Held(holders) => {
            object.holders = Some(holders.iter().map(HolderObject::from).collect());
            "held"
        }
        What::Lost(n) => {
            object.lost = Some(*n);
            "lost"
        }
        What::Gap => "gap",
    };
    object
}

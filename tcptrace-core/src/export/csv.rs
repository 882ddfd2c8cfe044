//! One row per transition, as RFC 4180 has it.

use std::io;
use std::net::SocketAddr;

use super::{Format, Step};
use crate::owner::Comm;
use crate::recording::Session;
use crate::text::escape;
use crate::time::{Age, WallAnchor};

/// The columns, in their order.
const HEADER: [&str; 31] = [
    "ts",
    "id",
    "local_addr",
    "local_port",
    "remote_addr",
    "remote_port",
    "netns",
    "role",
    "pid",
    "tid",
    "comm",
    "fd",
    "owner_is_listener",
    "cmdline",
    "cgroup",
    "container",
    "recv_q",
    "send_q",
    "mini",
    "keepalive",
    "verdict",
    "old_state",
    "new_state",
    "duration_ns",
    "duration_min_ns",
    "duration_max_ns",
    "estimated",
    "cause",
    "actor_pid",
    "actor_tid",
    "actor_comm",
];

/// Room for a row, so that none is written in pieces.
const ROW: usize = 1_024;

/// Comma-separated values. What is not known is empty. Control characters in names are escaped as
/// in text, since a table is often looked at in a terminal.
#[derive(Clone, Debug, Default)]
pub struct Csv {
    anchor: WallAnchor,
}

impl Format for Csv {
    fn begin(&mut self, session: &Session, out: &mut Vec<u8>) -> io::Result<()> {
        self.anchor = session.anchor;
        row(&HEADER, out)
    }

    fn moved(&mut self, step: &Step, out: &mut Vec<u8>) -> io::Result<()> {
        let view = step.view;
        let owner = &view.owner;
        let actor = step.actor;
        let (min, max) = match view.age {
            Age::Between { min, max } => (Some(min), max),
            Age::Exact(_) | Age::Unknown => (None, None),
        };
        let fields: [String; HEADER.len()] = [
            self.anchor.rfc3339(view.at),
            view.id.to_string(),
            address(view.tuple.local),
            known(port(view.tuple.local)),
            address(view.tuple.remote),
            known(port(view.tuple.remote)),
            known(view.tuple.netns),
            known(view.role.map(|role| role.name())),
            known(owner.pid),
            known(owner.tid),
            name(owner.comm),
            known(owner.fd),
            owner.by_listener.to_string(),
            text(owner.cmdline.as_deref()),
            text(owner.cgroup.as_deref()),
            text(owner.container.as_deref()),
            known(view.recv_q),
            known(view.send_q),
            view.mini.to_string(),
            known(view.keepalive),
            known(view.verdict.map(|verdict| verdict.name())),
            view.state.name().to_owned(),
            step.next.name().to_owned(),
            known(view.age.at_least()),
            known(min),
            known(max),
            view.age.is_estimated().to_string(),
            step.cause.name().to_owned(),
            known(actor.map(|actor| actor.pid)),
            known(actor.map(|actor| actor.tid)),
            name(actor.map(|actor| actor.comm)),
        ];
        row(&fields, out)
    }
}

fn row(fields: &[impl AsRef<[u8]>], out: &mut Vec<u8>) -> io::Result<()> {
    let mut writer = ::csv::WriterBuilder::new()
        .buffer_capacity(ROW)
        .terminator(::csv::Terminator::CRLF)
        .from_writer(out);
    writer.write_record(fields)?;
    writer.flush()
}

fn known(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

fn text(text: Option<&str>) -> String {
    text.map(escape).unwrap_or_default()
}

fn name(comm: Option<Comm>) -> String {
    known(comm)
}

fn address(end: SocketAddr) -> String {
    end.ip().to_string()
}

/// The port of an end; 0 is none.
pub(super) fn port(end: SocketAddr) -> Option<u16> {
    Some(end.port()).filter(|port| *port != 0)
}

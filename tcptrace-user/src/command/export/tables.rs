//! Two Parquet tables: connections, and their transitions.

mod table;

use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::path::Path;

use tcptrace_core::change::View;
use tcptrace_core::export::{Format, Lives, Step};
use tcptrace_core::owner::Comm;
use tcptrace_core::recording::Session;
use tcptrace_core::report::summary::Summary;
use tcptrace_core::state::TcpState;
use tcptrace_core::time::{Age, Mono, WallAnchor};
use tcptrace_core::tracker::Tracker;
use tcptrace_core::tuple::ConnId;

use self::table::{Cell, Kind, Table};
use crate::error::Usage;
use crate::recorder::{self, Place};

/// Of who has a connection and between whom it is; in both tables.
const WHO: [(&str, Kind); 13] = [
    ("id", Kind::Text),
    ("local_addr", Kind::Text),
    ("local_port", Kind::Int),
    ("remote_addr", Kind::Text),
    ("remote_port", Kind::Int),
    ("netns", Kind::Int),
    ("role", Kind::Text),
    ("pid", Kind::Int),
    ("tid", Kind::Int),
    ("comm", Kind::Text),
    ("cmdline", Kind::Text),
    ("cgroup", Kind::Text),
    ("container", Kind::Text),
];

const TRANSITION: [(&str, Kind); 18] = [
    ("ts", Kind::Instant),
    ("old_state", Kind::Text),
    ("new_state", Kind::Text),
    ("duration_ns", Kind::Int),
    ("duration_min_ns", Kind::Int),
    ("duration_max_ns", Kind::Int),
    ("estimated", Kind::Bool),
    ("cause", Kind::Text),
    ("verdict", Kind::Text),
    ("mini", Kind::Bool),
    ("fd", Kind::Int),
    ("owner_is_listener", Kind::Bool),
    ("recv_q", Kind::Int),
    ("send_q", Kind::Int),
    ("keepalive", Kind::Bool),
    ("actor_pid", Kind::Int),
    ("actor_tid", Kind::Int),
    ("actor_comm", Kind::Text),
];

const CONNECTION: [(&str, Kind); 8] = [
    ("began", Kind::Instant),
    ("began_estimated", Kind::Bool),
    ("ended", Kind::Instant),
    ("last_state", Kind::Text),
    ("end_cause", Kind::Text),
    ("verdict", Kind::Text),
    ("transitions", Kind::Int),
    ("estimated", Kind::Bool),
];

/// States that a connection is in; a column for each tells how long.
const STATES: [(TcpState, &str); 9] = [
    (TcpState::SynSent, "syn_sent_ns"),
    (TcpState::SynRecv, "syn_recv_ns"),
    (TcpState::Established, "established_ns"),
    (TcpState::FinWait1, "fin_wait1_ns"),
    (TcpState::FinWait2, "fin_wait2_ns"),
    (TcpState::CloseWait, "close_wait_ns"),
    (TcpState::Closing, "closing_ns"),
    (TcpState::LastAck, "last_ack_ns"),
    (TcpState::TimeWait, "time_wait_ns"),
];

/// Both tables on their way into their files.
pub(super) struct Tables {
    anchor: WallAnchor,
    transitions: Table,
    connections: Table,
    lives: Lives<ConnId, Life>,
}

/// A connection that has not ended.
struct Life {
    /// The last that was told of it.
    view: View,
    began: Option<Mono>,
    began_estimated: bool,
    transitions: i64,
    /// Some of its times are not exact.
    estimated: bool,
    /// How long it was in each of [`STATES`] that it has left.
    stayed: [Option<u64>; STATES.len()],
}

impl Tables {
    /// Makes the files, and their directory if it is not there.
    ///
    /// # Errors
    /// [`Usage`] if they cannot be made.
    pub(super) fn create(place: &Place) -> anyhow::Result<Tables> {
        directory(place)?;
        let table = |name: &str, columns: &[(&'static str, Kind)]| -> anyhow::Result<Table> {
            let file: File = recorder::create(&place.path.join(name), place)?;
            Ok(Table::new(file, &[&WHO[..], columns].concat())?)
        };
        let states = STATES.map(|(_, name)| (name, Kind::Int));
        let connection = [&CONNECTION[..], &states[..]].concat();
        Ok(Tables {
            anchor: WallAnchor::default(),
            transitions: table("transitions.parquet", &TRANSITION)?,
            connections: table("connections.parquet", &connection)?,
            lives: Lives::default(),
        })
    }

    fn instant(&self, at: Option<Mono>) -> Cell {
        Cell::Int(at.map(|at| self.anchor.wall_ns(at)))
    }

    fn connection(&mut self, life: &Life, ended: Option<(Mono, &'static str)>) -> io::Result<()> {
        let view = &life.view;
        let mut row = who(view);
        row.extend([
            self.instant(life.began),
            Cell::Bool(Some(life.began_estimated)),
            self.instant(ended.map(|(at, _)| at)),
            Cell::text(Some(view.state.name())),
            Cell::text(ended.map(|(_, cause)| cause)),
            Cell::text(view.verdict.map(|verdict| verdict.name())),
            Cell::Int(Some(life.transitions)),
            Cell::Bool(Some(life.estimated)),
        ]);
        row.extend(life.stayed.map(Cell::ns));
        self.connections.row(row)
    }
}

impl Format for Tables {
    fn begin(&mut self, session: &Session, _: &mut Vec<u8>) -> io::Result<()> {
        self.anchor = session.anchor;
        Ok(())
    }

    fn moved(&mut self, step: &Step, _: &mut Vec<u8>) -> io::Result<()> {
        let view = step.view;
        let (min, max) = match view.age {
            Age::Between { min, max } => (Some(min), max),
            Age::Exact(_) | Age::Unknown => (None, None),
        };
        let mut row = who(view);
        row.extend([
            self.instant(Some(view.at)),
            Cell::text(Some(view.state.name())),
            Cell::text(Some(step.next.name())),
            Cell::ns(view.age.at_least()),
            Cell::ns(min),
            Cell::ns(max),
            Cell::Bool(Some(view.age.is_estimated())),
            Cell::text(Some(step.cause.name())),
            Cell::text(view.verdict.map(|verdict| verdict.name())),
            Cell::Bool(Some(view.mini)),
            Cell::int(view.owner.fd),
            Cell::Bool(Some(view.owner.by_listener)),
            Cell::int(view.recv_q),
            Cell::int(view.send_q),
            Cell::Bool(view.keepalive),
            Cell::int(step.actor.map(|actor| actor.pid)),
            Cell::int(step.actor.map(|actor| actor.tid)),
            name(step.actor.map(|actor| actor.comm)),
        ]);
        self.transitions.row(row)?;
        // From CLOSE to CLOSE goes the descriptor of a connection that had ended.
        if step.is_of_listener() || view.state == step.next {
            return Ok(());
        }
        let mut known = self.lives.remove(&view.id);
        if step.begins()
            && let Some(life) = known.take()
        {
            self.connection(&life, None)?;
        }
        let mut life = known.unwrap_or_else(|| Life::of(view));
        life.moved(step);
        match step.next {
            TcpState::Close => self.connection(&life, Some((view.at, step.cause.name()))),
            _ => {
                self.lives.insert(view.id, life);
                Ok(())
            }
        }
    }

    fn tidy(&mut self, tracker: &Tracker, _: &mut Vec<u8>) -> io::Result<()> {
        for (_, life) in self.lives.forgotten(|id, _| tracker.knows(id.cookie)) {
            self.connection(&life, None)?;
        }
        Ok(())
    }

    fn end(&mut self, tracker: &Tracker, _: &Summary, _: &mut Vec<u8>) -> io::Result<()> {
        for view in tracker.connections() {
            let known = self.lives.remove(&view.id);
            let mut life = known.unwrap_or_else(|| Life::of(&view));
            life.see(view);
            self.connection(&life, None)?;
        }
        for life in self.lives.take().into_values() {
            self.connection(&life, None)?;
        }
        self.transitions.finish()?;
        self.connections.finish()
    }
}

impl Life {
    /// One that is in a state already.
    fn of(view: &View) -> Life {
        let began = view.age.at_least().map(|ns| view.at.minus(ns));
        Life {
            began,
            began_estimated: true,
            transitions: 0,
            estimated: false,
            stayed: [None; STATES.len()],
            view: view.clone(),
        }
    }

    fn moved(&mut self, step: &Step) {
        self.see(step.view.clone());
        self.transitions += 1;
        if step.begins() {
            (self.began, self.began_estimated) = (Some(step.view.at), false);
        } else {
            self.estimated |= step.view.age.is_estimated();
        }
        let stayed = STATES.iter().position(|(s, _)| *s == step.view.state);
        if let (Some(index), Some(ns)) = (stayed, step.view.age.at_least()) {
            let before = self.stayed[index].unwrap_or(0);
            self.stayed[index] = Some(before.saturating_add(ns));
        }
        // What it is in from now on.
        self.view.state = match step.next {
            TcpState::Close => step.view.state,
            next => next,
        };
    }

    /// Takes what is told of it; whose it was stays known.
    fn see(&mut self, view: View) {
        let known = std::mem::replace(&mut self.view, view);
        if self.view.owner.pid.is_none() {
            self.view.owner = known.owner;
        }
    }
}

fn who(view: &View) -> Vec<Cell> {
    let owner = &view.owner;
    let port = |end: SocketAddr| Cell::int(Some(end.port()).filter(|port| *port != 0));
    vec![
        Cell::text(Some(view.id)),
        Cell::text(Some(view.tuple.local.ip())),
        port(view.tuple.local),
        Cell::text(Some(view.tuple.remote.ip())),
        port(view.tuple.remote),
        Cell::int(view.tuple.netns),
        Cell::text(view.role.map(|role| role.name())),
        Cell::int(owner.pid),
        Cell::int(owner.tid),
        name(owner.comm),
        Cell::text(owner.cmdline.as_deref()),
        Cell::text(owner.cgroup.as_deref()),
        Cell::text(owner.container.as_deref()),
    ]
}

fn name(comm: Option<Comm>) -> Cell {
    Cell::text(comm.map(|comm| comm.to_text()))
}

/// The directory of the tables, which only its owner can enter if it is new.
fn directory(place: &Place) -> Result<(), Usage> {
    let path: &Path = &place.path;
    let made = match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => match place.owner {
            Some((uid, gid)) => chown(path, Some(uid), Some(gid)),
            None => Ok(()),
        },
        Err(e) if e.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(e) => Err(e),
    };
    made.map_err(|e| {
        Usage::new(
            format!("cannot make the directory {}: {e}", path.display()),
            "give another one with -O: parquet is two files",
        )
    })
}

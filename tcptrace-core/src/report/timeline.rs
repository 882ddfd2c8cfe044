//! What became of one connection: who did what when, and what was not seen.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::Serialize;

use crate::cause::Cause;
use crate::change::{Change, View};
use crate::infer;
use crate::input::{Definition, Event, EventBody, Input, SocketSnapshot};
use crate::owner::{Actor, Holder};
use crate::state::TcpState;
use crate::text::escape;
use crate::time::{Age, Mono, WallAnchor, duration_text};
use crate::tuple::{ConnId, Tuple};

mod object;

/// Which connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// By its id, or all that had its cookie.
    Id(u64, Option<u32>),
    /// By its ends, in either order: of a connection within one machine there are two sockets.
    Ends(SocketAddr, SocketAddr),
}

/// Why a text names no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no connection: write its ends, as in 10.0.0.5:41822-10.0.0.9:443 or \
     [::1]:8080-[::1]:51000, or its id, as in 31ec"
)]
pub struct WantedError(String);

/// Reads `10.0.0.5:41822-10.0.0.9:443`, `31ec`, `31ec.1`.
impl FromStr for Wanted {
    type Err = WantedError;

    fn from_str(text: &str) -> Result<Wanted, WantedError> {
        let error = || WantedError(text.to_owned());
        if let Some((one, other)) = text.split_once('-') {
            let end = |text: &str| text.trim().parse::<SocketAddr>().map_err(|_| error());
            // v4-mapped addresses are shown as IPv4.
            let ends = Tuple::new(end(one)?, end(other)?, None);
            return Ok(Wanted::Ends(ends.local, ends.remote));
        }
        let (cookie, generation) = match text.split_once('.') {
            None => (text, None),
            Some((cookie, number)) => (cookie, Some(number.parse().map_err(|_| error())?)),
        };
        match u64::from_str_radix(cookie, 16) {
            Ok(cookie) if !text.starts_with('+') => Ok(Wanted::Id(cookie, generation)),
            _ => Err(error()),
        }
    }
}

impl Wanted {
    /// Whether a connection is the one, or may turn out to be: a socket that connects gets its port
    /// late.
    fn may_be(&self, cookie: u64, tuple: &Tuple) -> bool {
        let Wanted::Ends(a, b) = self else {
            return matches!(self, Wanted::Id(wanted, _) if *wanted == cookie);
        };
        let from = |local: &SocketAddr, remote: &SocketAddr| {
            tuple.remote == *remote && (tuple.local == *local || tuple.local.port() == 0)
        };
        from(a, b) || from(b, a)
    }

    fn is(&self, id: ConnId, tuple: &Tuple) -> bool {
        match self {
            Wanted::Id(cookie, generation) => {
                *cookie == id.cookie && generation.is_none_or(|g| g == id.generation)
            }
            Wanted::Ends(a, b) => {
                let ends = (tuple.local, tuple.remote);
                ends == (*a, *b) || ends == (*b, *a)
            }
        }
    }
}

/// Takes inputs and changes, and keeps what is about the wanted connection.
#[derive(Clone, Debug)]
pub struct Timeline {
    wanted: Wanted,
    lives: BTreeMap<ConnId, Life>,
    /// The last generation of each cookie among them.
    newest: BTreeMap<u64, u32>,
    lost: u64,
    now: Mono,
}

/// One connection that is, or may be, the wanted one.
#[derive(Clone, Debug)]
struct Life {
    tuple: Tuple,
    steps: Vec<Step>,
    /// The state that it is in; `None`: it has ended.
    state: Option<TcpState>,
}

/// One thing that happened.
#[derive(Clone, Debug)]
struct Step {
    at: Mono,
    what: What,
    who: Option<Who>,
}

#[derive(Clone, Debug)]
enum What {
    /// It was there already.
    Found(TcpState, Age),
    Moved {
        old: TcpState,
        new: TcpState,
        cause: Cause,
        after: Age,
    },
    Accepted(Option<u32>),
    EndRead,
    DescriptorClosed,
    Held(Vec<Holder>),
    /// So many events were lost since the last step that told so.
    Lost(u64),
    /// A part of the recording is missing here.
    Gap,
}

#[derive(Clone, Debug, Serialize)]
struct Who {
    pid: u32,
    tid: Option<u32>,
    comm: String,
}

impl From<Actor> for Who {
    fn from(actor: Actor) -> Who {
        Who {
            pid: actor.pid,
            tid: Some(actor.tid),
            comm: actor.comm.to_text(),
        }
    }
}

impl Timeline {
    /// Of the wanted connection nothing is known yet, and so many events had been lost before.
    pub fn new(wanted: Wanted, lost: u64) -> Timeline {
        Timeline {
            wanted,
            lives: BTreeMap::new(),
            newest: BTreeMap::new(),
            lost,
            now: Mono(0),
        }
    }

    /// Takes an input. What follows from it is to be given next, by [`Timeline::change`].
    pub fn input(&mut self, input: &Input) {
        self.now = input.at().map_or(self.now, |at| self.now.max(at));
        match input {
            Input::Kernel(event) => self.event(event),
            Input::Socket(socket) => self.socket(socket),
            Input::Define(Definition::Holders { cookie, holders }) => {
                let at = self.now;
                self.step(*cookie, at, What::Held(holders.clone()), None);
            }
            Input::Lost(loss) => {
                let more = loss.total().saturating_sub(self.lost);
                self.lost = loss.total();
                if more > 0 {
                    self.everywhere(&What::Lost(more));
                }
            }
            Input::Tick(_)
            | Input::Sweep(_)
            | Input::Define(_)
            | Input::Overflow(_)
            | Input::Stack(_)
            | Input::End(_) => {}
        }
    }

    /// Takes what followed.
    pub fn change(&mut self, change: &Change) {
        let Change::Transition { view, next, cause } = change else {
            return;
        };
        if !self.wanted.may_be(view.id.cookie, &view.tuple) {
            // It has got its port, and it is another one's.
            self.lives.remove(&view.id);
            return;
        }
        self.newest.insert(view.id.cookie, view.id.generation);
        let life = self.lives.entry(view.id).or_insert_with(|| Life {
            tuple: view.tuple,
            steps: Vec::new(),
            state: None,
        });
        life.tuple = view.tuple;
        life.state = Some(*next).filter(|next| *next != TcpState::Close);
        life.steps.push(Step {
            at: view.at,
            what: What::Moved {
                old: view.state,
                new: *next,
                cause: *cause,
                after: view.age,
            },
            who: local(*cause).then(|| who(view)).flatten(),
        });
    }

    /// A part of the recording is missing here.
    pub fn gap(&mut self) {
        self.everywhere(&What::Gap);
    }

    fn event(&mut self, event: &Event) {
        let (what, actor) = match event.body {
            EventBody::Accept { fd, actor, .. } => (What::Accepted(fd), actor),
            EventBody::Eof { actor } => (What::EndRead, actor),
            EventBody::Close { actor, .. } => (What::DescriptorClosed, actor),
            EventBody::State(_) | EventBody::Mini { .. } | EventBody::LeftOut => return,
        };
        self.step(event.cookie, event.at, what, Some(Who::from(actor)));
    }

    fn socket(&mut self, socket: &SocketSnapshot) {
        let known = self.newest.contains_key(&socket.cookie);
        if known
            || socket.state == TcpState::Listen
            || !self.wanted.may_be(socket.cookie, &socket.tuple)
        {
            return;
        }
        self.newest.insert(socket.cookie, 0);
        let id = ConnId {
            cookie: socket.cookie,
            generation: 0,
        };
        let found = Step {
            at: socket.at,
            what: What::Found(socket.state, infer::age(socket, None)),
            who: None,
        };
        let life = Life {
            tuple: socket.tuple,
            steps: vec![found],
            state: Some(socket.state),
        };
        self.lives.insert(id, life);
    }

    fn step(&mut self, cookie: u64, at: Mono, what: What, who: Option<Who>) {
        let Some(generation) = self.newest.get(&cookie).copied() else {
            return;
        };
        if let Some(life) = self.lives.get_mut(&ConnId { cookie, generation }) {
            life.steps.push(Step { at, what, who });
        }
    }

    fn everywhere(&mut self, what: &What) {
        let at = self.now;
        for life in self.lives.values_mut().filter(|life| life.state.is_some()) {
            life.steps.push(Step {
                at,
                what: what.clone(),
                who: None,
            });
        }
    }

    fn found(&self) -> impl Iterator<Item = (&ConnId, &Life)> {
        let is = |(id, life): &(&ConnId, &Life)| self.wanted.is(**id, &life.tuple);
        self.lives.iter().filter(is)
    }

    /// Whether there was such a connection.
    pub fn is_empty(&self) -> bool {
        self.found().next().is_none()
    }

    /// For people.
    pub fn to_text(&self, anchor: WallAnchor) -> String {
        let mut text = String::new();
        for (id, life) in self.found() {
            if !text.is_empty() {
                text.push('\n');
            }
            let began = life.steps.first().map_or(self.now, |step| step.at);
            let Tuple { local, remote, .. } = life.tuple;
            // A String takes whatever it is given.
            let _ = writeln!(text, "{id}  {local} -> {remote}  {}", anchor.rfc3339(began));
            for step in &life.steps {
                let offset = offset_text(step.at.since(began));
                let _ = writeln!(text, "{offset:>14}  {}", step_text(step));
            }
            if let (Some(state), Some(last)) = (life.state, life.steps.last()) {
                let later = duration_text(self.now.since(last.at));
                let _ = writeln!(text, "{:>14}  still {state} at the end, {later} later", "");
            }
        }
        text
    }

    /// One object per step.
    pub fn to_json(&self, anchor: WallAnchor) -> Vec<impl Serialize> {
        let mut objects = Vec::new();
        for (id, life) in self.found() {
            let began = life.steps.first().map_or(self.now, |step| step.at);
            objects.extend(
                life.steps
                    .iter()
                    .map(|s| object::object(*id, life, began, s, anchor)),
            );
        }
        objects
    }
}

/// Whether the owner of the socket did it.
fn local(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::Close
            | Cause::Shutdown
            | Cause::Exit
            | Cause::Connect
            | Cause::ResetSent
            | Cause::Disconnect
    )
}

fn who(view: &View) -> Option<Who> {
    let owner = &view.owner;
    Some(Who {
        pid: owner.pid?,
        tid: owner.tid,
        comm: owner.comm?.to_text(),
    })
}

/// `+0.000031`, in seconds.
fn offset_text(ns: u64) -> String {
    format!("+{}.{:06}", ns / 1_000_000_000, ns / 1_000 % 1_000_000)
}

fn step_text(step: &Step) -> String {
    let mut text = match &step.what {
        What::Found(state, Age::Unknown) => format!("{state:<11}  was there already"),
        What::Found(state, age) => format!("{state:<11}  was there already, for {age}"),
        What::Moved {
            old,
            new,
            cause,
            after,
        } => match after {
            Age::Unknown => format!("{new:<11}  {}", cause.text()),
            after => format!("{new:<11}  {}, after {after} in {old}", cause.text()),
        },
        What::Accepted(Some(fd)) => format!("accepted as descriptor {fd}"),
        What::Accepted(None) => "accepted".to_owned(),
        What::EndRead => "the end of the stream was read".to_owned(),
        What::DescriptorClosed => "its descriptor was closed".to_owned(),
        What::Held(holders) if holders.is_empty() => "nobody has it open".to_owned(),
        What::Held(holders) => {
            let holder = |h: &Holder| format!("{}/{} {}", h.pid, h.fd, h.comm);
            let list: Vec<String> = holders.iter().map(holder).collect();
            format!("open in {}", list.join(", "))
        }
        What::Lost(1) => "an event was lost before this, of whatever connection".to_owned(),
        What::Lost(n) => format!("{n} events were lost before this, of whatever connections"),
        What::Gap => "a part of the recording is missing here".to_owned(),
    };
    if let Some(Who { pid, tid, comm }) = &step.who {
        let thread = tid
            .filter(|tid| tid != pid)
            .map(|tid| format!(" thread {tid}"));
        let thread = thread.unwrap_or_default();
        let _ = write!(text, "  by {pid}{thread} {}", escape(comm));
    }
    text
}

#[cfg(test)]
mod tests;

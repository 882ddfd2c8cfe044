//! What happened to sockets, in the formats of other programs.
//!
//! A format takes changes and appends bytes to a buffer. It keeps no more than what is still going
//! on, so what it writes may be as long as it likes.

mod csv;
mod hlog;
mod jsonl;
mod lives;
mod pcapng;
mod perfetto;
mod pprof;

pub use csv::Csv;
pub use hlog::Hlog;
pub use jsonl::JsonLines;
pub use lives::Lives;
pub use pcapng::Pcapng;
pub use perfetto::Perfetto;
pub use pprof::to_pprof;

use std::io;

use crate::cause::Cause;
use crate::change::{Change, View};
use crate::input::{EventBody, Input, Loss};
use crate::owner::Actor;
use crate::recording::Session;
use crate::report::summary::Summary;
use crate::state::TcpState;
use crate::time::Mono;
use crate::tracker::Tracker;

/// A format that others read.
pub trait Format {
    /// What the file begins with.
    ///
    /// # Errors
    /// If it cannot be encoded.
    fn begin(&mut self, session: &Session, out: &mut Vec<u8>) -> io::Result<()>;

    /// A connection changed its state.
    ///
    /// # Errors
    /// If it cannot be encoded.
    fn moved(&mut self, step: &Step, out: &mut Vec<u8>) -> io::Result<()>;

    /// Anything else that is told: stuck sockets, full queues.
    ///
    /// # Errors
    /// If it cannot be encoded.
    fn other(&mut self, _: &Change, _: &mut Vec<u8>) -> io::Result<()> {
        Ok(())
    }

    /// Somebody accepted the connection of this cookie.
    fn accepted(&mut self, _cookie: u64, _by: &Actor, _: &mut Vec<u8>) {}

    /// So much was lost before this.
    fn lost(&mut self, _at: Mono, _: &Loss, _: &mut Vec<u8>) {}

    /// A part of the recording is missing here.
    fn gap(&mut self, _at: Mono, _: &mut Vec<u8>) {}

    /// Forgets connections that the tracker has forgotten.
    ///
    /// # Errors
    /// If what is left of them cannot be written.
    fn tidy(&mut self, _: &Tracker, _: &mut Vec<u8>) -> io::Result<()> {
        Ok(())
    }

    /// What the file ends with.
    ///
    /// # Errors
    /// If it cannot be encoded.
    fn end(&mut self, _: &Tracker, _: &Summary, _: &mut Vec<u8>) -> io::Result<()> {
        Ok(())
    }
}

/// One transition, and who made it.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// The transition as it is told.
    pub change: &'a Change,
    /// The connection; `state` and `age` are those of the state that it left.
    pub view: &'a View,
    /// The new state.
    pub next: TcpState,
    /// Why.
    pub cause: Cause,
    /// The task whose call it was; `None`: none, or it was not seen.
    pub actor: Option<Actor>,
}

impl Step<'_> {
    /// Whether it is a listener that comes or goes, which is no connection.
    pub fn is_of_listener(&self) -> bool {
        use TcpState::{Close, Listen};
        matches!(
            (self.view.state, self.next),
            (Close, Listen) | (Listen, Close)
        )
    }

    /// Whether the connection begins here, out of no state that it was in.
    pub fn begins(&self) -> bool {
        use TcpState::{Close, Listen, SynRecv, SynSent};
        matches!(
            (self.view.state, self.next),
            (Close, SynSent) | (Listen, SynRecv)
        )
    }
}

/// Feeds a format.
#[derive(Debug)]
pub struct Exporter<F> {
    format: F,
    /// Who made the change of the present input, to which socket and when.
    acting: Option<(u64, Mono, Actor)>,
    lost: Loss,
    now: Mono,
    /// What comes was asked for.
    open: bool,
}

impl<F: Format> Exporter<F> {
    /// An exporter that tells from the beginning, or from [`Exporter::open`] on.
    ///
    /// # Errors
    /// If the beginning cannot be encoded.
    pub fn new(
        mut format: F,
        session: &Session,
        open: bool,
        out: &mut Vec<u8>,
    ) -> io::Result<Exporter<F>> {
        format.begin(session, out)?;
        Ok(Exporter {
            format,
            acting: None,
            lost: session.lost_before,
            now: session.anchor.mono,
            open,
        })
    }

    /// What comes from here on is told.
    pub fn open(&mut self) {
        self.open = true;
    }

    /// Takes an input. What follows from it is to be given next, by [`Exporter::change`].
    pub fn input(&mut self, input: &Input, out: &mut Vec<u8>) {
        self.now = input.at().map_or(self.now, |at| self.now.max(at));
        self.acting = None;
        match input {
            Input::Kernel(event) => {
                let actor = match event.body {
                    EventBody::State(change) => change.actor,
                    EventBody::Close { actor, .. } => Some(actor),
                    EventBody::Accept { actor, .. } if self.open => {
                        self.format.accepted(event.cookie, &actor, out);
                        None
                    }
                    _ => None,
                };
                self.acting = actor.map(|actor| (event.cookie, event.at, actor));
            }
            Input::Lost(loss) => {
                let more = loss.since(&self.lost);
                self.lost = *loss;
                if self.open && more.total() > 0 {
                    self.format.lost(self.now, &more, out);
                }
            }
            _ => {}
        }
    }

    /// Takes what followed.
    ///
    /// # Errors
    /// If it cannot be encoded.
    pub fn change(&mut self, change: &Change, out: &mut Vec<u8>) -> io::Result<()> {
        if !self.open {
            return Ok(());
        }
        let Change::Transition { view, next, cause } = change else {
            return self.format.other(change, out);
        };
        let acting = self.acting.filter(|(cookie, at, _)| {
            (*cookie, *at) == (view.id.cookie, view.at) && *cause != Cause::EndNotSeen
        });
        let step = Step {
            change,
            view,
            next: *next,
            cause: *cause,
            actor: acting.map(|(_, _, actor)| actor),
        };
        self.format.moved(&step, out)
    }

    /// A part of the recording is missing here.
    pub fn gap(&mut self, out: &mut Vec<u8>) {
        if self.open {
            self.format.gap(self.now, out);
        }
    }

    /// Forgets connections that the tracker has forgotten.
    ///
    /// # Errors
    /// If what is left of them cannot be written.
    pub fn tidy(&mut self, tracker: &Tracker, out: &mut Vec<u8>) -> io::Result<()> {
        self.format.tidy(tracker, out)
    }

    /// Nothing follows.
    ///
    /// # Errors
    /// If the end cannot be encoded.
    pub fn end(
        &mut self,
        tracker: &Tracker,
        summary: &Summary,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        self.format.end(tracker, summary, out)
    }
}

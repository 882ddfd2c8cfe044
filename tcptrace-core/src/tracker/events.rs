//! What kernel events do to connections.

use tcptrace_common::event::{STATE_DEAD, STATE_EXITING, STATE_LAST_FPUT, STATE_NO_SOCKET};

use super::conn::{Acquired, Birth, Conn, Entered, Listener};
use super::stacks::Released;
use super::{Minisockets, Tracker};
use crate::cause::{self, Cause};
use crate::change::Change;
use crate::input::{Event, MiniOp, StateChange};
use crate::owner::Actor;
use crate::state::TcpState;
use crate::time::Mono;
use crate::tuple::{Role, Tuple};

impl Tracker {
    pub(super) fn state_change(
        &mut self,
        event: &Event,
        change: &StateChange,
        changes: &mut Vec<Change>,
    ) {
        use TcpState::*;
        match (change.old, change.new) {
            (Listen, SynRecv) => self.born(event, None),
            (Close, Listen) => {
                self.listens(event, change);
                self.tell_listener(event, change, changes);
            }
            (Listen, Close) => {
                self.world.listener_gone(event.cookie);
                self.tell_listener(event, change, changes);
            }
            // It was made before us, and nobody has asked for its cookie: the next change has it.
            (Close, SynSent) if event.cookie == 0 => self.born(event, change.actor),
            (Close, SynSent) => self.connects(event, change, changes),
            _ => self.moves(event, change, changes),
        }
    }

    fn born(&mut self, event: &Event, connected_by: Option<Actor>) {
        let at = event.at;
        self.births.insert(event.sk, Birth { at, connected_by });
    }

    fn listens(&mut self, event: &Event, change: &StateChange) {
        self.world.add_listener(Listener {
            tuple: change.tuple,
            cookie: event.cookie,
            holders: Vec::new(),
            opened_by: change.actor,
            seen_in: self.sweep.number(),
            gone: false,
            queue: None,
            drops_before: Some(0),
            drops: Some((0, 0)),
        });
    }

    /// A listener comes or goes: it is no connection, so this is all that is told of it.
    fn tell_listener(&self, event: &Event, change: &StateChange, changes: &mut Vec<Change>) {
        if !self.tells(change.old, change.new) {
            return;
        }
        let entered = Entered::before(event.at);
        let mut socket = Conn::new(change.tuple, change.old, entered, event.at);
        socket.acquired = change
            .actor
            .map(|actor| Box::new(Acquired { actor, fd: None }));
        let view = socket.view(event.cookie, event.at, &self.world);
        if self.options.filter.selects(&view) {
            let (next, cause) = (change.new, cause::of_change(change));
            changes.push(Change::Transition { view, next, cause });
        }
    }

    /// A socket connects, for the first time or again.
    fn connects(&mut self, event: &Event, change: &StateChange, changes: &mut Vec<Change>) {
        let mut generation = self
            .dead
            .remove(&event.cookie)
            .map_or(0, |d| d.generation + 1);
        if let Some(before) = self.conns.get(&event.cookie) {
            generation = before.generation + 1;
            if before.mini {
                self.part(event.cookie, changes);
            } else {
                self.end(
                    event.cookie,
                    event.at,
                    TcpState::Close,
                    Cause::Disconnect,
                    changes,
                );
            }
        }
        let mut conn = Conn::new(
            change.tuple,
            TcpState::Close,
            Entered::before(event.at),
            event.at,
        );
        conn.generation = generation;
        conn.role = Some(Role::Active);
        conn.acquired = change
            .actor
            .map(|actor| Box::new(Acquired { actor, fd: None }));
        self.transition(
            event.cookie,
            conn,
            event.at,
            change.new,
            Cause::Connect,
            changes,
        );
    }

    fn moves(&mut self, event: &Event, change: &StateChange, changes: &mut Vec<Change>) {
        let cookie = event.cookie;
        let born = self.births.remove(&event.sk);
        let mut conn = match self.conns.remove(&cookie) {
            Some(conn) => conn,
            None => self.first_seen(event, change, born, changes),
        };
        if change.tuple.local.port() != 0 && change.tuple.remote.port() != 0 {
            conn.tuple = change.tuple;
            if !self.options.filter.selects_tuple(&conn.tuple) {
                // Its ends were not known before.
                self.due.remove(self.due_at(&conn), cookie);
                return;
            }
        }
        if change.flags & STATE_NO_SOCKET == 0 && conn.role == Some(Role::Unaccepted) {
            conn.role = Some(Role::Passive);
        } else if change.flags & (STATE_NO_SOCKET | STATE_DEAD) == STATE_NO_SOCKET
            && conn.role == Some(Role::Passive)
            && conn.acquired.is_none()
        {
            conn.role = Some(Role::Unaccepted);
        }
        if conn.state != change.old && !(conn.mini && change.new == TcpState::Close) {
            self.resync(cookie, &mut conn, event.at, change.old, changes);
        }
        let cause = cause::of_change(change);
        let released = match change.flags & STATE_EXITING != 0 {
            true => Released::Exited,
            false => Released::Closed,
        };
        if matches!(
            cause,
            Cause::Close | Cause::Exit | Cause::ResetSent | Cause::Shutdown
        ) {
            self.world.stacks.released(cookie, event.at, released);
        }
        if matches!(cause, Cause::Close | Cause::Exit | Cause::ResetSent) {
            conn.released(change.actor);
        } else if cause == Cause::Shutdown && conn.acquired.is_none() {
            // Whoever shuts it down has it.
            let acquired = change.actor.map(|actor| Acquired { actor, fd: None });
            conn.acquired = acquired.map(Box::new);
        }
        if change.new == TcpState::Close {
            self.closes(event, change, conn, cause, changes);
        } else if change.old == change.new {
            conn.closed = true;
            conn.touched = event.at;
            self.conns.insert(cookie, conn);
        } else {
            self.transition(cookie, conn, event.at, change.new, cause, changes);
        }
    }

    /// A connection whose beginning was not seen, or was not asked for.
    fn first_seen(
        &mut self,
        event: &Event,
        change: &StateChange,
        born: Option<Birth>,
        changes: &mut Vec<Change>,
    ) -> Box<Conn> {
        let born = born.filter(|b| (change.old == TcpState::SynRecv) == b.connected_by.is_none());
        let entered = born.map_or(Entered::before(event.at), |b| Entered::at(b.at));
        let mut conn = Conn::new(change.tuple, change.old, entered, event.at);
        if let Some(actor) = born.and_then(|b| b.connected_by) {
            conn.role = Some(Role::Active);
            conn.acquired = Some(Box::new(Acquired { actor, fd: None }));
            return conn;
        }
        if change.old == TcpState::SynRecv || self.sweep.complete() {
            // Connects are seen and older sockets were listed, so this one was accepted.
            conn.role = Some(Role::Passive);
        }
        let told = self.tells(TcpState::Listen, TcpState::SynRecv);
        if let Some(Birth { at, .. }) = born.filter(|_| told) {
            let mut view = conn.view(event.cookie, at, &self.world);
            view.state = TcpState::Listen;
            view.age = crate::time::Age::Unknown;
            if self.options.filter.selects(&view) {
                let (next, cause) = (TcpState::SynRecv, Cause::Handshake);
                changes.push(Change::Transition { view, next, cause });
            }
        }
        conn
    }

    /// The connection is in another state than was believed: a transition was not seen. That is
    /// an anomaly only if it had to be seen.
    fn resync(
        &mut self,
        cookie: u64,
        conn: &mut Conn,
        at: Mono,
        state: TcpState,
        changes: &mut Vec<Change>,
    ) {
        let watched = self.options.filter.states;
        let followed = self.tells(conn.state, state);
        if followed || watched.contains(conn.state) || watched.contains(state) {
            self.anomalies += u64::from(self.is_loss(conn));
            let last = conn.touched;
            self.leave(cookie, conn, at, state, Cause::EndNotSeen, changes);
            let entered = Entered::between(Some(last), at);
            self.enter(cookie, conn, state, entered, changes);
        } else {
            conn.state = state;
            conn.entered = Entered::before(at);
        }
    }

    /// X -> CLOSE: the full socket is gone, or dead with its file still open. If a minisocket
    /// took over, it was armed just before, and the connection lives on in it.
    fn closes(
        &mut self,
        event: &Event,
        change: &StateChange,
        mut conn: Box<Conn>,
        cause: Cause,
        changes: &mut Vec<Change>,
    ) {
        let cookie = event.cookie;
        if conn.mini {
            conn.touched = event.at;
            self.conns.insert(cookie, conn);
            return;
        }
        let open = STATE_NO_SOCKET | STATE_LAST_FPUT | STATE_DEAD;
        conn.fd_open = change.flags & open == 0 && cause != Cause::ResetSent;
        let to_minisocket = matches!(change.old, TcpState::FinWait2 | TcpState::Closing)
            && change.err == 0
            && match cause {
                Cause::NoLinger2 | Cause::Disconnect => false,
                // close() with unread data or SO_LINGER 0; else it tells of itself first.
                Cause::ResetSent => conn.closed,
                _ => true,
            };
        let cause = match self.options.minisockets {
            Minisockets::Seen if to_minisocket => Cause::TimeWaitOverflow,
            // A minisocket lives on where nothing is seen of it: dumps will tell.
            Minisockets::Sampled if to_minisocket => {
                conn.mini = true;
                conn.touched = event.at;
                self.conns.insert(cookie, conn);
                return;
            }
            _ => cause,
        };
        self.conns.insert(cookie, conn);
        self.end(cookie, event.at, TcpState::Close, cause, changes);
    }

    pub(super) fn accepted(
        &mut self,
        event: &Event,
        tuple: Tuple,
        actor: Actor,
        fd: Option<u32>,
        state: TcpState,
        changes: &mut Vec<Change>,
    ) {
        self.births.remove(&event.sk);
        if !self.options.filter.selects_tuple(&tuple) {
            return;
        }
        let known = self.conns.remove(&event.cookie);
        if known.is_none() && state == TcpState::Close {
            // It was reset in the queue: nothing follows.
            return;
        }
        let mut conn = known.unwrap_or_else(|| {
            let entered = Entered::before(event.at);
            let mut conn = Conn::new(tuple, state, entered, event.at);
            self.enter(event.cookie, &mut conn, state, entered, changes);
            conn
        });
        if conn.role != Some(Role::Active) {
            conn.role = Some(Role::Passive);
        }
        conn.acquired = Some(Box::new(Acquired { actor, fd }));
        conn.tuple = tuple;
        self.conns.insert(event.cookie, conn);
        self.reconsider(event.cookie);
    }

    pub(super) fn eof(&mut self, event: &Event, actor: Actor) {
        if let Some(conn) = self.conns.get_mut(&event.cookie) {
            conn.eof_read = true;
            // Who reads has it: the only witness of a connection accepted through io_uring.
            if conn.acquired.is_none() {
                conn.acquired = Some(Box::new(Acquired { actor, fd: None }));
            }
        }
    }

    /// The last that is heard of a dead socket whose descriptor was open.
    pub(super) fn close(
        &mut self,
        event: &Event,
        actor: Actor,
        exiting: bool,
        changes: &mut Vec<Change>,
    ) {
        let Some(mut conn) = self.dead.remove(&event.cookie) else {
            return;
        };
        conn.released(Some(actor));
        if !self.tells(TcpState::Close, TcpState::Close) {
            return;
        }
        let view = conn.view(event.cookie, event.at, &self.world);
        if self.options.filter.selects(&view) {
            let next = TcpState::Close;
            let cause = match exiting {
                true => Cause::Exit,
                false => Cause::Close,
            };
            changes.push(Change::Transition { view, next, cause });
        }
    }

    pub(super) fn mini(
        &mut self,
        event: &Event,
        tuple: Tuple,
        substate: TcpState,
        op: MiniOp,
        changes: &mut Vec<Change>,
    ) {
        let at = event.at;
        if event.cookie == 0 {
            // One that nobody has asked for its cookie was there before the first dump.
            self.anomalies += u64::from(self.sweep.complete());
            return;
        }
        if self.sweep.leaves_out(event.cookie) {
            return;
        }
        if !self.options.filter.selects_tuple(&tuple) {
            return;
        }
        let cookie = self.minisocket_key(event.cookie, &tuple);
        let mut conn = match (self.conns.remove(&cookie), op) {
            (Some(conn), _) => conn,
            // The end of one that was never heard of leaves nothing to follow.
            (
                None,
                MiniOp::Expired
                | MiniOp::Killed { .. }
                | MiniOp::Cancelled { .. }
                | MiniOp::Segment,
            ) => {
                self.parted.ended(cookie);
                return;
            }
            (None, MiniOp::Armed { .. }) => {
                let entered = Entered::before(at);
                let mut conn = Conn::new(tuple, substate, entered, at);
                conn.mini = true;
                self.enter(cookie, &mut conn, substate, entered, changes);
                conn
            }
        };
        if !conn.mini && !matches!(op, MiniOp::Armed { .. }) {
            // Each is armed before anything else befalls it: that was missed.
            if conn.state == substate {
                self.anomalies += u64::from(self.is_loss(&conn));
            } else {
                self.resync(cookie, &mut conn, at, substate, changes);
            }
            conn.mini = true;
        }
        match op {
            // Its last segment: a RST reaches us after the timer that it stopped.
            MiniOp::Segment if conn.dying.is_some() => {
                self.conns.insert(cookie, conn);
            }
            MiniOp::Armed { .. } | MiniOp::Segment => {
                conn.dying = None;
                conn.mini = true;
                if conn.state == substate {
                    conn.touched = at;
                    self.conns.insert(cookie, conn);
                } else {
                    let cause = match substate {
                        TcpState::TimeWait if conn.state == TcpState::Closing => Cause::Acked,
                        TcpState::TimeWait => Cause::PeerFin,
                        _ => Cause::Acked,
                    };
                    self.transition(cookie, conn, at, substate, cause, changes);
                }
            }
            MiniOp::Cancelled { cause, actor } => {
                if cause == Cause::Destroyed && actor.is_some() {
                    conn.touched = at;
                }
                conn.dying = Some((at, cause));
                self.conns.insert(cookie, conn);
                self.dying.push_back((at, cookie));
            }
            MiniOp::Killed { cause } => {
                self.conns.insert(cookie, conn);
                self.end(cookie, at, TcpState::Close, cause, changes);
            }
            MiniOp::Expired => {
                self.conns.insert(cookie, conn);
                self.end(cookie, at, TcpState::Close, Cause::Timer, changes);
            }
        }
    }
}

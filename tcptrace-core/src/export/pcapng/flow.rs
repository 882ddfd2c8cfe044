//! Which segments a transition tells of: who sent what follows from the state machine of TCP.

use crate::cause::Cause;
use crate::state::TcpState;
use crate::tuple::ConnId;

/// The segments of a connection. Where both of its sockets are in the namespace, each tells of the
/// same segments, and the first counts.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    sides: [Side; 2],
    /// One socket is connected to itself: what it receives is what it sent.
    alone: bool,
    /// The last segment's time, ns: no later one has an earlier one.
    pub(super) last_ns: u64,
}

/// One end, and what it has sent.
#[derive(Clone, Copy, Debug, Default)]
struct Side {
    /// Its first sequence number.
    initial: u32,
    socket: Option<ConnId>,
    ended: bool,
    syn: bool,
    fin: bool,
    rst: bool,
    acked_syn: bool,
    acked_fin: bool,
}

/// A segment without data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// By which side.
    pub(super) from: usize,
    pub(super) syn: bool,
    pub(super) fin: bool,
    pub(super) rst: bool,
    pub(super) seq: u32,
    pub(super) ack: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Syn,
    SynAck,
    /// The handshake's last.
    Ack,
    Fin,
    /// The acknowledgment of a FIN.
    FinAck,
    Rst,
}

impl Flow {
    /// A connection of which nothing was seen yet, of a socket with itself or not. Its sequence numbers
    /// follow from its id.
    pub(super) fn new(id: ConnId, alone: bool) -> Flow {
        let side = |n: u64| {
            let seed = id.cookie ^ u64::from(id.generation) << 48 ^ n << 63;
            Side {
                initial: (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32,
                ..Side::default()
            }
        };
        Flow {
            sides: [side(0), side(u64::from(!alone))],
            alone,
            last_ns: 0,
        }
    }

    /// Whether no socket at that side was heard of.
    pub(super) fn takes(&self, local: usize) -> bool {
        self.sides[local].socket.is_none()
    }

    /// This is the socket at that side.
    pub(super) fn join(&mut self, local: usize, id: ConnId) {
        self.sides[local].socket = Some(id);
    }

    /// Whether this very socket was heard of.
    pub(super) fn knows(&self, local: usize, id: ConnId) -> bool {
        self.sides[local].socket == Some(id)
    }

    /// The sockets that were heard of.
    pub(super) fn sockets(&self) -> impl Iterator<Item = ConnId> {
        self.sides.into_iter().filter_map(|side| side.socket)
    }

    /// The socket of that side has ended. Whether all have that were heard of.
    pub(super) fn ended(&mut self, local: usize) -> bool {
        self.sides[local].ended = true;
        self.sides.iter().all(|s| s.ended || s.socket.is_none())
    }

    /// The SYN of one that connects: it is in SYN_SENT.
    pub(super) fn connects(&mut self, local: usize) -> Option<Segment> {
        self.send(local, Kind::Syn)
    }

    /// The segments that the socket on side `local` sent or got when it went from `old` to `next`.
    pub(super) fn moved(
        &mut self,
        local: usize,
        (old, next, cause): (TcpState, TcpState, Cause),
        mini: bool,
    ) -> Vec<Segment> {
        use TcpState::*;
        let peer = 1 - local;
        self.assume(local, old);
        let reset = match cause {
            Cause::ResetReceived | Cause::Refused => Some(peer),
            // `tcp_need_reset` of the kernel.
            Cause::ResetSent
            | Cause::Destroyed
            | Cause::Disconnect
            | Cause::NoLinger2
            | Cause::ListenerClosed
                if !mini
                    && matches!(old, Established | CloseWait | FinWait1 | FinWait2 | SynRecv) =>
            {
                Some(local)
            }
            _ => None,
        };
        if let (Some(from), Close) = (reset, next) {
            return self.send(from, Kind::Rst).into_iter().collect();
        }
        let sent: &[(usize, Kind)] = match (old, next) {
            _ if cause == Cause::EndNotSeen => &[],
            (SynSent, Established) => &[(peer, Kind::SynAck), (local, Kind::Ack)],
            (SynSent, SynRecv) => &[(peer, Kind::Syn), (local, Kind::SynAck)],
            (Listen, SynRecv) => &[(peer, Kind::Syn), (local, Kind::SynAck)],
            (SynRecv, Established) => &[(peer, Kind::Ack)],
            (_, FinWait1 | LastAck) => &[(local, Kind::Fin)],
            (_, CloseWait | Closing) => &[(peer, Kind::Fin), (local, Kind::FinAck)],
            (FinWait1, FinWait2) | (Closing, TimeWait) => &[(peer, Kind::FinAck)],
            (FinWait1, TimeWait) => {
                // One segment did both.
                self.sides[peer].acked_fin = true;
                &[(peer, Kind::Fin), (local, Kind::FinAck)]
            }
            (FinWait2, TimeWait) => &[(peer, Kind::Fin), (local, Kind::FinAck)],
            (LastAck | Closing, Close) if cause == Cause::Acked => &[(peer, Kind::FinAck)],
            _ => &[],
        };
        let sent = sent.iter();
        let mut sent: Vec<Segment> = sent
            .filter_map(|(from, kind)| self.send(*from, *kind))
            .collect();
        sent.retain(|segment| segment.from == local || !self.alone);
        sent
    }

    /// What must have been sent for a socket to be in a state, whether it was seen or not.
    fn assume(&mut self, local: usize, state: TcpState) {
        use TcpState::*;
        let [here, there] = match &mut self.sides {
            [a, b] if local == 0 => [a, b],
            [a, b] => [b, a],
        };
        if matches!(state, Close | Listen | SynSent | NewSynRecv | BoundInactive) {
            return;
        }
        (here.syn, there.syn, here.acked_syn) = (true, true, true);
        if state == SynRecv {
            return;
        }
        there.acked_syn = true;
        here.fin |= matches!(state, FinWait1 | FinWait2 | Closing | TimeWait | LastAck);
        there.acked_fin |= matches!(state, FinWait2 | TimeWait);
        if matches!(state, CloseWait | LastAck | Closing | TimeWait) {
            (there.fin, here.acked_fin) = (true, true);
        }
    }

    /// A segment, unless it was sent before.
    fn send(&mut self, from: usize, kind: Kind) -> Option<Segment> {
        let other = self.sides[1 - from];
        let side = &mut self.sides[from];
        let sent = match kind {
            Kind::Syn => side.syn,
            Kind::SynAck | Kind::Ack => side.acked_syn,
            Kind::Fin => side.fin,
            Kind::FinAck => side.acked_fin,
            Kind::Rst => side.rst || other.rst,
        };
        if sent {
            return None;
        }
        // A SYN with an ACK may follow one without: then it is the same again.
        let next = match (kind, side.syn) {
            (Kind::Syn | Kind::SynAck, _) => side.initial,
            // Of a port where nobody listens.
            (_, false) => 0,
            (_, true) => side.initial.wrapping_add(1 + u32::from(side.fin)),
        };
        match kind {
            Kind::Syn => side.syn = true,
            Kind::SynAck => (side.syn, side.acked_syn) = (true, true),
            Kind::Ack => side.acked_syn = true,
            Kind::Fin => side.fin = true,
            Kind::FinAck => side.acked_fin = true,
            Kind::Rst => side.rst = true,
        }
        let acked = 1 + u32::from(side.acked_fin && other.fin);
        Some(Segment {
            from,
            syn: matches!(kind, Kind::Syn | Kind::SynAck),
            fin: kind == Kind::Fin,
            rst: kind == Kind::Rst,
            seq: next,
            ack: (kind != Kind::Syn).then(|| other.initial.wrapping_add(acked)),
        })
    }
}

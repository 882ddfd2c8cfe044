//! Packets that transitions imply, for Wireshark. All are synthetic, and say so.

mod block;
mod flow;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};

use etherparse::{PacketBuilder, TcpHeader};

use self::flow::{Flow, Segment};
use super::{Format, Lives, Step};
use crate::cause::Cause;
use crate::change::View;
use crate::recording::Session;
use crate::report::summary::Summary;
use crate::state::TcpState;
use crate::text::escape;
use crate::time::{Age, Mono, WallAnchor};
use crate::tracker::Tracker;

/// So many packets wait for others that were sent before them: the SYN of one that connects is told
/// when it has got its port.
const HELD: usize = 65_536;

const TTL: u8 = 64;
const WINDOW: u16 = 65_535;

const COMMENT: &str = "Every packet in this file is synthetic: tcptrace made it from a state \
     transition that it recorded. No packet was captured. Times are those of the transitions, \
     sequence numbers are made up, and data is left out.";

/// The states that a socket left and entered, and why.
type Move = (TcpState, TcpState, Cause);

/// Its SYN was sent then.
const CONNECTS: Move = (TcpState::Close, TcpState::SynSent, Cause::Connect);

/// pcapng with one interface per network namespace.
#[derive(Default)]
pub struct Pcapng {
    anchor: WallAnchor,
    /// By namespace.
    interfaces: BTreeMap<Option<u32>, u32>,
    flows: Lives<Ends, Flow>,
    /// Packets that are not written yet, by time and by their number.
    held: BTreeMap<(u64, u64), Vec<u8>>,
    packets: u64,
}

/// The namespace of a connection, and its ends, the lesser one first.
type Ends = (Option<u32>, SocketAddr, SocketAddr);

impl Format for Pcapng {
    fn begin(&mut self, session: &Session, out: &mut Vec<u8>) -> io::Result<()> {
        self.anchor = session.anchor;
        let os = format!("Linux {}, {}", session.kernel, session.host);
        let program = format!("tcptrace {}", session.program);
        block::section(COMMENT, &escape(&os), &escape(&program), out);
        Ok(())
    }

    fn moved(&mut self, step: &Step, out: &mut Vec<u8>) -> io::Result<()> {
        let view = step.view;
        let (local, remote) = (view.tuple.local, view.tuple.remote);
        let moot = step.is_of_listener() || view.state == step.next;
        // One that connects has no port yet, or its last connection's.
        let portless = step.next == TcpState::SynSent || local.port() == 0;
        if moot || portless || remote.port() == 0 {
            return Ok(());
        }
        let (ends, side) = ends(view);
        let mut flow = match self.flows.remove(&ends) {
            Some(flow) if flow.knows(side, view.id) => flow,
            // What is left of an older connection between these ends.
            Some(flow) if view.mini && step.next == TcpState::Close => {
                self.flows.insert(ends, flow);
                return Ok(());
            }
            Some(flow) if flow.takes(side) => flow,
            _ => Flow::new(view.id, local == remote),
        };
        flow.join(side, view.id);
        if view.state == TcpState::SynSent {
            self.connects(view, &mut flow, side, out)?;
        }
        let moved = (view.state, step.next, step.cause);
        for segment in flow.moved(side, moved, view.mini) {
            let text = comment(view, moved, segment.from == side);
            self.hold(view, &mut flow, (view.at, segment), &text, out)?;
        }
        if !(step.next == TcpState::Close && flow.ended(side)) {
            self.flows.insert(ends, flow);
        }
        Ok(())
    }

    fn tidy(&mut self, tracker: &Tracker, _: &mut Vec<u8>) -> io::Result<()> {
        let known = |flow: &Flow| flow.sockets().any(|id| tracker.knows(id.cookie));
        self.flows.forgotten(|_, flow| known(flow));
        Ok(())
    }

    fn end(&mut self, tracker: &Tracker, _: &Summary, out: &mut Vec<u8>) -> io::Result<()> {
        for view in tracker.connections() {
            let port = view.tuple.local.port();
            if view.state == TcpState::SynSent && port != 0 && view.id.generation == 0 {
                let mut flow = Flow::new(view.id, false);
                self.connects(&view, &mut flow, ends(&view).1, out)?;
            }
        }
        for packet in std::mem::take(&mut self.held).into_values() {
            out.extend(packet);
        }
        Ok(())
    }
}

impl Pcapng {
    /// The SYN of one that is in SYN_SENT: by now it has a port.
    fn connects(
        &mut self,
        view: &View,
        flow: &mut Flow,
        side: usize,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        let Some(syn) = flow.connects(side) else {
            return Ok(());
        };
        let connected = view.at.minus(view.age.at_least().unwrap_or(0));
        let text = comment(view, CONNECTS, true);
        self.hold(view, flow, (connected, syn), &text, out)
    }

    /// Takes a packet, and writes the oldest if there are too many.
    fn hold(
        &mut self,
        view: &View,
        flow: &mut Flow,
        (at, segment): (Mono, Segment),
        comment: &str,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        let tuple = view.tuple;
        let local = segment.from == ends(view).1;
        let (source, destination) = match local {
            true => (tuple.local, tuple.remote),
            false => (tuple.remote, tuple.local),
        };
        let Some(data) = packet(segment, source, destination)? else {
            return Ok(());
        };
        let wall = u64::try_from(self.anchor.wall_ns(at)).unwrap_or(0);
        flow.last_ns = flow.last_ns.max(wall);
        let interface = self.interface(tuple.netns, out);
        let mut block = Vec::new();
        block::packet(interface, flow.last_ns, &data, comment, &mut block);
        self.packets += 1;
        self.held.insert((flow.last_ns, self.packets), block);
        if self.held.len() > HELD
            && let Some((_, oldest)) = self.held.pop_first()
        {
            out.extend(oldest);
        }
        Ok(())
    }

    fn interface(&mut self, netns: Option<u32>, out: &mut Vec<u8>) -> u32 {
        let next = u32::try_from(self.interfaces.len()).unwrap_or(u32::MAX);
        *self.interfaces.entry(netns).or_insert_with(|| {
            let name = match netns {
                Some(inode) => format!("netns {inode} (synthetic)"),
                None => "netns not known (synthetic)".to_owned(),
            };
            block::interface(&name, out);
            next
        })
    }
}

/// Between which ends a connection is, and which of them is ours.
fn ends(view: &View) -> (Ends, usize) {
    let (local, remote) = (view.tuple.local, view.tuple.remote);
    let ends = (view.tuple.netns, local.min(remote), local.max(remote));
    (ends, usize::from(local > remote))
}

/// `None`: the ends are of two families.
fn packet(
    segment: Segment,
    source: SocketAddr,
    destination: SocketAddr,
) -> io::Result<Option<Vec<u8>>> {
    let mut tcp = TcpHeader::new(source.port(), destination.port(), segment.seq, WINDOW);
    (tcp.syn, tcp.fin, tcp.rst) = (segment.syn, segment.fin, segment.rst);
    if let Some(ack) = segment.ack {
        (tcp.ack, tcp.acknowledgment_number) = (true, ack);
    }
    let builder = match (source.ip(), destination.ip()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => PacketBuilder::ipv4(a.octets(), b.octets(), TTL),
        (IpAddr::V6(a), IpAddr::V6(b)) => PacketBuilder::ipv6(a.octets(), b.octets(), TTL),
        _ => return Ok(None),
    };
    let mut data = Vec::new();
    let written = builder.tcp_header(tcp).write(&mut data, &[]);
    written.map_err(io::Error::other)?;
    Ok(Some(data))
}

/// What the packet was made from: a transition, or the connect() before it.
fn comment(view: &View, (old, next, cause): Move, local: bool) -> String {
    let sent = match local {
        true => "sent",
        false => "received",
    };
    let (end, why) = (view.tuple.local, cause.text());
    let mut text = format!("synthetic: {sent} by {end} when it went {old} -> {next}: {why}");
    if old == view.state {
        match view.age {
            Age::Exact(ns) => text.push_str(&format!("; {} in {old} ({ns} ns)", view.age)),
            Age::Between { .. } => text.push_str(&format!("; {} in {old}, estimated", view.age)),
            Age::Unknown => {}
        }
    }
    if let Some(pid) = view.owner.pid {
        text.push_str(&format!("; pid {pid}"));
    }
    if let Some(comm) = view.owner.comm {
        text.push_str(&format!(" {comm}"));
    }
    text.push_str(&format!("; cause {}; id {}", cause.name(), view.id));
    text
}

//! What a busy host's kernel tells: connections over loopback, both ends, from handshake to close.

use std::net::SocketAddr;

use tcptrace_core::input::{Event, EventBody, Input, MiniOp, StateChange};
use tcptrace_core::owner::{Actor, Comm};
use tcptrace_core::state::TcpState::{self, *};
use tcptrace_core::time::Mono;
use tcptrace_core::tuple::Tuple;

/// The inputs of so many connections: ten state changes, an accept, an end of stream and a
/// minisocket each.
pub(crate) fn inputs(connections: u64) -> Vec<Input> {
    let mut churn = Churn {
        at: 5_000_000_000_000,
        noise: 0x9e37_79b9_7f4a_7c15,
        inputs: Vec::new(),
    };
    for number in 0..connections {
        churn.connection(number);
    }
    churn.inputs
}

struct Churn {
    at: u64,
    noise: u64,
    inputs: Vec<Input>,
}

impl Churn {
    fn random(&mut self, below: u64) -> u64 {
        self.noise ^= self.noise << 13;
        self.noise ^= self.noise >> 7;
        self.noise ^= self.noise << 17;
        self.noise % below
    }

    fn connection(&mut self, number: u64) {
        let slot = self.random(64);
        let host = (number / 28_000 % 200) as u8;
        let client_end = SocketAddr::from(([127, 1, 0, host], (32_768 + number % 28_000) as u16));
        let server_end = SocketAddr::from(([127, 1, 0, 1], 8080));
        let actor = |pid, comm: &str| Actor {
            pid,
            tid: pid,
            start_ns: u64::from(pid) * 1_000_000_007,
            cgroup: 4_242,
            comm: Comm::from_bytes(comm.as_bytes()),
        };
        let end = |cookie, sk, local, remote, actor| Socket {
            cookie,
            sk: 0xffff_9c5e_8123_0000 + sk * 0x940,
            tuple: Tuple::new(local, remote, Some(4_026_531_840)),
            actor,
        };
        let client = end(
            2 * number + 7_000,
            slot,
            client_end,
            server_end,
            actor(4711, "client"),
        );
        let server = end(
            2 * number + 7_001,
            slot + 64,
            server_end,
            client_end,
            actor(800, "server"),
        );
        let unbound = Socket {
            tuple: Tuple::new(
                ([127, 1, 0, host], 0).into(),
                server_end,
                client.tuple.netns,
            ),
            ..client
        };
        let listener = Socket {
            cookie: 0,
            ..server
        };
        self.state(unbound, Close, SynSent, true);
        self.state(listener, Listen, SynRecv, false);
        self.state(server, SynRecv, Established, false);
        self.state(client, SynSent, Established, false);
        let (tuple, actor, state) = (server.tuple, server.actor, Established);
        let fd = Some(5);
        self.event(
            server,
            EventBody::Accept {
                tuple,
                actor,
                fd,
                state,
            },
        );
        self.state(client, Established, FinWait1, true);
        self.state(server, Established, CloseWait, false);
        self.state(client, FinWait1, FinWait2, false);
        self.event(
            server,
            EventBody::Eof {
                actor: server.actor,
            },
        );
        self.state(server, CloseWait, LastAck, true);
        let op = MiniOp::Armed {
            timeout_ns: 60_000_000_000,
        };
        let (tuple, substate) = (client.tuple, TimeWait);
        self.event(
            client,
            EventBody::Mini {
                tuple,
                substate,
                op,
            },
        );
        self.state(client, FinWait2, Close, false);
        self.state(server, LastAck, Close, false);
    }

    fn state(&mut self, socket: Socket, old: TcpState, new: TcpState, local: bool) {
        let change = StateChange {
            tuple: socket.tuple,
            old,
            new,
            flags: if local { 0x11 } else { 0x20 },
            err: 0,
            recv_q: u32::from(new == CloseWait),
            send_q: u32::from(new == FinWait1),
            actor: local.then_some(socket.actor),
        };
        self.event(socket, EventBody::State(change));
    }

    fn event(&mut self, socket: Socket, body: EventBody) {
        self.at += 600 + self.random(4_000);
        let cpu = self.random(2) as u32;
        self.inputs.push(Input::Kernel(Event {
            at: Mono(self.at),
            cpu,
            cookie: socket.cookie,
            sk: socket.sk,
            body,
        }));
    }
}

#[derive(Clone, Copy)]
struct Socket {
    cookie: u64,
    sk: u64,
    tuple: Tuple,
    actor: Actor,
}

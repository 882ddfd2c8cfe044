//! One loopback connection, seen through the attached programs, compared with what we made: a
//! wrong field offset is a refusal and not a wrong number.

use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::thread;
use std::time::{Duration, Instant};

use tcptrace_common::config::{Config, STACKS_COPY};
use tcptrace_common::event::{STATE_LAST_FPUT, STATE_NO_SOCKET};
use tcptrace_core::decode::Decoder;
use tcptrace_core::input::{Event, EventBody};
use tcptrace_core::state::{StateSet, TcpState};
use tcptrace_core::tuple::Tuple;

use super::start::{self, Scope};
use crate::kernel::inspect::Kernel;
use crate::kernel::plan::{Mode, Plan, PlanOptions};
use crate::kernel::probes::{LoadedProgram, Probes};
use crate::netns;

/// How long the kernel may take to tell us of our own connection.
const PATIENCE: Duration = Duration::from_secs(5);
/// And of one of them, before the next is made: on a busy host the ring may have had no room for it.
const ATTEMPT: Duration = Duration::from_millis(500);

/// What was compared, and by which programs.
pub(crate) struct Checked {
    /// In a sentence.
    pub(crate) what: String,
    /// What they are for the kernel.
    pub(crate) programs: Vec<LoadedProgram>,
}

/// Checks the programs of the plan: `Ok` says what was compared, `Err` what differed.
pub(crate) fn run(
    kernel: &mut Kernel,
    plan: &mut Plan,
    asked: &PlanOptions,
) -> Result<Checked, String> {
    let scope = Scope {
        states: StateSet::all(),
        closes: true,
        // The most that the programs may have to do.
        config: Config {
            stacks: STACKS_COPY,
            stack_rate: u32::MAX,
            ..Config::ZERO
        },
        ring_bytes: 1 << 20,
        selected_max: 1,
    };
    let started = start::start(kernel, plan.clone(), asked, &scope);
    let (runs, mut probes) = started.map_err(|e| format!("{e:#}"))?;
    *plan = runs;
    if plan.mode == Mode::Netlink {
        return Err("self-check: the kernel refused every program for state changes".into());
    }
    let decoder = start::decoder(kernel.facts.hz, None);
    let began = Instant::now();
    let (made, seen) = loop {
        // What others did since the programs were attached may fill it.
        probes.drain(usize::MAX, |_| ());
        let made = Made::connect();
        let made = made.map_err(|e| format!("self-check: no loopback connection: {e}"))?;
        let mut seen = Seen::default();
        let connected = Instant::now();
        while !seen.all() && connected.elapsed() < ATTEMPT {
            thread::sleep(Duration::from_millis(5));
            take(&mut probes, &decoder, &made, &mut seen);
        }
        if seen.all() || began.elapsed() >= PATIENCE {
            break (made, seen);
        }
    };
    match seen.all() {
        true => Ok(Checked {
            what: format!(
                "self-check: {} -> {} was seen connecting, accepted and closing, with its \
                 addresses, namespace, cookies, queue, file and process",
                made.tuple.local, made.tuple.remote
            ),
            programs: probes.programs(),
        }),
        false => Err(format!(
            "self-check: a loopback connection {} -> {} was not seen as it was made: {seen:?}; \
             field offsets are wrong for this kernel, or its events do not reach us",
            made.tuple.local, made.tuple.remote
        )),
    }
}

/// A connection of our own, already closed: the client first.
struct Made {
    tuple: Tuple,
    client_cookie: u64,
    server_cookie: u64,
    pid: u32,
}

impl Made {
    fn connect() -> io::Result<Made> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        let (server, _) = listener.accept()?;
        let netns = netns::own().ok().map(|n| n.inode);
        let ends: (SocketAddr, SocketAddr) = (client.local_addr()?, client.peer_addr()?);
        let made = Made {
            tuple: Tuple::new(ends.0, ends.1, netns),
            client_cookie: cookie(&client)?,
            server_cookie: cookie(&server)?,
            pid: std::process::id(),
        };
        drop(client);
        // Returns at the client's FIN, so that the server is closed after it.
        (&server).read_to_end(&mut Vec::new())?;
        Ok(made)
    }
}

fn cookie(socket: &TcpStream) -> io::Result<u64> {
    Ok(rustix::net::sockopt::socket_cookie(socket.as_fd())?)
}

/// What was seen as it should be.
#[derive(Debug, Default)]
struct Seen {
    connect_by_us: bool,
    established: bool,
    accepted_by_us: bool,
    close_by_us: bool,
    peer_fin: bool,
}

impl Seen {
    fn all(&self) -> bool {
        self.connect_by_us
            && self.established
            && self.accepted_by_us
            && self.close_by_us
            && self.peer_fin
    }

    fn event(&mut self, event: &Event, made: &Made) {
        let mirrored = Tuple::new(made.tuple.remote, made.tuple.local, made.tuple.netns);
        match event.body {
            EventBody::State(change) if event.cookie == made.client_cookie => {
                let by_us = change.actor.is_some_and(|a| a.pid == made.pid);
                let exact = change.tuple == made.tuple;
                match change.new {
                    TcpState::SynSent => self.connect_by_us |= by_us,
                    TcpState::Established => self.established |= exact,
                    TcpState::FinWait1 => {
                        let closed = change.flags & (STATE_LAST_FPUT | STATE_NO_SOCKET);
                        self.close_by_us |= by_us && exact && closed == STATE_LAST_FPUT;
                    }
                    _ => {}
                }
            }
            EventBody::State(change) if event.cookie == made.server_cookie => {
                // Nothing was sent: the FIN alone is unread.
                self.peer_fin |= change.new == TcpState::CloseWait
                    && change.tuple == mirrored
                    && change.recv_q == 1;
            }
            EventBody::Accept { tuple, actor, .. } if event.cookie == made.server_cookie => {
                self.accepted_by_us |= tuple == mirrored && actor.pid == made.pid;
            }
            _ => {}
        }
    }
}

fn take(probes: &mut Probes, decoder: &Decoder, made: &Made, seen: &mut Seen) {
    probes.drain(usize::MAX, |record| {
        if let Ok(event) = decoder.decode(record) {
            seen.event(&event, made);
        }
    });
}

//! Bytes of the ring buffer to [`Event`]s: checked, never trusting.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tcptrace_common::{event as abi, tcp};
use zerocopy::FromBytes;

use crate::cause::Cause;
use crate::input::{Event, EventBody, MiniOp, Overflow, StateChange};
use crate::owner::{Actor, Comm};
use crate::state::{TcpState, UnknownState};
use crate::time::Mono;
use crate::tuple::Tuple;

/// What the bytes alone do not tell.
pub struct Decoder {
    /// Ticks per second of the kernel's jiffies.
    pub hz: u64,
    /// The tracer's own process. While it lists who has which file open it has them open as well,
    /// and where their owner closes one then, the kernel closes it in the tracer's name.
    pub observer: Option<u32>,
    /// Says from a kernel stack why a minisocket's timer was stopped.
    pub mini_death: MiniDeath,
}

/// Kernel return addresses, innermost first, and the substate at the death, to the cause.
pub type MiniDeath = Box<dyn Fn(&[u64], TcpState) -> Cause>;

/// Why a record could not be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Fewer bytes than its kind needs.
    #[error("a record of kind {kind} has {have} bytes, less than it needs")]
    Short {
        /// The kind; 0 if even that is missing.
        kind: u16,
        /// Its bytes.
        have: usize,
    },
    /// A kind that this program does not know.
    #[error("unknown record kind {0}")]
    Kind(u16),
    /// An operation that this program does not know.
    #[error("unknown minisocket operation {0}")]
    Op(u8),
    /// An address family that is no IP.
    #[error("unknown address family {0}")]
    Family(u16),
    /// A state that this program does not know.
    #[error(transparent)]
    State(#[from] UnknownState),
}

impl Decoder {
    /// One record.
    pub fn decode(&self, bytes: &[u8]) -> Result<Event, DecodeError> {
        let header: abi::Header = prefix(bytes, 0)?;
        let body = match header.kind {
            abi::KIND_STATE => self.state(bytes)?,
            abi::KIND_ACQUIRE => {
                let record: abi::Acquire = prefix(bytes, header.kind)?;
                EventBody::Accept {
                    tuple: tuple(&record.tuple)?,
                    actor: actor(&record.actor),
                    fd: (record.fd != abi::NO_FD).then_some(record.fd),
                    state: TcpState::try_from(record.state as u8)?,
                }
            }
            abi::KIND_MINI => self.mini(bytes)?,
            abi::KIND_EOF => {
                let record: abi::Eof = prefix(bytes, header.kind)?;
                EventBody::Eof {
                    actor: actor(&record.actor),
                }
            }
            abi::KIND_CLOSE => {
                let record: abi::Close = prefix(bytes, header.kind)?;
                EventBody::Close {
                    actor: actor(&record.actor),
                    exiting: record.exiting != 0,
                }
            }
            abi::KIND_LEFT_OUT => EventBody::LeftOut,
            kind => return Err(DecodeError::Kind(kind)),
        };
        Ok(Event {
            at: Mono(header.ts),
            cpu: header.cpu,
            cookie: header.cookie,
            sk: header.sk,
            body,
        })
    }

    fn state(&self, bytes: &[u8]) -> Result<EventBody, DecodeError> {
        let record: abi::State = prefix(bytes, abi::KIND_STATE)?;
        let actor = match record.flags & abi::STATE_ACTOR != 0 {
            true => Some(actor(
                &prefix::<abi::StateBy>(bytes, abi::KIND_STATE)?.actor,
            )),
            false => None,
        };
        let actor = actor.filter(|actor| Some(actor.pid) != self.observer);
        Ok(EventBody::State(StateChange {
            tuple: tuple(&record.tuple)?,
            old: TcpState::try_from(record.old)?,
            new: TcpState::try_from(record.new)?,
            flags: record.flags,
            err: record.err,
            recv_q: record.recv_q,
            send_q: record.send_q,
            actor,
        }))
    }

    fn cause(&self, stopped: &abi::MiniStopped, substate: TcpState) -> Cause {
        let stack = &stopped.stack;
        let depth = stack.iter().position(|ip| *ip == 0).unwrap_or(stack.len());
        (self.mini_death)(&stack[..depth], substate)
    }

    fn mini(&self, bytes: &[u8]) -> Result<EventBody, DecodeError> {
        let record: abi::Mini = prefix(bytes, abi::KIND_MINI)?;
        let substate = TcpState::try_from(record.substate)?;
        let op = match record.op {
            abi::MINI_ARMED => MiniOp::Armed {
                timeout_ns: u64::from(record.timeout_jiffies) * 1_000_000_000 / self.hz.max(1),
            },
            abi::MINI_KILLED => {
                let full: abi::MiniStopped = prefix(bytes, abi::KIND_MINI)?;
                MiniOp::Killed {
                    cause: self.cause(&full, substate),
                }
            }
            abi::MINI_CANCELLED => {
                let full: abi::MiniStopped = prefix(bytes, abi::KIND_MINI)?;
                let cause = self.cause(&full, substate);
                let local = matches!(cause, Cause::ReusedByConnect | Cause::Destroyed);
                MiniOp::Cancelled {
                    cause,
                    actor: local.then(|| actor(&full.actor)),
                }
            }
            abi::MINI_EXPIRED => MiniOp::Expired,
            abi::MINI_SEGMENT => MiniOp::Segment,
            op => return Err(DecodeError::Op(op)),
        };
        Ok(EventBody::Mini {
            tuple: tuple(&record.tuple)?,
            substate,
            op,
        })
    }
}

/// A value of the map of listeners whose queue was full; `key` is its key.
pub fn overflow(key: u64, value: &abi::Overflow) -> Result<Overflow, DecodeError> {
    Ok(Overflow {
        at: Mono(value.last),
        first: Mono(value.first),
        cookie: key,
        tuple: tuple(&value.tuple)?,
        dropped: value.dropped,
        queue: value.queue,
        limit: value.limit,
    })
}

fn prefix<T: FromBytes>(bytes: &[u8], kind: u16) -> Result<T, DecodeError> {
    match T::read_from_prefix(bytes) {
        Ok((record, _)) => Ok(record),
        Err(_) => Err(DecodeError::Short {
            kind,
            have: bytes.len(),
        }),
    }
}

fn tuple(raw: &abi::Tuple) -> Result<Tuple, DecodeError> {
    let ip = |bytes: [u8; 16]| match raw.family {
        tcp::AF_INET => Ok(IpAddr::V4(Ipv4Addr::new(
            bytes[0], bytes[1], bytes[2], bytes[3],
        ))),
        tcp::AF_INET6 => Ok(IpAddr::V6(Ipv6Addr::from(bytes))),
        family => Err(DecodeError::Family(family)),
    };
    Ok(Tuple::new(
        SocketAddr::new(ip(raw.laddr)?, raw.lport),
        SocketAddr::new(ip(raw.raddr)?, raw.rport),
        (raw.netns != 0).then_some(raw.netns),
    ))
}

fn actor(raw: &abi::Actor) -> Actor {
    Actor {
        pid: raw.tgid,
        tid: raw.tid,
        start_ns: raw.start_ns,
        cgroup: raw.cgroup,
        comm: Comm::from_kernel(raw.comm),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zerocopy::{FromZeros, IntoBytes};

    use super::*;

    fn decoder() -> Decoder {
        Decoder {
            hz: 250,
            observer: None,
            mini_death: Box::new(|_, _| Cause::Unknown),
        }
    }

    fn state_record() -> abi::StateBy {
        let mut record = abi::StateBy::new_zeroed();
        record.state.header.kind = abi::KIND_STATE;
        record.state.header.ts = 7;
        record.state.header.cookie = 0x31ec;
        record.state.tuple.family = tcp::AF_INET6;
        record.state.tuple.laddr = Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets();
        record.state.tuple.lport = 80;
        record.state.old = tcp::CLOSE_WAIT;
        record.state.new = tcp::LAST_ACK;
        record.state.flags = abi::STATE_ACTOR;
        record.actor.tgid = 4711;
        record.actor.comm[..5].copy_from_slice(b"nginx");
        record
    }

    #[test]
    fn a_state_change_is_read_with_its_actor() {
        let event = decoder()
            .decode(state_record().as_bytes())
            .expect("decodes");
        assert_eq!((event.at, event.cookie), (Mono(7), 0x31ec));
        let EventBody::State(change) = event.body else {
            panic!("{event:?}")
        };
        assert_eq!(change.tuple.local.to_string(), "127.0.0.1:80");
        assert_eq!(change.tuple.netns, None);
        let actor = change.actor.expect("has an actor");
        assert_eq!((actor.pid, actor.comm.to_text().as_str()), (4711, "nginx"));
    }

    #[test]
    fn the_tracer_is_not_who_closed_a_socket() {
        let decoder = Decoder {
            observer: Some(4711),
            ..decoder()
        };
        let event = decoder.decode(state_record().as_bytes()).expect("decodes");
        let EventBody::State(change) = event.body else {
            panic!("{event:?}")
        };
        assert_eq!(change.actor, None);
    }

    #[test]
    fn a_record_that_promises_an_actor_must_have_one() {
        let record = state_record();
        assert_eq!(
            decoder().decode(record.state.as_bytes()),
            Err(DecodeError::Short {
                kind: abi::KIND_STATE,
                have: 96
            })
        );
    }

    #[test]
    fn jiffies_become_time() {
        let mut record = abi::Mini::new_zeroed();
        record.header.kind = abi::KIND_MINI;
        record.tuple.family = tcp::AF_INET;
        record.op = abi::MINI_ARMED;
        record.substate = tcp::TIME_WAIT;
        record.timeout_jiffies = 15_000;
        let event = decoder().decode(record.as_bytes()).expect("decodes");
        let EventBody::Mini { op, substate, .. } = event.body else {
            panic!("{event:?}")
        };
        assert_eq!(substate, TcpState::TimeWait);
        assert_eq!(
            op,
            MiniOp::Armed {
                timeout_ns: 60_000_000_000
            }
        );
    }

    #[test]
    fn regressions_are_survived() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/regressions/decode");
        let files: Vec<_> = std::fs::read_dir(dir).expect("regressions").collect();
        assert!(!files.is_empty());
        for file in files {
            let bytes = std::fs::read(file.expect("entry").path()).expect("reads");
            let _ = decoder().decode(bytes.get(1..).unwrap_or_default());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0..=abi::KIND_CLOSE + 1) {
            let mut bytes = bytes;
            if bytes.len() >= 2 {
                bytes[..2].copy_from_slice(&kind.to_le_bytes());
            }
            let _ = decoder().decode(&bytes);
        }
    }
}

//! Any input at all.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use proptest::prelude::*;
use tcptrace_core::cause::Cause;
use tcptrace_core::host::{Activity, Blocked, Reading};
use tcptrace_core::input::*;
use tcptrace_core::owner::{Actor, Comm, Holder, Process};
use tcptrace_core::stack::{Frame, FrameKind, Point, Seen, Stack, StackId};
use tcptrace_core::state::{ALL, TcpState};
use tcptrace_core::time::Mono;
use tcptrace_core::tuple::Tuple;

pub(crate) fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        8 => event().prop_map(Input::Kernel),
        1 => loss().prop_map(Input::Lost),
        1 => any::<u64>().prop_map(|at| Input::Tick(Mono(at))),
        3 => snapshot().prop_map(Input::Socket),
        1 => any::<u64>().prop_map(|at| Input::Sweep(Sweep::Begin { at: Mono(at) })),
        1 => sweep_end().prop_map(Input::Sweep),
        1 => overflow().prop_map(Input::Overflow),
        1 => seen().prop_map(Input::Stack),
        3 => definition().prop_map(Input::Define).boxed(),
        1 => any::<u64>().prop_map(|at| Input::End(Mono(at))),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    (any::<u64>(), any::<u32>(), few(), few(), body()).prop_map(|(at, cpu, cookie, sk, body)| {
        Event {
            at: Mono(at),
            cpu,
            cookie,
            sk,
            body,
        }
    })
}

fn body() -> impl Strategy<Value = EventBody> {
    prop_oneof![
        4 => state_change().prop_map(EventBody::State),
        1 => (tuple(), actor(), any::<Option<u32>>(), state()).prop_map(
            |(tuple, actor, fd, state)| EventBody::Accept { tuple, actor, fd, state }
        ),
        2 => (tuple(), state(), mini_op()).prop_map(
            |(tuple, substate, op)| EventBody::Mini { tuple, substate, op }
        ),
        1 => Just(EventBody::LeftOut),
        1 => (actor(), any::<bool>()).prop_map(|(actor, exiting)| EventBody::Close { actor, exiting }),
        1 => actor().prop_map(|actor| EventBody::Eof { actor }),
    ]
}

fn state_change() -> impl Strategy<Value = StateChange> {
    let numbers = (any::<u16>(), any::<u32>(), any::<u32>(), any::<u32>());
    (
        tuple(),
        state(),
        state(),
        numbers,
        prop::option::of(actor()),
    )
        .prop_map(
            |(tuple, old, new, (flags, err, recv_q, send_q), actor)| StateChange {
                tuple,
                old,
                new,
                flags,
                err,
                recv_q,
                send_q,
                actor,
            },
        )
}

fn mini_op() -> impl Strategy<Value = MiniOp> {
    prop_oneof![
        any::<u64>().prop_map(|timeout_ns| MiniOp::Armed { timeout_ns }),
        (cause(), prop::option::of(actor()))
            .prop_map(|(cause, actor)| MiniOp::Cancelled { cause, actor }),
        cause().prop_map(|cause| MiniOp::Killed { cause }),
        Just(MiniOp::Expired),
        Just(MiniOp::Segment),
    ]
}

fn loss() -> impl Strategy<Value = Loss> {
    any::<[u64; 9]>().prop_map(
        |[
            ring_full,
            recursion_missed,
            map_full,
            read_faults,
            undecodable,
            mptcp,
            over_budget,
            full,
            unreadable,
        ]| Loss {
            ring_full,
            recursion_missed,
            map_full,
            read_faults,
            undecodable,
            mptcp,
            stacks: StackLoss {
                over_budget,
                full,
                unreadable,
            },
        },
    )
}

fn snapshot() -> impl Strategy<Value = SocketSnapshot> {
    let times = any::<[Option<u32>; 3]>();
    let rest = (
        any::<[u32; 4]>(),
        any::<Option<u64>>(),
        any::<Option<u8>>(),
        any::<Option<u32>>(),
        any::<[bool; 2]>(),
    );
    (any::<u64>(), few(), tuple(), state(), timer(), times, rest).prop_map(
        |(
            at,
            cookie,
            tuple,
            state,
            timer,
            times,
            (numbers, cgroup, shutdown, drops, [mini, mptcp]),
        )| {
            let [inode, uid, recv_q, send_q] = numbers;
            SocketSnapshot {
                at: Mono(at),
                cookie,
                tuple,
                state,
                mini,
                inode,
                uid,
                recv_q,
                send_q,
                timer,
                last_ack_recv_ms: times[0],
                last_data_recv_ms: times[1],
                last_data_sent_ms: times[2],
                cgroup,
                shutdown,
                drops,
                mptcp,
            }
        },
    )
}

fn timer() -> impl Strategy<Value = Timer> {
    prop_oneof![
        Just(Timer::Off),
        any::<u32>().prop_map(|left_ms| Timer::Retransmit { left_ms }),
        any::<u32>().prop_map(|left_ms| Timer::Keepalive { left_ms }),
        any::<u32>().prop_map(|left_ms| Timer::TimeWait { left_ms }),
        any::<u32>().prop_map(|left_ms| Timer::Probe { left_ms }),
    ]
}

fn overflow() -> impl Strategy<Value = Overflow> {
    let numbers = (any::<u64>(), any::<u32>(), any::<u32>());
    (any::<[u64; 2]>(), few(), tuple(), numbers).prop_map(
        |([at, first], cookie, tuple, (dropped, queue, limit))| Overflow {
            at: Mono(at),
            first: Mono(first),
            cookie,
            tuple,
            dropped,
            queue,
            limit,
        },
    )
}

fn sweep_end() -> impl Strategy<Value = Sweep> {
    let inodes = || prop::collection::vec(any::<u32>(), 0..5);
    (any::<u64>(), inodes(), inodes(), any::<u32>()).prop_map(|(at, netns, partly, hidden)| {
        Sweep::End {
            at: Mono(at),
            netns,
            partly,
            hidden,
        }
    })
}

fn definition() -> impl Strategy<Value = Definition> {
    let holder = (any::<u32>(), any::<u32>(), comm());
    let holder = holder.prop_map(|(pid, fd, comm)| Holder { pid, fd, comm });
    let texts = prop::array::uniform3(prop::option::of(text()));
    prop_oneof![
        (few(), prop::collection::vec(holder, 0..5))
            .prop_map(|(cookie, holders)| Definition::Holders { cookie, holders }),
        (any::<u32>(), any::<u64>(), comm(), texts).prop_map(
            |(pid, start_ns, comm, [cmdline, cgroup, container])| Definition::Process(Process {
                pid,
                start_ns,
                comm,
                cmdline,
                cgroup,
                container,
            })
        ),
        (any::<u32>(), any::<u64>()).prop_map(|(netns, ns)| Definition::FinTimeout { netns, ns }),
        (any::<u32>(), text(), text()).prop_map(|(netns, name, value)| {
            Definition::Reading(Reading { netns, name, value })
        }),
        activity().prop_map(Definition::Activity).boxed(),
        text().prop_map(Definition::Note),
        stack().prop_map(Definition::Stack).boxed(),
    ]
}

fn activity() -> impl Strategy<Value = Activity> {
    let thread = (any::<[u32; 3]>(), comm(), text(), any::<u64>());
    let thread = thread.prop_map(|([tid, fd, inode], comm, call, since)| Blocked {
        tid,
        comm,
        call,
        fd,
        inode,
        since: Mono(since),
    });
    let numbers = (any::<[Option<u64>; 2]>(), any::<u64>(), any::<[u32; 2]>());
    (numbers, prop::collection::vec(thread, 0..4)).prop_map(
        |(([files, files_max], at, [pid, threads]), blocked)| Activity {
            at: Mono(at),
            pid,
            files,
            files_max,
            threads,
            blocked,
        },
    )
}

pub(crate) fn stack() -> impl Strategy<Value = Stack> {
    let kind = prop::sample::select(vec![
        FrameKind::Native,
        FrameKind::Inlined,
        FrameKind::FramePointer,
        FrameKind::Python,
        FrameKind::PythonLater,
    ]);
    let texts = prop::array::uniform4(prop::option::of(text()));
    let frame = (kind, texts, any::<Option<u32>>(), few());
    let frame = frame.prop_map(|(kind, texts, line, address)| {
        let [function, file, module, build_id] = texts;
        Frame {
            function,
            file,
            line,
            module,
            build_id,
            address,
            kind,
        }
    });
    let frames = prop::collection::vec(frame, 0..4);
    (any::<u32>(), frames, prop::option::of(text())).prop_map(|(id, frames, cut)| Stack {
        id: StackId(id),
        frames: frames.into(),
        cut,
    })
}

fn seen() -> impl Strategy<Value = Seen> {
    let point = prop::sample::select(vec![
        Point::Connect,
        Point::Accept,
        Point::Eof,
        Point::Close,
    ]);
    let numbers = (any::<u32>(), any::<u32>(), any::<u32>());
    (any::<u64>(), few(), point, numbers).prop_map(|(at, cookie, point, (pid, tid, stack))| Seen {
        at: Mono(at),
        cookie,
        point,
        pid,
        tid,
        stack: StackId(stack),
    })
}

/// Values that come again, and others.
fn few() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..4, any::<u64>()]
}

fn text() -> impl Strategy<Value = Arc<str>> {
    ".{0,300}".prop_map(|text| Arc::from(text.as_str()))
}

fn state() -> impl Strategy<Value = TcpState> {
    (0..ALL.len()).prop_map(|i| ALL[i])
}

fn cause() -> impl Strategy<Value = Cause> {
    prop::sample::select(vec![
        Cause::Unknown,
        Cause::Timer,
        Cause::Destroyed,
        Cause::ReusedByConnect,
        Cause::EndNotSeen,
    ])
}

fn tuple() -> impl Strategy<Value = Tuple> {
    let end = || {
        let ip = prop_oneof![
            (0u32..3).prop_map(|ip| IpAddr::from(ip.to_be_bytes())),
            any::<[u8; 16]>().prop_map(IpAddr::from),
        ];
        (ip, any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
    };
    (end(), end(), any::<Option<u32>>()).prop_map(|(l, r, netns)| Tuple::new(l, r, netns))
}

fn actor() -> impl Strategy<Value = Actor> {
    (0u32..3, any::<u32>(), few(), few(), comm()).prop_map(|(pid, tid, start_ns, cgroup, comm)| {
        Actor {
            pid,
            tid,
            start_ns,
            cgroup,
            comm,
        }
    })
}

fn comm() -> impl Strategy<Value = Comm> {
    prop_oneof![
        Just(Comm::from_bytes(b"nginx")),
        any::<[u8; 16]>().prop_map(Comm::from_kernel),
    ]
}

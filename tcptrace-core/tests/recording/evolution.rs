//! Files of later versions, made byte by byte as docs/format.md has it, without the encoder.

use tcptrace_core::input::{Event, EventBody, Input, Loss, StackLoss, StateChange, Sweep};
use tcptrace_core::owner::{Actor, Comm};
use tcptrace_core::recording::{Ending, Refusal};
use tcptrace_core::state::TcpState;
use tcptrace_core::time::Mono;
use tcptrace_core::tuple::Tuple;

use crate::{Read, read};

fn preamble(major: u16, minor: u16) -> Vec<u8> {
    let mut bytes = b"\x89TCPT\r\n\x1a".to_vec();
    bytes.extend(major.to_le_bytes());
    bytes.extend(minor.to_le_bytes());
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

/// A block whose payload is not compressed.
pub(crate) fn block(kind: u8, number: u32, records: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = b"\xb1TCB".to_vec();
    bytes.extend([kind, 0, 0, 0]);
    let length = payload.len() as u32;
    for field in [number, records, length, length, crc32fast::hash(payload)] {
        bytes.extend(field.to_le_bytes());
    }
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes.extend(payload);
    bytes
}

/// A number, a length below 128, and as many bytes.
fn item(number: u8, value: &[u8]) -> Vec<u8> {
    [&[number, value.len() as u8], value].concat()
}

fn session() -> Vec<u8> {
    [
        item(1, b"0123456789abcdef"),
        item(2, &[1]),
        item(4, b"full"),
        item(5, &[1]),
        // The kernel had something that we do not know of, and a longer anchor.
        item(99, b"?"),
        item(3, &[[7; 16], [0; 16]].concat()),
    ]
    .concat()
}

#[test]
fn what_a_later_minor_version_adds_is_passed() {
    // The times of the records of known kinds: 5, 5 and 9.
    let times = [3, 10, 0, 8];
    let records = [
        // A tick with a field of a later version.
        item(17, &[42, 42]),
        // A kind that is not known.
        item(77, &[1, 2, 3]),
        // Losses with a tenth total.
        item(16, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        // Losses as they were before stacks.
        item(16, &[2, 2, 3, 4, 5, 6]),
        // A socket in a state that is not known, its ends told in full: 1.2.3.4:1 -> 1.2.3.4:2.
        item(
            18,
            &[
                0, 18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 4, 1, 2, 3, 4, 1, 0, 1, 2, 0, 0, 0, 30, 0,
                0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            ],
        ),
        item(19, &[]),
    ];
    let bytes = [
        preamble(1, 7),
        block(1, 0, 0, &session()),
        block(9, 1, 3, b"a kind of block that is not known"),
        block(
            2,
            2,
            records.len() as u32,
            &[&times[..], &records.concat()].concat(),
        ),
        block(3, 3, 0, &[0, 5, 1, 1, 1]),
    ]
    .concat();
    let read = read(&bytes, 50).expect("it is read");
    let loss = Loss {
        ring_full: 1,
        recursion_missed: 2,
        map_full: 3,
        read_faults: 4,
        undecodable: 5,
        mptcp: 6,
        stacks: StackLoss {
            over_budget: 7,
            full: 8,
            unreadable: 9,
        },
    };
    let before_stacks = Loss {
        ring_full: 2,
        stacks: StackLoss::default(),
        ..loss
    };
    assert_eq!(
        read.inputs,
        [
            Input::Tick(Mono(5)),
            Input::Lost(loss),
            Input::Lost(before_stacks),
            Input::Sweep(Sweep::Begin { at: Mono(9) }),
        ]
    );
    assert_eq!(read.tally.unknown, 3);
    assert_eq!((read.gaps, read.tally.lost_bytes), (0, 0));
    assert_eq!(read.ended, Some(Ending::Ended));
    assert_eq!(read.sessions.len(), 1);
    assert_eq!(read.sessions[0].anchor.mono, Mono(0x0707_0707_0707_0707));
}

/// Columns with their lengths before them.
fn columns(columns: &[&[u8]]) -> Vec<u8> {
    let mut payload = vec![columns.len() as u8];
    for column in columns {
        payload.push(column.len() as u8);
        payload.extend(*column);
    }
    payload
}

/// 1.2.3.4:1 -> 1.2.3.4:2 goes from ESTABLISHED to CLOSE_WAIT twice, by nobody.
#[test]
fn what_a_later_minor_version_adds_to_columns_is_passed() {
    let records = [
        item(17, &[42, 42]),
        item(77, &[1, 2, 3]),
        // A shape with a field of a later version: ESTABLISHED, CLOSE_WAIT, queues of 1 and of its
        // own.
        item(1, &[1, 8, 0, 0, 2, 0, 0, 99]),
        // A shape in a state that is not known, with a task.
        item(5, &[1, 1]),
        item(2, &[1, 30]),
    ];
    let socket_of_bits = 1 | 2 | 4 | 8 | 16 | 32;
    let payload = columns(&[
        &[0, 0, 0, 1, 0, 0, 2, 3],
        // 5, 5, 6, then 1 more each.
        &[0x51, 0x00, 0x11, 0x10, 0x01, 0x11, 0x10, 0x01, 0x11, 0x00],
        &[0, 3, 1, 0, 1, 0],
        // Of the second event on: the newest, one back.
        &[0, 1, 1, 1, 1, 1],
        &[0, socket_of_bits],
        &[16],
        // 0x100, rotated by 3, in zigzag.
        &[64],
        &[1, 0, 1, 0],
        &[1, 0, 2, 0],
        // send_q, send_q, a descriptor of the record that is skipped, and again.
        &[7, 9, 4, 5],
        &[],
        &records.concat(),
        &[4, 1, 2, 3, 4, 8, 8, 0, 0, 1, b'x'],
        b"a column of a later version",
    ]);
    let bytes = [
        preamble(1, 7),
        block(1, 0, 0, &session()),
        block(4, 1, 8, &payload),
    ]
    .concat();
    let read = read(&bytes, 50).expect("it is read");
    assert_eq!((read.gaps, read.tally.lost_bytes), (0, 0));
    let end = |port| std::net::SocketAddr::from(([1, 2, 3, 4], port));
    let tuple = Tuple::new(end(1), end(2), None);
    let change = |at, cpu, send_q| {
        let body = EventBody::State(StateChange {
            tuple,
            old: TcpState::Established,
            new: TcpState::CloseWait,
            flags: 0,
            err: 0,
            recv_q: 1,
            send_q,
            actor: None,
        });
        event(at, cpu, body)
    };
    let close = |at, cpu| {
        let actor = Actor {
            pid: 8,
            tid: 8,
            start_ns: 0,
            cgroup: 0,
            comm: Comm::from_bytes(b"x"),
        };
        let exiting = true;
        event(at, cpu, EventBody::Close { actor, exiting })
    };
    let expected = [
        Input::Tick(Mono(5)),
        change(5, 0, 7),
        change(6, 3, 9),
        close(7, 1),
        close(9, 1),
    ];
    assert_eq!(read.inputs, expected);
    assert_eq!(read.tally.unknown, 3);
}

/// An event of the socket with cookie 8 at the address 0x100.
fn event(at: u64, cpu: u32, body: EventBody) -> Input {
    Input::Kernel(Event {
        at: Mono(at),
        cpu,
        cookie: 8,
        sk: 0x100,
        body,
    })
}

#[test]
fn a_later_major_version_is_refused_in_a_line() {
    let refusal = read(&preamble(2, 0), 50);
    assert_eq!(refusal, Err::<Read, _>(Refusal::Newer(2)));
    assert_eq!(
        Refusal::Newer(2).to_string(),
        "a recording of format 2, and this tcptrace reads up to format 1"
    );
}

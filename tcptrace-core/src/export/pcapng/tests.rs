//! The segments of whole connections.

use etherparse::{NetHeaders, PacketHeaders, TransportHeader};

use super::flow::{Flow, Segment};
use crate::cause::Cause::{
    self, Acked, Connect, Destroyed, EndNotSeen, Handshake, ListenerClosed, PeerFin, Refused,
    ResetReceived, ResetSent, Timer,
};
use crate::state::TcpState::{self, *};
use crate::tuple::ConnId;

const ID: ConnId = ConnId {
    cookie: 7,
    generation: 0,
};

type Moves<'a> = &'a [(usize, TcpState, TcpState, Cause)];

/// `0 S 0 -`, `1 S. 0 1`: side, flags as tcpdump has them, sequence and acknowledgment number from the
/// first of their side.
fn told(moves: Moves) -> Vec<String> {
    let mut flow = Flow::new(ID, false);
    let first = |side| Flow::new(ID, false).connects(side).expect("a SYN").seq;
    let (first, mut lines) = ([first(0), first(1)], Vec::new());
    let mut tell = |segment: Segment| {
        let Segment {
            from,
            syn,
            fin,
            rst,
            seq,
            ack,
        } = segment;
        let flags = [(syn, "S"), (fin, "F"), (rst, "R"), (ack.is_some(), ".")];
        let flags: String = flags.into_iter().filter(|f| f.0).map(|f| f.1).collect();
        let seq = match seq {
            0 => "0!".to_owned(),
            seq => seq.wrapping_sub(first[from]).to_string(),
        };
        let ack = ack.map(|ack| ack.wrapping_sub(first[1 - from]).to_string());
        lines.push(format!("{from} {flags} {seq} {}", ack.unwrap_or_default()));
    };
    for (side, old, next, cause) in moves {
        if *next == SynSent {
            flow.connects(*side).into_iter().for_each(&mut tell);
        }
        let moved = flow.moved(*side, (*old, *next, *cause), *old == TimeWait);
        moved.into_iter().for_each(&mut tell);
    }
    lines
}

#[test]
fn one_socket_tells_of_both_directions() {
    assert_eq!(
        told(&[
            (0, Close, SynSent, Connect),
            (0, SynSent, Established, Handshake),
            (0, Established, FinWait1, Cause::Close),
            (0, FinWait1, FinWait2, Acked),
            (0, FinWait2, TimeWait, PeerFin),
            (0, TimeWait, TcpState::Close, Timer),
        ]),
        [
            "0 S 0 ", "1 S. 0 1", "0 . 1 1", "0 F. 1 1", "1 . 1 2", "1 F. 1 2", "0 . 2 2"
        ]
    );
}

#[test]
fn of_two_sockets_each_segment_is_told_once() {
    assert_eq!(
        told(&[
            (0, Close, SynSent, Connect),
            (1, Listen, SynRecv, Handshake),
            (0, SynSent, Established, Handshake),
            (1, SynRecv, Established, Handshake),
            (0, Established, FinWait1, Cause::Close),
            (1, Established, CloseWait, PeerFin),
            (0, FinWait1, FinWait2, Acked),
            (1, CloseWait, LastAck, Cause::Close),
            (0, FinWait2, TimeWait, PeerFin),
            (1, LastAck, TcpState::Close, Acked),
        ]),
        [
            "0 S 0 ", "1 S. 0 1", "0 . 1 1", "0 F. 1 1", "1 . 1 2", "1 F. 1 2", "0 . 2 2"
        ]
    );
}

#[test]
fn fins_that_cross_acknowledge_no_other() {
    assert_eq!(
        told(&[
            (0, Established, FinWait1, Cause::Close),
            (0, FinWait1, Closing, PeerFin),
            (0, Closing, TimeWait, Acked),
        ]),
        ["0 F. 1 1", "1 F. 1 1", "0 . 2 2", "1 . 2 2"]
    );
}

#[test]
fn resets_come_from_who_sent_them_and_once() {
    for (moves, expected) in [
        (
            &[(0, Established, TcpState::Close, ResetSent)][..],
            &["0 R. 1 1"][..],
        ),
        (
            &[(0, Established, TcpState::Close, ResetReceived)],
            &["1 R. 1 1"],
        ),
        (
            &[
                (0, FinWait2, TcpState::Close, ResetReceived),
                (1, CloseWait, TcpState::Close, ResetSent),
            ],
            &["1 R. 1 2"],
        ),
        (
            &[(1, CloseWait, TcpState::Close, ListenerClosed)],
            &["1 R. 1 2"],
        ),
        (
            &[
                (0, TcpState::Close, SynSent, Connect),
                (0, SynSent, TcpState::Close, Refused),
            ],
            &["0 S 0 ", "1 R. 0! 1"],
        ),
        // Nothing is sent for a minisocket that is destroyed, nor by a timer.
        (&[(0, TimeWait, TcpState::Close, Destroyed)], &[]),
        (&[(0, FinWait2, TcpState::Close, Timer)], &[]),
    ] {
        assert_eq!(told(moves), expected, "{moves:?}");
    }
}

#[test]
fn what_a_socket_sends_to_itself_is_one_segment() {
    let mut flow = Flow::new(ID, true);
    let syn = flow.connects(0).expect("a SYN");
    let again = flow.moved(0, (SynSent, SynRecv, Handshake), false);
    assert_eq!(again.len(), 1);
    assert_eq!((again[0].seq, again[0].ack), (syn.seq, Some(syn.seq + 1)));
    assert!(
        flow.moved(0, (SynRecv, Established, Handshake), false)
            .is_empty()
    );
    let fin = flow.moved(0, (Established, FinWait1, Cause::Close), false);
    assert_eq!((fin[0].seq, fin[0].ack), (syn.seq + 1, Some(syn.seq + 1)));
}

#[test]
fn what_was_not_seen_is_not_made_up() {
    assert_eq!(
        told(&[
            (0, Established, TimeWait, EndNotSeen),
            (0, TimeWait, TcpState::Close, ResetReceived),
        ]),
        ["1 R. 2 2"]
    );
}

#[test]
fn packets_of_both_families_have_the_checksums_that_they_should() {
    let syn = Flow::new(ID, false).connects(0).expect("a SYN");
    for (source, destination) in [
        ("10.0.0.5:40000", "10.0.0.9:443"),
        ("[2001:db8::5]:40000", "[2001:db8::9]:443"),
    ] {
        let end = |text: &str| text.parse().expect("an end");
        let data = super::packet(syn, end(source), end(destination));
        let data = data.expect("a packet").expect("of one family");
        let headers = PacketHeaders::from_ip_slice(&data).expect("headers");
        let Some(TransportHeader::Tcp(tcp)) = headers.transport else {
            panic!("{headers:?}");
        };
        assert!(tcp.syn && !tcp.ack && tcp.sequence_number == syn.seq);
        let expected = match headers.net {
            Some(NetHeaders::Ipv4(ip, _)) => {
                assert_eq!(ip.header_checksum, ip.calc_header_checksum());
                tcp.calc_checksum_ipv4(&ip, &[])
            }
            Some(NetHeaders::Ipv6(ip, _)) => tcp.calc_checksum_ipv6(&ip, &[]),
            other => panic!("{other:?}"),
        };
        assert_eq!(Ok(tcp.checksum), expected, "{source}");
    }
}

//! A listener that nobody accepts from: what its full queue drops is counted, with its owner.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;
use tcptrace_tests::lab::Lab;
use tcptrace_tests::oracle::netstat;
use tcptrace_tests::require;
use tcptrace_tests::tcptrace::{Run, chosen, doctor};

/// Too short for a second SYN.
const ONE_SYN: Duration = Duration::from_millis(200);

#[test]
fn connections_that_a_full_queue_turns_away_are_counted_for_their_listener() {
    require!(root, tracer);
    let lab = Lab::new();
    for at in [format!("{}:0", lab.ip), "[::1]:0".into(), "[::]:0".into()] {
        let mut server = lab.peer();
        let listener = server.act(&format!("listen L {at} 1"));
        let mut to: SocketAddr = listener.local().parse().expect("an address");
        if to.ip().is_unspecified() {
            to.set_ip(lab.ip.into());
        }
        let tracer = lab.watch(&[]);
        let before = netstat::tcp_ext(&lab.ns, "ListenOverflows");
        // Two get in: the queue is full when it has more than its limit.
        let got_in = connect(&lab, to, 2);
        assert_eq!(got_in.len(), 2);
        assert!(connect(&lab, to, 3).is_empty());
        let dropped = netstat::tcp_ext(&lab.ns, "ListenOverflows") - before;
        assert!(dropped >= 3, "{dropped}");
        let run = tracer.stop();
        let told = overflow_of(&run, &listener.id());
        assert_eq!(told["dropped"], dropped, "{}", run.summary);
        assert_eq!(told["pid"], server.pid(), "{}", run.summary);
        assert_eq!(told["local"], listener.local(), "{}", run.summary);
        assert_eq!((&told["recv_q"], &told["send_q"]), (&2.into(), &1.into()));
        let lines = run.events.iter().filter(|e| e.kind() == "overflow");
        let by_line: u64 = lines.map(|e| e.number("dropped")).sum();
        // One that goes on is told every ten seconds; the summary has them all.
        assert!((1..=dropped).contains(&by_line), "{by_line}");
    }
}

/// With TCP_DEFER_ACCEPT the handshake ends with the first data: that is dropped then.
#[test]
fn handshakes_that_find_the_queue_full_are_counted() {
    require!(root, tracer);
    let lab = Lab::new();
    for at in [lab.ip.to_string(), "[::1]".to_owned()] {
        let mut server = lab.peer();
        let listener = server.act(&format!("listen L {at}:0 0"));
        server.act("defer_accept L");
        let to = listener.local().parse().expect("an address");
        let tracer = lab.watch(&[]);
        let before = netstat::tcp_ext(&lab.ns, "ListenOverflows");
        let mut halves = connect(&lab, to, 2);
        for half in &mut halves {
            half.write_all(b"x").expect("a send");
        }
        let dropped = netstat::tcp_ext(&lab.ns, "ListenOverflows") - before;
        assert!(dropped >= 1, "{dropped}");
        // What is sent again is dropped again.
        let run = tracer.stop();
        let after = netstat::tcp_ext(&lab.ns, "ListenOverflows") - before;
        let one = overflow_of(&run, &listener.id());
        let told = one["dropped"].as_u64().expect("a number");
        // An estimate counts the ACKs without data, too.
        let at_most = if one["estimated"] == true {
            u64::MAX
        } else {
            after
        };
        assert!((dropped..=at_most).contains(&told), "{}", run.summary);
    }
}

#[test]
fn what_was_dropped_before_is_not_counted() {
    require!(root, tracer);
    let lab = Lab::new();
    let mut server = lab.peer();
    let listener = server.act(&format!("listen L {}:0 0", lab.ip));
    let to = listener.local().parse().expect("an address");
    let _first = connect(&lab, to, 1);
    assert!(connect(&lab, to, 2).is_empty());
    let tracer = lab.watch(&[]);
    assert_eq!(tracer.stop().summary["overflows"], Value::Array(vec![]));
    let tracer = lab.watch(&["--port", "1"]);
    assert!(connect(&lab, to, 1).is_empty());
    assert_eq!(tracer.stop().summary["overflows"], Value::Array(vec![]));
}

/// The entry of one listener in the summary; an estimate only where nothing counts.
#[track_caller]
fn overflow_of(run: &Run, id: &str) -> Value {
    let all = run.summary["overflows"].as_array().expect("a list");
    let [one] = &all[..] else {
        panic!("not one: {}", run.summary);
    };
    assert_eq!(one["id"], id);
    let sampled = chosen(&doctor(), "overflow") == "derived";
    assert_eq!(one["estimated"], sampled);
    one.clone()
}

/// Tries so many connections, one after the other: those that came to be.
fn connect(lab: &Lab, to: SocketAddr, count: usize) -> Vec<TcpStream> {
    let connect = || TcpStream::connect_timeout(&to, ONE_SYN).ok();
    lab.ns
        .enter(|| (0..count).filter_map(|_| connect()).collect())
}

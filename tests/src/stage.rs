//! A stage for filters: sockets of several kinds, and who is shown which of them.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::lab::{Conn, Lab};
use crate::oracle::ss;
use crate::tcptrace::snapshot;
use crate::truth::Act;

/// Two processes, alice and bob, and sockets in CLOSE_WAIT that belong to them.
#[derive(Debug)]
pub struct Stage {
    /// Where it is.
    pub lab: Lab,
    conn: Conn,
    six: Act,
    sockets: Vec<Leak>,
}

/// A socket in CLOSE_WAIT.
#[derive(Debug)]
pub struct Leak {
    /// The cookie as the tracer writes it.
    pub id: String,
    /// Its own end.
    pub local: SocketAddr,
    /// Its peer's end.
    pub remote: SocketAddr,
    /// As `--role` has it.
    pub role: &'static str,
    /// Whose it is.
    pub pid: u32,
}

/// Arguments, and which sockets are to be shown with them.
pub type Case<'a> = (&'a [&'a str], &'a dyn Fn(&Leak) -> bool);

impl Stage {
    /// Both processes, without sockets yet.
    #[expect(clippy::new_without_default, reason = "it makes a kernel object")]
    pub fn new() -> Stage {
        let lab = Lab::new();
        let (mut alice, mut bob) = (lab.peer(), lab.peer());
        alice.act("name 616c696365");
        bob.act("name 626f62");
        let six = bob.act("listen L6 [::1]:0");
        Stage {
            conn: Conn::between(alice, bob, &lab.ip.to_string()),
            lab,
            six,
            sockets: Vec::new(),
        }
    }

    /// The process id of the one that connects.
    pub fn alice(&self) -> u32 {
        self.conn.client.pid()
    }

    /// The process id of the one that accepts.
    pub fn bob(&self) -> u32 {
        self.conn.server.pid()
    }

    /// The port of bob's listener for IPv4.
    pub fn port(&self) -> u16 {
        self.conn.listener.local.expect("bound").port()
    }

    /// With each filter, `snapshot` shows the sockets that are wanted, and `watch` those of before
    /// its start as well as those of after it.
    #[track_caller]
    pub fn shows(&mut self, cases: &[Case]) {
        self.add();
        let mut watches = Vec::new();
        for (filter, wanted) in cases {
            let args = [&["--state", "close_wait"], *filter].concat();
            let shown = snapshot(&self.lab.ns, &args);
            let shown: BTreeSet<String> = shown.iter().map(|e| e.id().to_owned()).collect();
            assert_eq!(shown, self.ids(wanted), "snapshot {filter:?}");
            let args = [&args[..], &["--min-age", "0"]].concat();
            watches.push(self.lab.watch(&args));
        }
        self.add();
        for ((filter, wanted), watch) in cases.iter().zip(watches) {
            let run = watch.stop();
            let stuck = run.events.iter().filter(|e| e.kind() == "stuck");
            let shown: BTreeSet<String> = stuck.map(|e| e.id().to_owned()).collect();
            let expected = self.ids(wanted);
            assert_eq!(shown, expected, "watch {filter:?}");
            let count = run.count("close_wait", "before") + run.count("close_wait", "entered");
            assert_eq!(count, expected.len() as u64, "{}", run.summary);
        }
    }

    fn ids(&self, wanted: impl Fn(&Leak) -> bool) -> BTreeSet<String> {
        let wanted = self.sockets.iter().filter(|s| wanted(s));
        wanted.map(|s| s.id.clone()).collect()
    }

    /// One more of each kind: accepted by bob over IPv4 and IPv6, connected by alice, and one
    /// in bob's queue.
    #[track_caller]
    pub fn add(&mut self) {
        let n = self.sockets.len();
        let (four, six) = (self.conn.listener.local(), self.six.local());
        for (name, to, listener) in [("S4", &four, "L"), ("S6", &six, "L6")] {
            let Conn { client, server, .. } = &mut self.conn;
            client.act(&format!("connect {name} {to}"));
            let s = server.act(&format!("accept {name}.{n} {listener}"));
            client.act(&format!("close {name}"));
            server.act(&format!("wait {name}.{n} 8"));
            self.note(&s, "passive");
        }
        let Conn { client, server, .. } = &mut self.conn;
        let c = client.act(&format!("connect C.{n} {four}"));
        server.act("accept T L");
        server.act("close T");
        client.act(&format!("wait C.{n} 8"));
        self.note(&c, "active");

        // A listener of its own: the queue of L is needed empty.
        let Conn { client, server, .. } = &mut self.conn;
        let own = server.act(&format!("listen Q.{n} {}:0", self.lab.ip));
        let q = client.act(&format!("connect Q {}", own.local()));
        client.act("close Q");
        ss::wait(&self.lab.ns, &q, "fin_wait2");
        let theirs = ss::sockets(&self.lab.ns);
        let queued = theirs.iter().find(|s| s.remote == q.local());
        let queued = Leak {
            id: queued.expect("in the queue").id.clone(),
            local: q.remote.expect("connected"),
            remote: q.local.expect("bound"),
            role: "unaccepted",
            pid: self.conn.server.pid(),
        };
        self.sockets.push(queued);
    }

    fn note(&mut self, act: &Act, role: &'static str) {
        self.sockets.push(Leak {
            id: act.id(),
            local: act.local.expect("bound"),
            remote: act.remote.expect("connected"),
            role,
            pid: act.pid,
        });
    }
}

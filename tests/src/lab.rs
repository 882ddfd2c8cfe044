//! A laboratory: a network namespace with addresses that no other test uses, and connections
//! between scripted peers in it.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::netns::Netns;
use crate::peer::Peer;
use crate::tcptrace::Tracer;
use crate::truth::Act;

/// A namespace and an address in it.
#[derive(Debug)]
pub struct Lab {
    /// The namespace.
    pub ns: Netns,
    /// A loopback address of this lab alone, so that oracles which see all namespaces can tell
    /// its connections from others. The 254 addresses up to the next lab's are its own too.
    pub ip: Ipv4Addr,
    /// A process that does nothing but be there: who looks for namespaces looks at processes.
    _resident: Peer,
}

impl Lab {
    /// A new one.
    #[expect(clippy::new_without_default, reason = "it makes a kernel object")]
    pub fn new() -> Lab {
        static LABS: AtomicU32 = AtomicU32::new(0);
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let slot = std::process::id().wrapping_mul(31).wrapping_add(number);
        // 127.1.0.0 to 127.254.255.0: 127.0.0.0/16 belongs to everybody.
        let slot = slot % (254 * 256);
        let ip = u32::from(Ipv4Addr::new(127, 1, 0, 1)) + (slot << 8);
        let ns = Netns::new();
        Lab {
            _resident: Peer::start(&ns),
            ns,
            ip: ip.into(),
        }
    }

    /// A scripted peer.
    pub fn peer(&self) -> Peer {
        Peer::start(&self.ns)
    }

    /// `tcptrace watch --json` of this namespace alone, attached.
    #[track_caller]
    pub fn watch(&self, args: &[&str]) -> Tracer {
        let netns = self.ns.inode().to_string();
        let mut all = vec!["--netns", &netns];
        all.extend(args);
        Tracer::watch(&all)
    }

    /// [`Lab::watch`] with every transition of every state.
    #[track_caller]
    pub fn watch_transitions(&self) -> Tracer {
        self.watch(&["--state", "all", "--transitions"])
    }

    /// A connection over IPv4 between two new peers.
    #[track_caller]
    pub fn connect(&self) -> Conn {
        Conn::between(self.peer(), self.peer(), &self.ip.to_string())
    }
}

/// A connection between two peers: C of `client` and S of `server`, accepted from its listener L.
#[derive(Debug)]
pub struct Conn {
    /// The peer that connected.
    pub client: Peer,
    /// The peer that accepted.
    pub server: Peer,
    /// `listen`.
    pub listener: Act,
    /// `connect`.
    pub c: Act,
    /// `accept`.
    pub s: Act,
}

impl Conn {
    /// Lets `client` connect to `server`, which listens on `ip` (an IPv6 address in brackets).
    #[track_caller]
    pub fn between(client: Peer, mut server: Peer, ip: &str) -> Conn {
        let listener = server.act(&format!("listen L {ip}:0"));
        let to = listener.local();
        Conn::to(client, server, listener, &to)
    }

    /// Both sides send their FIN before either sees the other's, so that one of them at least
    /// passes through CLOSING; when this returns, both have left it.
    #[track_caller]
    pub fn cross_fins(&mut self) {
        self.client.act("freeze C");
        self.server.act("freeze S");
        self.client.act("shutdown C wr");
        self.server.act("shutdown S wr");
        self.client.act("thaw C");
        self.server.act("thaw S");
        self.client.act("wait C 7");
        self.server.act("wait S 7");
    }

    /// Lets `client` connect to `to`, where `server` listens as L.
    #[track_caller]
    pub fn to(mut client: Peer, mut server: Peer, listener: Act, to: &str) -> Conn {
        let c = client.act(&format!("connect C {to}"));
        let s = server.act("accept S L");
        Conn {
            client,
            server,
            listener,
            c,
            s,
        }
    }
}

//! The socket to sock_diag: asks, receives, hands out.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};
use tcptrace_common::tcp;
use tcptrace_core::input::SocketSnapshot;
use tcptrace_core::state::StateSet;
use tcptrace_core::tuple::Tuple;
use zerocopy::IntoBytes;

use super::parse::{self, Body, Messages, ParseError};
use super::request::Request;
use super::wire::Name;
use crate::clock;

/// Bytes received at once. `netlink_dump` makes its datagrams as large as the largest buffer
/// that it was read with, but never over 32 KiB: with twice that nothing can be cut off.
const BUFFER: usize = 64 * 1024;

/// Why sock_diag gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiagError {
    /// The socket could not be made.
    #[error(
        "cannot open a sock_diag socket: {0}; the kernel needs CONFIG_INET_DIAG, and a sandbox \
         must allow AF_NETLINK"
    )]
    Open(io::Error),
    /// The request could not be sent.
    #[error("cannot ask sock_diag for the TCP sockets: {0}")]
    Send(io::Error),
    /// The answer could not be received.
    #[error("cannot receive the answer of sock_diag: {0}")]
    Receive(io::Error),
    /// The kernel refused.
    #[error("sock_diag refuses to list TCP sockets: {0}; is the module tcp_diag there?")]
    Refused(io::Error),
    /// The kernel sent more than we can take.
    #[error("sock_diag sent {0} bytes at once, more than the {BUFFER} that netlink may send")]
    Truncated(usize),
    /// The answer could not be read.
    #[error("cannot read the answer of sock_diag: {0}")]
    Malformed(#[from] ParseError),
}

/// What a dump came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dumped {
    /// Sockets given out; one that moved meanwhile may have come twice, with the same cookie.
    pub(crate) sockets: u64,
    /// Answers that could not be read, such as states of a newer kernel.
    pub(crate) undecodable: u64,
    /// The kernel lost messages or says that the dump is not consistent: sockets may be missing.
    pub(crate) interrupted: bool,
}

/// A socket to sock_diag. It answers for the network namespace that it was opened in, whatever
/// namespace its users are in.
#[derive(Debug)]
pub(crate) struct Diag {
    socket: OwnedFd,
    netns: u32,
    seq: u32,
    buffer: Vec<u8>,
}

impl Diag {
    /// Opens it in the namespace of the calling thread, whose inode number is `netns`.
    pub(crate) fn open(netns: u32) -> Result<Diag, DiagError> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(netlink::SOCK_DIAG),
        )
        .map_err(|e| DiagError::Open(e.into()))?;
        Ok(Diag {
            socket,
            netns,
            seq: 0,
            buffer: vec![0; BUFFER],
        })
    }

    /// Inode number of its namespace.
    pub(crate) fn netns(&self) -> u32 {
        self.netns
    }

    /// Gives every TCP socket in `states` to `each`: IPv4, then IPv6; listeners, then sockets
    /// that are only bound (6.8 and later, only if asked for), then connections with
    /// minisockets and half-open requests among them.
    ///
    /// Needs no privilege. All sockets of one datagram (32 KiB) carry the time of its receipt.
    pub(crate) fn dump(
        &mut self,
        states: StateSet,
        each: &mut dyn FnMut(SocketSnapshot),
    ) -> Result<Dumped, DiagError> {
        self.dump_named(states, &mut |s, _| each(s))
    }

    /// The same, with what each is asked for by.
    pub(crate) fn dump_named(
        &mut self,
        states: StateSet,
        each: &mut dyn FnMut(SocketSnapshot, Name),
    ) -> Result<Dumped, DiagError> {
        let mut dumped = Dumped::default();
        for family in [tcp::AF_INET, tcp::AF_INET6] {
            self.seq = self.seq.wrapping_add(1);
            self.send(&Request::dump(family, states, self.seq))?;
            match self.receive_dump(&mut dumped, each) {
                // A kernel without IPv6 has no handler for it.
                Err(DiagError::Refused(e)) if family == tcp::AF_INET6 && is_absent(&e) => {}
                result => result?,
            }
        }
        Ok(dumped)
    }

    /// The one socket with these ends and this cookie; `None` where there is none.
    pub(crate) fn get(
        &mut self,
        tuple: &Tuple,
        cookie: u64,
    ) -> Result<Option<SocketSnapshot>, DiagError> {
        self.seq = self.seq.wrapping_add(1);
        self.one(&Request::get(tuple, cookie, self.seq))
    }

    /// The one socket of this name; `None` where there is none.
    pub(crate) fn look(&mut self, name: &Name) -> Result<Option<SocketSnapshot>, DiagError> {
        self.seq = self.seq.wrapping_add(1);
        self.one(&Request::look(name, self.seq))
    }

    /// Destroys the one socket of this name, or gives what the kernel has against it: `NOENT` where there
    /// is none.
    pub(crate) fn destroy(&mut self, name: &Name) -> Result<Result<(), Errno>, DiagError> {
        self.seq = self.seq.wrapping_add(1);
        match self.ask(&Request::destroy(name, self.seq)) {
            Ok(_) => Ok(Ok(())),
            Err(DiagError::Refused(error)) => match Errno::from_io_error(&error) {
                Some(errno) => Ok(Err(errno)),
                None => Err(DiagError::Refused(error)),
            },
            Err(error) => Err(error),
        }
    }

    /// The socket that is asked for; `None` where there is none.
    fn one(&mut self, request: &Request) -> Result<Option<SocketSnapshot>, DiagError> {
        match self.ask(request) {
            // ENOENT: no such tuple; ESTALE: another cookie.
            Err(DiagError::Refused(error))
                if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESTALE)) =>
            {
                Ok(None)
            }
            answer => answer,
        }
    }

    /// What the kernel answers to the request that was numbered last: a socket, or `None` where it says
    /// only that all is well.
    fn ask(&mut self, request: &Request) -> Result<Option<SocketSnapshot>, DiagError> {
        self.send(request)?;
        loop {
            let len = self.receive()?;
            let at = clock::mono();
            for message in Messages::new(&self.buffer[..len]) {
                let message = message?;
                if message.seq != self.seq {
                    continue;
                }
                match message.body {
                    Body::Socket(payload) => {
                        return Ok(Some(parse::socket(payload, at, self.netns)?));
                    }
                    Body::Done(0) | Body::Error(0) => return Ok(None),
                    Body::Done(errno) | Body::Error(errno) => {
                        return Err(DiagError::Refused(io::Error::from_raw_os_error(errno)));
                    }
                    Body::Overrun | Body::Other => {}
                }
            }
        }
    }

    fn receive_dump(
        &mut self,
        dumped: &mut Dumped,
        each: &mut dyn FnMut(SocketSnapshot, Name),
    ) -> Result<(), DiagError> {
        loop {
            let len = match self.receive() {
                // The kernel says so once and goes on with the dump.
                Err(DiagError::Receive(e)) if e.raw_os_error() == Some(libc::ENOBUFS) => {
                    dumped.interrupted = true;
                    continue;
                }
                result => result?,
            };
            let at = clock::mono();
            for message in Messages::new(&self.buffer[..len]) {
                let message = message?;
                if message.seq != self.seq {
                    continue;
                }
                dumped.interrupted |= message.interrupted;
                match message.body {
                    Body::Socket(payload) => {
                        let socket = parse::socket(payload, at, self.netns);
                        match socket.and_then(|s| Ok((s, parse::name(payload)?))) {
                            Ok((snapshot, name)) => {
                                dumped.sockets += 1;
                                each(snapshot, name);
                            }
                            Err(_) => dumped.undecodable += 1,
                        }
                    }
                    Body::Done(0) => return Ok(()),
                    Body::Done(errno) | Body::Error(errno) if errno != 0 => {
                        return Err(DiagError::Refused(io::Error::from_raw_os_error(errno)));
                    }
                    Body::Overrun => dumped.interrupted = true,
                    Body::Done(_) | Body::Error(_) | Body::Other => {}
                }
            }
        }
    }

    fn send(&self, request: &Request) -> Result<(), DiagError> {
        rustix::net::send(&self.socket, request.as_bytes(), SendFlags::empty())
            .map(drop)
            .map_err(|e| DiagError::Send(e.into()))
    }

    /// Receives one datagram into the buffer and gives its length.
    fn receive(&mut self) -> Result<usize, DiagError> {
        let (_, len) = rustix::io::retry_on_intr(|| {
            rustix::net::recv(&self.socket, self.buffer.as_mut_slice(), RecvFlags::TRUNC)
        })
        .map_err(|e| DiagError::Receive(e.into()))?;
        if len > self.buffer.len() {
            return Err(DiagError::Truncated(len));
        }
        Ok(len)
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::EAFNOSUPPORT | libc::EOPNOTSUPP)
    )
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use tcptrace_core::state::TcpState;

    use super::*;

    /// sock_diag of our own namespace, whatever its number.
    fn diag() -> Diag {
        Diag::open(4).expect("sock_diag")
    }

    fn find(port: u16, states: StateSet) -> Vec<SocketSnapshot> {
        let mut found = Vec::new();
        let dumped = diag().dump(states, &mut |s| {
            if s.tuple.local.port() == port {
                found.push(s);
            }
        });
        let dumped = dumped.expect("a dump");
        assert!(!dumped.interrupted && dumped.undecodable == 0);
        assert!(dumped.sockets >= found.len() as u64);
        found
    }

    #[test]
    fn sockets_of_both_families_are_found() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(any).expect("a listener");
            let addr = listener.local_addr().expect("its address");
            let client = TcpStream::connect(addr).expect("a connection");
            let states = StateSet::of(&[TcpState::Listen, TcpState::Established]);
            let found = find(addr.port(), states);
            assert_eq!(found.len(), 2, "{found:?}");
            assert_eq!(found[0].state, TcpState::Listen);
            assert_eq!(found[1].tuple.remote, client.local_addr().expect("our end"));
            assert_eq!(found[1].inode, 0, "nobody has accepted it");
            assert!(found[1].last_ack_recv_ms.is_some_and(|ms| ms < 60_000));
            assert!(found[0].at <= found[1].at);
            assert_eq!(find(addr.port(), StateSet::of(&[TcpState::CloseWait])), []);
        }
    }

    #[test]
    fn one_socket_is_found_by_its_cookie_only() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let addr = listener.local_addr().expect("its address");
        let _client = TcpStream::connect(addr).expect("a connection");
        let established = find(addr.port(), StateSet::of(&[TcpState::Established]));
        let [wanted] = established[..] else {
            panic!("{established:?}");
        };
        let mut diag = diag();
        let again = diag.get(&wanted.tuple, wanted.cookie).expect("an answer");
        assert_eq!(again.map(|s| s.cookie), Some(wanted.cookie));
        let other = diag.get(&wanted.tuple, wanted.cookie ^ 1);
        assert_eq!(other.expect("an answer"), None);
        let mut named = Vec::new();
        let all = &mut |s: SocketSnapshot, name| named.push((s.cookie, name));
        diag.dump_named(StateSet::all(), all).expect("a dump");
        let (_, name) = named
            .into_iter()
            .find(|(c, _)| *c == wanted.cookie)
            .expect("it");
        let named = diag.look(&name).expect("an answer");
        assert_eq!(named.map(|s| s.tuple), Some(wanted.tuple));
        let mut nowhere = wanted.tuple;
        nowhere.remote.set_port(1);
        assert_eq!(diag.get(&nowhere, wanted.cookie).expect("an answer"), None);
    }
}

//! What `kill` leaves alone, whatever the filters select.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use tcptrace_core::input::SocketSnapshot;
use tcptrace_core::state::TcpState;
use tcptrace_core::tuple::Tuple;

use crate::error::CannotRun;
use crate::proc::ancestors;

/// Why a socket is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Spared {
    /// This session runs over it.
    Session,
    /// A listener, and none were asked for.
    Listener,
    /// A subflow of MPTCP: the kernel's own, under a socket that would not learn of it.
    Subflow,
    /// The kernel finds no socket that is only bound.
    Bound,
}

impl Spared {
    /// The reason, for a person.
    pub(super) fn why(self) -> &'static str {
        match self {
            Spared::Session => "this session may run over it",
            Spared::Listener => "a listener: name it with --state listen",
            Spared::Subflow => "a subflow of MPTCP",
            Spared::Bound => "only bound: the kernel cannot destroy it",
        }
    }

    /// Whether a socket is left alone.
    pub(super) fn judge(s: &SocketSnapshot, session: &Session, listeners: bool) -> Option<Spared> {
        match s.state {
            _ if session.has(&s.tuple) => Some(Spared::Session),
            _ if s.mptcp => Some(Spared::Subflow),
            TcpState::Listen if !listeners => Some(Spared::Listener),
            TcpState::BoundInactive => Some(Spared::Bound),
            _ => None,
        }
    }
}

/// What this process and its ancestors are connected by: sockets that one of them has open, and what
/// SSH_CONNECTION names in what one of them was started with.
#[derive(Debug, Default)]
pub(super) struct Session {
    inodes: BTreeSet<u32>,
    ends: BTreeSet<(SocketAddr, SocketAddr)>,
    /// Ancestors whose sockets may not be looked at.
    hidden: Vec<u32>,
}

impl Session {
    /// Looks at the ancestors.
    pub(super) fn look() -> Session {
        let mut session = Session::default();
        for pid in ancestors::ancestors() {
            match ancestors::sockets(pid) {
                Ok(inodes) => session.inodes.extend(inodes),
                Err(_) => session.hidden.push(pid),
            }
            session.ends.extend(ancestors::ssh_connection(pid));
        }
        session
    }

    /// Learns the ends of a socket that is one of the session's.
    pub(super) fn learn(&mut self, s: &SocketSnapshot) {
        if s.inode != 0 && self.inodes.contains(&s.inode) {
            self.ends.insert((s.tuple.local, s.tuple.remote));
        }
    }

    /// Either end of one of its connections, which may both be on this machine.
    fn has(&self, tuple: &Tuple) -> bool {
        let Tuple { local, remote, .. } = *tuple;
        self.ends.contains(&(local, remote)) || self.ends.contains(&(remote, local))
    }

    /// # Errors
    /// If the session may run over a socket that cannot be known.
    pub(super) fn check(&self) -> Result<(), CannotRun> {
        let Some(pid) = self.hidden.first() else {
            return Ok(());
        };
        Err(CannotRun {
            what: "destroy sockets".to_owned(),
            why: format!(
                "this process runs under process {pid}, whose sockets may not be looked at, so the \
                 session could end itself"
            ),
            fix: "run it with sudo, or with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, too".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn both_ends_of_the_session_are_its_own() {
        let (client, server) = (address("10.0.0.9:51234"), address("10.0.0.1:22"));
        let session = Session {
            ends: BTreeSet::from([(client, server)]),
            ..Session::default()
        };
        assert!(session.has(&Tuple::new(client, server, None)));
        assert!(session.has(&Tuple::new(server, client, Some(4))));
        let other = address("10.0.0.9:51235");
        assert!(!session.has(&Tuple::new(server, other, None)));
    }

    #[test]
    fn who_cannot_be_looked_at_stops_it() {
        assert!(Session::default().check().is_ok());
        let session = Session {
            hidden: vec![7],
            ..Session::default()
        };
        let error = session.check().expect_err("refused");
        assert!(error.to_string().contains("process 7"), "{error}");
    }
}

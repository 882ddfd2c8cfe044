//! What the tracker tells its sinks.

use std::sync::Arc;

use crate::cause::Cause;
use crate::owner::Owner;
use crate::stack::Stack;
use crate::state::TcpState;
use crate::time::{Age, Mono};
use crate::tuple::{ConnId, Role, Tuple};
use crate::verdict::Verdict;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A socket has been in a watched state for the minimum age.
    Stuck(View),
    /// A socket that was reported stuck left that state.
    Resolved {
        /// The socket; `state` and `age` are those of the state that it left.
        view: View,
        /// Where it went.
        next: TcpState,
        /// Why.
        cause: Cause,
    },
    /// A socket changed its state (only where transitions were asked for).
    Transition {
        /// The socket; `state` and `age` are those of the state that it left.
        view: View,
        /// The new state.
        next: TcpState,
        /// Why.
        cause: Cause,
    },
    /// A listener's accept queue was full, for the first time or again.
    Overflow {
        /// The listener: `recv_q` is its queue, `send_q` the limit, when it last happened.
        view: View,
        /// SYNs and last ACKs of handshakes that it dropped since this was last told.
        dropped: u64,
        /// What was dropped for other reasons is in that number.
        estimated: bool,
    },
}

/// A connection as it is shown.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// When.
    pub at: Mono,
    /// The connection.
    pub id: ConnId,
    /// Its ends.
    pub tuple: Tuple,
    /// Who connected to whom.
    pub role: Option<Role>,
    /// The state.
    pub state: TcpState,
    /// How long in it.
    pub age: Age,
    /// A minisocket.
    pub mini: bool,
    /// Whose.
    pub owner: Owner,
    /// Unread bytes, plus one for an unread FIN.
    pub recv_q: Option<u32>,
    /// Unacknowledged bytes.
    pub send_q: Option<u32>,
    /// SO_KEEPALIVE; `None`: not known.
    pub keepalive: Option<bool>,
    /// What the evidence says.
    pub verdict: Option<Verdict>,
    /// Where it was connected or accepted.
    pub acquired_at: Option<Arc<Stack>>,
    /// Where its end was read.
    pub eof_at: Option<Arc<Stack>>,
}

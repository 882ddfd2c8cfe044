//! What tables are grouped by.

use std::str::FromStr;

use crate::cause::Cause;
use crate::change::View;

/// One key of `--by`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupKey {
    /// The state.
    State,
    /// The owner's name.
    Comm,
    /// The owner's process id.
    Pid,
    /// The remote address and port.
    Peer,
    /// The local port.
    Port,
    /// The owner's container.
    Container,
    /// Why the state was left.
    Cause,
}

/// Why a text is no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a grouping key: use state, comm, pid, peer, port, container, cause")]
pub struct GroupKeyError(String);

impl GroupKey {
    /// Its name, which heads its column.
    pub fn name(self) -> &'static str {
        match self {
            GroupKey::State => "state",
            GroupKey::Comm => "comm",
            GroupKey::Pid => "pid",
            GroupKey::Peer => "peer",
            GroupKey::Port => "port",
            GroupKey::Container => "container",
            GroupKey::Cause => "cause",
        }
    }

    /// The value of one socket, `-` where it is not known. Not safe for a terminal.
    pub fn value(self, view: &View, cause: Option<Cause>) -> String {
        let dash = || "-".to_owned();
        match self {
            GroupKey::State => view.state.name().to_owned(),
            GroupKey::Comm => view.owner.comm.map_or_else(dash, |c| c.to_text()),
            GroupKey::Pid => view.owner.pid.map_or_else(dash, |p| p.to_string()),
            GroupKey::Peer => view.tuple.remote.to_string(),
            GroupKey::Port => view.tuple.local.port().to_string(),
            GroupKey::Container => view
                .owner
                .container
                .as_deref()
                .map_or_else(dash, str::to_owned),
            GroupKey::Cause => cause.map_or("open", Cause::name).to_owned(),
        }
    }
}

impl FromStr for GroupKey {
    type Err = GroupKeyError;

    fn from_str(text: &str) -> Result<GroupKey, GroupKeyError> {
        const ALL: [GroupKey; 7] = [
            GroupKey::State,
            GroupKey::Comm,
            GroupKey::Pid,
            GroupKey::Peer,
            GroupKey::Port,
            GroupKey::Container,
            GroupKey::Cause,
        ];
        ALL.into_iter()
            .find(|k| k.name() == text.trim())
            .ok_or_else(|| GroupKeyError(text.into()))
    }
}

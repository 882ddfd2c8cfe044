//! What leaked sockets are grouped by.

use std::fmt;
use std::str::FromStr;

/// What sockets are grouped by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum By {
    /// Where they were connected or accepted.
    #[default]
    Stack,
    /// The owner.
    Pid,
    /// The peer's address, with its port where we connected to it.
    Peer,
    /// The owner's container.
    Container,
}

const BYS: [By; 4] = [By::Stack, By::Pid, By::Peer, By::Container];

impl By {
    /// The name on the command line and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            By::Stack => "stack",
            By::Pid => "pid",
            By::Peer => "peer",
            By::Container => "container",
        }
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Why a text names nothing to group by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is none of these: use stack, pid, peer or container")]
pub struct ByError(String);

impl FromStr for By {
    type Err = ByError;

    fn from_str(text: &str) -> Result<By, ByError> {
        let by = BYS.into_iter().find(|by| by.name() == text);
        by.ok_or_else(|| ByError(text.to_owned()))
    }
}

//! Options of `explain`.

use super::Terminal;
use crate::cli;

/// Options of `explain`.
#[derive(Clone, Debug)]
pub(crate) struct Explain {
    /// Where the output goes.
    pub(crate) terminal: Terminal,
    /// What to explain; `None`: list the topics.
    pub(crate) topic: Option<String>,
    /// JSON lines.
    pub(crate) json: bool,
}

impl Explain {
    /// Resolves what was typed.
    pub(crate) fn resolve(typed: cli::Explain, terminal: Terminal) -> Explain {
        Explain {
            terminal,
            topic: (!typed.topic.is_empty()).then(|| typed.topic.join(" ")),
            json: typed.json,
        }
    }
}

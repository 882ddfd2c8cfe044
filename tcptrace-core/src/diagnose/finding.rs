//! What a finding is.

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

use super::case::Who;

/// What was found, under a name that stays: documented in `docs/output.md`, and a topic of `explain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Id {
    /// We connected, the peer closed first, and the owner does not close.
    CloseWaitClient,
    /// We accepted, the client closed first, and the handler does not close.
    CloseWaitServer,
    /// The client has gone while its connection waits in a listener's queue.
    CloseWaitUnaccepted,
    /// A listener's accept queue is full, or was.
    AcceptQueueFull,
    /// SYNs find no room for a half-open request.
    SynQueueFull,
    /// A thread waits in a write to a peer that does not read.
    BlockedWriter,
    /// connect() finds no free local port.
    PortsExhausted,
    /// It will soon find none.
    PortsNear,
    /// There are very many sockets in TIME_WAIT.
    TimeWaitPressure,
    /// There was no room for a minisocket.
    TimeWaitOverflow,
    /// Closed sockets wait in FIN_WAIT_2 for peers that do not close.
    FinWait2Orphans,
    /// A socket was shut down and not closed, and the peer does not close either.
    HalfClosed,
    /// A process has nearly as many descriptors as it may have.
    FdLimit,
    /// Connections end by RST.
    AbortedCloses,
    /// The peer closes idle connections long before their owner does.
    IdleTimeoutMismatch,
    /// Subflows of MPTCP were left out.
    MptcpNoise,
}

/// Every id.
pub const IDS: [Id; 16] = [
    Id::CloseWaitClient,
    Id::CloseWaitServer,
    Id::CloseWaitUnaccepted,
    Id::AcceptQueueFull,
    Id::SynQueueFull,
    Id::BlockedWriter,
    Id::PortsExhausted,
    Id::PortsNear,
    Id::TimeWaitPressure,
    Id::TimeWaitOverflow,
    Id::FinWait2Orphans,
    Id::HalfClosed,
    Id::FdLimit,
    Id::AbortedCloses,
    Id::IdleTimeoutMismatch,
    Id::MptcpNoise,
];

impl Id {
    /// The name in JSON and in conditions.
    pub fn name(self) -> &'static str {
        match self {
            Id::CloseWaitClient => "close_wait_client",
            Id::CloseWaitServer => "close_wait_server",
            Id::CloseWaitUnaccepted => "close_wait_unaccepted",
            Id::AcceptQueueFull => "accept_queue_full",
            Id::SynQueueFull => "syn_queue_full",
            Id::BlockedWriter => "blocked_writer",
            Id::PortsExhausted => "ports_exhausted",
            Id::PortsNear => "ports_near",
            Id::TimeWaitPressure => "time_wait_pressure",
            Id::TimeWaitOverflow => "time_wait_overflow",
            Id::FinWait2Orphans => "fin_wait2_orphans",
            Id::HalfClosed => "half_closed",
            Id::FdLimit => "fd_limit",
            Id::AbortedCloses => "aborted_closes",
            Id::IdleTimeoutMismatch => "idle_timeout_mismatch",
            Id::MptcpNoise => "mptcp_noise",
        }
    }
}

/// How grave a finding is, the least grave first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing; nothing is wrong.
    Info,
    /// Wrong, and nobody suffers yet.
    Notice,
    /// It will do harm.
    Warning,
    /// It does harm now, or is about to.
    Critical,
}

/// Every severity.
const SEVERITIES: [Severity; 4] = [
    Severity::Info,
    Severity::Notice,
    Severity::Warning,
    Severity::Critical,
];

impl Severity {
    /// The name in JSON and in conditions.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Notice => "notice",
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        }
    }
}

/// What a line of a finding tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Label {
    /// Whose it is.
    Who,
    /// What happened.
    What,
    /// What the application did, and did not.
    App,
    /// What the kernel does about it, and does not.
    Kernel,
    /// Where in the code.
    Where,
    /// What else was seen with it.
    Also,
    /// What helps at once.
    Now,
    /// What mends it.
    Fix,
    /// What does not help here, and why.
    Not,
}

impl Label {
    /// As it is printed.
    pub fn title(self) -> &'static str {
        match self {
            Label::Who => "WHO",
            Label::What => "WHAT",
            Label::App => "APP",
            Label::Kernel => "KERNEL",
            Label::Where => "WHERE",
            Label::Also => "ALSO",
            Label::Now => "DO NOW",
            Label::Fix => "FIX",
            Label::Not => "NOT",
        }
    }

    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Label::Who => "who",
            Label::What => "what",
            Label::App => "app",
            Label::Kernel => "kernel",
            Label::Where => "where",
            Label::Also => "also",
            Label::Now => "now",
            Label::Fix => "fix",
            Label::Not => "not",
        }
    }

    /// Whether it says what to do, and not what is.
    pub fn is_advice(self) -> bool {
        matches!(self, Label::Now | Label::Fix | Label::Not)
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// What.
    pub id: Id,
    /// How grave.
    pub severity: Severity,
    /// In a sentence. Safe to print, as all texts here.
    pub headline: String,
    /// More sentences, in the order in which they are read.
    pub lines: Vec<(Label, String)>,
    /// The numbers behind every sentence.
    pub evidence: Map<String, Value>,
    /// How many sockets it is about.
    pub sockets: u64,
}

impl Finding {
    /// With nothing told yet.
    pub(super) fn new(id: Id, severity: Severity, sockets: u64, headline: String) -> Finding {
        Finding {
            id,
            severity,
            headline,
            lines: Vec::new(),
            evidence: Map::new(),
            sockets,
        }
    }

    /// One more sentence, unless there is nothing to say.
    pub(super) fn say(&mut self, label: Label, text: impl Into<Option<String>>) {
        let text: Option<String> = text.into();
        self.lines.extend(text.map(|text| (label, text)));
    }

    /// The numbers of an owner.
    pub(super) fn owner(&mut self, who: &Who) {
        self.number("pid", who.pid);
        self.number("comm", who.comm.map(|comm| comm.to_text()));
    }

    /// One more number.
    pub(super) fn number(&mut self, name: &str, value: impl Into<Value>) {
        self.evidence.insert(name.to_owned(), value.into());
    }
}

/// Why a text names no severity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no severity: use info, notice, warning or critical")]
pub struct SeverityError(String);

impl FromStr for Severity {
    type Err = SeverityError;

    fn from_str(text: &str) -> Result<Severity, SeverityError> {
        let named = SEVERITIES.into_iter().find(|s| s.name() == text);
        named.ok_or_else(|| SeverityError(text.to_owned()))
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

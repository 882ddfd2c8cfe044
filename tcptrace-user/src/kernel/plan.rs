//! Which mechanism serves which event: a pure function of the facts and the options.
//!
//! [`CANDIDATES`] is the whole knowledge. Attaching decides nothing, it does what the plan says.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use thiserror::Error;

use super::candidates::{CANDIDATES, Row};
use super::capability::{Grant, grant};
use super::facts::{Fact, Facts};
use super::programs::{Attachment, On};

/// What is asked of the plan.
#[derive(Clone, Debug, Default)]
pub(crate) struct PlanOptions {
    /// Use only these; `None`: whatever is best.
    pub(crate) hooks: Option<BTreeSet<Mechanism>>,
    /// Use only these for an event, whatever stands in `hooks`.
    pub(crate) by_event: BTreeMap<Event, BTreeSet<Mechanism>>,
    /// Programs that the kernel refused when they were loaded, and why: what needs them is out.
    pub(crate) refused: BTreeMap<&'static str, String>,
}

impl PlanOptions {
    /// What `--hooks` says: mechanisms, and `EVENT=MECHANISM`.
    ///
    /// # Errors
    /// If a word is neither.
    pub(crate) fn parse<'a>(
        words: impl IntoIterator<Item = &'a str>,
    ) -> Result<PlanOptions, UnknownMechanism> {
        let mut options = PlanOptions::default();
        for word in words {
            match word.split_once('=') {
                None => {
                    let hooks = options.hooks.get_or_insert_default();
                    hooks.insert(word.parse()?);
                }
                Some((event, mechanism)) => {
                    let unknown = || UnknownMechanism(word.to_owned());
                    let event = EVENTS.into_iter().find(|e| e.to_string() == event);
                    let hooks = options.by_event.entry(event.ok_or_else(unknown)?);
                    hooks.or_default().insert(mechanism.parse()?);
                }
            }
        }
        Ok(options)
    }

    fn allows_all(&self) -> bool {
        self.hooks.is_none() && !self.by_event.contains_key(&Event::State)
    }

    fn allows(&self, event: Event, mechanism: Mechanism) -> bool {
        let asked = self.by_event.get(&event).or(self.hooks.as_ref());
        asked.is_none_or(|asked| asked.contains(&mechanism))
    }
}

/// What will be attached, and what was weighed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Plan {
    /// How true the result is.
    pub(crate) mode: Mode,
    /// Every event with its candidates, best first.
    pub(crate) events: Vec<EventPlan>,
    /// What is sampled or derived in this plan, and so marked `~`; empty in mode `full`.
    pub(crate) estimated: Vec<&'static str>,
}

/// No plan, and so no tracing.
#[derive(Clone, Debug, Error, PartialEq, Eq, Serialize)]
#[error("cannot trace here: {why}\n{fix}")]
pub(crate) struct CannotRun {
    /// What is missing, in one sentence.
    pub(crate) why: String,
    /// What to do about it.
    pub(crate) fix: String,
    /// What was weighed.
    pub(crate) events: Vec<EventPlan>,
}

/// How true the result is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    /// Every dwell time is exact, every owner is taken at the source.
    Full,
    /// Something is sampled or derived.
    Partial,
    /// All is sampled with sock_diag, without BPF: every time is an estimate.
    Netlink,
    /// Nothing can be traced here.
    None,
}

const EVENTS: [Event; 8] = [
    Event::State,
    Event::Minisocket,
    Event::Accept,
    Event::Connect,
    Event::Close,
    Event::Eof,
    Event::Overflow,
    Event::Owners,
];

/// What is to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Event {
    /// A socket changed its state.
    State,
    /// A minisocket was born, went from FIN_WAIT_2 to TIME_WAIT, or died.
    Minisocket,
    /// A process got a connection from a listener.
    Accept,
    /// A process connected.
    Connect,
    /// A process closed or shut down.
    Close,
    /// A process read the end of the stream.
    Eof,
    /// A listener's accept queue was full.
    Overflow,
    /// Who holds the sockets that were there before us.
    Owners,
}

/// How an event is had; the name is what `--hooks` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mechanism {
    /// A program on a BTF-typed tracepoint.
    TpBtf,
    /// A program on a raw tracepoint.
    RawTp,
    /// A program on a perf tracepoint.
    Tracepoint,
    /// A program on a function, by a BPF trampoline: its entry or its return.
    Fentry,
    /// A program on a function, by a breakpoint: its entry or its return.
    Kprobe,
    /// A BPF iterator.
    Iter,
    /// `/proc`.
    Proc,
    /// Dumps of sock_diag, again and again.
    Netlink,
    /// Follows from another event; takes nothing of its own.
    Derived,
}

/// One event and the ways to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct EventPlan {
    /// The event.
    pub(crate) event: Event,
    /// Best first.
    pub(crate) candidates: Vec<Candidate>,
}

/// One way to an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Candidate {
    /// The kind of hook.
    pub(crate) mechanism: Mechanism,
    /// What it hangs on, in the kernel's words.
    pub(crate) hooks: &'static [&'static str],
    /// What is to be attached.
    #[serde(skip)]
    pub(crate) programs: &'static [Attachment],
    /// What became of it.
    #[serde(flatten)]
    pub(crate) decision: Decision,
    /// What it costs against the one above it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cost: Option<&'static str>,
}

/// What became of a candidate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "decision", content = "why", rename_all = "snake_case")]
pub(crate) enum Decision {
    /// It is used.
    Chosen,
    /// It would work, and a better one does.
    Spare,
    /// It does not work here.
    Rejected(String),
}

/// Weighs every candidate.
///
/// # Errors
/// When the state changes cannot be had, without which there is nothing to trace.
pub(crate) fn plan(facts: &Facts, options: &PlanOptions) -> Result<Plan, CannotRun> {
    let mut events: Vec<EventPlan> = Vec::new();
    for row in CANDIDATES {
        let why_not = why_not(row, facts, options, &events);
        let mut of_event = events
            .pop_if(|last| last.event == row.event)
            .unwrap_or(EventPlan {
                event: row.event,
                candidates: Vec::new(),
            });
        let decision = match (why_not, of_event.chosen()) {
            (Some(why), _) => Decision::Rejected(why),
            (None, Some(_)) => Decision::Spare,
            (None, None) => Decision::Chosen,
        };
        of_event.candidates.push(Candidate {
            mechanism: row.mechanism,
            hooks: row.hooks,
            programs: row.programs,
            decision,
            cost: row.cost,
        });
        events.push(of_event);
    }
    if let Some(why) = refusal(&events, Event::State) {
        return Err(CannotRun {
            why,
            fix: fix(facts, options),
            events,
        });
    }
    let polls = is_polled(&events);
    let estimated: Vec<_> = match polls {
        true => vec![ALL_SAMPLED],
        false => events.iter().filter_map(EventPlan::estimate).collect(),
    };
    let mode = match (polls, estimated.is_empty()) {
        (true, _) => Mode::Netlink,
        (false, true) => Mode::Full,
        (false, false) => Mode::Partial,
    };
    Ok(Plan {
        mode,
        events,
        estimated,
    })
}

impl Plan {
    /// The chosen way to an event, `None` if there is none.
    pub(crate) fn chosen(&self, event: Event) -> Option<&Candidate> {
        self.events.iter().find(|e| e.event == event)?.chosen()
    }

    /// What is to be attached for an event.
    pub(crate) fn programs(&self, event: Event) -> &'static [Attachment] {
        self.chosen(event).map_or(&[], |c| c.programs)
    }
}

impl EventPlan {
    /// The chosen way, `None` if there is none.
    pub(crate) fn chosen(&self) -> Option<&Candidate> {
        self.candidates
            .iter()
            .find(|c| c.decision == Decision::Chosen)
    }

    /// What is an estimate, with this choice.
    fn estimate(&self) -> Option<&'static str> {
        match (self.event, self.chosen()) {
            (Event::Minisocket, None) => Some(MINISOCKET_SAMPLED),
            (Event::Minisocket, Some(c)) => c.cost,
            (Event::State, Some(c)) if c.mechanism == Mechanism::Tracepoint => c.cost,
            (Event::Accept, Some(c)) if c.mechanism == Mechanism::Kprobe => c.cost,
            (Event::Accept, None) => Some(ACCEPT_SCANNED),
            _ => None,
        }
    }
}

const ALL_SAMPLED: &str = "all times, since sockets are listed with sock_diag at intervals, and what is \
                           shorter is not seen; who connected, accepted or closed is not known, only \
                           who has the socket open";
const MINISOCKET_SAMPLED: &str = "FIN_WAIT_2 and TIME_WAIT of closed sockets are sampled with \
                                  sock_diag: their ends are known to the interval only";
const ACCEPT_SCANNED: &str = "owners of accepted sockets come from scans of the open files: a \
                              socket shorter-lived than a scan has none";

/// The first reason against a candidate; a cause before what follows from it.
fn why_not(
    row: &Row,
    facts: &Facts,
    options: &PlanOptions,
    events: &[EventPlan],
) -> Option<String> {
    let own: &[fn(&Facts) -> &Fact] = match row.mechanism {
        Mechanism::TpBtf => &[
            |f| &f.btf,
            |f| &f.tp_btf,
            |f| &f.ring_buffer,
            |f| &f.offsets,
        ],
        Mechanism::RawTp => &[|f| &f.raw_tp, |f| &f.ring_buffer, |f| &f.offsets],
        Mechanism::Tracepoint => &[|f| &f.tracepoint, |f| &f.ring_buffer, |f| &f.offsets],
        Mechanism::Fentry => &[
            |f| &f.btf,
            |f| &f.fentry,
            |f| &f.ring_buffer,
            |f| &f.offsets,
        ],
        Mechanism::Kprobe => &[|f| &f.kprobe, |f| &f.ring_buffer, |f| &f.offsets],
        Mechanism::Iter => &[|f| &f.btf, |f| &f.offsets],
        Mechanism::Proc | Mechanism::Netlink | Mechanism::Derived => &[],
    };
    let polled = is_polled(events);
    match row.mechanism {
        // Told by the sockets as they are.
        Mechanism::Derived if row.event == Event::Overflow => {}
        Mechanism::Derived if polled && row.event != Event::Eof => {
            return Some("sock_diag tells of no calls".into());
        }
        Mechanism::Derived => return refusal(events, Event::State),
        Mechanism::Proc | Mechanism::Netlink => {}
        _ if polled => return Some("nothing is attached where sockets are polled".into()),
        _ => {}
    }
    // Polling has nothing else to find owners by.
    let implied = row.mechanism == Mechanism::Derived || polled && row.mechanism == Mechanism::Proc;
    if !implied && !options.allows(row.event, row.mechanism) {
        return Some(format!("{} {NOT_ASKED_FOR}", row.mechanism));
    }
    if row.mechanism == Mechanism::Netlink
        && options.allows_all()
        && !facts.may_load()
        && facts.offsets.is_yes()
    {
        return Some("it is no choice where privileges are all that is missing".into());
    }
    let mut needed = own.iter().chain(row.needs).map(|need| need(facts));
    if let Some(why) = needed.find_map(Fact::why_not) {
        return Some(why.to_owned());
    }
    let refused = |(name, why): (&&str, &String)| {
        let needed = row.programs.iter().any(|program| program.may_be(name));
        needed.then(|| why.clone())
    };
    if let Some(why) = options.refused.iter().find_map(refused) {
        return Some(why);
    }
    let mut places = row.programs.iter().map(|program| match program.on {
        On::TpBtf(name) => facts.has_tracepoint(name),
        On::Fentry(name) | On::Fexit(name) | On::Kprobe(name) => facts.has_function(name),
        _ => Fact::Yes,
    });
    places.find_map(|fact| fact.why_not().map(str::to_owned))
}

/// Whether state changes come from dumps alone.
fn is_polled(events: &[EventPlan]) -> bool {
    let state = events.iter().find(|e| e.event == Event::State);
    state
        .and_then(EventPlan::chosen)
        .is_some_and(|c| c.mechanism == Mechanism::Netlink)
}

/// Why an event has no candidate left, `None` if it has one: what stands against the best of
/// those that were asked for.
fn refusal(events: &[EventPlan], event: Event) -> Option<String> {
    let plan = events.iter().find(|e| e.event == event)?;
    if plan.chosen().is_some() {
        return None;
    }
    let mut reasons = plan.candidates.iter().filter_map(|c| match &c.decision {
        Decision::Rejected(why) => Some(why.as_str()),
        _ => None,
    });
    let first = reasons.clone().next();
    let why = reasons.find(|why| !why.ends_with(NOT_ASKED_FOR)).or(first);
    why.map(str::to_owned)
}

/// How the reason ends that the user gave.
const NOT_ASKED_FOR: &str = "is not in --hooks";

/// The ways to state changes.
const STATE: [Mechanism; 3] = [Mechanism::TpBtf, Mechanism::RawTp, Mechanism::Tracepoint];

fn fix(facts: &Facts, options: &PlanOptions) -> String {
    let fix = if !STATE.iter().any(|way| options.allows(Event::State, *way)) {
        "Add tp_btf, raw_tp or tracepoint to --hooks.".into()
    } else if !facts.may_load() {
        let Grant { least, all } = grant(facts, facts.memory_by_cgroup.is_no());
        format!(
            "Run it as root, or grant it once: sudo setcap {least} \"$(command -v tcptrace)\" \
             (with other users' processes and other network namespaces: {all})."
        )
    } else if facts.settings.lockdown.as_deref() == Some("confidentiality") {
        "The kernel is locked down (confidentiality), which forbids BPF to read its memory: boot \
         with lockdown=integrity."
            .into()
    } else if !facts.btf.is_yes() {
        "Take a kernel with CONFIG_DEBUG_INFO_BTF=y, as all large distributions ship.".into()
    } else {
        "Take a kernel of 5.10 or later, outside of a container that filters bpf(2).".into()
    };
    format!(
        "{fix} Without BPF, `tcptrace watch --hooks netlink` polls sock_diag, and `tcptrace \
         snapshot` shows what there is now."
    )
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Mode::Full => "full",
            Mode::Partial => "partial",
            Mode::Netlink => "netlink",
            Mode::None => "none",
        })
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Event::State => "state",
            Event::Minisocket => "minisocket",
            Event::Accept => "accept",
            Event::Connect => "connect",
            Event::Close => "close",
            Event::Eof => "eof",
            Event::Overflow => "overflow",
            Event::Owners => "owners",
        })
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Mechanism::TpBtf => "tp_btf",
            Mechanism::RawTp => "raw_tp",
            Mechanism::Tracepoint => "tracepoint",
            Mechanism::Fentry => "fentry",
            Mechanism::Kprobe => "kprobe",
            Mechanism::Iter => "iter",
            Mechanism::Proc => "proc",
            Mechanism::Netlink => "netlink",
            Mechanism::Derived => "derived",
        })
    }
}

/// A word that is no mechanism.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("no hook is called '{0}': fentry, tp_btf, kprobe, raw_tp, tracepoint, iter, proc, netlink")]
pub(crate) struct UnknownMechanism(String);

impl FromStr for Mechanism {
    type Err = UnknownMechanism;

    fn from_str(word: &str) -> Result<Mechanism, UnknownMechanism> {
        use Mechanism::{Fentry, Iter, Kprobe, Netlink, Proc, RawTp, TpBtf, Tracepoint};
        [
            Fentry, TpBtf, Kprobe, RawTp, Tracepoint, Iter, Proc, Netlink,
        ]
        .into_iter()
        .find(|mechanism| mechanism.to_string() == word)
        .ok_or_else(|| UnknownMechanism(word.to_owned()))
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;

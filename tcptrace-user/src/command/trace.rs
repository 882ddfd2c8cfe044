//! What `watch` and `record` share: a trace of this machine, from the plan to the last input.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use serde_json::json;
use tcptrace_common::config::{Config, FLAG_SELECTED, STACKS_CHAIN, STACKS_COPY};
use tcptrace_core::condition::Condition;
use tcptrace_core::decode::Decoder;
use tcptrace_core::input::{Definition, Input, Loss};
use tcptrace_core::recording::{Capture, Session};
use tcptrace_core::state::TcpState;
use tcptrace_core::time::WallAnchor;
use tcptrace_core::tracker::{Minisockets, Options, Tracker};

use super::running::Running;
use crate::clock;
use crate::companion::Companion;
use crate::end::End;
use crate::error::{CannotRun, Failure, is_broken_pipe};
use crate::kernel::inspect::Kernel;
use crate::kernel::plan::{Event, Mechanism, Mode, Plan, PlanOptions};
use crate::kernel::probes::Probes;
use crate::kernel::sysctl;
use crate::kernel_filter;
use crate::netns;
use crate::options::{StackMode, Trace, sudo_owner};
use crate::pipeline::{Pipeline, Recorded, Sink};
use crate::privileges::{self, Needs};
use crate::recorder::{Destination, Flight, Place, Recorder, Rotate};
use crate::source::dumps::Dumps;
use crate::source::live::{Live, OwnerFilter};
use crate::source::self_check;
use crate::source::stacks::Stacks;
use crate::source::start::{self, RING_BYTES, Scope};
use crate::source::survey::Survey;
use crate::stacks::Namer;
use crate::trigger::Trigger;

/// What fails when the output cannot be written.
pub(super) const WRITE: &str = "cannot write the output";

/// Where a trace is recorded.
pub(super) enum Recording {
    /// In files.
    Files(Destination, Option<Rotate>),
    /// In memory, and in files where this comes to hold or a signal comes.
    Memory(Flight, Option<Condition>),
}

impl Recording {
    /// In one file, where one is wanted beside what is printed.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(super) fn beside(place: Option<&Place>) -> anyhow::Result<Option<Recording>> {
        let destination = place.cloned().map(Destination::open).transpose()?;
        Ok(destination.map(|destination| Recording::Files(destination, None)))
    }
}

/// What is left of a trace when it has ended.
pub(super) struct Traced<S> {
    pub(super) tracker: Tracker,
    pub(super) sink: S,
    pub(super) recorded: Option<Recorded>,
}

/// Traces until the end. The sink is made when everything is attached; `None`: whoever read it went
/// away.
///
/// # Errors
/// [`CannotRun`] if this kernel or these privileges do not allow it; else what failed.
pub(super) fn run<S: Sink>(
    trace: &Trace,
    recording: Option<Recording>,
    companion: Option<&mut Companion>,
    sink: impl FnOnce(WallAnchor) -> io::Result<S>,
) -> anyhow::Result<Option<Traced<S>>> {
    let asked = super::plan_options(&trace.hooks)?;
    let mut kernel = Kernel::inspect(trace.btf.as_deref())?;
    if let (Some(file), Some(why)) = (&trace.btf, kernel.facts.offsets.why_not()) {
        return Err(foreign_btf(file, why.to_owned()).into());
    }
    let mut plan = kernel.plan(&asked).map_err(|refusal| CannotRun {
        what: "cannot trace here".to_owned(),
        why: refusal.why,
        fix: refusal.fix,
    })?;
    if let Some(file) = trace.btf.as_ref().filter(|_| plan.mode != Mode::Netlink) {
        // The kernel's own cannot be wrong.
        self_check::run(&mut kernel, &mut plan, &asked).map_err(|why| foreign_btf(file, why))?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    runtime.block_on(attached(
        trace,
        kernel,
        (plan, &asked),
        recording,
        companion,
        sink,
    ))
}

fn foreign_btf(file: &Path, why: String) -> CannotRun {
    CannotRun {
        what: format!("the BTF {} is not this kernel's", file.display()),
        why,
        fix: format!(
            "give the BTF of this very build, {}; without --btf the kernel's own is taken",
            rustix::system::uname().release().to_string_lossy()
        ),
    }
}

async fn attached<S: Sink>(
    trace: &Trace,
    mut kernel: Kernel,
    (plan, asked): (Plan, &PlanOptions),
    recording: Option<Recording>,
    companion: Option<&mut Companion>,
    sink: impl FnOnce(WallAnchor) -> io::Result<S>,
) -> anyhow::Result<Option<Traced<S>>> {
    // Before anything is attached, so that no signal finds us without a summary.
    let end = End::new()?;
    let trigger = match &recording {
        Some(Recording::Memory(_, condition)) => Some(Trigger::new(condition.clone())?),
        _ => None,
    };
    let anchor = clock::anchor();
    let scope = scope(trace);
    let (plan, mut probes) = match plan.mode {
        Mode::Netlink => (plan, None),
        _ => {
            let (plan, probes) = start::start(&mut kernel, plan, asked, &scope)?;
            // Polling is what is left where the kernel refused every program that was tried.
            let attached = plan.mode != Mode::Netlink;
            (plan, attached.then_some(probes))
        }
    };
    // Whatever takes more privileges than the run does stands above this line.
    let one_file = matches!(&recording, None | Some(Recording::Files(_, None)));
    // A companion's cgroup is removed at the end.
    let new_files = !one_file || companion.is_some();
    let needs = needs(trace, probes.as_ref(), new_files);
    privileges::give_up(needs, || probes.as_mut().is_none_or(Probes::usable))
        .context("cannot give up the privileges that are not needed any more")?;
    let capture = capture(trace, &plan, &scope, probes.as_ref());
    let minisockets = capture.minisockets;
    let (selective, polled_ns) = (capture.selective, capture.polled_ns);
    let tracker = Tracker::new(Options {
        filter: trace.filter.clone(),
        transitions: trace.transitions,
        by: trace.by.clone(),
        minisockets,
        overflows_seen: capture.overflows_seen,
        stacks: capture.stacks,
        ledgers: trace.ledgers,
        selective,
        polled_ns,
        mode: capture.mode.clone(),
    });
    let session = || session(&kernel, &plan, anchor, capture);
    let recorder = match recording {
        None => None,
        Some(Recording::Files(destination, rotate)) => {
            let name = destination.name();
            let begun = Recorder::begin(session(), destination, rotate);
            Some(begun.map_err(|error| cannot_write(&name, error))?)
        }
        Some(Recording::Memory(flight, _)) => Some(Recorder::hold(session(), flight)),
    };
    let mut pipeline = Pipeline::new(recorder, tracker, sink(anchor).context(WRITE)?);
    let untaken = trace.stacks != StackMode::None && probes.is_none();
    let untaken = untaken.then(|| "no stacks are taken: nothing is attached".to_owned());
    for note in notes(&plan).into_iter().chain(untaken) {
        trace.terminal.notice(&note);
        tell(&mut pipeline, &note);
    }
    if trace.terminal.verbose > 0 {
        tell_hooks(trace, &plan);
    }
    let dumps = Dumps {
        minisockets,
        netns: trace.filter.netns.clone(),
        polled_ns,
    };
    let tree = companion.as_ref().and_then(|c| c.cgroup());
    let owner_filter = selective.then(|| owner_filter(trace, tree));
    let survey = trace.survey.then(Survey::default);
    let decoder = Decoder {
        observer: Some(std::process::id()),
        ..start::decoder(kernel.facts.hz, Some(kernel.kallsyms))
    };
    let stacks = match scope.config.stacks != 0 && probes.is_some() {
        true => Some(Stacks::new(
            Namer::start(sudo_owner().map(|(user, _)| user))
                .context("cannot start the thread that names stacks")?,
        )),
        false => None,
    };
    let mut running = Running {
        trace,
        live: Live::new(probes, decoder, owner_filter, dumps, stacks, survey),
        pipeline,
        companion,
        end,
        trigger,
        told: BTreeSet::new(),
    };
    let left = running.follow(plan.mode).await;
    // However it was left, what was seen is recorded to its end.
    running.finish(polled_ns);
    let mut pipeline = running.pipeline;
    let shown = match left {
        Ok(true) => pipeline.pause().context(WRITE),
        left => left,
    };
    let (tracker, sink, recorded) = pipeline.into_parts();
    match (shown, recorded) {
        (Ok(true), recorded) => Ok(Some(Traced {
            tracker,
            sink,
            recorded,
        })),
        (Err(error), _) if !is_broken_pipe(&error) => Err(error),
        // That nobody reads the output is no failure; that the recording is not whole is one.
        (_, Some(Err((name, error)))) => Err(cannot_write(&name, error)),
        (shown, _) => shown.map(|_| None),
    }
}

/// Why a recording is not whole. Whoever reads it from a pipe may have had enough: that is no failure,
/// and stays what it is.
pub(super) fn cannot_write(name: &str, error: io::Error) -> anyhow::Error {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return error.into();
    }
    Failure {
        what: format!("cannot write {name}: {error}"),
        fix: "what was written up to there can be replayed; make room, or give another place"
            .to_owned(),
    }
    .into()
}

/// What a reader of the results has to know goes the way of all inputs.
pub(super) fn tell<S: Sink>(pipeline: &mut Pipeline<S>, note: &str) {
    let note = Definition::Note(Arc::from(note));
    pipeline.feed(&Input::Define(note));
}

fn notes(plan: &Plan) -> Vec<String> {
    let estimated = plan.estimated.iter();
    estimated.map(|s| format!("estimated: {s}")).collect()
}

fn tell_hooks(trace: &Trace, plan: &Plan) {
    let chosen = plan.events.iter();
    for (event, chosen) in chosen.filter_map(|e| Some((e.event, e.chosen()?))) {
        let hooks = chosen.hooks.join(", ");
        let notice = format!("{event}: {} {hooks}", chosen.mechanism);
        trace.terminal.notice(&notice);
    }
}

/// How the inputs come to be.
fn capture(trace: &Trace, plan: &Plan, scope: &Scope, probes: Option<&Probes>) -> Capture {
    let seen = |event| {
        let chosen = probes.and_then(|_| plan.chosen(event));
        chosen.is_some_and(|way| way.mechanism != Mechanism::Derived)
    };
    Capture {
        mode: plan.mode.to_string(),
        minisockets: match (
            start::watches_minisockets(scope.states),
            seen(Event::Minisocket),
        ) {
            (false, _) => Minisockets::Ignored,
            (true, true) => Minisockets::Seen,
            (true, false) => Minisockets::Sampled,
        },
        overflows_seen: seen(Event::Overflow),
        stacks: probes.is_some() && trace.stacks != StackMode::None,
        selective: probes.is_some() && scope.config.flags & FLAG_SELECTED != 0,
        polled_ns: probes.is_none().then_some(trace.interval_ns),
        states: scope.states,
        shown: trace.filter.states,
        min_age_ns: trace.filter.min_age_ns,
        within: trace.filter.of_tuples(),
    }
}

fn session(kernel: &Kernel, plan: &Plan, anchor: WallAnchor, capture: Capture) -> Session {
    let proc = |name: &str| {
        let text = std::fs::read_to_string(Path::new("/proc/sys/kernel").join(name));
        text.unwrap_or_default().trim().to_owned()
    };
    let facts = json!({
        "facts": kernel.facts,
        "plan": plan,
        "sysctls": sysctl::read(Path::new("/proc")),
    });
    // A name that no other recording has: 32 hexadecimal digits, and dashes.
    let digits = proc("random/uuid").replace('-', "");
    let uuid = u128::from_str_radix(&digits, 16).unwrap_or_default();
    Session {
        recording: uuid.to_be_bytes(),
        part: 1,
        anchor,
        capture,
        lost_before: Loss::default(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        host: proc("hostname"),
        kernel: kernel.facts.release.clone(),
        boot_id: proc("random/boot_id"),
        facts: facts.to_string(),
    }
}

/// What is done from here on that takes a privilege.
fn needs(trace: &Trace, probes: Option<&Probes>, new_files: bool) -> Needs {
    let own = netns::own().ok().map(|own| own.inode);
    let asked = &trace.filter.netns;
    Needs {
        other_netns: asked.is_empty() || asked.iter().any(|inode| Some(*inode) != own),
        proc_fd: trace.survey || !probes.is_some_and(Probes::lists_holders),
        new_files,
        stacks: probes.is_some() && trace.stacks != StackMode::None,
    }
}

fn scope(trace: &Trace) -> Scope {
    let mut config = Config::ZERO;
    kernel_filter::push(&trace.filter, &mut config);
    (config.stacks, config.stack_rate) = match trace.stacks {
        StackMode::None => (0, 0),
        StackMode::Auto | StackMode::Dwarf => (STACKS_COPY, trace.stack_rate),
        StackMode::Fp => (STACKS_CHAIN, trace.stack_rate),
    };
    let selects = config.flags & FLAG_SELECTED != 0;
    Scope {
        states: trace.states,
        closes: trace.states.contains(TcpState::Close) || config.stacks != 0,
        config,
        ring_bytes: trace.ring_size.unwrap_or(RING_BYTES),
        selected_max: if selects { selected_max() } else { 1 },
    }
}

/// Room for the selected sockets: those that exist, several times over.
fn selected_max() -> u32 {
    const LEAST: u32 = 1 << 16;
    let text = std::fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let inuse = text
        .lines()
        .find_map(|line| line.strip_prefix("TCP: inuse "))
        .and_then(|rest| rest.split(' ').next()?.parse::<u32>().ok());
    inuse.unwrap_or(0).saturating_mul(4).max(LEAST)
}

/// `tree`: only sockets that were made in this cgroup, where the kernel tells.
fn owner_filter(trace: &Trace, tree: Option<u64>) -> OwnerFilter {
    let pids = trace.filter.pids.clone();
    let within = trace.filter.of_tuples();
    Box::new(move |socket, scan| {
        // The programs would forget it at its next event.
        if !within.selects_tuple(&socket.tuple) {
            return false;
        }
        let held = || scan.of(socket.cookie, Some(socket.inode)).unwrap_or(&[]);
        if let Some(tree) = tree {
            return !socket.mini && socket.cgroup.is_none_or(|cgroup| cgroup == tree);
        }
        // One that nobody holds may be a listener's: the whole filter judges it later.
        if socket.mini && !pids.is_empty() {
            return false;
        }
        pids.is_empty() || socket.inode == 0 || held().iter().any(|h| pids.contains(&h.pid))
    })
}

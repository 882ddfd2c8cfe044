//! `tcptrace watch`: sockets that linger, live, and the summary at the end.

use std::collections::BTreeSet;
use std::io::{self, BufWriter, Stdout, Write};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tcptrace_common::config::{Config, FLAG_SELECTED};
use tcptrace_core::change::Change;
use tcptrace_core::report::json::Line;
use tcptrace_core::report::summary::SummaryLine;
use tcptrace_core::report::summary_text;
use tcptrace_core::report::watch::{Printer, Style};
use tcptrace_core::state::TcpState;
use tcptrace_core::time::{WallAnchor, duration_text};
use tcptrace_core::tracker::{Minisockets, Options, Tracker};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::clock;
use crate::error::CannotRun;
use crate::kernel::inspect::Kernel;
use crate::kernel::plan::{Event, Mechanism, Mode, Plan, PlanOptions, plan};
use crate::kernel::probes::Probes;
use crate::kernel_filter;
use crate::netns;
use crate::options::{Terminal, Watch};
use crate::pipeline::{Pipeline, Sink};
use crate::privileges::{self, Needs};
use crate::source::live::{Dumps, Live, OwnerFilter};
use crate::source::self_check;
use crate::source::start::{self, RING_BYTES, Scope};

/// What fails when the output cannot be written.
const WRITE: &str = "cannot write to standard output";

/// Runs `tcptrace watch`.
///
/// # Errors
/// [`CannotRun`] if this kernel or these privileges do not allow it; else what failed.
pub(crate) fn run(options: &Watch) -> anyhow::Result<ExitCode> {
    let asked = super::plan_options(&options.hooks)?;
    let kernel = Kernel::inspect(options.btf.as_deref())?;
    if let (Some(file), Some(why)) = (&options.btf, kernel.facts.offsets.why_not()) {
        return Err(foreign_btf(file, why.to_owned()).into());
    }
    let mut plan = plan(&kernel.facts, &asked).map_err(|refusal| CannotRun {
        what: "cannot trace here".to_owned(),
        why: refusal.why,
        fix: refusal.fix,
    })?;
    if let Some(file) = options.btf.as_ref().filter(|_| plan.mode != Mode::Netlink) {
        // The kernel's own cannot be wrong.
        self_check::run(&kernel, &mut plan, &asked).map_err(|why| foreign_btf(file, why))?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    runtime.block_on(watch(options, kernel, plan, &asked))
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

async fn watch(
    options: &Watch,
    kernel: Kernel,
    plan: Plan,
    asked: &PlanOptions,
) -> anyhow::Result<ExitCode> {
    // Before anything is attached, so that no signal finds us without a summary.
    let mut end = End::new()?;
    let anchor = clock::anchor();
    let scope = scope(options);
    let (plan, mut probes) = match plan.mode {
        Mode::Netlink => (plan, None),
        _ => {
            let (plan, probes) = start::start(&kernel, plan, asked, &scope)?;
            // Polling is what is left where the kernel refused every program that was tried.
            let attached = plan.mode != Mode::Netlink;
            (plan, attached.then_some(probes))
        }
    };
    // Whatever takes more privileges than the run does stands above this line.
    let needs = needs(options, probes.as_ref());
    privileges::give_up(needs, || probes.as_mut().is_none_or(Probes::usable))
        .context("cannot give up the privileges that are not needed any more")?;
    let mut notes: Vec<String> = plan
        .estimated
        .iter()
        .map(|s| format!("estimated: {s}"))
        .collect();
    let refusals = probes.iter().flat_map(Probes::refusals);
    notes.extend(refusals.map(|r| format!("not attached: {r}")));
    for note in &notes {
        options.terminal.notice(note);
    }
    if options.terminal.verbose > 0 {
        let chosen = plan
            .events
            .iter()
            .filter_map(|e| Some((e.event, e.chosen()?)));
        for (event, chosen) in chosen {
            let hooks = chosen.hooks.join(", ");
            options
                .terminal
                .notice(&format!("{event}: {} {hooks}", chosen.mechanism));
        }
    }
    let seen = |event| {
        let chosen = probes.as_ref().zip(plan.chosen(event));
        chosen.is_some_and(|(probes, way)| {
            way.mechanism != Mechanism::Derived && probes.runs(way.programs)
        })
    };
    let minisockets = match (
        start::watches_minisockets(scope.states),
        seen(Event::Minisocket),
    ) {
        (false, _) => Minisockets::Ignored,
        (true, true) => Minisockets::Seen,
        (true, false) => Minisockets::Sampled,
    };
    let overflows_seen = seen(Event::Overflow);
    let polled_ns = probes.is_none().then_some(options.interval_ns);
    let selective = probes.is_some() && scope.config.flags & FLAG_SELECTED != 0;
    let tracker = Tracker::new(Options {
        filter: options.filter.clone(),
        transitions: options.transitions,
        by: options.by.clone(),
        minisockets,
        overflows_seen,
        selective,
        polled_ns,
        mode: plan.mode.to_string(),
    });
    let mut pipeline = Pipeline::new(tracker, Screen::new(options, anchor)?);
    let dumps = Dumps {
        minisockets,
        netns: options.filter.netns.clone(),
        polled_ns,
    };
    let owner_filter = selective.then(|| owner_filter(options));
    let decoder = start::decoder(kernel.facts.hz, kernel.symbols);
    let mut live = Live::new(probes, decoder, owner_filter, dumps);
    live.bootstrap(&mut pipeline).context(WRITE)?;
    pipeline.sink().flush()?;
    options.terminal.notice(&format!(
        "watching {} (mode {}); {} already there; ^C ends with a summary",
        options.filter.states,
        plan.mode,
        pipeline.tracker().open(),
    ));
    end.after(options.duration_ns);
    let mut told = BTreeSet::new();
    loop {
        for notice in live.take_notices() {
            if told.insert(notice.clone()) {
                options.terminal.notice(&notice);
            }
        }
        if end.reached_within(live.pause()).await {
            break;
        }
        live.step(&mut pipeline).context(WRITE)?;
        pipeline.sink().flush().context(WRITE)?;
        if reader_is_gone() {
            return Ok(ExitCode::SUCCESS);
        }
    }
    live.finish(&mut pipeline).context(WRITE)?;
    notes.extend(told);
    if let Some(ns) = polled_ns.filter(|ns| live.longest_gap() > ns + ns / 2) {
        let longest = duration_text(live.longest_gap());
        let asked = duration_text(ns);
        notes.push(format!(
            "the longest time between two polls was {longest}, not {asked}"
        ));
    }
    let mut summary = pipeline.tracker().summary();
    summary.completeness.notes = notes;
    let screen = pipeline.sink();
    if options.json {
        screen.json(&SummaryLine::new(&summary, clock::mono(), anchor))?;
    } else {
        let Terminal { width, color, .. } = options.terminal;
        screen
            .out
            .write_all(summary_text::to_text(&summary, width, color).as_bytes())?;
    }
    screen.flush().context(WRITE)?;
    Ok(ExitCode::SUCCESS)
}

/// What is done from here on that takes a privilege.
fn needs(options: &Watch, probes: Option<&Probes>) -> Needs {
    let own = netns::own().ok().map(|own| own.inode);
    let asked = &options.filter.netns;
    Needs {
        other_netns: asked.is_empty() || asked.iter().any(|inode| Some(*inode) != own),
        proc_fd: !probes.is_some_and(Probes::lists_holders),
    }
}

fn scope(options: &Watch) -> Scope {
    let mut config = Config::ZERO;
    kernel_filter::push(&options.filter, &mut config);
    let selects = config.flags & FLAG_SELECTED != 0;
    Scope {
        states: options.filter.states.union(options.transitions),
        closes: options.transitions.contains(TcpState::Close),
        config,
        ring_bytes: options.ring_size.unwrap_or(RING_BYTES),
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

fn owner_filter(options: &Watch) -> OwnerFilter {
    let pids = options.filter.pids.clone();
    Box::new(move |socket, scan| {
        let held = || scan.of(socket.cookie, Some(socket.inode)).unwrap_or(&[]);
        // One that nobody holds may be a listener's: the whole filter judges it later.
        if socket.mini && !pids.is_empty() {
            return false;
        }
        pids.is_empty() || socket.inode == 0 || held().iter().any(|h| pids.contains(&h.pid))
    })
}

/// What ends the watch: ^C, SIGTERM, or time.
struct End {
    interrupt: Signal,
    terminate: Signal,
    at: Option<tokio::time::Instant>,
}

impl End {
    fn new() -> anyhow::Result<End> {
        let on = |kind| signal(kind).context("cannot wait for signals");
        Ok(End {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            at: None,
        })
    }

    /// From now on it takes so long, if it ends by itself.
    fn after(&mut self, duration_ns: Option<u64>) {
        self.at = duration_ns.map(|ns| tokio::time::Instant::now() + Duration::from_nanos(ns));
    }

    /// Waits that long, or until the end.
    async fn reached_within(&mut self, pause: Duration) -> bool {
        let wake = tokio::time::Instant::now() + pause;
        let (until, ends) = match self.at {
            Some(at) if at <= wake => (at, true),
            _ => (wake, false),
        };
        tokio::select! {
            _ = self.interrupt.recv() => true,
            _ = self.terminate.recv() => true,
            () = tokio::time::sleep_until(until) => ends,
        }
    }
}

/// Whether whoever read our output has gone, as `head` does, while we have nothing to write.
fn reader_is_gone() -> bool {
    let stdout = io::stdout();
    let mut fds = [PollFd::from_borrowed_fd(stdout.as_fd(), PollFlags::empty())];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&now)).is_ok_and(|n| n > 0) && fds[0].revents().contains(PollFlags::ERR)
}

/// Standard output, for people or for programs.
struct Screen {
    out: BufWriter<Stdout>,
    /// `None`: JSON lines.
    printer: Option<Printer>,
    transitions: bool,
    anchor: WallAnchor,
}

impl Screen {
    fn new(options: &Watch, anchor: WallAnchor) -> io::Result<Screen> {
        let printer = (!options.json).then(|| {
            let style = Style {
                time: options.time.clone(),
                width: options.terminal.width,
                color: options.terminal.color,
                wide: options.wide,
                transitions: !options.transitions.is_empty(),
            };
            Printer::new(style, anchor)
        });
        let mut out = BufWriter::with_capacity(1 << 16, io::stdout());
        if let Some(printer) = &printer {
            writeln!(out, "{}", printer.header())?;
        }
        let transitions = !options.transitions.is_empty();
        Ok(Screen {
            out,
            printer,
            transitions,
            anchor,
        })
    }

    fn json(&mut self, line: &impl serde::Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, line).map_err(io::Error::from)?;
        self.out.write_all(b"\n")
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Sink for Screen {
    fn change(&mut self, change: &Change) -> io::Result<()> {
        match &self.printer {
            // The line of the transition says it already.
            Some(_) if self.transitions && matches!(change, Change::Resolved { .. }) => Ok(()),
            Some(printer) => writeln!(self.out, "{}", printer.line(change)),
            None => self.json(&Line::change(change, self.anchor)),
        }
    }
}

//! What was typed, resolved into what the commands need. The only place that asks the environment,
//! the terminal and /proc on behalf of the command line.

use std::env;
use std::io::{self, IsTerminal, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use tcptrace_core::filter::{Family, Filter, Ports};
use tcptrace_core::owner::Comm;
use tcptrace_core::report::summary::Key;
use tcptrace_core::report::watch::TimeStyle;
use tcptrace_core::state::{StateSet, TcpState, lingering};

pub(crate) use crate::cli::StackMode;

use crate::cli;
use crate::error::Usage;
use crate::recorder::Place;
use crate::resolve;

mod diagnose;
mod explain;
mod export;
mod kill;
mod leaks;
mod past;
mod recording;
mod report;
mod source;

pub(crate) use diagnose::Diagnose;
pub(crate) use explain::Explain;
pub(crate) use export::Export;
pub(crate) use kill::Kill;
pub(crate) use leaks::Leaks;
pub(crate) use past::{Excerpt, Question, Replay};
pub(crate) use recording::{Record, Way, sudo_owner};
pub(crate) use report::{Diff, Report};
pub(crate) use source::Source;

/// Least age of `watch`, unless told otherwise.
const WATCH_MIN_AGE_NS: u64 = 1_000_000_000;

/// Time between two polls, unless told otherwise, and the least that is taken.
const POLL_EVERY_NS: u64 = 250_000_000;
const POLL_LEAST_NS: u64 = 10_000_000;

/// Where the output goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terminal {
    /// Columns of the terminal on standard output; `None`: a pipe or a file, nothing is cut.
    pub(crate) width: Option<usize>,
    /// Color standard output.
    pub(crate) color: bool,
    /// No notices.
    pub(crate) quiet: bool,
    /// How many more notices.
    pub(crate) verbose: u8,
}

impl Terminal {
    /// The terminal that we run on.
    pub(crate) fn of(global: &cli::Global) -> Terminal {
        let is_terminal = io::stdout().is_terminal();
        Terminal {
            width: is_terminal.then(terminal_width).flatten(),
            color: match global.color {
                cli::ColorWhen::Always => true,
                cli::ColorWhen::Never => false,
                cli::ColorWhen::Auto => is_terminal && wants_color(),
            },
            quiet: global.quiet,
            verbose: global.verbose,
        }
    }

    /// A notice on standard error, unless none are wanted.
    pub(crate) fn notice(&self, text: &str) {
        if !self.quiet {
            // Where nobody listens, there is nobody to tell.
            let _ = writeln!(
                io::stderr(),
                "tcptrace: {}",
                tcptrace_core::text::escape(text)
            );
        }
    }

    /// The same, which cuts nothing.
    fn uncut(self) -> Terminal {
        Terminal {
            width: None,
            ..self
        }
    }
}

/// How something is traced, whatever is done with it.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    /// Where notices go.
    pub(crate) terminal: Terminal,
    /// What has begun when everything is attached, in words.
    pub(crate) begun: String,
    /// Which sockets; `states` are those in which a socket is stuck.
    pub(crate) filter: Filter,
    /// States whose transitions are told: from or to one of these; empty: none.
    pub(crate) transitions: StateSet,
    /// Keys of the summary's groups.
    pub(crate) by: Vec<Key>,
    /// States whose transitions are seen.
    pub(crate) states: StateSet,
    /// Stop after so many ns.
    pub(crate) duration_ns: Option<u64>,
    /// Bytes of the ring buffer.
    pub(crate) ring_size: Option<u32>,
    /// The only hooks to use; empty: all.
    pub(crate) hooks: Vec<String>,
    /// BTF for the field offsets; `None`: the kernel's own.
    pub(crate) btf: Option<PathBuf>,
    /// Least time between two polls, ns, where nothing is attached.
    pub(crate) interval_ns: u64,
    /// Settings of namespaces and what processes do are looked at, too.
    pub(crate) survey: bool,
    /// How stacks are walked, if they are taken.
    pub(crate) stacks: StackMode,
    /// Stacks that are taken per second, at most.
    pub(crate) stack_rate: u32,
    /// It is asked what became of the connections of each stack.
    pub(crate) ledgers: bool,
}

impl Trace {
    /// Of the filter's states, with nothing told of their transitions.
    fn new(
        begun: String,
        terminal: Terminal,
        filter: Filter,
        duration_ns: Option<u64>,
        typed: cli::Tracing,
    ) -> Result<Trace, Usage> {
        check_interval(&typed)?;
        Ok(Trace {
            terminal,
            begun,
            states: filter.states,
            filter,
            transitions: StateSet::EMPTY,
            by: Vec::new(),
            duration_ns,
            ring_size: typed.ring_size,
            hooks: typed.hooks,
            btf: typed.btf,
            interval_ns: typed.interval.unwrap_or(POLL_EVERY_NS),
            survey: false,
            stacks: typed.stacks.unwrap_or(StackMode::None),
            stack_rate: typed.stack_rate,
            ledgers: false,
        })
    }

    /// With stacks, unless none are wanted. What they tell is of whole lives, of which those in
    /// TIME_WAIT and FIN_WAIT_2 that nobody asked for are no part: minisockets cost too much.
    fn with_stacks(mut self, typed: Option<StackMode>) -> Trace {
        use TcpState::{FinWait2, TimeWait};
        self.stacks = typed.unwrap_or(StackMode::Auto);
        if self.stacks != StackMode::None {
            let lives = StateSet::all().iter();
            let lives = lives.filter(|state| !matches!(state, FinWait2 | TimeWait));
            self.states = lives.fold(self.states, StateSet::with);
        }
        self
    }
}

/// How changes are printed.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    /// Where to.
    pub(crate) terminal: Terminal,
    /// How lines start.
    pub(crate) time: Option<TimeStyle>,
    /// JSON lines.
    pub(crate) json: bool,
    /// All columns, uncut.
    pub(crate) wide: bool,
    /// Transitions are printed, too.
    pub(crate) transitions: bool,
    /// Where stuck sockets were acquired is printed, too.
    pub(crate) stack: bool,
}

impl Look {
    fn new(terminal: Terminal, told: &cli::Told, transitions: StateSet) -> Look {
        Look {
            terminal: match told.wide {
                true => terminal.uncut(),
                false => terminal,
            },
            time: told.timestamp.map(time_style),
            json: told.json,
            wide: told.wide,
            transitions: !transitions.is_empty(),
            stack: told.stack,
        }
    }
}

/// Options of `watch`.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    /// What is traced.
    pub(crate) trace: Trace,
    /// How it is printed.
    pub(crate) look: Look,
    /// Where it is recorded as well.
    pub(crate) record: Option<Place>,
}

impl Watch {
    /// Resolves what was typed.
    pub(crate) fn resolve(typed: cli::Watch, terminal: Terminal) -> anyhow::Result<Watch> {
        let asked = states(&typed.filters.state);
        let mut filter = filter(typed.filters, WATCH_MIN_AGE_NS)?;
        filter.states = shown(asked);
        if filter.states.is_empty() && !typed.told.transitions {
            return Err(nothing_lingers(asked).into());
        }
        let transitions = transitions(typed.told.transitions, asked);
        let look = Look::new(terminal, &typed.told, transitions);
        let stacks = typed.tracing.stacks;
        if typed.told.stack && stacks == Some(StackMode::None) {
            return Err(Usage::new(
                "--stack prints stacks, and --stacks none takes none",
                "leave one of them away",
            )
            .into());
        }
        let begun = format!("watching {}", filter.states);
        let trace = Trace {
            states: filter.states.union(transitions),
            transitions,
            by: typed.told.by,
            ..Trace::new(begun, look.terminal, filter, typed.duration, typed.tracing)?
        };
        Ok(Watch {
            trace: match typed.told.stack || stacks.is_some() {
                true => trace.with_stacks(stacks),
                false => trace,
            },
            look,
            record: typed.record.map(|path| recording::one_file(path, false)),
        })
    }
}

fn check_interval(typed: &cli::Tracing) -> Result<(), Usage> {
    match typed.interval {
        Some(ns) if ns < POLL_LEAST_NS => Err(Usage::new(
            "--interval is less than 10ms",
            "a poll lists every socket of every namespace: take 10ms or more",
        )),
        _ => Ok(()),
    }
}

fn nothing_lingers(asked: StateSet) -> Usage {
    Usage::new(
        format!("nothing lingers in {asked}"),
        "watch follows connections; `tcptrace snapshot --state listen` lists listeners, \
         and --transitions tells when sockets come and go",
    )
}

/// The states in which sockets are shown.
fn shown(asked: StateSet) -> StateSet {
    match asked.is_empty() {
        true => lingering(),
        false => dwelt_in(asked),
    }
}

fn transitions(wanted: bool, asked: StateSet) -> StateSet {
    match (wanted, asked.is_empty()) {
        (false, _) => StateSet::EMPTY,
        (true, true) => StateSet::all(),
        (true, false) => asked,
    }
}

/// States that a connection spends time in, and whose changes the kernel tells of. CLOSE is none,
/// listeners are no connections, and of half-open requests and bound sockets nothing is told.
fn dwelt_in(asked: StateSet) -> StateSet {
    use TcpState::{BoundInactive, Close, Listen, NewSynRecv};
    let none = StateSet::of(&[BoundInactive, Close, Listen, NewSynRecv]);
    asked
        .iter()
        .filter(|s| !none.contains(*s))
        .fold(StateSet::EMPTY, StateSet::with)
}

/// Options of `snapshot`.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    /// Where the output goes.
    pub(crate) terminal: Terminal,
    /// Which sockets; no states: all.
    pub(crate) filter: Filter,
    /// Count by these instead of listing.
    pub(crate) by: Vec<Key>,
    /// One line of counts.
    pub(crate) summary: bool,
    /// JSON lines.
    pub(crate) json: bool,
    /// Every network namespace.
    pub(crate) all_netns: bool,
}

impl Snapshot {
    /// Resolves what was typed.
    pub(crate) fn resolve(typed: cli::Snapshot, terminal: Terminal) -> anyhow::Result<Snapshot> {
        let filter = filter(typed.filters, 0)?;
        Ok(Snapshot {
            terminal,
            filter,
            by: typed.by,
            summary: typed.summary,
            json: typed.json,
            all_netns: typed.all_netns,
        })
    }
}

/// Options of `doctor`.
#[derive(Clone, Debug)]
pub(crate) struct Doctor {
    /// Where the output goes.
    pub(crate) terminal: Terminal,
    /// One JSON object.
    pub(crate) json: bool,
    /// The only hooks to use; empty: all.
    pub(crate) hooks: Vec<String>,
    /// BTF for the field offsets; `None`: the kernel's own.
    pub(crate) btf: Option<PathBuf>,
    /// What the programs cost that watch these states, and for how long that is measured.
    pub(crate) cost: Option<(StateSet, Duration)>,
}

impl Doctor {
    /// Resolves what was typed.
    pub(crate) fn resolve(typed: cli::Doctor, terminal: Terminal) -> Doctor {
        let asked = typed.state.into_iter();
        let states = match asked.fold(StateSet::EMPTY, StateSet::union) {
            none if none.is_empty() => lingering(),
            asked => asked,
        };
        let cost = typed.cost.map(Duration::from_nanos);
        Doctor {
            terminal,
            json: typed.json,
            hooks: typed.hooks,
            btf: typed.btf,
            cost: cost.map(|span| (states, span)),
        }
    }
}

fn filter(typed: cli::Filters, min_age_ns: u64) -> anyhow::Result<Filter> {
    for pid in &typed.pid {
        resolve::pid(*pid)?;
    }
    let netns = typed.netns.iter().map(|text| resolve::netns(text));
    let netns = netns.collect::<Result<_, _>>()?;
    let cgroups = typed.cgroup.iter().map(|text| resolve::cgroup(text));
    let cgroups = cgroups.collect::<Result<Vec<_>, _>>()?;
    Ok(Filter {
        cgroup_ids: cgroups.iter().flat_map(|c| c.ids.clone()).collect(),
        cgroups: cgroups.into_iter().map(|c| c.wanted).collect(),
        netns,
        ..filter_of(typed, min_age_ns)
    })
}

/// The same for sockets of another machine, or of another time: names are taken as they stand.
fn filter_elsewhere(typed: cli::Filters) -> Result<Filter, Usage> {
    let netns = typed.netns.iter().map(|text| resolve::netns_number(text));
    let netns = netns.collect::<Result<_, _>>()?;
    Ok(Filter {
        cgroups: typed.cgroup.clone(),
        netns,
        ..filter_of(typed, WATCH_MIN_AGE_NS)
    })
}

/// What needs no machine to be understood.
fn filter_of(typed: cli::Filters, min_age_ns: u64) -> Filter {
    Filter {
        states: states(&typed.state),
        pids: typed.pid,
        comms: typed.comm.iter().map(|name| kernel_name(name)).collect(),
        local_ports: ports(typed.local_port),
        remote_ports: ports(typed.remote_port),
        any_ports: ports(typed.port),
        local_nets: typed.laddr,
        remote_nets: typed.raddr,
        family: match (typed.ipv4, typed.ipv6) {
            (true, _) => Some(Family::V4),
            (_, true) => Some(Family::V6),
            _ => None,
        },
        roles: typed.role,
        min_age_ns: typed.min_age.unwrap_or(min_age_ns),
        ..Filter::default()
    }
}

fn states(lists: &[StateSet]) -> StateSet {
    lists
        .iter()
        .fold(StateSet::EMPTY, |all, list| all.union(*list))
}

fn ports(lists: Vec<Ports>) -> Ports {
    lists.into_iter().fold(Ports::default(), Ports::union)
}

/// The kernel keeps 15 bytes of a name, so a whole name is cut as it would be; a pattern is not.
fn kernel_name(typed: &str) -> String {
    match typed.contains(['*', '?']) {
        true => typed.to_owned(),
        false => Comm::from_bytes(typed.as_bytes()).to_text(),
    }
}

fn time_style(typed: cli::Timestamp) -> TimeStyle {
    match typed {
        cli::Timestamp::Local => TimeStyle::Local(jiff::tz::TimeZone::system()),
        cli::Timestamp::Utc => TimeStyle::Utc,
        cli::Timestamp::Rel => TimeStyle::SinceStart,
        cli::Timestamp::Ns => TimeStyle::Monotonic,
    }
}

/// `None`: the terminal does not tell, as a serial console.
fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}

/// NO_COLOR, by the rules of <https://no-color.org>: set and not empty means no; a dumb terminal cannot.
fn wants_color() -> bool {
    let says = |name: &str, test: fn(&str) -> bool| env::var(name).is_ok_and(|v| test(&v));
    !says("NO_COLOR", |v| !v.is_empty()) && !says("TERM", |v| v == "dumb")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn watch(args: &[&str]) -> Watch {
        let cli = cli::Cli::parse_from(["tcptrace", "watch"].iter().chain(args));
        let terminal = Terminal {
            width: Some(80),
            color: false,
            quiet: false,
            verbose: 0,
        };
        match cli.command {
            cli::Command::Watch(typed) => Watch::resolve(typed, terminal).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn watch_follows_the_states_in_which_sockets_linger() {
        let plain = watch(&[]);
        assert_eq!(plain.trace.filter.states, lingering());
        assert_eq!(plain.trace.filter.min_age_ns, 1_000_000_000);
        assert!(plain.trace.transitions.is_empty());
        assert_eq!(plain.look.terminal.width, Some(80));
        assert_eq!(watch(&["--wide"]).look.terminal.width, None);
        assert_eq!(watch(&["--min-age", "0"]).trace.filter.min_age_ns, 0);
    }

    #[test]
    fn transitions_are_of_all_states_unless_some_are_named() {
        assert_eq!(watch(&["--transitions"]).trace.transitions, StateSet::all());
        let some = watch(&["--transitions", "-s", "cw", "-s", "tw"]);
        assert_eq!(some.trace.transitions, "cw,tw".parse().unwrap());
        assert_eq!(some.trace.filter.states, some.trace.transitions);
    }

    #[test]
    fn stacks_are_taken_of_whole_lives_where_they_are_wanted() {
        use TcpState::{Established, FinWait2, TimeWait};
        let plain = watch(&["-s", "cw"]).trace;
        assert_eq!((plain.stacks, plain.stack_rate), (StackMode::None, 1000));
        assert!(!plain.states.contains(Established));
        for args in [
            &["-s", "cw", "--stack"][..],
            &["-s", "cw", "--stacks", "auto"],
        ] {
            let trace = watch(args).trace;
            assert_eq!(trace.stacks, StackMode::Auto, "{args:?}");
            assert!(trace.states.contains(Established), "{args:?}");
            assert!(!trace.states.contains(FinWait2), "{args:?}");
            assert_eq!(trace.filter.states, plain.filter.states, "{args:?}");
        }
        let resting = watch(&["-s", "tw", "--stack", "--stacks", "fp", "--stack-rate", "9"]).trace;
        assert!(resting.states.contains(TimeWait));
        assert_eq!((resting.stacks, resting.stack_rate), (StackMode::Fp, 9));
        assert_eq!(watch(&["--stacks", "none"]).trace.states, lingering());
    }

    #[test]
    fn lists_may_be_repeated() {
        let twice = watch(&["-L", "80", "-L", "443", "-6", "--role", "active"]);
        assert!(
            twice.trace.filter.local_ports.contains(80)
                && twice.trace.filter.local_ports.contains(443)
        );
        assert_eq!(twice.trace.filter.family, Some(Family::V6));
    }

    #[test]
    fn a_long_name_is_found_by_what_the_kernel_keeps_of_it() {
        let named = watch(&["--comm", "systemd-timesyncd", "--comm", "a-very-long-name*"]);
        assert_eq!(
            named.trace.filter.comms,
            ["systemd-timesyn", "a-very-long-name*"]
        );
    }
}

//! The command line as it is typed. Nothing here looks at the world: see [`crate::options`].

use std::path::PathBuf;
use std::sync::LazyLock;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use tcptrace_core::filter::{Net, Ports};
use tcptrace_core::report::summary::Key;
use tcptrace_core::state::StateSet;
use tcptrace_core::time::parse_duration;
use tcptrace_core::tuple::Role;

use crate::examples;

mod diagnose;
mod export;
mod kill;
mod leaks;
mod past;
mod recording;
mod subject;

pub(crate) use diagnose::Diagnose;
pub(crate) use export::{Export, Format};
pub(crate) use kill::Kill;
pub(crate) use leaks::Leaks;
pub(crate) use past::{Diff, Excerpt, Replay, Report, Speed};
pub(crate) use recording::{Record, Rotation};
pub(crate) use subject::Subject;

/// See which TCP sockets linger in CLOSE_WAIT, FIN_WAIT_2 and TIME_WAIT, whose they are, since
/// when, and why.
#[derive(Debug, Parser)]
#[command(
    name = "tcptrace",
    version = version(),
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    after_long_help = examples::MAIN
)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// What holds for every command.
    #[command(flatten)]
    pub(crate) global: Global,
}

/// Options of every command.
#[derive(Args, Debug)]
pub(crate) struct Global {
    /// Color the output; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: ColorWhen,
    /// Print no notices on standard error, only errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Print more notices: what is attached, and how
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// When to color.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorWhen {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print what is wrong with the connections of this host, who does it, what to do and what not;
    /// of a recording, or live
    Diagnose(Diagnose),
    /// Print sockets that stay in a state, as it happens, and how long each state lasted
    Watch(Watch),
    /// Write to a file what happens to sockets, for `replay`
    Record(Record),
    /// Print what `watch` would have printed of what was recorded; needs no privileges
    Replay(Replay),
    /// Print how long sockets stayed in each state, how many were open when, and whose; of a
    /// recording, or live
    Report(Report),
    /// Print which sockets nobody closes, where in the code they were acquired, and where others are
    /// closed; of a recording, or live
    Leaks(Leaks),
    /// Print what lingers in one recording and did not in another
    Diff(Diff),
    /// Write what was recorded in the formats of other programs; needs no privileges
    Export(Export),
    /// Print every socket as it is now; needs no eBPF
    Snapshot(Snapshot),
    /// Destroy sockets; without --yes, only print which
    Kill(Kill),
    /// Tell whether tcptrace can run here, how well, and what is missing
    Doctor(Doctor),
    /// Explain a state, a verdict, a setting, an error; without a topic, list them
    Explain(Explain),
    /// Print a completion script for a shell
    #[command(after_long_help = examples::COMPLETIONS)]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page of tcptrace, or of one of its commands
    #[command(after_long_help = examples::MAN)]
    Man {
        /// The command
        verb: Option<String>,
    },
}

/// Options of `watch`.
#[derive(Args, Debug)]
#[command(after_long_help = examples::WATCH)]
pub(crate) struct Watch {
    /// Stop after this time, as ^C does: print the summary, exit 0
    #[arg(short, long, value_name = "D", value_parser = parse_duration)]
    pub(crate) duration: Option<u64>,
    /// How it is told.
    #[command(flatten)]
    pub(crate) told: Told,
    /// Record to this file at the same time, for `tcptrace replay`
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
    /// How it is traced.
    #[command(flatten)]
    pub(crate) tracing: Tracing,
    /// Which sockets.
    #[command(flatten)]
    pub(crate) filters: Filters,
}

/// How `watch` and `replay` tell what they see.
#[derive(Args, Clone, Debug)]
pub(crate) struct Told {
    /// Start every line with the time: -T or -T=local, -T=utc, -T=rel (s since the start), -T=ns
    /// (CLOCK_MONOTONIC)
    #[arg(
        short = 'T',
        long,
        value_name = "FORM",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "local"
    )]
    pub(crate) timestamp: Option<Timestamp>,
    /// Print every transition, too, of all states unless --state is given
    #[arg(long)]
    pub(crate) transitions: bool,
    /// Group the summary by these: state, comm, pid, peer, port, container, cause
    #[arg(long, value_name = "KEYS", value_delimiter = ',')]
    pub(crate) by: Vec<Key>,
    /// Print JSON lines
    #[arg(long)]
    pub(crate) json: bool,
    /// Print under each stuck socket where in the code it was acquired, as far as that was seen
    #[arg(long)]
    pub(crate) stack: bool,
    /// Cut no line at the width of the terminal, and show container and command line
    #[arg(short, long)]
    pub(crate) wide: bool,
}

/// How it is traced.
#[derive(Args, Debug)]
#[command(next_help_heading = "Tracing")]
pub(crate) struct Tracing {
    /// Size of the buffer between kernel and tcptrace, as in 8M
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) ring_size: Option<u32>,
    /// Use only these ways into the kernel: fentry, tp_btf, kprobe, raw_tp, tracepoint, iter, proc,
    /// netlink; EVENT=WAY for one event only, as in state=raw_tp
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) hooks: Vec<String>,
    /// Least time between two polls in mode netlink, where nothing is attached [default: 250ms]
    #[arg(long, value_name = "D", value_parser = parse_duration)]
    pub(crate) interval: Option<u64>,
    /// Take field offsets from this BTF instead of the kernel's own
    #[arg(long, value_name = "FILE")]
    pub(crate) btf: Option<PathBuf>,
    /// How to find the functions that called: auto: by what describes the
    /// code, and as each program allows where nothing does; dwarf: the same; fp: by frame pointers
    /// alone; none: take no stacks [default: auto for leaks, watch
    /// --stack, and record without --state; else none]
    #[arg(long, value_name = "HOW")]
    pub(crate) stacks: Option<StackMode>,
    /// Copy no more stacks than these per second, and look at no more than
    /// eight times as many: one that is known already is not copied
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1000,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub(crate) stack_rate: u32,
}

/// How stacks are walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StackMode {
    /// By what describes the code, and as each program allows where nothing does.
    Auto,
    /// By frame pointers.
    Fp,
    /// The same.
    Dwarf,
    /// No stacks are taken.
    None,
}

/// Options of `snapshot`.
#[derive(Args, Debug)]
#[command(after_long_help = examples::SNAPSHOT)]
pub(crate) struct Snapshot {
    /// Count sockets by these instead of listing them: state, comm, pid, peer
    #[arg(long, value_name = "KEYS", value_delimiter = ',', value_parser = parse_snapshot_key)]
    pub(crate) by: Vec<Key>,
    /// Print counts by state, and what other tools call these sockets
    #[arg(long)]
    pub(crate) summary: bool,
    /// Print JSON lines
    #[arg(long)]
    pub(crate) json: bool,
    /// Look into every network namespace, not only this one
    #[arg(long, conflicts_with = "netns")]
    pub(crate) all_netns: bool,
    /// Which sockets.
    #[command(flatten)]
    pub(crate) filters: Filters,
}

/// Options of `doctor`.
#[derive(Args, Debug)]
#[command(after_long_help = examples::DOCTOR)]
pub(crate) struct Doctor {
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Plan with these ways into the kernel only, and check them, as `watch --hooks` would
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) hooks: Vec<String>,
    /// Take field offsets from this BTF instead of the kernel's own
    #[arg(long, value_name = "FILE")]
    pub(crate) btf: Option<PathBuf>,
    /// Attach the programs for this long [without D: 5s] and print what they cost on this host now; needs
    /// CAP_SYS_ADMIN
    #[arg(
        long,
        value_name = "D",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "5s",
        value_parser = parse_span
    )]
    pub(crate) cost: Option<u64>,
    /// With --cost: what is watched; all: what `record --stacks none` takes [default:
    /// close_wait,fin_wait2,time_wait]
    #[arg(short, long, value_name = "LIST", requires = "cost")]
    pub(crate) state: Vec<StateSet>,
}

/// Least time that `doctor --cost` measures, ns: what is shorter says nothing.
const LEAST_COST: u64 = 100_000_000;

fn parse_span(text: &str) -> Result<u64, String> {
    match parse_duration(text) {
        Ok(ns) if ns < LEAST_COST => Err("it takes 100ms at least to say anything".to_owned()),
        Ok(ns) => Ok(ns),
        Err(error) => Err(error.to_string()),
    }
}

/// Options of `explain`.
#[derive(Args, Debug)]
#[command(after_long_help = examples::EXPLAIN)]
pub(crate) struct Explain {
    /// What to explain, in any common spelling: close_wait, tcp_tw_reuse, Errno 99 [default: list the
    /// topics]
    pub(crate) topic: Vec<String>,
    /// Print JSON lines
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which sockets.
#[derive(Args, Debug)]
#[command(next_help_heading = "Filters")]
pub(crate) struct Filters {
    /// States, in any common spelling: close_wait, FIN-WAIT-2, tw, all
    #[arg(short, long, value_name = "LIST")]
    pub(crate) state: Vec<StateSet>,
    /// Least time in the state, as in 500ms, 30s, 1h30m; 0: every socket [watch: 1s]
    #[arg(long, value_name = "D", value_parser = parse_duration)]
    pub(crate) min_age: Option<u64>,
    /// Processes that opened the socket or have it open [watch: one that another process hands
    /// over is found within 10 s, with an estimated age]
    #[arg(short, long, value_name = "LIST", value_delimiter = ',', value_parser = parse_pid)]
    pub(crate) pid: Vec<u32>,
    /// Name of such a process, * and ? allowed; may be repeated
    #[arg(long, value_name = "GLOB", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) comm: Vec<String>,
    /// Local ports, as in 80,8000-8010
    #[arg(short = 'L', long, value_name = "LIST")]
    pub(crate) local_port: Vec<Ports>,
    /// Remote ports
    #[arg(short = 'D', long, value_name = "LIST")]
    pub(crate) remote_port: Vec<Ports>,
    /// Ports on either side
    #[arg(long, value_name = "LIST")]
    pub(crate) port: Vec<Ports>,
    /// Local addresses or networks, as in 10.0.0.0/8,::1
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) laddr: Vec<Net>,
    /// Remote addresses or networks
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) raddr: Vec<Net>,
    /// Only IPv4, also over IPv6 sockets
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    pub ipv4: bool,
    /// Only IPv6 proper
    #[arg(short = '6', long)]
    pub ipv6: bool,
    /// Who connected: active (we), passive (the peer), unaccepted (the peer, nobody has accepted)
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) role: Vec<Role>,
    /// Processes in this cgroup or below it, or in the container with this id
    #[arg(long, value_name = "PATH|ID", value_delimiter = ',')]
    pub(crate) cgroup: Vec<String>,
    /// Network namespaces: a file, the pid of a process in it, its number, or its name [watch: all,
    /// snapshot and kill: this one]
    #[arg(long, value_name = "PATH|PID|INO|NAME", value_delimiter = ',')]
    pub(crate) netns: Vec<String>,
}

fn parse_pid(text: &str) -> Result<u32, String> {
    match text.trim().parse() {
        Ok(pid) if pid > 0 => Ok(pid),
        _ => Err("a process id is a number from 1 on; for a name use --comm".to_owned()),
    }
}

/// How `--timestamp` writes the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Timestamp {
    /// Time of day in the local time zone.
    Local,
    /// RFC 3339 in UTC.
    Utc,
    /// Seconds since the start.
    Rel,
    /// CLOCK_MONOTONIC, ns.
    Ns,
}

/// `0.1.0 (object 0123456789ab, ABI 1)`.
fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| {
        let object = crate::embed::OBJECT_SHA256;
        format!(
            "{} (object {}, ABI {})",
            env!("CARGO_PKG_VERSION"),
            object.get(..12).unwrap_or(object),
            tcptrace_common::ABI_VERSION
        )
    });
    &VERSION
}

fn parse_snapshot_key(text: &str) -> Result<Key, String> {
    match text.parse() {
        Ok(key @ (Key::State | Key::Comm | Key::Pid | Key::Peer)) => Ok(key),
        _ => Err(format!(
            "'{text}' is no key of a snapshot: use state, comm, pid or peer"
        )),
    }
}

/// Reads `8388608`, `512K`, `8M`, `1G`: a power of two of at least 64 KiB, as the kernel wants it.
fn parse_size(text: &str) -> Result<u32, String> {
    let error = || format!("'{text}' is not a size: write 64K to 1G, as in 8M");
    match bytes(text) {
        Some(n @ 65_536..=0x4000_0000) => u32::try_from(n.next_power_of_two()).map_err(|_| error()),
        _ => Err(error()),
    }
}

/// A number of bytes, with K, M or G for powers of 1024.
fn bytes(text: &str) -> Option<u64> {
    let upper = text.trim().to_ascii_uppercase();
    let number = upper.trim_end_matches('B').trim_end_matches('I');
    let (digits, shift) = match number.chars().last() {
        Some('K') => (&number[..number.len() - 1], 10),
        Some('M') => (&number[..number.len() - 1], 20),
        Some('G') => (&number[..number.len() - 1], 30),
        _ => (number, 0),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(1 << shift))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_is_typed_is_read() {
        let cli = Cli::try_parse_from([
            "tcptrace",
            "watch",
            "-s",
            "cw,FIN-WAIT-2",
            "--min-age",
            "500ms",
            "-p",
            "1,2",
            "-L",
            "80,8000-8010",
            "--raddr",
            "10.0.0.0/8,::1",
            "-4",
            "-d",
            "10s",
            "-T",
            "--by",
            "pid,cause",
            "--ring-size",
            "3MiB",
        ])
        .unwrap();
        let Command::Watch(watch) = cli.command else {
            panic!("{cli:?}")
        };
        assert_eq!(watch.filters.min_age, Some(500_000_000));
        assert_eq!(watch.filters.pid, [1, 2]);
        assert_eq!(watch.filters.raddr.len(), 2);
        assert_eq!(watch.told.timestamp, Some(Timestamp::Local));
        assert_eq!(watch.told.by, [Key::Pid, Key::Cause]);
        assert_eq!(watch.tracing.ring_size, Some(4 << 20));
    }

    #[test]
    fn sizes_are_those_that_the_kernel_takes() {
        assert_eq!(parse_size("64k"), Ok(65_536));
        assert_eq!(parse_size("1G"), Ok(1 << 30));
        for text in ["", "M", "1", "2G", "-8M", "8X", "99999999999999999999G"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}

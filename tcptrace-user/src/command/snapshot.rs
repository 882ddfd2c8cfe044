//! `tcptrace snapshot`: every socket now, from sock_diag. Needs no BPF, and shows without root
//! what can be seen.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;
use foldhash::{HashMap, HashMapExt};
use tcptrace_core::infer::{Listeners, role, view};
use tcptrace_core::input::{SocketSnapshot, Timer};
use tcptrace_core::owner::{Holder, Owner, Process};
use tcptrace_core::report::json::{Line, SocketFacts};
use tcptrace_core::report::listing;
use tcptrace_core::report::snapshot::{Socket, Summary, SummaryLine, group, sort};
use tcptrace_core::report::summary::Key;
use tcptrace_core::state::{StateSet, TcpState};
use tcptrace_core::time::Mono;
use tcptrace_core::tuple::Role;

use crate::clock;
use crate::netns::{self, Inside, Netns};
use crate::options::Snapshot;
use crate::proc::{self, Owners};

/// Runs `tcptrace snapshot`.
///
/// # Errors
/// If our own namespace cannot be dumped, or the output cannot be written.
pub(crate) fn run(options: &Snapshot) -> anyhow::Result<ExitCode> {
    let mut notices: Box<dyn Write> = match options.terminal.quiet {
        true => Box::new(io::sink()),
        false => Box::new(io::stderr()),
    };
    report(options, &mut io::stdout().lock(), &mut notices)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the report to `out`, and what could not be seen to `notices`.
fn report(options: &Snapshot, out: &mut dyn Write, notices: &mut dyn Write) -> anyhow::Result<()> {
    let anchor = clock::anchor();
    let (sockets, at) = select(options, notices)?;

    let mut out = io::BufWriter::with_capacity(64 * 1024, out);
    let groups = group(&sockets, &options.by);
    let groups = if options.by.is_empty() {
        &[]
    } else {
        groups.as_slice()
    };
    let whole = options.summary || !options.by.is_empty();
    match (whole, options.json) {
        (true, true) => {
            let summary = Summary::of(&sockets);
            let line = SummaryLine::new(&summary, groups, &options.by, at, anchor);
            write_json(&mut out, &line)?;
        }
        (true, false) => {
            if !groups.is_empty() {
                listing::groups(groups, &options.by, options.terminal.width, &mut out)?;
            }
            if options.summary {
                write!(out, "{}", Summary::of(&sockets))?;
            }
        }
        (false, true) => {
            for socket in &sockets {
                write_json(&mut out, &Line::socket(&socket.view, socket.facts, anchor))?;
            }
        }
        (false, false) => {
            listing::sockets(
                &sockets,
                options.all_netns,
                options.terminal.width,
                &mut out,
            )?;
        }
    }
    out.flush()?;
    Ok(())
}

/// The sockets that the options select, sorted, and when the last one was seen. What could not be seen
/// goes to `notices`.
///
/// # Errors
/// If our own namespace cannot be dumped, or the processes cannot be listed.
pub(super) fn select(
    options: &Snapshot,
    notices: &mut dyn Write,
) -> anyhow::Result<(Vec<Socket>, Mono)> {
    let found = dump(options, notices)?;
    let owners = match wants_owners(options) {
        true => proc::holders()?,
        false => Owners::default(),
    };
    let at = found.last;
    let (mut sockets, hidden) = sockets(found, &owners, options);
    if wants_owners(options) {
        tell_hidden(hidden, &owners, notices)?;
    }
    keep_old_enough(&mut sockets, options.filter.min_age_ns, notices)?;
    sort(&mut sockets);
    Ok((sockets, at))
}

fn write_json(out: &mut impl Write, line: &impl serde::Serialize) -> anyhow::Result<()> {
    serde_json::to_writer(&mut *out, line).map_err(io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(())
}

/// Every socket that sock_diag gave.
#[derive(Debug, Default)]
struct Found {
    /// Each cookie once, as it was seen last.
    snapshots: Vec<SocketSnapshot>,
    listeners: Listeners,
    fin_timeouts: BTreeMap<u32, Option<u64>>,
    last: Mono,
}

fn dump(options: &Snapshot, notices: &mut dyn Write) -> anyhow::Result<Found> {
    let mut found = Found::default();
    let states = states(options.filter.states);
    let mut by_cookie: HashMap<u64, usize> = HashMap::new();
    let own = netns::own()?.inode;
    for netns in namespaces(options, notices)? {
        let inode = netns.inode;
        let mut inside = match netns.look_inside() {
            Ok(inside) => inside,
            // What we can see is worth more than nothing.
            Err(error) if inode != own => {
                writeln!(notices, "tcptrace: {error}")?;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        found.fin_timeouts.insert(inode, inside.fin_timeout_ns);
        dump_one(&mut inside, states, &mut found, &mut by_cookie, notices)?;
    }
    Ok(found)
}

fn dump_one(
    inside: &mut Inside,
    states: StateSet,
    found: &mut Found,
    by_cookie: &mut HashMap<u64, usize>,
    notices: &mut dyn Write,
) -> anyhow::Result<()> {
    let Found {
        snapshots,
        listeners,
        last,
        ..
    } = found;
    let netns = inside.diag.netns();
    let dumped = inside
        .diag
        .dump(states, &mut |s| {
            *last = s.at;
            listeners.add(&s);
            match by_cookie.get(&s.cookie) {
                Some(seen) => snapshots[*seen] = s,
                None => {
                    by_cookie.insert(s.cookie, snapshots.len());
                    snapshots.push(s);
                }
            }
        })
        .with_context(|| format!("network namespace {netns}"))?;
    if dumped.interrupted {
        writeln!(
            notices,
            "tcptrace: sockets of network namespace {netns} may be missing: the kernel says that \
             its list changed while it was read; run again for a whole one"
        )?;
    }
    if dumped.undecodable > 0 {
        writeln!(
            notices,
            "tcptrace: {} sockets of network namespace {netns} are left out: their state is \
             unknown to this version",
            dumped.undecodable
        )?;
    }
    Ok(())
}

/// States to dump: those asked for, and listeners, which tell roles. Sockets that are only bound
/// are shown when they are asked for, as `ss` does.
fn states(asked: StateSet) -> StateSet {
    let every = StateSet::all()
        .iter()
        .filter(|s| *s != TcpState::BoundInactive);
    let asked = match asked.is_empty() {
        true => every.fold(StateSet::EMPTY, StateSet::with),
        false => asked,
    };
    asked.with(TcpState::Listen)
}

/// Our own namespace; with `--all-netns` every one; with `--netns` those, or an error.
fn namespaces(options: &Snapshot, notices: &mut dyn Write) -> anyhow::Result<Vec<Netns>> {
    let asked = &options.filter.netns;
    if !options.all_netns && asked.is_empty() {
        return Ok(vec![netns::own()?]);
    }
    let found = netns::all()?;
    let mut namespaces = found.namespaces;
    if !asked.is_empty() {
        namespaces.retain(|n| asked.contains(&n.inode));
        if let Some(missing) = asked
            .iter()
            .find(|a| namespaces.iter().all(|n| n.inode != **a))
        {
            anyhow::bail!(
                "there is no network namespace {missing}, or it belongs to another user: see \
                 `lsns -t net` as root"
            );
        }
    }
    if found.hidden_processes > 0 {
        let what = match rustix::process::geteuid().is_root() {
            true => "hidden even from root; their sockets are missing if no other process has them",
            false => "hidden: run as root to see them",
        };
        writeln!(
            notices,
            "tcptrace: network namespaces of {} processes are {what}",
            found.hidden_processes
        )?;
    }
    Ok(namespaces)
}

/// Owners cost a walk through /proc: not for mere numbers.
fn wants_owners(options: &Snapshot) -> bool {
    let filter = &options.filter;
    let lists = !options.summary && options.by.is_empty();
    let by_owner = options.by.iter().any(|k| matches!(k, Key::Comm | Key::Pid));
    let filtered =
        !(filter.pids.is_empty() && filter.comms.is_empty() && filter.cgroups.is_empty());
    lists || by_owner || filtered
}

/// The sockets that the filter lets through, and how many of them have an owner that we could
/// not find.
fn sockets(found: Found, owners: &Owners, options: &Snapshot) -> (Vec<Socket>, u64) {
    let mut processes = Processes::default();
    let mut sockets = Vec::with_capacity(found.snapshots.len());
    let mut hidden = 0;
    let states = states_shown(options.filter.states);
    for s in &found.snapshots {
        if !states.contains(s.state) {
            continue;
        }
        let fin_timeout = s
            .tuple
            .netns
            .and_then(|n| found.fin_timeouts.get(&n).copied().flatten());
        let owner = owner(s, &found.listeners, owners, &mut processes);
        let view = view(s, &found.listeners, fin_timeout, owner);
        if !options.filter.matches(&view) {
            continue;
        }
        hidden += u64::from(s.inode != 0 && view.owner.pid.is_none());
        sockets.push(Socket {
            facts: facts(s, view.recv_q.is_some()),
            view,
        });
    }
    (sockets, hidden)
}

/// As [`states`], without the listeners that only roles wanted. sock_diag shows request sockets
/// as SYN_RECV.
fn states_shown(asked: StateSet) -> StateSet {
    if asked.is_empty() {
        return states(asked);
    }
    match asked.contains(TcpState::NewSynRecv) {
        true => asked.with(TcpState::SynRecv),
        false => asked,
    }
}

/// Who has the socket open, or, of one that nobody has accepted, its listener.
fn owner(
    s: &SocketSnapshot,
    listeners: &Listeners,
    owners: &Owners,
    processes: &mut Processes,
) -> Owner {
    if s.inode != 0 {
        let holders = owners.of(s.inode);
        let Some(first) = holders.first() else {
            return Owner::default();
        };
        return processes.owner(first, Some(first.fd), holders.to_vec(), false);
    }
    let waits = s.state == TcpState::SynRecv || role(s, listeners) == Some(Role::Unaccepted);
    let listener = waits.then(|| listeners.covering(&s.tuple)).flatten();
    let first = listener.and_then(|l| l.inodes.iter().flat_map(|i| owners.of(*i)).min());
    match first {
        Some(first) => processes.owner(first, None, Vec::new(), true),
        None => Owner {
            by_listener: waits,
            ..Owner::default()
        },
    }
}

/// Facts of processes, each read once.
#[derive(Debug, Default)]
struct Processes(BTreeMap<u32, Option<Process>>);

impl Processes {
    fn owner(
        &mut self,
        of: &Holder,
        fd: Option<u32>,
        holders: Vec<Holder>,
        by_listener: bool,
    ) -> Owner {
        let process = self
            .0
            .entry(of.pid)
            .or_insert_with(|| proc::process(of.pid));
        let process = process.clone().unwrap_or_default();
        Owner {
            pid: Some(of.pid),
            tid: None,
            comm: Some(of.comm),
            fd,
            holders,
            cmdline: process.cmdline,
            cgroup: process.cgroup,
            cgroup_id: None,
            container: process.container,
            by_listener,
            remembered: false,
        }
    }
}

fn facts(s: &SocketSnapshot, full: bool) -> SocketFacts {
    let (timer, timer_left_ms) = match s.timer {
        Timer::Off => ("off", None),
        Timer::Retransmit { left_ms } => ("retransmit", Some(left_ms)),
        Timer::Keepalive { left_ms } => ("keepalive", Some(left_ms)),
        Timer::TimeWait { left_ms } => ("timewait", Some(left_ms)),
        Timer::Probe { left_ms } => ("probe", Some(left_ms)),
    };
    SocketFacts {
        inode: (s.inode != 0).then_some(s.inode),
        uid: full.then_some(s.uid),
        timer,
        timer_left_ms,
    }
}

fn tell_hidden(hidden: u64, owners: &Owners, notices: &mut dyn Write) -> io::Result<()> {
    if hidden == 0 {
        return Ok(());
    }
    if owners.hidden_processes > 0 {
        writeln!(
            notices,
            "tcptrace: owners of {hidden} sockets are hidden ({} processes of other users): run \
             as root to see them",
            owners.hidden_processes
        )
    } else {
        writeln!(
            notices,
            "tcptrace: no owner found of {hidden} sockets: the kernel's own, in flight between \
             processes, or held outside this pid namespace"
        )
    }
}

/// Applies `--min-age`. Of an age that is not known nobody can say that it is great enough.
fn keep_old_enough(
    sockets: &mut Vec<Socket>,
    min_age_ns: u64,
    notices: &mut dyn Write,
) -> io::Result<()> {
    if min_age_ns == 0 {
        return Ok(());
    }
    let unknown = sockets
        .iter()
        .filter(|s| s.view.age.at_least().is_none())
        .count();
    sockets.retain(|s| s.view.age.at_least().is_some_and(|age| age >= min_age_ns));
    if unknown > 0 {
        writeln!(
            notices,
            "tcptrace: {unknown} sockets are left out by --min-age, since the kernel does not \
             tell their age"
        )?;
    }
    Ok(())
}

//! `tcptrace kill`: destroys selected sockets (SOCK_DESTROY). Tells what it would do unless it is told to
//! do it; writes down what it destroys before it does.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use foldhash::{HashMap, HashMapExt as _};
use rustix::io::Errno;
use serde_json::json;
use tcptrace_core::input::SocketSnapshot;
use tcptrace_core::report::json::Line;
use tcptrace_core::report::listing;
use tcptrace_core::report::snapshot::Socket;
use tcptrace_core::state::StateSet;
use tcptrace_core::time::WallAnchor;

use super::snapshot;
use super::trace::WRITE;
use crate::clock;
use crate::end::End;
use crate::error::{CannotRun, Failure, Usage};
use crate::netlink::Name;
use crate::netns::{self, Inside};
use crate::options::Kill;
use crate::privileges;
use crate::recorder;

mod destroy;
mod spared;
mod told;

use destroy::{Barrier, Outcome, Target};
use spared::{Session, Spared};
use told::Sums;

/// Runs `tcptrace kill`.
///
/// # Errors
/// [`CannotRun`] if the privileges or the kernel do not allow it; [`Failure`] if sockets are left that
/// were to be destroyed; else what failed.
pub(crate) fn run(options: &Kill) -> anyhow::Result<ExitCode> {
    let mut notices: Box<dyn Write> = match options.which.terminal.quiet {
        true => Box::new(io::sink()),
        false => Box::new(io::stderr()),
    };
    let anchor = clock::anchor();
    let (sockets, _) = snapshot::select(&options.which, &mut notices)?;
    let mut places = places(&sockets)?;
    let mut session = Session::look();
    let Plan { targets, spared } =
        Plan::new(sockets, &mut places, &mut session, options.listeners)?;
    let report = Report {
        options,
        anchor,
        spared,
    };
    if !options.yes {
        report.would(&targets).context(WRITE)?;
        return Ok(ExitCode::SUCCESS);
    }
    if !privileges::may_administer_network() {
        return Err(cannot(Barrier::Privilege).into());
    }
    session.check()?;
    if targets.is_empty() {
        report.end(&Sums::default(), None).context(WRITE)?;
        return Ok(ExitCode::SUCCESS);
    }
    let evidence = options.evidence.path.as_path();
    write_evidence(options, &targets, anchor)?;
    let (sums, refused, barrier) = destroy(&report, &targets, &mut places)?;
    report.end(&sums, Some(evidence)).context(WRITE)?;
    verdict(&sums, refused, barrier)
}

/// The namespaces that the sockets are in.
fn places(sockets: &[Socket]) -> anyhow::Result<BTreeMap<u32, Inside>> {
    let mut inodes: Vec<u32> = sockets.iter().filter_map(|s| s.view.tuple.netns).collect();
    inodes.sort_unstable();
    inodes.dedup();
    // No number would stand for every namespace.
    if inodes.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut places = BTreeMap::new();
    for netns in netns::wanted(&inodes)?.namespaces {
        places.insert(netns.inode, netns.look_inside()?);
    }
    Ok(places)
}

/// What is to be destroyed, and what is not and why.
struct Plan {
    targets: Vec<Target>,
    spared: Vec<(Socket, Spared)>,
}

impl Plan {
    /// Of these sockets, as far as they are still there.
    fn new(
        sockets: Vec<Socket>,
        places: &mut BTreeMap<u32, Inside>,
        session: &mut Session,
        listeners: bool,
    ) -> anyhow::Result<Plan> {
        let mut known: HashMap<u64, (SocketSnapshot, Name)> = HashMap::new();
        for place in places.values_mut() {
            place.diag.dump_named(StateSet::all(), &mut |s, name| {
                session.learn(&s);
                known.insert(s.cookie, (s, name));
            })?;
        }
        let mut plan = Plan {
            targets: Vec::with_capacity(sockets.len()),
            spared: Vec::new(),
        };
        for socket in sockets {
            let Some((s, name)) = known.get(&socket.view.id.cookie) else {
                continue;
            };
            match Spared::judge(s, session, listeners) {
                Some(why) => plan.spared.push((socket, why)),
                None => plan.targets.push(Target {
                    socket,
                    name: *name,
                }),
            }
        }
        Ok(plan)
    }
}

/// Writes a header and a `socket` line for each, down to the disk.
///
/// # Errors
/// [`Usage`] if the file cannot be made, or is there already.
fn write_evidence(options: &Kill, targets: &[Target], anchor: WallAnchor) -> anyhow::Result<()> {
    let place = &options.evidence;
    let name = place.path.display();
    if place.path.symlink_metadata().is_ok() {
        return Err(Usage::new(
            format!("{name} exists already"),
            "evidence is never overwritten: give another name with --evidence",
        )
        .into());
    }
    let file = recorder::output(place)?;
    let mut out = io::BufWriter::with_capacity(64 * 1024, file);
    let header = json!({
        "type": "evidence",
        "ts": anchor.rfc3339(clock::mono()),
        "version": env!("CARGO_PKG_VERSION"),
        "command": std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect::<Vec<_>>(),
        "sockets": targets.len(),
    });
    let mut write = || {
        write_json(&mut out, &header)?;
        for Target { socket, .. } in targets {
            write_json(&mut out, &Line::socket(&socket.view, socket.facts, anchor))?;
        }
        out.flush()?;
        out.get_ref().sync_data()
    };
    write().with_context(|| format!("cannot write {name}; nothing was destroyed"))
}

fn write_json(out: &mut impl Write, line: &impl serde::Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}

/// Destroys them, tells of each, and looks what is left. The first refusal of one comes along.
fn destroy(
    report: &Report<'_>,
    targets: &[Target],
    places: &mut BTreeMap<u32, Inside>,
) -> anyhow::Result<(Sums, Option<Errno>, Option<Barrier>)> {
    let mut sums = Sums::default();
    let mut refused = None;
    let mut done = Vec::new();
    let mut told = |target: &Target, outcome: &Outcome| {
        sums.add(outcome);
        match outcome {
            Outcome::Refused(errno) => refused = refused.or(Some(*errno)),
            Outcome::Destroyed | Outcome::Gone => done.push(target.socket.view.id.cookie),
            _ => {}
        }
        report.outcome(target, outcome)
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    let barrier = runtime.block_on(async {
        let mut end = End::new()?;
        let rate = report.options.rate;
        destroy::all(targets, places, rate, &mut end, &mut told).await
    })?;
    let present = destroy::present(places).context("cannot look what is left")?;
    sums.still_there = done.iter().filter(|c| present.contains(*c)).count();
    Ok((sums, refused, barrier))
}

/// How the run ends, when all is told.
fn verdict(
    sums: &Sums,
    refused: Option<Errno>,
    barrier: Option<Barrier>,
) -> anyhow::Result<ExitCode> {
    if let Some(barrier) = barrier {
        return Err(cannot(barrier).into());
    }
    match refused {
        Some(Errno::OPNOTSUPP) => Err(CannotRun {
            what: format!("destroy {} sockets", sums.refused),
            why: "this kernel destroys no minisockets".to_owned(),
            fix: "they end by themselves, in 60 s or by tcp_fin_timeout; 6.1 and later can".to_owned(),
        }
        .into()),
        Some(errno) => Err(Failure {
            what: format!("{} sockets were not destroyed: {}", sums.refused, io::Error::from(errno)),
            fix: "the lines above say which".to_owned(),
        }
        .into()),
        None if sums.refused > 0 => Err(Failure {
            what: format!("{} listeners were not destroyed", sums.refused),
            fix: "others have their ports, too, and the kernel finds those: name them as well".to_owned(),
        }
        .into()),
        None if sums.still_there > 0 => Err(Failure {
            what: format!("{} sockets are still there", sums.still_there),
            fix: "kernels before 6.11 destroy none that its process has closed; those end by themselves"
                .to_owned(),
        }
        .into()),
        None => Ok(ExitCode::SUCCESS),
    }
}

fn cannot(barrier: Barrier) -> CannotRun {
    let (why, fix) = match barrier {
        Barrier::Privilege => ("no CAP_NET_ADMIN", "run it with sudo"),
        Barrier::Kernel => (
            "the kernel was built without CONFIG_INET_DIAG_DESTROY",
            "end the process that has them, or use a kernel with that option",
        ),
    };
    CannotRun {
        what: "destroy sockets".to_owned(),
        why: why.to_owned(),
        fix: fix.to_owned(),
    }
}

/// What goes to standard output.
struct Report<'a> {
    options: &'a Kill,
    anchor: WallAnchor,
    spared: Vec<(Socket, Spared)>,
}

impl Report<'_> {
    /// What would be done.
    fn would(&self, targets: &[Target]) -> io::Result<()> {
        let mut out = io::BufWriter::new(io::stdout().lock());
        if self.options.which.json {
            for target in targets {
                let line = told::object(&target.socket, "would_destroy", None, self.anchor);
                write_json(&mut out, &line)?;
            }
            self.sum_json(&mut out, targets.len(), None, None)?;
        } else {
            let which = &self.options.which;
            let sockets: Vec<Socket> = targets.iter().map(|t| t.socket.clone()).collect();
            if !sockets.is_empty() {
                listing::sockets(&sockets, which.all_netns, which.terminal.width, &mut out)?;
            }
            write!(out, "{}", told::would(targets, &self.spared))?;
        }
        out.flush()
    }

    /// What became of one.
    fn outcome(&self, target: &Target, outcome: &Outcome) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match self.options.which.json {
            true => write_json(
                &mut out,
                &told::outcome_object(target, outcome, self.anchor),
            ),
            false => out.write_all(told::line(target, outcome).as_bytes()),
        }
    }

    /// What it came to.
    fn end(&self, sums: &Sums, evidence: Option<&Path>) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match self.options.which.json {
            true => self.sum_json(&mut out, sums.all(), Some(sums), evidence)?,
            false => write!(out, "{}", told::sum(sums, &self.spared, evidence))?,
        }
        out.flush()
    }

    fn sum_json(
        &self,
        out: &mut impl Write,
        selected: usize,
        sums: Option<&Sums>,
        evidence: Option<&Path>,
    ) -> io::Result<()> {
        for (socket, why) in &self.spared {
            let why = Some(why.why().to_owned());
            write_json(out, &told::object(socket, "spared", why, self.anchor))?;
        }
        let spared = self.spared.len();
        let line = told::sum_object(selected + spared, sums, spared, evidence, self.anchor);
        write_json(out, &line)
    }
}

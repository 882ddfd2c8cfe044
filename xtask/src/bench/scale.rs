//! What many open sockets cost: memory, start-up, snapshots, and connections beside them.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Resource, getrlimit};

use super::beside::{Running, Tool};
use super::kernel::{self, Bpf};
use super::load::{Churn, Churned, Load, Place};
use super::spread::{Spread, paired};
use super::table::{Bound, Table, Target, Unit};
use super::{Lab, Results};

const SIZES: [u64; 4] = [1_000, 10_000, 100_000, 1_000_000];
/// A process holds no more, whatever its limits allow.
const MOST_PER_PROCESS: u64 = 250_000;
/// Descriptors of a process that are no held sockets.
const OTHER_FILES: u64 = 100;
/// What the kernel takes for a socket and its file, at most, with room to spare.
const BYTES_PER_SOCKET: u64 = 8 << 10;
/// What is left to everything else.
const SPARE_BYTES: u64 = 2 << 30;
/// Whether it works is seen with these.
const MOST_WHEN_QUICK: u64 = 10_000;
/// `ss -tanp` takes minutes for more.
const MOST_FOR_SS_OWNERS: u64 = 100_000;
/// Whoever has listed all looks up owners, and is done with it after this.
const SETTLED: Duration = Duration::from_millis(1_500);

/// Sockets in CLOSE_WAIT, held by processes of one namespace.
struct Held {
    loads: Vec<Load>,
}

impl Held {
    fn hold(workload: &Path, count: u64) -> Result<Held> {
        let limit = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        let most = limit.saturating_sub(OTHER_FILES).clamp(1, MOST_PER_PROCESS);
        let mut loads: Vec<Load> = Vec::new();
        let mut left = count;
        while left > 0 {
            let part = left.min(most);
            let place = match loads.first() {
                Some(first) => Place::With(first.pid()),
                None => Place::OwnWithoutMinisockets,
            };
            let words = ["hold".to_owned(), part.to_string()];
            let mut load = Load::start(workload, place, &words)?;
            let held = load.answer()?["held"].as_u64();
            ensure!(held == Some(part), "{held:?} sockets of {part} are held");
            loads.push(load);
            left -= part;
        }
        Ok(Held { loads })
    }

    /// A command in their namespace.
    fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        let first = self.loads.first().context("nothing is held")?;
        Ok(Place::With(first.pid()).command(program))
    }

    fn end(mut self) -> Result<()> {
        self.loads.iter_mut().for_each(Load::release);
        self.loads.into_iter().try_for_each(Load::end)
    }
}

/// All sizes for which there is memory.
pub(crate) fn scale(lab: &Lab, results: &mut Results) -> Result<()> {
    let without = resident_without(lab)?;
    let mut all = Vec::new();
    for size in SIZES {
        let room = kernel::available().unwrap_or(0);
        if lab.quick && size > MOST_WHEN_QUICK {
            continue;
        }
        if size * BYTES_PER_SOCKET + SPARE_BYTES > room {
            eprintln!(
                "left out: {size} sockets: {} MiB of memory are free",
                room >> 20
            );
            continue;
        }
        all.push((size, of_size(lab, size, without)?));
    }
    let column = |names: &[(&'static str, Unit)], from: usize| {
        let rows = all.iter().map(|(size, figures)| {
            let name = format!("{size} sockets");
            (name, figures[from..from + names.len()].to_vec())
        });
        (names.to_vec(), rows.collect())
    };
    let (columns, rows) = column(&FIGURES[..8], 0);
    results.tables.push(Table {
        title: "`watch --state close_wait` of sockets that are held".to_owned(),
        subject: "held",
        columns,
        rows,
    });
    let (columns, rows) = column(&FIGURES[8..], 8);
    results.tables.push(Table {
        title: "Lists of sockets that are held".to_owned(),
        subject: "held",
        columns,
        rows,
    });
    targets(&all, results);
    Ok(())
}

/// What `watch` takes where nothing is held, bytes.
fn resident_without(lab: &Lab) -> Result<Option<u64>> {
    let running = watch(lab)?.running;
    let resident = kernel::resident(running.pid());
    running.stop()?;
    Ok(resident)
}

/// In the order of [`of_size`].
const FIGURES: [(&str, Unit); 14] = [
    ("found", Unit::Count),
    ("resident bytes per socket", Unit::Count),
    ("maps", Unit::Mebibytes),
    ("first line after", Unit::Millis),
    ("attached and all listed after", Unit::Millis),
    ("^C to exit", Unit::Millis),
    ("connections/s beside, alone", Unit::Count),
    ("their loss", Unit::Percent),
    ("`snapshot -s close_wait`", Unit::Millis),
    ("`snapshot --summary`", Unit::Millis),
    ("`ss -tan`", Unit::Millis),
    ("`ss -tanp`", Unit::Millis),
    ("`report` of a recording", Unit::Millis),
    ("`snapshot`, of `ss -tanp`", Unit::Ratio),
];

fn of_size(lab: &Lab, size: u64, without: Option<u64>) -> Result<Vec<Option<Spread>>> {
    lab.progress(&format!("{size} sockets"));
    let held = Held::hold(&lab.workload, size)?;
    let rounds = if size > 100_000 { 1 } else { lab.rounds(3) };
    let churn = Churn::new(&lab.workload, lab.churn_seconds(), &[]);
    let rate = |c: Churned| c.connections / c.seconds;
    let mut figures: Vec<Vec<Option<f64>>> = vec![Vec::new(); FIGURES.len() - 1];
    let mut alone = Vec::new();
    let mut beside = Vec::new();
    for _ in 0..rounds {
        let before = churn.run(|churned| Ok(rate(churned)))?;
        let watch = watch(lab)?;
        let resident = kernel::resident(watch.running.pid()).zip(without);
        let maps = Bpf::of(watch.running.pid()).map_bytes();
        let (there, first, listed) = (watch.there, watch.first_ms, watch.listed_ms);
        let with = churn.run(|churned| Ok(rate(churned)))?;
        let stop = Instant::now();
        watch.running.stop()?;
        let stopped = ms(stop);
        let after = churn.run(|churned| Ok(rate(churned)))?;
        alone.push(Some(f64::midpoint(before, after)));
        beside.push(Some(with));

        let ours = |arguments: &[&str]| -> Result<Option<f64>> {
            Ok(Some(time(held.command(&lab.binary)?.args(arguments))?))
        };
        let ss = |arguments: &str| -> Result<Option<f64>> {
            Ok(Some(time(held.command("ss")?.arg(arguments))?))
        };
        let owners = match size <= MOST_FOR_SS_OWNERS {
            true => ss("-tanp")?,
            false => None,
        };
        let round = [
            Some(there as f64),
            resident.map(|(with, without)| with.saturating_sub(without) as f64 / size as f64),
            Some(maps as f64 / 1_048_576.0),
            first,
            Some(listed),
            Some(stopped),
            Some(f64::midpoint(before, after)),
            None,
            ours(&["snapshot", "--state", "close_wait"])?,
            ours(&["snapshot", "--summary"])?,
            ss("-tan")?,
            owners,
            Some(report(lab)?),
        ];
        for (figure, value) in figures.iter_mut().zip(round) {
            figure.push(value);
        }
    }
    held.end()?;
    let ratio = paired(&figures[8], &figures[11], |ours, theirs| ours / theirs);
    let loss = paired(&beside, &alone, |with, alone| (1.0 - with / alone) * 100.0);
    let mut spreads: Vec<_> = figures
        .into_iter()
        .map(|rounds| Spread::of(rounds.into_iter().flatten()))
        .collect();
    spreads[7] = loss;
    spreads.push(ratio);
    Ok(spreads)
}

/// A `watch` that has listed what was there.
struct Watch {
    running: Running,
    /// How many it found.
    there: u64,
    /// From its start to the first byte of its output, if anything lingers.
    first_ms: Option<f64>,
    listed_ms: f64,
}

fn watch(lab: &Lab) -> Result<Watch> {
    let tool = Tool::ours(&lab.binary, "watch --state close_wait");
    let start = Instant::now();
    let mut running = tool.spawn(Stdio::piped())?;
    let mut out = running.child.0.stdout.take().context("stdout is piped")?;
    let (tell, told) = channel();
    thread::spawn(move || {
        let first = out.read(&mut [0; 1 << 12]);
        if first.is_ok_and(|length| length > 0) {
            // Nobody may be there to hear of it any more.
            let _ = tell.send(ms(start));
        }
        io::copy(&mut out, &mut io::sink())
    });
    let there = running.wait_watching()?;
    let listed_ms = ms(start);
    // Where nothing lingers there is none.
    let first_ms = told.recv_timeout(SETTLED).ok();
    thread::sleep(SETTLED);
    Ok(Watch {
        running,
        there,
        first_ms,
        listed_ms,
    })
}

/// A recording of one second, and how long its report takes, ms.
fn report(lab: &Lab) -> Result<f64> {
    let file = lab.directory.join("held.rec");
    let mut record = Command::new(&lab.binary);
    record.args([
        "record",
        "--quiet",
        "--force",
        "--duration",
        "1s",
        "--output",
    ]);
    time(record.arg(&file))?;
    time(Command::new(&lab.binary).arg("report").arg(&file))
}

/// How long a command takes, its output thrown away, ms.
fn time(command: &mut Command) -> Result<f64> {
    let null = File::create("/dev/null")?;
    command
        .stdin(Stdio::null())
        .stdout(null)
        .stderr(Stdio::null());
    let start = Instant::now();
    let status = command
        .status()
        .with_context(|| format!("cannot start {command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(ms(start))
}

fn ms(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1000.0
}

fn targets(all: &[(u64, Vec<Option<Spread>>)], results: &mut Results) {
    let of = |size: u64, figure: usize| {
        let (_, figures) = all.iter().find(|(held, _)| *held == size)?;
        figures[figure]
    };
    let greatest = all.last().map_or(0, |(size, _)| *size);
    for (measure, bound, unit, found) in [
        (
            format!("resident memory per socket, {greatest} held"),
            Bound::AtMost(250.0),
            Unit::Count,
            of(greatest, 1),
        ),
        (
            "sockets held, all of them found".to_owned(),
            Bound::AtLeast(1_000_000.0),
            Unit::Count,
            of(greatest, 0),
        ),
        (
            "`snapshot -s close_wait` of 100,000, with owners".to_owned(),
            Bound::AtMost(400.0),
            Unit::Millis,
            of(100_000, 8),
        ),
        (
            "the same, of `ss -tanp`".to_owned(),
            Bound::AtMost(0.1),
            Unit::Ratio,
            of(100_000, 13),
        ),
        (
            "`watch`: first line of 100,000 older sockets".to_owned(),
            Bound::AtMost(1000.0),
            Unit::Millis,
            of(100_000, 3),
        ),
    ] {
        results.targets.push(Target {
            measure,
            bound,
            unit,
            found,
        });
    }
}

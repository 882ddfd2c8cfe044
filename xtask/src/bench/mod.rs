//! `cargo xtask bench`: what the tracer weighs, beside its peers and by itself. The tables of
//! docs/performance.md are its output.
#![expect(clippy::print_stdout, reason = "the tables are this task's output")]

mod beside;
mod churn;
mod delay;
mod guard;
mod kernel;
mod load;
mod offline;
mod rounds;
mod scale;
mod spread;
mod table;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};

use crate::apt;
use crate::process;
use crate::workspace::{RELEASE_FEATURES, Workspace};
use table::{Table, Target};

/// Options of `cargo xtask bench`.
#[derive(Args)]
pub(crate) struct Options {
    /// What to measure [default: everything but guard]
    names: Vec<Name>,
    /// Once, and with less of everything: whether it works, no figures to quote
    #[arg(long)]
    quick: bool,
    /// Rounds of everything [default: 3 to 7]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// One JSON object instead of tables
    #[arg(long)]
    json: bool,
    /// Take what guard finds over into its list
    #[arg(long)]
    bless: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    /// Connections that come and go, beside tcptrace and its peers
    Churn,
    /// The same by every chain of mechanisms that this kernel has
    Chains,
    /// Connections of other kinds: who closes first, resets, IPv6, data, threads
    Shapes,
    /// How late lines come, and what waiting costs, at several rates
    Delay,
    /// A thousand to a million sockets that are held
    Scale,
    /// The core without a kernel: times and instructions
    Offline,
    /// Instructions and bytes against the reviewed list xtask/weights.txt
    Guard,
}

/// In the order of the tables.
const ALL: [Name; 6] = [
    Name::Churn,
    Name::Chains,
    Name::Shapes,
    Name::Delay,
    Name::Scale,
    Name::Offline,
];

/// What was found.
#[derive(Default)]
struct Results {
    tables: Vec<Table>,
    targets: Vec<Target>,
}

/// What measuring takes.
struct Lab<'a> {
    workspace: &'a Workspace,
    binary: PathBuf,
    workload: PathBuf,
    /// For files that nobody needs afterwards.
    directory: PathBuf,
    quick: bool,
    rounds: Option<u32>,
    begin: Instant,
}

impl Lab<'_> {
    fn rounds(&self, wanted: usize) -> usize {
        match self.rounds {
            Some(rounds) => rounds as usize,
            None if self.quick => 1,
            None => wanted,
        }
    }

    /// How long connections come as fast as they can.
    fn churn_seconds(&self) -> f64 {
        if self.quick { 0.5 } else { 2.0 }
    }

    /// How long they come at a rate.
    fn steady_seconds(&self) -> f64 {
        if self.quick { 1.0 } else { 5.0 }
    }

    fn progress(&self, what: &str) {
        eprintln!("{:>6.1} s  {what}", self.begin.elapsed().as_secs_f64());
    }
}

/// Measures, and prints what was found.
pub(crate) fn bench(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let guarded = options.names.contains(&Name::Guard);
    ensure!(
        guarded || !options.bless,
        "--bless is of guard: `cargo xtask bench guard --bless`"
    );
    let wanted = |name: &Name| options.names.is_empty() || options.names.contains(name);
    let wanted: Vec<Name> = ALL.into_iter().filter(wanted).collect();
    let live = wanted.iter().any(|name| *name != Name::Offline);
    ensure!(
        !live || rustix::process::geteuid().is_root(),
        "only root can trace: run it as root, or `cargo xtask bench offline`"
    );
    let mut packages = Vec::new();
    if guarded || wanted.contains(&Name::Offline) {
        packages.extend(apt::missing(apt::WEIGHTS));
    }
    if live {
        packages.extend(apt::missing(apt::BENCH));
    }
    apt::install(&packages)?;
    if guarded {
        guard::guard(workspace, options.bless)?;
    }
    if wanted.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    if live {
        build(workspace)?;
    }
    let directory = workspace.target.join("bench");
    fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    let lab = Lab {
        workspace,
        binary: workspace.binary(),
        workload: workspace.target.join("release/workload"),
        directory,
        quick: options.quick,
        rounds: options.rounds,
        begin: Instant::now(),
    };
    let mut results = Results::default();
    for name in wanted {
        match name {
            Name::Churn => churn::churn(&lab, &mut results)?,
            Name::Chains => churn::chains(&lab, &mut results)?,
            Name::Shapes => churn::shapes(&lab, &mut results)?,
            Name::Delay => delay::delay(&lab, &mut results)?,
            Name::Scale => scale::scale(&lab, &mut results)?,
            Name::Offline => offline::offline(&lab, &mut results)?,
            Name::Guard => {}
        }
    }
    print(&results, options.json);
    fs::remove_dir_all(&lab.directory).with_context(|| lab.directory.display().to_string())?;
    Ok(ExitCode::SUCCESS)
}

fn print(results: &Results, json: bool) {
    if json {
        let tables: Vec<_> = results.tables.iter().map(Table::to_json).collect();
        let targets = table::targets_json(&results.targets);
        let object = serde_json::json!({
            "machine": machine(),
            "tables": tables,
            "targets": targets,
        });
        println!("{object}");
        return;
    }
    println!("{}\n", machine());
    for table in &results.tables {
        println!("{}", table.to_text());
    }
    println!("{}", table::targets_text(&results.targets));
}

/// `Linux 6.18.44, 2 processors, …`.
fn machine() -> String {
    let system = rustix::system::uname();
    let release = system.release().to_string_lossy();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("", |model| model.trim_start_matches([' ', '\t', ':']));
    format!("Linux {release}, {processors} processors, {model}")
}

/// For headings.
fn of_rounds(rounds: usize) -> String {
    match rounds {
        1 => "one round".to_owned(),
        rounds => format!("{rounds} rounds"),
    }
}

/// Builds the tracer and the loads, both optimized.
fn build(workspace: &Workspace) -> Result<()> {
    let mut tracer = workspace.cargo();
    tracer.args(["build", "--release", "--package", "tcptrace-user"]);
    process::succeed(tracer.args(["--features", RELEASE_FEATURES]))?;
    let mut loads = workspace.cargo();
    loads.args(["build", "--release", "--package", "tcptrace-tests"]);
    process::succeed(loads.args(["--bin", "workload"]))
}

/// What a command prints; whatever its exit code, as that of `doctor`.
fn output_of(program: impl AsRef<Path>, args: &[impl AsRef<OsStr>]) -> Result<Vec<u8>> {
    let program = program.as_ref();
    let mut command = Command::new(program);
    command
        .args(args)
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    let output = command.output();
    let output = output.with_context(|| format!("cannot start {}", program.display()))?;
    Ok(output.stdout)
}

//! `cargo xtask vm`: the live tests on kernels other than this machine's.
#![expect(clippy::print_stdout, reason = "the table is this task's output")]

mod boot;
mod chain;
mod cpio;
mod frames;
mod guest;
mod kernels;
mod modules;
mod results;
mod verifier;
pub(crate) mod version;

use std::cmp::Reverse;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use clap::ValueEnum as _;

use crate::archive::{self, Archive};
use crate::workspace::Workspace;
use crate::{apt, ebpf};
use boot::{Machine, boot};
use chain::Chain;
use guest::{Job, Suite};
use kernels::{Kernel, Series};
use results::Run;

/// What to run, and on what.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Kernels to boot; all of them if none is named
    #[arg(long, value_enum, value_delimiter = ',')]
    kernel: Vec<Series>,
    /// A kernel in package files of Debian's form (its image, and its modules if they are in
    /// another), instead of the archive's kernels
    #[arg(
        long,
        value_name = "FILE",
        value_delimiter = ',',
        conflicts_with = "kernel"
    )]
    kernel_deb: Vec<PathBuf>,
    /// Mechanisms to try, each for itself; all of them if none is named
    #[arg(long, value_enum, value_delimiter = ',', value_name = "CHAIN")]
    hooks: Vec<Chain>,
    /// Run only this test binary, or only the tests whose name contains this
    #[arg(long, value_name = "NAME")]
    test: Vec<String>,
    /// Use KVM. Not the default even where it works: emulated guests run in virtual time, and do
    /// the same on every machine, however busy it is
    #[arg(long)]
    kvm: bool,
    /// Processors of a guest. Emulated, one runs in virtual time, more in real time [default: 1
    /// where it is emulated, 2 with KVM]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    processors: usize,
    /// Guests at a time [default: as many as this machine's processors can serve]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Take what the verifier makes of the programs into the reviewed list
    #[arg(long)]
    bless: bool,
    /// End a guest, as hung, after so many minutes
    #[arg(long, value_name = "MINUTES", default_value_t = 15)]
    limit: u64,
}

/// Test binaries to which the chain makes no difference: they run with the first one only.
const ONCE_PER_KERNEL: [&str; 6] = ["btf", "chains", "filters", "kill", "polled", "manners"];
/// Test binaries that run on the oldest and on the newest kernel only: those in between do what they
/// ask for as one of the two does.
const OUTERMOST: [&str; 4] = ["filters", "kill", "manners", "polled"];
/// The same of all chains but the first.
const OUTERMOST_CHAINS: [&str; 4] = ["gone", "leaks", "overflow", "pushed"];
/// Test binaries to which the kernel makes none either: they run on the newest one only. This
/// machine's own kernel is another.
const ONCE: [&str; 5] = ["harness", "record", "replay", "report", "trigger"];
/// Divides the counts of the tests that are about many sockets, where processors are emulated.
const EMULATED_SCALE: &str = "20";
/// Multiplies the limits of the tests where emulated processors run in real time.
const EMULATED_PATIENCE: &str = "6";

/// Boots every kernel with every chain, and prints what passed and what failed.
pub(crate) fn vm(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let mut packages = apt::missing(apt::VM);
    packages.extend(apt::missing(apt::TESTS));
    apt::install(&packages)?;
    let directory = workspace.target.join("vm");
    // The kernels first: they come over the network, and what fails should fail soon.
    let kernels = kernels(options, &directory)?;
    let suite = Suite::build(workspace, &object(workspace)?)?;
    let (suites, filters) = select(&options.test, suite.names());

    let machine = Machine::choose(options.kvm, options.processors);
    let mut variables = Vec::new();
    if !matches!(machine, Machine::Kvm { .. }) {
        variables.push(("TCPTRACE_TEST_SCALE", EMULATED_SCALE.to_owned()));
    }
    if matches!(machine, Machine::Emulated { .. }) {
        variables.push(("TCPTRACE_TEST_PATIENCE", EMULATED_PATIENCE.to_owned()));
    }
    let newest = kernels.len() - 1;
    let guests = kernels
        .into_iter()
        .enumerate()
        .flat_map(|(nth, (name, kernel))| {
            let kernel = kernel.map_err(|error| format!("{error:#}"));
            let job = |number: usize, chain: &Chain| {
                let first = number == 0;
                let outermost = nth == 0 || nth == newest;
                let once = first && nth == newest;
                let left_out = |suite: &str| {
                    (!first && ONCE_PER_KERNEL.contains(&suite))
                        || (!outermost && OUTERMOST.contains(&suite))
                        || (!outermost && !first && OUTERMOST_CHAINS.contains(&suite))
                        || (!once && ONCE.contains(&suite))
                };
                let all = !options.test.is_empty();
                let wanted = suites.iter().filter(|suite| all || !left_out(suite));
                let mut variables = variables.clone();
                if !once {
                    // What a recording holds is a matter of the kernel no more than `ONCE` is.
                    variables.push(("TCPTRACE_TEST_REPLAYS", "0".to_owned()));
                }
                Job {
                    chain: *chain,
                    suites: wanted.cloned().collect(),
                    filters: filters.clone(),
                    variables,
                }
            };
            let chains = match options.hooks.is_empty() {
                true => Chain::usual(&name),
                false => options.hooks.clone(),
            };
            let guest = |(number, chain)| (name.clone(), kernel.clone(), job(number, chain));
            chains.iter().enumerate().map(guest).collect::<Vec<_>>()
        });
    let guests: Vec<_> = guests.collect();

    let host = Host {
        directory,
        machine,
        limit: Duration::from_secs(60 * options.limit),
    };
    let at_once = options.jobs.unwrap_or_else(|| host.guests_at_once());
    eprintln!(
        "{} guests, {at_once} at a time: {}",
        guests.len(),
        machine.describe()
    );
    let start = Instant::now();
    let runs = host.run_all(guests, &suite, at_once);
    let table = results::table(&runs);
    fs::write(
        host.directory.join("results/table.txt"),
        format!("{table}\n"),
    )?;
    // Only by all ways into a kernel all programs are loaded.
    let all =
        options.kernel.is_empty() && options.hooks.is_empty() && options.kernel_deb.is_empty();
    if options.bless {
        verifier::bless(workspace, &runs, all)?;
    }
    let grown = verifier::grown(workspace, &runs, all)?;
    let seconds = start.elapsed().as_secs_f64();
    let verdict = results::verdict(&runs, &grown);
    println!("\n{table}\n\n{verdict}; {seconds:.0} s");
    let well = grown.is_empty() && runs.iter().all(|run| run.failed() == 0);
    Ok(match well {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// The kernels that were asked for, by name. One that cannot be had keeps none of the others.
fn kernels(options: &Options, directory: &Path) -> Result<Vec<(String, Result<Kernel>)>> {
    let into = directory.join("kernels");
    if !options.kernel_deb.is_empty() {
        let kernel = Kernel::of_files(&options.kernel_deb, &into)?;
        return Ok(vec![(kernel.name.clone(), Ok(kernel))]);
    }
    let series = match options.kernel.is_empty() {
        true => Series::value_variants(),
        false => &options.kernel,
    };
    let mut archive = Archive::open(directory.join("archive"), archive::KERNELS);
    let mut kernels = Vec::new();
    for series in series {
        let kernel = match &mut archive {
            Ok(archive) => Kernel::of_series(*series, archive, &into),
            Err(error) => Err(anyhow!("{error:#}")),
        };
        match &kernel {
            Ok(kernel) => eprintln!("{}: {}", kernel.name, kernel.version),
            Err(error) => eprintln!("{}: {error:#}", series.name()),
        }
        kernels.push((series.name().to_owned(), kernel));
    }
    Ok(kernels)
}

/// `TCPTRACE_BPF_OBJECT`, else what the sources give.
fn object(workspace: &Workspace) -> Result<PathBuf> {
    if let Some(object) = env::var_os("TCPTRACE_BPF_OBJECT") {
        return Ok(env::current_dir()?.join(object));
    }
    let object = workspace.target.join("bpf/tcptrace.bpf.o");
    ebpf::write_to(workspace, &object)?;
    Ok(object)
}

/// The test binaries to run, and the filters for what is in them.
fn select(wanted: &[String], names: Vec<String>) -> (Vec<String>, Vec<String>) {
    let is_binary = |wanted: &&String| names.contains(wanted);
    let (binaries, filters): (Vec<_>, Vec<_>) = wanted.iter().partition(is_binary);
    let chosen = |name: &String| binaries.is_empty() || binaries.contains(&name);
    let suites = names.iter().filter(|name| chosen(name)).cloned().collect();
    (suites, filters.into_iter().cloned().collect())
}

/// This machine, as the guests see it.
struct Host {
    directory: PathBuf,
    machine: Machine,
    limit: Duration,
}

type Guest = (String, Result<Kernel, String>, Job);

impl Host {
    fn guests_at_once(&self) -> usize {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        (processors / self.machine.threads()).max(1)
    }

    /// Runs them, so many at a time, and gives what came of them in the same order.
    fn run_all(&self, guests: Vec<Guest>, suite: &Suite, at_once: usize) -> Vec<Run> {
        // Those with the most to do first, and of these kprobes, whose breakpoints cost the emulation most,
        // and the newest kernels: they take longest, and none should be alone at the end.
        let mut waiting: Vec<_> = guests.into_iter().enumerate().collect();
        waiting.sort_by_key(|(number, (_, _, job))| {
            Reverse((job.suites.len(), job.chain == Chain::Kprobe, *number))
        });
        let waiting = Mutex::new(waiting.into_iter());
        let finished = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for _ in 0..at_once {
                scope.spawn(|| {
                    loop {
                        let next = waiting.lock().expect("the queue").next();
                        let Some((number, guest)) = next else { return };
                        let run = self.run(guest, suite);
                        finished.lock().expect("the runs").push((number, run));
                    }
                });
            }
        });
        let mut finished = finished.into_inner().expect("the runs");
        finished.sort_by_key(|(number, _)| *number);
        finished.into_iter().map(|(_, run)| run).collect()
    }

    fn run(&self, (name, kernel, job): Guest, suite: &Suite) -> Run {
        let chain = job.chain.name();
        let title = format!("{name}-{chain}");
        let results = self.directory.join("results").join(&title);
        let kernel = kernel.map_err(|error| anyhow!(error));
        let mut run = Run {
            version: kernel
                .as_ref()
                .map_or_else(|_| String::new(), |k| k.version.clone()),
            kernel: name,
            chain,
            suites: job.suites.clone(),
            outcome: Err(anyhow!("did not run")),
        };
        run.outcome = kernel.and_then(|kernel| {
            // What an earlier run left must not be taken for this one's.
            let _ = fs::remove_dir_all(&results);
            fs::create_dir_all(&results)?;
            let initrd = results.join("initrd");
            let archives = [suite.file_system(&kernel)?, job.to_cpio(kernel.lacks())];
            fs::write(&initrd, archives.concat())?;
            let outcome = boot(&kernel, self.machine, &initrd, &results, self.limit);
            fs::remove_file(&initrd)?;
            outcome
        });
        if let Err(error) = run.keep(&results) {
            eprintln!("{title}: cannot keep the results: {error:#}");
        }
        eprintln!("{title}: {} passed, {} failed", run.passed(), run.failed());
        run
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_binarys_or_part_of_a_tests() {
        let names = || ["harness", "states"].map(str::to_owned).to_vec();
        let select = |wanted: &[&str]| {
            let wanted: Vec<String> = wanted.iter().map(|w| (*w).to_owned()).collect();
            select(&wanted, names())
        };
        assert_eq!(select(&[]), (names(), vec![]));
        assert_eq!(select(&["states"]), (vec!["states".to_owned()], vec![]));
        assert_eq!(select(&["fins"]), (names(), vec!["fins".to_owned()]));
    }
}

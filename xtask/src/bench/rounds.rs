//! Rounds: the load alone, then beside each tool, then alone again, so that what drifts drifts for
//! all of them. Ratios are taken within a round.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::Lab;
use super::beside::{self, Running, Tool};
use super::kernel::{self, Bpf, Statistics};
use super::load::{Churn, Churned};
use super::spread::Rounds;

/// A tool empties its buffers after the load has ended.
const DRAIN: Duration = Duration::from_millis(300);
/// Connections that come first, so that nothing is met for the first time.
const WARM_UP_SECONDS: f64 = 0.5;

/// What one tool did in one round.
#[derive(Clone, Debug)]
pub(crate) struct Beside {
    pub(crate) churned: Churned,
    /// Processor time of the tool.
    pub(crate) cpu_ns: Option<f64>,
    /// Its memory afterwards, without that of its maps.
    pub(crate) resident: Option<f64>,
    pub(crate) map_bytes: f64,
    /// Events that it says it lost; where it was asked to say so.
    pub(crate) lost: Option<f64>,
    /// Time and number of runs of its programs, where they were counted.
    pub(crate) ran: Option<(f64, f64)>,
    /// The same of each program, by its name in the kernel.
    pub(crate) programs: Vec<(String, f64, f64)>,
}

/// All rounds of some tools beside one load.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    /// The load alone, of each round the mean of before and after.
    alone: Vec<Churned>,
    /// Of each tool, in every round.
    tools: Vec<Vec<Option<Beside>>>,
    /// Of each tool, in a round of its own in which the time of programs was taken, which is
    /// nowhere else.
    counted: Vec<Option<Beside>>,
}

impl Measured {
    /// One figure of the load alone.
    pub(crate) fn alone(&self, figure: impl Fn(&Churned) -> f64) -> Rounds {
        self.alone
            .iter()
            .map(|churned| Some(figure(churned)))
            .collect()
    }

    /// One figure of a tool.
    pub(crate) fn of(&self, tool: usize, figure: impl Fn(&Beside) -> Option<f64>) -> Rounds {
        let rounds = self.tools.get(tool).into_iter().flatten();
        rounds
            .map(|beside| beside.as_ref().and_then(&figure))
            .collect()
    }

    /// What a tool did in the round in which the time of programs was taken.
    pub(crate) fn counted(&self, tool: usize) -> Option<&Beside> {
        self.counted.get(tool)?.as_ref()
    }
}

/// Measures some tools beside one load.
pub(crate) fn measure(
    lab: &Lab,
    tools: &[Tool],
    shape: &[&str],
    rounds: usize,
) -> Result<Measured> {
    let seconds = lab.churn_seconds();
    let churn = Churn::new(&lab.workload, seconds, shape);
    let warm_up = Churn::new(&lab.workload, WARM_UP_SECONDS.min(seconds), shape);
    let mut measured = Measured {
        tools: vec![Vec::new(); tools.len()],
        ..Measured::default()
    };
    let beside = |tool: &Tool, counts: bool| {
        let outcome = run_beside(lab, tool, &warm_up, &churn, counts);
        // A peer may not work on this kernel: the table has no figures of it then.
        outcome
            .inspect_err(|error| eprintln!("left out: {}: {error:#}", tool.name))
            .ok()
    };
    warm_up.run(|_| Ok(()))?;
    for tool in tools {
        lab.progress(&format!("{}, time of programs", tool.name));
        measured.counted.push(beside(tool, true));
    }
    for round in 0..rounds {
        lab.progress(&format!("round {} of {rounds}", round + 1));
        let before = churn.run(Ok)?;
        for (tool, all) in tools.iter().zip(&mut measured.tools) {
            all.push(beside(tool, false));
        }
        measured.alone.push(mean(before, churn.run(Ok)?));
    }
    Ok(measured)
}

fn run_beside(
    lab: &Lab,
    tool: &Tool,
    warm_up: &Churn,
    churn: &Churn,
    counts: bool,
) -> Result<Beside> {
    let path = lab.directory.join("output");
    // What is printed is looked at where no rate is measured.
    let mut running = match counts {
        true => tool.start(beside::output(&path)?)?,
        false => tool.start(beside::output("/dev/null".as_ref())?)?,
    };
    let _statistics = counts.then(Statistics::enable).transpose()?;
    warm_up.run(|_| Ok(()))?;
    thread::sleep(DRAIN);
    let before = Usage::of(&running);
    let mut beside = churn.run(|churned| {
        thread::sleep(DRAIN);
        let after = Usage::of(&running);
        if let Some(status) = running.child.0.try_wait()? {
            bail!("it ended by itself: {status}");
        }
        let ran = after.bpf.ran_since(&before.bpf);
        let programs = match counts {
            true => named(&before.bpf, &after.bpf)?,
            false => Vec::new(),
        };
        let cpu = after.cpu_ns.zip(before.cpu_ns);
        Ok(Beside {
            churned,
            cpu_ns: cpu.map(|(after, before)| after.saturating_sub(before) as f64),
            resident: kernel::resident(running.pid()).map(|bytes| bytes as f64),
            map_bytes: after.bpf.map_bytes() as f64,
            lost: None,
            ran: (ran.1 > 0).then_some((ran.0 as f64, ran.1 as f64)),
            programs,
        })
    })?;
    let said = running.stop()?;
    let printed = fs::read(&path).unwrap_or_default();
    let printed = String::from_utf8_lossy(&printed);
    let words = said.iter().map(String::as_str);
    let lost = match counts {
        true => beside::lost(printed.lines().chain(words)),
        false => beside::lost(words),
    };
    beside.lost = lost.map(|lost| lost as f64);
    Ok(beside)
}

struct Usage {
    cpu_ns: Option<u64>,
    bpf: Bpf,
}

impl Usage {
    fn of(running: &Running) -> Usage {
        Usage {
            cpu_ns: kernel::cpu_ns(running.pid()),
            bpf: Bpf::of(running.pid()),
        }
    }
}

/// Programs that ran, by the names that bpftool knows.
fn named(before: &Bpf, after: &Bpf) -> Result<Vec<(String, f64, f64)>> {
    let shown = super::output_of("bpftool", &["--json", "prog", "show"])?;
    let shown: serde_json::Value = serde_json::from_slice(&shown).context("of bpftool")?;
    let name = |id: u64| {
        let all = shown.as_array()?;
        let program = all.iter().find(|program| program["id"] == id)?;
        program["name"].as_str().map(str::to_owned)
    };
    let mut programs = Vec::new();
    for id in after.programs.keys() {
        let one = |bpf: &Bpf| Bpf {
            programs: bpf
                .programs
                .get(id)
                .map(|ran| (*id, *ran))
                .into_iter()
                .collect(),
            ..Bpf::default()
        };
        let (ns, runs) = one(after).ran_since(&one(before));
        if runs > 0 {
            let name = name(*id).unwrap_or_else(|| format!("program {id}"));
            programs.push((name, ns as f64, runs as f64));
        }
    }
    programs.sort_by(|a, b| b.1.total_cmp(&a.1));
    Ok(programs)
}

fn mean(one: Churned, other: Churned) -> Churned {
    let mean = |figure: fn(&Churned) -> f64| f64::midpoint(figure(&one), figure(&other));
    Churned {
        connections: mean(|c| c.connections),
        seconds: mean(|c| c.seconds),
        cpu_ns: mean(|c| c.cpu_ns),
        p50_ns: mean(|c| c.p50_ns),
        p99_ns: mean(|c| c.p99_ns),
    }
}

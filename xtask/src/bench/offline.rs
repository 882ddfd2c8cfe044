//! What the core costs without a kernel: times by criterion, instructions by callgrind.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::guard::{self, Weights};
use super::spread::Spread;
use super::table::{Bound, Table, Target, Unit};
use super::{Lab, Results};
use crate::process;

/// Where `bench/benches/core.rs` has its group.
const GROUP: &str = "core";
/// The piece that is a recording read, tracked and reported.
const REPLAY: &str = "report";

/// Times and instructions of every piece of work.
pub(crate) fn offline(lab: &Lab, results: &mut Results) -> Result<()> {
    let home = lab.directory.join("criterion");
    let mut bench = lab.workspace.cargo();
    bench.args([
        "bench",
        "--package",
        "tcptrace-bench",
        "--features",
        "criterion",
    ]);
    bench.args(["--bench", "core", "--", "--noplot"]);
    if lab.quick {
        bench.args(["--warm-up-time", "0.3", "--measurement-time", "0.5"]);
    }
    process::succeed(bench.env("CRITERION_HOME", &home))?;
    let weights = guard::weigh(lab.workspace)?;
    let mut rows = Vec::new();
    for work in guard::WORK {
        let ns = ns_per_record(&home.join(GROUP).join(work).join("new"))?;
        if work == REPLAY {
            results.targets.push(Target {
                measure: "recording to report, records/s of one core".to_owned(),
                bound: Bound::AtLeast(10e6),
                unit: Unit::Count,
                found: Some(inverse(ns)),
            });
        }
        let instructions = weights.get(work).copied().and_then(Spread::one);
        let figures = vec![Some(ns), Some(inverse(ns)), instructions];
        rows.push((format!("`{work}`"), figures));
    }
    results.targets.push(bytes(&weights));
    results.tables.push(Table {
        title: "The core, per record; spread: confidence of the median, 95 %".to_owned(),
        subject: "work",
        columns: vec![
            ("ns", Unit::Tenths),
            ("records/s", Unit::Count),
            ("instructions", Unit::Count),
        ],
        rows,
    });
    Ok(())
}

fn bytes(weights: &Weights) -> Target {
    Target {
        measure: "bytes per record in a file".to_owned(),
        bound: Bound::AtMost(5.0),
        unit: Unit::Tenths,
        found: weights.get(guard::BYTES).copied().and_then(Spread::one),
    }
}

/// What criterion found, of the directory of one benchmark.
fn ns_per_record(directory: &Path) -> Result<Spread> {
    let read = |name: &str| -> Result<Value> {
        let path = directory.join(name);
        let text = fs::read(&path).with_context(|| path.display().to_string())?;
        serde_json::from_slice(&text).with_context(|| path.display().to_string())
    };
    let (estimates, benchmark) = (read("estimates.json")?, read("benchmark.json")?);
    let found = of_criterion(&estimates, &benchmark);
    found.with_context(|| format!("no median in {}", directory.display()))
}

fn of_criterion(estimates: &Value, benchmark: &Value) -> Option<Spread> {
    let records = benchmark["throughput"]["Elements"].as_f64()?;
    let median = &estimates["median"];
    let interval = &median["confidence_interval"];
    Some(Spread {
        median: median["point_estimate"].as_f64()? / records,
        least: interval["lower_bound"].as_f64()? / records,
        most: interval["upper_bound"].as_f64()? / records,
    })
}

/// So many per second.
fn inverse(ns: Spread) -> Spread {
    Spread {
        median: 1e9 / ns.median,
        least: 1e9 / ns.most,
        most: 1e9 / ns.least,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn criterions_files_are_read() {
        let estimates = serde_json::json!({"median": {
            "point_estimate": 2000.0,
            "confidence_interval": {"lower_bound": 1000.0, "upper_bound": 4000.0},
        }});
        let benchmark = serde_json::json!({"throughput": {"Elements": 100}});
        let ns = of_criterion(&estimates, &benchmark).expect("a median");
        assert_eq!((ns.median, ns.least, ns.most), (20.0, 10.0, 40.0));
        let rate = inverse(ns);
        assert_eq!((rate.median, rate.least, rate.most), (50e6, 25e6, 100e6));
        assert_eq!(of_criterion(&estimates, &Value::Null), None);
    }
}

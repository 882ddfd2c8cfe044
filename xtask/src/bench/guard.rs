//! What does not depend on the machine: instructions of the core per record, and bytes per record.
//! A reviewed list, so that growth is seen.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::process;
use crate::workspace::Workspace;

const LIST: &str = "xtask/weights.txt";
const HEAD: &str = "# What the core takes per record: instructions of each piece of work of bench/, counted by\n\
                    # callgrind, and bytes of a recording.\n\
                    # `cargo xtask bench guard --bless` writes it.\n";

/// The pieces of work of `bench/src/lib.rs`.
pub(crate) const WORK: [&str; 5] = ["encode", "decode", "apply", "report", "group"];
/// Bytes of the recording that is encoded.
pub(crate) const BYTES: &str = "bytes";

/// As many as give each piece some seconds of callgrind.
const CONNECTIONS: &str = "4000";
/// Above this a rise is growth.
const MOST_RISE: f64 = 0.03;

/// Per record, by name.
pub(crate) type Weights = BTreeMap<String, f64>;

/// Fails when something takes more than was reviewed; with `bless`, writes the list anew.
pub(crate) fn guard(workspace: &Workspace, bless: bool) -> Result<()> {
    let weights = weigh(workspace)?;
    if bless {
        let lines = weights
            .iter()
            .map(|(name, weight)| format!("{name:<8} {weight:>9.2}\n"));
        let text: String = std::iter::once(HEAD.to_owned()).chain(lines).collect();
        return fs::write(workspace.root.join(LIST), text).context(LIST);
    }
    let reviewed = reviewed(workspace)?;
    for (name, weight) in &weights {
        let before = reviewed
            .get(name)
            .map_or("none".to_owned(), |w| format!("{w:.2}"));
        eprintln!("{name:<8} {weight:>9.2} per record, {before} reviewed");
    }
    let grown = compare(&reviewed, &weights);
    ensure!(grown.is_empty(), "{}", grown.join("\n"));
    Ok(())
}

/// Weighs every piece of work.
pub(crate) fn weigh(workspace: &Workspace) -> Result<Weights> {
    let mut build = workspace.cargo();
    build.args([
        "build",
        "--release",
        "--package",
        "tcptrace-bench",
        "--bin",
        "counted",
    ]);
    process::succeed(&mut build)?;
    let counted = workspace.target.join("release/counted");
    let mut weights = Weights::new();
    for work in WORK {
        let (instructions, load) = count(&counted, work)?;
        let number = |key: &str| load[key].as_f64().with_context(|| format!("no {key}"));
        let records = number("records")?;
        weights.insert(work.to_owned(), instructions as f64 / records);
        weights.insert(BYTES.to_owned(), number("bytes")? / records);
    }
    Ok(weights)
}

/// Instructions of one piece of work, and what it was done on.
fn count(counted: &Path, work: &str) -> Result<(u64, Value)> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg("--toggle-collect=*measured*")
        .arg(counted)
        .args([work, CONNECTIONS])
        .stdin(Stdio::null())
        .output()
        .context("cannot start valgrind; it is a package of that name")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = collected(&said).filter(|_| output.status.success());
    let Some(instructions) = collected else {
        bail!("valgrind does not count the instructions of {work}: {said}");
    };
    let load = serde_json::from_slice(&output.stdout).context("of the counted program")?;
    Ok((instructions, load))
}

/// Of `==12== Collected : 1234`.
fn collected(said: &str) -> Option<u64> {
    let line = said.lines().find_map(|line| line.split_once("Collected :"));
    let number = line?.1.trim().parse().ok();
    // Nothing is counted where the function is not found.
    number.filter(|n| *n > 0)
}

fn compare(reviewed: &Weights, weights: &Weights) -> Vec<String> {
    let mut grown = Vec::new();
    for (name, weight) in weights {
        let known = reviewed.get(name);
        if known.is_none_or(|known| *weight > known * (1.0 + MOST_RISE)) {
            let before = known.map_or("none".to_owned(), |w| format!("{w:.2}"));
            grown.push(format!(
                "{name} takes {weight:.2} per record, {before} was reviewed; \
                 `cargo xtask bench guard --bless` takes it over"
            ));
        }
    }
    grown
}

fn reviewed(workspace: &Workspace) -> Result<Weights> {
    let text = fs::read_to_string(workspace.root.join(LIST)).unwrap_or_default();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let weight = |line: &str| {
        let (name, weight) = line.split_once(' ')?;
        Some((name.to_owned(), weight.trim().parse().ok()?))
    };
    lines
        .map(|line| weight(line).with_context(|| format!("{LIST}: no name and number: {line}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_of_a_hundred_more_is_growth_and_so_is_what_is_new() {
        let weights = |list: &[(&str, f64)]| -> Weights {
            list.iter()
                .map(|(name, weight)| ((*name).to_owned(), *weight))
                .collect()
        };
        let reviewed = weights(&[("encode", 1000.0), ("bytes", 4.0), ("gone", 1.0)]);
        let fine = weights(&[("encode", 1029.0), ("bytes", 3.0)]);
        assert!(compare(&reviewed, &fine).is_empty());
        let grown = compare(&reviewed, &weights(&[("bytes", 4.2), ("new", 1.0)]));
        assert_eq!(grown.len(), 2);
        assert!(grown[0].contains("4.20") && grown[0].contains("4.00 was reviewed"));
        assert!(grown[1].contains("none was reviewed"));
    }

    #[test]
    fn callgrind_says_what_it_collected() {
        let said = "==7== Events    : Ir\n==7== Collected : 53197011\n==7==\n";
        assert_eq!(collected(said), Some(53_197_011));
        assert_eq!(collected("==7== Collected : 0\n"), None);
        assert_eq!(collected("valgrind: no such program"), None);
    }
}

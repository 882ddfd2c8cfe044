//! What the verifier makes of each program on each kernel: a reviewed list, so that growth is seen.
//! Its limits are a million instructions and 512 bytes of stack.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::results::Run;
use crate::workspace::Workspace;

const LIST: &str = "xtask/verifier.txt";
const HEAD: &str = "# What the verifier makes of the programs: kernel, program, instructions that it goes\n\
                    # through (of 1,000,000), bytes of stack (of 512).\n\
                    # `cargo xtask vm --bless` writes it.\n";

/// How long a program's name can be in the kernel.
const KERNEL_NAME: usize = 15;

/// What a program takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cost {
    instructions: u64,
    stack: u64,
}

/// By kernel and program.
type Costs = BTreeMap<(String, String), Cost>;

/// Writes what these runs saw into the list, which keeps what they cannot have seen. With `all` chains tried, a
/// kernel's programs are those that were seen there.
pub(crate) fn bless(workspace: &Workspace, runs: &[Run], all: bool) -> Result<()> {
    for run in runs {
        let (kernel, chain) = (&run.kernel, run.chain);
        ensure!(
            loaded(run),
            "{kernel} {chain}: doctor has loaded nothing; see target/vm/results"
        );
    }
    let mut costs = reviewed(workspace)?;
    costs.retain(|(kernel, _), _| !(all && runs.iter().any(|run| run.kernel == *kernel)));
    costs.extend(seen(runs));
    let lines = costs.iter().map(|((kernel, program), cost)| {
        let Cost {
            instructions,
            stack,
        } = cost;
        format!("{kernel:<5} {program:<22} {instructions:>7} {stack:>4}\n")
    });
    let text: String = std::iter::once(HEAD.to_owned()).chain(lines).collect();
    fs::write(workspace.root.join(LIST), text).context(LIST)
}

/// What takes more than was reviewed; and what was loaded then and is not now, where `all` was tried.
pub(crate) fn grown(workspace: &Workspace, runs: &[Run], all: bool) -> Result<Vec<String>> {
    let (reviewed, seen) = (reviewed(workspace)?, seen(runs));
    let mut grown = compare(&reviewed, &seen);
    // Of a guest that did not come so far, that is told.
    let whole = |kernel: &str| all && runs.iter().all(|run| run.kernel != kernel || loaded(run));
    grown.extend(gone(&reviewed, &seen, whole));
    grown.extend(runs.iter().flat_map(not_understood));
    Ok(grown)
}

/// What a verifier said in other words than are known.
fn not_understood(run: &Run) -> impl Iterator<Item = String> {
    let lines = run.verifier().unwrap_or_default().lines();
    let unknown = lines.filter(|line| cost(line).is_none());
    unknown.map(|line| format!("{} {}: the verifier said of {line}", run.kernel, run.chain))
}

/// Whether the guest came so far that doctor loaded programs.
fn loaded(run: &Run) -> bool {
    let doctor: Option<Value> = run
        .doctor()
        .and_then(|said| serde_json::from_str(said).ok());
    let programs = doctor.as_ref().map(|doctor| &doctor["programs"]);
    programs.is_some_and(Value::is_array) && run.verifier().is_some()
}

/// A program that a kernel refuses is replaced by another one, and no test may notice.
fn gone(reviewed: &Costs, seen: &Costs, whole: impl Fn(&str) -> bool) -> Vec<String> {
    let gone = reviewed
        .keys()
        .filter(|key| !seen.contains_key(*key) && whole(&key.0));
    gone.map(|(kernel, program)| {
        format!("{kernel} {program}: not loaded any more; see doctor.json in target/vm/results")
    })
    .collect()
}

/// Other compilers and other builds of a kernel differ a little: a tenth is not growth.
fn compare(reviewed: &Costs, seen: &Costs) -> Vec<String> {
    let mut grown = Vec::new();
    for (key @ (kernel, program), cost) in seen {
        let known = reviewed.get(key);
        for (what, count, least) in [
            (
                "instructions",
                cost.instructions,
                known.map(|k| k.instructions),
            ),
            ("bytes of stack", cost.stack, known.map(|k| k.stack)),
        ] {
            if least.is_none_or(|least| count > least + least / 10) {
                let before = least.map_or("none".to_owned(), |n| n.to_string());
                grown.push(format!(
                    "{kernel} {program}: the verifier sees {count} {what}, {before} were \
                     reviewed; `cargo xtask vm --bless` takes it over"
                ));
            }
        }
    }
    grown
}

fn reviewed(workspace: &Workspace) -> Result<Costs> {
    let text = fs::read_to_string(workspace.root.join(LIST)).unwrap_or_default();
    let mut costs = Costs::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (kernel, program) = line.split_once(' ').unwrap_or_default();
        let (program, cost) = cost(program)
            .with_context(|| format!("{LIST}: no kernel, program and two numbers: {line}"))?;
        costs.insert((kernel.to_owned(), program.to_owned()), cost);
    }
    Ok(costs)
}

fn seen(runs: &[Run]) -> Costs {
    let mut costs = Costs::new();
    for run in runs {
        let doctor: Option<Value> = run.doctor().and_then(|d| serde_json::from_str(d).ok());
        let programs = doctor.as_ref().and_then(|d| d["programs"].as_array());
        let names = programs
            .into_iter()
            .flatten()
            .filter_map(|p| p["name"].as_str());
        let names: Vec<&str> = names.collect();
        for (short, cost) in run.verifier().unwrap_or_default().lines().filter_map(cost) {
            let is_it = |name: &&&str| name.get(..KERNEL_NAME).unwrap_or(name) == short;
            if let Some(name) = names.iter().find(is_it) {
                costs.insert((run.kernel.clone(), (*name).to_owned()), cost);
            }
        }
    }
    costs
}

/// `NAME INSTRUCTIONS STACK`.
fn cost(line: &str) -> Option<(&str, Cost)> {
    let mut words = line.split_whitespace();
    let name = words.next()?;
    let mut number = || words.next()?.parse().ok();
    let (instructions, stack) = (number()?, number()?);
    Some((
        name,
        Cost {
            instructions,
            stack,
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_more_is_not_growth_and_what_is_new_is() {
        let costs = |list: &[&str]| -> Costs {
            let entry = |line: &&str| {
                let (name, cost) = cost(line).expect("a name and two numbers");
                (("6.1".to_owned(), name.to_owned()), cost)
            };
            list.iter().map(entry).collect()
        };
        let reviewed = costs(&["state 1000 100", "gone 5 8"]);
        assert!(compare(&reviewed, &costs(&["state 1100 110"])).is_empty());
        let grown = compare(&reviewed, &costs(&["state 1101 111", "new 1 0"]));
        assert_eq!(grown.len(), 4);
        let left = costs(&["state 9 9"]);
        assert_eq!(gone(&reviewed, &left, |_| false).len(), 0);
        let gone = gone(&reviewed, &left, |_| true);
        assert_eq!(gone.len(), 1);
        assert!(gone[0].starts_with("6.1 gone: not loaded"));
        assert!(grown[0].contains("6.1 new") && grown[0].contains("none"));
        assert!(grown[2].contains("1101") && grown[3].contains("111 bytes of stack"));
    }
}

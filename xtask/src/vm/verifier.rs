//! How many instructions the verifier goes through for each program on each kernel: a reviewed
//! list, so that growth is seen. The verifier's limit is a million.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::results::Run;
use crate::workspace::Workspace;

const LIST: &str = "xtask/verifier.txt";
const HEAD: &str = "# Instructions that the verifier goes through: kernel, program, number.\n\
                    # `cargo xtask vm --bless` writes it; before 5.16 the kernel does not tell.\n";

/// By kernel and program.
type Counts = BTreeMap<(String, String), u64>;

/// Writes what these runs saw into the list, which keeps what they did not see.
pub(crate) fn bless(workspace: &Workspace, runs: &[Run]) -> Result<()> {
    let mut counts = reviewed(workspace)?;
    counts.extend(seen(runs));
    let lines = counts
        .iter()
        .map(|((kernel, program), count)| format!("{kernel:<5} {program:<22} {count:>7}\n"));
    let text: String = std::iter::once(HEAD.to_owned()).chain(lines).collect();
    fs::write(workspace.root.join(LIST), text).context(LIST)
}

/// What takes more than was reviewed.
pub(crate) fn grown(workspace: &Workspace, runs: &[Run]) -> Result<Vec<String>> {
    Ok(compare(&reviewed(workspace)?, &seen(runs)))
}

/// Other compilers and other builds of a kernel differ a little: a tenth is not growth.
fn compare(reviewed: &Counts, seen: &Counts) -> Vec<String> {
    let mut grown = Vec::new();
    for (key @ (kernel, program), count) in seen {
        let least = reviewed.get(key).copied();
        if least.is_none_or(|least| *count > least + least / 10) {
            let before = least.map_or("none".to_owned(), |n| n.to_string());
            grown.push(format!(
                "{kernel} {program}: the verifier goes through {count} instructions, {before} \
                 were reviewed; `cargo xtask vm --bless` takes it over"
            ));
        }
    }
    grown
}

fn reviewed(workspace: &Workspace) -> Result<Counts> {
    let text = fs::read_to_string(workspace.root.join(LIST)).unwrap_or_default();
    let mut counts = Counts::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [kernel, program, count] = words[..] else {
            anyhow::bail!("{LIST}: no kernel, program and number: {line}");
        };
        let count = count.parse().with_context(|| format!("{LIST}: {line}"))?;
        counts.insert((kernel.to_owned(), program.to_owned()), count);
    }
    Ok(counts)
}

fn seen(runs: &[Run]) -> Counts {
    let mut counts = Counts::new();
    for run in runs {
        let doctor: Option<Value> = run.doctor().and_then(|d| serde_json::from_str(d).ok());
        let programs = doctor.as_ref().and_then(|d| d["programs"].as_array());
        for program in programs.into_iter().flatten() {
            let name = program["name"].as_str();
            let count = program["verified_instructions"].as_u64();
            if let (Some(name), Some(count)) = (name, count) {
                counts.insert((run.kernel.clone(), name.to_owned()), count);
            }
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_more_is_not_growth_and_what_is_new_is() {
        let counts = |list: &[(&str, u64)]| -> Counts {
            let key = |(name, n): &(&str, u64)| (("6.1".to_owned(), (*name).to_owned()), *n);
            list.iter().map(key).collect()
        };
        let reviewed = counts(&[("state", 1000), ("gone", 5)]);
        assert!(compare(&reviewed, &counts(&[("state", 1100)])).is_empty());
        let grown = compare(&reviewed, &counts(&[("state", 1101), ("new", 1)]));
        assert_eq!(grown.len(), 2);
        assert!(grown[0].contains("6.1 new") && grown[0].contains("none"));
        assert!(grown[1].contains("1101"));
    }
}

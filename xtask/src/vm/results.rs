//! What came out of the guests: kept as files, told as a table.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Result;

use super::boot::Outcome;
use super::frames::Frame;

/// A guest's run: which it was, and what came of it.
pub(crate) struct Run {
    /// The kernel as it was asked for.
    pub(crate) kernel: String,
    pub(crate) chain: &'static str,
    /// The exact kernel, where it could be had.
    pub(crate) version: String,
    /// Test binaries that were to run.
    pub(crate) suites: Vec<String>,
    pub(crate) outcome: Result<Outcome>,
}

impl Run {
    fn frames(&self) -> &[Frame] {
        match &self.outcome {
            Ok(outcome) => &outcome.frames.frames,
            Err(_) => &[],
        }
    }

    fn frame(&self, name: &str) -> Option<&Frame> {
        self.frames().iter().find(|frame| frame.name == name)
    }

    /// What `doctor --json` said.
    pub(crate) fn doctor(&self) -> Option<&str> {
        self.frame("doctor").map(|frame| frame.output.trim())
    }

    /// What the verifier made of each program that doctor loaded: name, instructions, stack.
    pub(crate) fn verifier(&self) -> Option<&str> {
        self.frame("verifier").map(|frame| frame.output.trim())
    }

    fn tests(&self) -> impl Iterator<Item = &Frame> {
        let is_test = |frame: &&Frame| self.suites.contains(&frame.name);
        self.frames().iter().filter(is_test)
    }

    pub(crate) fn passed(&self) -> u64 {
        self.tests().map(|frame| frame.report.passed).sum()
    }

    pub(crate) fn failed(&self) -> u64 {
        self.failures().len() as u64
    }

    /// Each thing that failed, by a name that can be looked for.
    fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        for frame in self.tests() {
            let Frame { name, report, .. } = frame;
            failures.extend(report.failures.iter().map(|test| format!("{name}::{test}")));
            match (frame.code, report.unfinished()) {
                (None, Some(test)) => failures.push(format!("{name}::{test}: did not end")),
                (None, None) => failures.push(format!("{name}: did not end")),
                (Some(code), _) if code != 0 && report.failures.is_empty() => {
                    failures.push(format!("{name}: exit code {code}"));
                }
                _ => {}
            }
        }
        match &self.outcome {
            Ok(outcome) => {
                failures.extend(outcome.fault.clone());
                let complaints = outcome.complaints.iter();
                failures.extend(complaints.map(|line| format!("the kernel complains: {line}")));
                let began: Vec<&str> = self.frames().iter().map(|f| f.name.as_str()).collect();
                let missing = self.suites.iter().filter(|s| !began.contains(&s.as_str()));
                failures.extend(missing.map(|suite| format!("{suite}: did not begin")));
            }
            Err(error) => failures.push(format!("{error:#}")),
        }
        failures
    }

    /// What the tests left out, in their own words.
    fn skips(&self) -> Vec<&str> {
        let lines = self.tests().flat_map(|frame| frame.output.lines());
        // They stand behind what the test harness prints before a test.
        let skips = lines.filter_map(|line| Some(&line[line.find("skip ")? + 5..]));
        skips.filter(|skip| skip.contains(": needs ")).collect()
    }

    /// Writes what is worth keeping beside the console and the output: the exact version, what
    /// `doctor` said, and the output of what failed.
    pub(crate) fn keep(&self, directory: &Path) -> Result<()> {
        let uname = self.frame("uname").map_or("", |frame| frame.output.trim());
        fs::write(
            directory.join("version.txt"),
            format!("{}\n{uname}\n", self.version),
        )?;
        if let Some(doctor) = self.doctor() {
            fs::write(directory.join("doctor.json"), doctor)?;
        }
        if let Some(probe) = self.frame("probe") {
            // What could not be loaded, with the verifier's words.
            fs::write(directory.join("probe.txt"), &probe.output)?;
        }
        let mut failures = String::new();
        for failure in self.failures() {
            writeln!(failures, "{failure}")?;
        }
        for frame in self.tests().filter(|frame| frame.failed() > 0) {
            writeln!(failures, "\n== {}\n{}", frame.name, frame.output)?;
        }
        fs::write(directory.join("failures.txt"), failures)?;
        Ok(())
    }
}

/// The table of all runs, and the list of what failed.
pub(crate) fn table(runs: &[Run]) -> String {
    let mut lines = vec![format!(
        "{:<12} {:<11} {:<12} {:>7} {:>7} {:>8}",
        "kernel", "chain", "test", "passed", "failed", "seconds"
    )];
    for run in runs {
        let mut row = |test: &str, passed: u64, failed: u64, seconds: f64| {
            lines.push(format!(
                "{:<12} {:<11} {test:<12} {passed:>7} {failed:>7} {seconds:>8.1}",
                run.kernel, run.chain
            ));
        };
        for frame in run.tests() {
            row(
                &frame.name,
                frame.report.passed,
                frame.failed(),
                frame.seconds,
            );
        }
        let elapsed = run
            .outcome
            .as_ref()
            .map_or(0.0, |o| o.elapsed.as_secs_f64());
        row("all", run.passed(), run.failed(), elapsed);
    }
    let note = "Seconds of a test are the guest's own; those of `all` were spent here.";
    lines.push(note.to_owned());
    for run in runs {
        lines.push(format!("\n{} {}: {}", run.kernel, run.chain, run.version));
        let told = |what: &str, names: &mut dyn Iterator<Item = &str>| -> Vec<String> {
            names.map(|name| format!("    {what}: {name}")).collect()
        };
        let failures = run.failures();
        lines.extend(told("failed", &mut failures.iter().map(String::as_str)));
        lines.extend(told("left out", &mut run.skips().into_iter()));
    }
    lines.join("\n")
}

/// The end of the output, in the words of Rust's test harness, which our caller reads.
pub(crate) fn verdict(runs: &[Run], faults: &[String]) -> String {
    let mut failures: Vec<String> = Vec::new();
    for run in runs {
        let named = |failure| format!("{} {}: {failure}", run.kernel, run.chain);
        failures.extend(run.failures().into_iter().map(named));
    }
    failures.extend_from_slice(faults);
    let passed: u64 = runs.iter().map(Run::passed).sum();
    let ignored: usize = runs.iter().map(|run| run.skips().len()).sum();
    let mut text = String::new();
    if !failures.is_empty() {
        text.push_str("failures:\n");
        for failure in &failures {
            text.push_str(&format!("    {failure}\n"));
        }
        text.push('\n');
    }
    let result = if failures.is_empty() { "ok" } else { "FAILED" };
    let failed = failures.len();
    text + &format!("test result: {result}. {passed} passed; {failed} failed; {ignored} ignored")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use anyhow::anyhow;

    use super::*;
    use crate::vm::frames::Frames;

    fn run(said: &str, fault: Option<&str>) -> Run {
        Run {
            kernel: "6.1".to_owned(),
            chain: "fentry",
            version: "linux 6.1.176-1".to_owned(),
            suites: vec!["states".to_owned(), "loss".to_owned()],
            outcome: Ok(Outcome {
                frames: Frames::of(said.as_bytes()),
                fault: fault.map(str::to_owned),
                complaints: Vec::new(),
                elapsed: Duration::from_secs(9),
            }),
        }
    }

    #[test]
    fn everything_that_did_not_pass_is_a_failure() {
        let run = run(
            "@@tcptrace begin states 1.0\n\nfailures:\n    a\n\n\
             test result: FAILED. 1 passed; 1 failed; 0 ignored\n\
             @@tcptrace end states 101 2.0\n",
            Some("hung"),
        );
        assert_eq!(run.failures(), ["states::a", "hung", "loss: did not begin"]);
        assert_eq!((run.passed(), run.failed()), (1, 3));
    }

    #[test]
    fn what_is_left_out_is_told() {
        let run = run(
            "@@tcptrace begin states 1.0\ntest m ... skip m: needs mptcp: no such protocol\nok\n\n\
             test result: ok. 1 passed; 0 failed; 0 ignored\n@@tcptrace end states 0 2.0\n",
            None,
        );
        assert_eq!(run.skips(), ["m: needs mptcp: no such protocol"]);
    }

    #[test]
    fn a_test_that_hangs_is_named() {
        let run = run("@@tcptrace begin loss 1.0\ntest b ... ", Some("hung"));
        let expected = ["loss::b: did not end", "hung", "states: did not begin"];
        assert_eq!(run.failures(), expected);
    }

    #[test]
    fn a_kernel_that_cannot_be_had_is_a_failure() {
        let run = Run {
            kernel: "5.10".to_owned(),
            chain: "kprobe",
            version: String::new(),
            suites: Vec::new(),
            outcome: Err(anyhow!("no package")),
        };
        assert_eq!(run.failures(), ["no package"]);
        let verdict = verdict(&[run], &["it grew".to_owned()]);
        assert!(verdict.contains("    5.10 kprobe: no package\n    it grew\n"));
        assert!(verdict.ends_with("test result: FAILED. 0 passed; 2 failed; 0 ignored"));
    }
}

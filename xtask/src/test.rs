//! `cargo xtask test`: every check and every test, in one run with one summary.
#![expect(clippy::print_stdout, reason = "the summary is this task's output")]

use std::env;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::apt::{self, Package};
use crate::ebpf::Toolchain;
use crate::libtest::Report;
use crate::process::{self, Ended};
use crate::python;
use crate::workspace::{RELEASE_FEATURES, Workspace};

const MINUTE: Duration = Duration::from_secs(60);
/// No build on a slow machine takes longer.
const BUILD_LIMIT: Duration = MINUTE.saturating_mul(20);
/// The live suite waits for real timers: a TIME_WAIT lasts a minute.
const LIVE_LIMIT: Duration = MINUTE.saturating_mul(30);
/// The live suite in virtual machines, on each kernel and by each chain of mechanisms.
const KERNELS_LIMIT: Duration = MINUTE.saturating_mul(40);
/// What tcptrace-tests reads; sudo would drop it.
const LIVE_VARIABLES: &[&str] = &[
    "PATH",
    "RUST_BACKTRACE",
    "TCPTRACE_BIN",
    "TCPTRACE_CPYTHON",
    "TCPTRACE_HOOKS",
    "TCPTRACE_PYTHON",
    "TCPTRACE_REQUIRE",
    "TCPTRACE_TEST_PATIENCE",
    "TCPTRACE_TEST_REPLAYS",
    "TCPTRACE_TEST_SCALE",
    "TCPTRACE_WITHOUT",
    "TCPTRACE_WORKLOAD",
];

/// Runs everything, or with `quick` or a `filter` the part they leave, and prints the counts.
pub(crate) fn test(workspace: &Workspace, quick: bool, filter: Vec<String>) -> Result<ExitCode> {
    process::adopt_orphans()?;
    let mut run = Run {
        workspace,
        filter,
        object: None,
        cpython: None,
        steps: Vec::new(),
    };
    if !quick {
        run.install_packages();
        run.build_object()?;
    }
    if run.filter.is_empty() {
        run.check_sources(quick)?;
    }
    run.test_all(quick)?;
    run.summarize();
    Ok(if run.failed() == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

struct Run<'a> {
    workspace: &'a Workspace,
    filter: Vec<String>,
    /// The object that was built from source, once it is.
    object: Option<PathBuf>,
    /// The newest CPython, once it is fetched.
    cpython: Option<PathBuf>,
    steps: Vec<Step>,
}

struct Step {
    name: &'static str,
    /// Why it failed, if it did.
    fault: Option<String>,
    elapsed: Duration,
    report: Report,
}

impl Step {
    /// Failed tests; a step that failed without naming one counts as one.
    fn failed(&self) -> u64 {
        let least = u64::from(self.fault.is_some());
        self.report.failed.max(least)
    }
}

impl Run<'_> {
    fn install_packages(&mut self) {
        announce("install packages");
        let start = Instant::now();
        let installed = apt::install(&missing_packages())
            .and_then(|()| python::install(self.workspace))
            .and_then(|()| python::fetch_newest(self.workspace));
        let fault = match installed {
            Ok(python) => {
                self.cpython = Some(python);
                None
            }
            Err(error) => Some(error),
        };
        self.steps.push(Step {
            name: "install packages",
            fault: fault.map(|error| format!("{error:#}")),
            elapsed: start.elapsed(),
            report: Report::default(),
        });
    }

    fn build_object(&mut self) -> Result<()> {
        let object = self.workspace.target.join("bpf/tcptrace.bpf.o");
        let mut command = this_program(&["ebpf", "--output"])?;
        command.arg(&object);
        if self.step("build the eBPF object", command, BUILD_LIMIT) {
            self.object = Some(object);
        }
        Ok(())
    }

    fn check_sources(&mut self, quick: bool) -> Result<()> {
        self.step(
            "format",
            self.cargo(&["fmt", "--all", "--check"]),
            BUILD_LIMIT,
        );
        let mut format = self.cargo(&["fmt", "--check"]);
        format.current_dir(self.workspace.ebpf());
        self.step("format, eBPF", format, BUILD_LIMIT);

        let clippy = [
            "clippy",
            "--workspace",
            "--all-targets",
            "--features",
            RELEASE_FEATURES,
            "--",
            "-D",
            "warnings",
        ];
        self.step("clippy", self.cargo(&clippy), BUILD_LIMIT);
        if self.object.is_some() {
            let toolchain = Toolchain::set_up(self.workspace)?;
            let lint = toolchain.lint(self.workspace)?;
            self.step("lints, eBPF", lint, BUILD_LIMIT);
        }

        let mut doc = self.cargo(&["doc", "--no-deps", "--workspace"]);
        doc.env("RUSTDOCFLAGS", "-Dwarnings");
        self.step("documentation", doc, BUILD_LIMIT);
        if !quick {
            let check = this_program(&["ebpf", "--check"])?;
            self.step("committed eBPF object", check, BUILD_LIMIT);
        }
        Ok(())
    }

    fn test_all(&mut self, quick: bool) -> Result<()> {
        let unit = [
            "test",
            "--workspace",
            "--exclude",
            "tcptrace-tests",
            "--no-fail-fast",
            "--",
        ];
        self.step("unit tests", self.tests(&unit), BUILD_LIMIT);
        if quick {
            return Ok(());
        }
        let mut release = self.cargo(&["build", "--release", "--package", "tcptrace-user"]);
        release.args(["--features", RELEASE_FEATURES]);
        if !self.step("release build", release, BUILD_LIMIT) {
            return Ok(());
        }
        if self.filter.is_empty() {
            let guard = this_program(&["bench", "guard"])?;
            self.step("instructions and bytes", guard, BUILD_LIMIT);
        }
        let build = ["test", "--package", "tcptrace-tests", "--no-run"];
        if !self.step("build the live tests", self.cargo(&build), BUILD_LIMIT) {
            return Ok(());
        }
        // One at a time: they measure time.
        let live = [
            "test",
            "--package",
            "tcptrace-tests",
            "--no-fail-fast",
            "--",
            "--test-threads=1",
        ];
        let mut tests = self.tests(&live);
        if !rustix::process::geteuid().is_root() && apt::command("sudo").is_some() {
            let variable = format!(
                "CARGO_TARGET_{}_RUNNER",
                host()?.to_uppercase().replace('-', "_")
            );
            tests.env(
                variable,
                format!("sudo --preserve-env={}", LIVE_VARIABLES.join(",")),
            );
        }
        self.step("live tests", tests, LIVE_LIMIT);
        if self.filter.is_empty() {
            let mut kernels = this_program(&["vm"])?;
            if let Some(object) = &self.object {
                kernels.env("TCPTRACE_BPF_OBJECT", object);
            }
            self.step("other kernels", kernels, KERNELS_LIMIT);
        }
        Ok(())
    }

    /// A cargo command that embeds the object built from source.
    fn cargo(&self, args: &[&str]) -> Command {
        let mut command = self.workspace.cargo();
        command.args(args);
        if let Some(object) = &self.object {
            command.env("TCPTRACE_BPF_OBJECT", object);
        }
        command
    }

    /// A cargo command that runs tests; in CI none may be left out for want of something.
    fn tests(&self, args: &[&str]) -> Command {
        let mut command = self.cargo(args);
        command
            .args(&self.filter)
            .env("TCPTRACE_BIN", self.workspace.binary())
            .env("TCPTRACE_PYTHON", self.workspace.python());
        if let Some(cpython) = &self.cpython {
            command.env("TCPTRACE_CPYTHON", cpython);
        }
        if env::var("CI").as_deref() == Ok("true") {
            command.env("TCPTRACE_REQUIRE", "all");
        }
        command
    }

    /// Runs one step, whatever came before it, and says whether it went well.
    fn step(&mut self, name: &'static str, mut command: Command, limit: Duration) -> bool {
        announce(name);
        let start = Instant::now();
        let mut report = Report::default();
        let ended = process::watch(&mut command, limit, |piece| report.read(piece));
        let fault = match ended {
            Ok(Ended::Itself { status, .. }) if !status.success() => Some(status.to_string()),
            Ok(Ended::Itself { strays: true, .. }) => Some("left processes behind".to_owned()),
            Ok(Ended::Itself { .. }) => None,
            Ok(Ended::Killed) => {
                let test = report.unfinished().map(|test| format!(" in {test}"));
                let minutes = limit.as_secs() / 60;
                Some(format!(
                    "hung{}: ended after {minutes} min",
                    test.unwrap_or_default()
                ))
            }
            Err(error) => Some(format!("{error:#}")),
        };
        let well = fault.is_none();
        self.steps.push(Step {
            name,
            fault,
            elapsed: start.elapsed(),
            report,
        });
        well
    }

    fn failed(&self) -> u64 {
        self.steps.iter().map(Step::failed).sum()
    }

    fn summarize(&self) {
        println!(
            "\n{:<24} {:>8} {:>7} {:>7} {:>8}",
            "step", "seconds", "passed", "failed", "ignored"
        );
        for step in &self.steps {
            let Report {
                passed, ignored, ..
            } = step.report;
            println!(
                "{:<24} {:>8.1} {passed:>7} {:>7} {ignored:>8}  {}",
                step.name,
                step.elapsed.as_secs_f64(),
                step.failed(),
                step.fault.as_deref().unwrap_or("ok"),
            );
            for test in &step.report.failures {
                println!("    failed: {test}");
            }
        }
        let passed: u64 = self.steps.iter().map(|step| step.report.passed).sum();
        println!("\n{passed} passed, {} failed", self.failed());
    }
}

fn missing_packages() -> Vec<&'static Package> {
    let mut packages = apt::missing(apt::TESTS);
    packages.extend(apt::missing(apt::WEIGHTS));
    if python::lacks_venv() {
        packages.push(&python::VENV);
    }
    if !Toolchain::is_rustups() {
        packages.extend(apt::missing(apt::EBPF_TOOLCHAIN));
        packages.extend(apt::missing(apt::EBPF_LINTER));
    }
    packages
}

fn this_program(args: &[&str]) -> Result<Command> {
    let mut command = Command::new(env::current_exe()?);
    command.args(args);
    Ok(command)
}

fn host() -> Result<String> {
    let output = Command::new("rustc")
        .args(["--print", "host-tuple"])
        .output()?;
    Ok(String::from_utf8(output.stdout)
        .context("rustc's answer")?
        .trim()
        .to_owned())
}

fn announce(name: &str) {
    println!("\n== {name}");
}

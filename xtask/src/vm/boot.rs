//! Boots a guest in qemu and reads what it said.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::frames::Frames;
use super::kernels::Kernel;
use crate::process;

/// How processors are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Machine {
    /// The processor's own virtualisation.
    Kvm { processors: usize },
    /// Emulation in real time.
    Emulated { processors: usize },
    /// Emulation of one processor whose clock counts its instructions, and jumps where it would
    /// wait: a guest that sleeps costs nothing, and none sees how busy this machine is.
    Counted,
}

impl Machine {
    /// With so many processors; 0 leaves their number open.
    pub(crate) fn choose(kvm: bool, processors: usize) -> Self {
        match (kvm, processors) {
            (true, 0) => Self::Kvm { processors: 2 },
            (true, processors) => Self::Kvm { processors },
            (false, 0 | 1) => Self::Counted,
            (false, processors) => Self::Emulated { processors },
        }
    }

    /// Threads of this machine that a guest keeps busy.
    pub(crate) fn threads(self) -> usize {
        match self {
            Self::Kvm { processors } | Self::Emulated { processors } => processors,
            Self::Counted => 1,
        }
    }

    fn arguments(self, kernel: &Kernel) -> Vec<String> {
        let (accelerator, processor, more) = match self {
            Self::Kvm { .. } => ("kvm", "host".to_owned(), None),
            // A processor with few extensions: glibc then uses none that are slow to emulate.
            Self::Emulated { .. } => ("tcg", emulated(kernel), None),
            // 2 ns an instruction.
            Self::Counted => ("tcg", emulated(kernel), Some("shift=1,sleep=off")),
        };
        let mut arguments = vec![
            "-accel".to_owned(),
            accelerator.to_owned(),
            "-cpu".to_owned(),
            processor,
            "-smp".to_owned(),
            self.threads().to_string(),
        ];
        arguments.extend(
            more.into_iter()
                .flat_map(|m| ["-icount", m].map(str::to_owned)),
        );
        arguments
    }

    pub(crate) fn describe(self) -> String {
        match self {
            Self::Kvm { processors } => format!("kvm, {processors} processors"),
            Self::Emulated { processors } => format!("emulated, {processors} processors"),
            Self::Counted => "emulated, 1 processor, in virtual time".to_owned(),
        }
    }
}

/// The processor to emulate. 6.12 has a cmpxchg16b that qemu 7.2 gets wrong; without it, 7.3
/// makes no socket storage.
fn emulated(kernel: &Kernel) -> String {
    match kernel.is("6.12") {
        true => "Nehalem,-cx16".to_owned(),
        false => "Nehalem".to_owned(),
    }
}

/// Qemu, which ends when we do.
fn qemu() -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
    command
}

/// How a guest came to its end.
pub(crate) struct Outcome {
    pub(crate) frames: Frames,
    /// What kept it from coming to a good end.
    pub(crate) fault: Option<String>,
    /// What the kernel complained about while the tests ran.
    pub(crate) complaints: Vec<String>,
    pub(crate) elapsed: Duration,
}

/// Boots `kernel` with the file system in `initrd`, for at most `limit`; leaves `console.txt`
/// and `output.txt` in `results`.
pub(crate) fn boot(
    kernel: &Kernel,
    machine: Machine,
    initrd: &Path,
    results: &Path,
    limit: Duration,
) -> Result<Outcome> {
    let console = results.join("console.txt");
    let output = results.join("output.txt");
    let errors = results.join("qemu.txt");
    let mut command = qemu();
    command
        .args(["-m", "2048", "-display", "none", "-monitor", "none"])
        .args(["-net", "none", "-no-reboot"])
        .args(machine.arguments(kernel))
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initrd)
        // Warnings are shown. What makes the kernel stumble ends it. What hardens it costs much time where
        // every switch of address spaces and every byte that is cleared is emulated.
        .args([
            "-append",
            "console=ttyS0 loglevel=5 oops=panic panic=-1 mitigations=off init_on_alloc=0 \
             hardened_usercopy=off apparmor=0",
        ])
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .arg("-serial")
        .arg(format!("file:{}", output.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&errors)?);
    let start = Instant::now();
    let mut child = command.spawn().context("cannot start qemu")?;
    let hung = process::wait(&mut child, limit)?.is_none();
    if hung {
        child.kill()?;
        child.wait()?;
    }
    let elapsed = start.elapsed();
    let frames = Frames::of(&fs::read(&output)?);
    let said = String::from_utf8_lossy(&fs::read(&console).unwrap_or_default()).into_owned();
    let fault = match (frames.done, hung) {
        (true, false) => None,
        (_, true) => Some(format!("hung: ended after {} s", limit.as_secs())),
        (false, false) => {
            let words = fs::read_to_string(&errors).unwrap_or_default();
            let words = format!("{words}\n{said}");
            let last: Vec<&str> = words.trim().lines().rev().take(3).collect();
            let last: Vec<&str> = last.into_iter().rev().map(str::trim).collect();
            Some(format!("ended early: {}", last.join(" / ")))
        }
    };
    Ok(Outcome {
        frames,
        fault,
        complaints: complaints(&said),
        elapsed,
    })
}

/// The lines after the beginning of the tests in which the kernel says that something is wrong
/// with it.
fn complaints(console: &str) -> Vec<String> {
    const SIGNS: [&str; 7] = [
        "BUG: ",
        "WARNING: ",
        "Oops",
        "Kernel panic",
        "general protection",
        "rcu: INFO",
        "blocked for more than",
    ];
    let (_, tests) = console
        .split_once("tcptrace: the tests begin")
        .unwrap_or_default();
    let lines = tests.lines().map(str::trim);
    let bad = lines.filter(|line| SIGNS.iter().any(|sign| line.contains(sign)));
    bad.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_kernel_says_of_the_tests_is_a_complaint() {
        let console = "[ 0.1] WARNING: CPU: 0 at boot\r\n[ 2.0] tcptrace: the tests begin\r\n\
            [ 3.0] fine\r\n[ 4.0] WARNING: CPU: 0 PID: 7 at kernel/bpf/core.c:1\r\n";
        assert_eq!(
            complaints(console),
            ["[ 4.0] WARNING: CPU: 0 PID: 7 at kernel/bpf/core.c:1"]
        );
        assert!(complaints("BUG: before").is_empty());
    }
}

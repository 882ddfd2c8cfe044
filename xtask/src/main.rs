//! The tasks of the project: `cargo xtask ebpf`, `run`, `test`, `vm` and `bench`.

mod apt;
mod archive;
mod bench;
mod ebpf;
mod libtest;
mod process;
mod python;
mod run;
mod test;
mod vm;
mod workspace;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

#[derive(Parser)]
#[command(bin_name = "cargo xtask", about = "The tasks of the project")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Rebuild the committed eBPF object, setting up its toolchain first if that is missing
    Ebpf {
        /// Change nothing; fail when the committed object does not match its sources
        #[arg(long)]
        check: bool,
        /// Write the object here and leave the committed one alone
        #[arg(long, value_name = "FILE", conflicts_with = "check")]
        output: Option<PathBuf>,
    },
    /// Build tcptrace and start it with ARGS, through sudo when not root
    #[command(disable_help_flag = true)]
    Run {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Install what the tests need, rebuild the object from source, run every check and test
    Test {
        /// Only what needs neither root nor the eBPF toolchain, with the committed object
        #[arg(long)]
        quick: bool,
        /// Run only the tests whose name contains one of these, and no other check
        filter: Vec<String>,
    },
    /// Boot Debian's kernels in qemu and run the live tests inside
    #[command(after_long_help = VM_EXAMPLES)]
    Vm(vm::Options),
    /// Measure what tcptrace weighs, beside its peers and by itself
    #[command(after_long_help = BENCH_EXAMPLES)]
    Bench(bench::Options),
}

const VM_EXAMPLES: &str = "\
Examples:
  cargo xtask vm                                    every kernel, every chain, every test
  cargo xtask vm --kernel 6.1,7.x --hooks kprobe    some of them
  cargo xtask vm --kernel 6.12 --test states        one test binary
  cargo xtask vm --test fins_can_cross              tests by a part of their name
  cargo xtask vm --kernel-deb linux-image-….deb     another kernel

Consoles, `doctor --json` and failures are kept in target/vm/results/KERNEL-CHAIN.";

const BENCH_EXAMPLES: &str = "\
Examples:
  cargo xtask bench                     the tables of docs/performance.md; about half an hour
  cargo xtask bench churn shapes        some of them
  cargo xtask bench guard               instructions and bytes against xtask/weights.txt, as tests do
  cargo xtask bench guard --bless       take what it finds over";

fn main() -> ExitCode {
    match perform(Cli::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(task: Task) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    match task {
        Task::Ebpf { check: true, .. } => ebpf::check(&workspace).map(|()| ExitCode::SUCCESS),
        Task::Ebpf {
            output: Some(path), ..
        } => ebpf::write_to(&workspace, &path).map(|()| ExitCode::SUCCESS),
        Task::Ebpf { .. } => ebpf::commit(&workspace).map(|()| ExitCode::SUCCESS),
        Task::Run { args } => run::run(&workspace, args),
        Task::Test { quick, filter } => test::test(&workspace, quick, filter),
        Task::Vm(options) => vm::vm(&workspace, &options),
        Task::Bench(options) => bench::bench(&workspace, &options),
    }
}

//! tcptrace: which TCP sockets linger, whose they are, since when, and why.

mod cli;
mod clock;
mod command;
mod companion;
mod embed;
mod end;
mod error;
mod examples;
mod kernel;
mod kernel_filter;
mod moment;
mod netlink;
mod netns;
mod options;
mod pace;
mod pipeline;
mod privileges;
mod proc;
mod recorder;
mod resolve;
mod screen;
mod source;
mod stacks;
mod status;
mod topics;
mod trigger;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(asked) => return explain(&asked),
    };
    match command::run(cli) {
        Ok(code) => code,
        // The reader of our output has all it wanted. SIGPIPE stays ignored, as Rust leaves it: a
        // killed process could not take its programs down in order.
        Err(e) if error::is_broken_pipe(&e) => ExitCode::SUCCESS,
        Err(e) => {
            complain(error::message(&e).as_bytes());
            ExitCode::from(error::exit_code(&e))
        }
    }
}

/// Help, version, or what is wrong with the command line.
fn explain(asked: &clap::Error) -> ExitCode {
    match asked.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // Where nobody reads it, there is nobody to tell.
            let _ = asked.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = asked.print();
            ExitCode::from(error::EXIT_USAGE)
        }
        _ => {
            complain(error::usage_message(&asked.to_string()).as_bytes());
            ExitCode::from(error::EXIT_USAGE)
        }
    }
}

fn complain(message: &[u8]) {
    // Where standard error is closed, the exit code must do.
    let _ = std::io::stderr().write_all(message);
}

//! `tcptrace man`.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::CommandFactory;
use clap_mangen::Man;

use crate::cli::Cli;
use crate::error::Usage;

/// Prints the manual page of tcptrace, or of one of its commands.
pub(crate) fn run(verb: Option<&str>) -> anyhow::Result<ExitCode> {
    let mut tcptrace = Cli::command();
    tcptrace.build();
    let command = match verb {
        None => tcptrace,
        Some(verb) => named(&tcptrace, verb)?,
    };
    let mut page = Vec::new();
    render(command, &mut page)?;
    super::print(&page)?;
    Ok(ExitCode::SUCCESS)
}

fn named(tcptrace: &clap::Command, verb: &str) -> Result<clap::Command, Usage> {
    let Some(command) = tcptrace.find_subcommand(verb) else {
        let verbs: Vec<&str> = tcptrace.get_subcommands().map(|c| c.get_name()).collect();
        return Err(Usage::new(
            format!("no command '{verb}'"),
            format!("the commands are {}", verbs.join(", ")),
        ));
    };
    Ok(command.clone())
}

fn render(command: clap::Command, page: &mut impl Write) -> io::Result<()> {
    let examples = command
        .get_after_long_help()
        .map(|text| text.to_string())
        .unwrap_or_default();
    let has_verbs = command.has_subcommands();
    let man = Man::new(command);
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    man.render_options_section(page)?;
    if has_verbs {
        man.render_subcommands_section(page)?;
    }
    render_examples(&examples, page)?;
    man.render_version_section(page)
}

/// Sections as they stand, each under its title in capitals: the generator would fill their lines
/// into a paragraph.
fn render_examples(sections: &str, page: &mut impl Write) -> io::Result<()> {
    for section in sections.split("\n\n") {
        let mut lines = section.lines();
        let Some(title) = lines.next() else {
            continue;
        };
        writeln!(page, ".SH {title}\n.nf")?;
        for line in lines {
            // `\&` keeps a line from being read as a request, `\e` is a backslash.
            let line = line.replace('\\', "\\e").replace('-', "\\-");
            writeln!(page, "\\&{line}")?;
        }
        writeln!(page, ".fi")?;
    }
    Ok(())
}

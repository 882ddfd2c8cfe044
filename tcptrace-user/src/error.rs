//! How a run fails: what is said, and the exit code.

use std::io;

/// It failed while running.
pub(crate) const EXIT_FAILED: u8 = 1;
/// The command line cannot be followed.
pub(crate) const EXIT_USAGE: u8 = 2;
/// This kernel or these privileges do not allow it.
pub(crate) const EXIT_CANNOT_RUN: u8 = 3;

/// The data is incomplete, and that was not to be.
pub(crate) const EXIT_INCOMPLETE: u8 = 4;

/// What `--fail-on` asks for was found.
pub(crate) const EXIT_MATCHED: u8 = 10;

/// It cannot run on this machine, or not with these privileges.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}")]
pub(crate) struct CannotRun {
    /// What was to be done: `load eBPF programs`.
    pub(crate) what: String,
    /// What stood against it: `no permission`.
    pub(crate) why: String,
    /// What the user can do about it: `run it with sudo`.
    pub(crate) fix: String,
}

/// What was asked for does not exist or makes no sense here.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(crate) struct Usage {
    /// What is wrong with it: `no process 4711`.
    pub(crate) what: String,
    /// What the user can do about it.
    pub(crate) fix: String,
}

impl Usage {
    /// The error that says `what` is wrong and how to put it right.
    pub(crate) fn new(what: impl Into<String>, fix: impl Into<String>) -> Usage {
        Usage {
            what: what.into(),
            fix: fix.into(),
        }
    }
}

/// It failed while running, and something can be done about it.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(crate) struct Failure {
    /// What happened, to what: `cannot write a.rec: No space left on device`.
    pub(crate) what: String,
    /// What the user can do about it.
    pub(crate) fix: String,
}

/// The exit code that an error ends with.
pub(crate) fn exit_code(error: &anyhow::Error) -> u8 {
    if error.downcast_ref::<Usage>().is_some() {
        EXIT_USAGE
    } else if error.downcast_ref::<CannotRun>().is_some() {
        EXIT_CANNOT_RUN
    } else {
        EXIT_FAILED
    }
}

/// Whether the reader of our output went away, as `head` does: no failure of ours.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let kind = cause
            .downcast_ref::<io::Error>()
            .map(io::Error::kind)
            .or_else(|| {
                cause
                    .downcast_ref::<serde_json::Error>()
                    .and_then(|e| e.io_error_kind())
            });
        kind == Some(io::ErrorKind::BrokenPipe)
    })
}

/// `tcptrace: …`, and `hint: …` where something can be done; safe for a terminal.
pub(crate) fn message(error: &anyhow::Error) -> String {
    let usage = error.downcast_ref::<Usage>().map(|usage| &usage.fix);
    let cannot = error.downcast_ref::<CannotRun>().map(|cannot| &cannot.fix);
    let failure = error.downcast_ref::<Failure>().map(|failure| &failure.fix);
    let fix = usage.or(cannot).or(failure);
    let one_line = |text: &str| tcptrace_core::text::escape(text);
    let mut text = format!("tcptrace: {}\n", one_line(&format!("{error:#}")));
    if let Some(fix) = fix {
        text.push_str(&format!("hint: {}\n", one_line(fix)));
    }
    text
}

/// What clap says of a command line, in our form: its first paragraph tells what is wrong, the
/// others what to do.
pub(crate) fn usage_message(clap: &str) -> String {
    let text = clap.strip_prefix("error: ").unwrap_or(clap);
    let lines = text.lines().map(tcptrace_core::text::escape);
    let lines: Vec<String> = lines.filter(|line| !line.trim().is_empty()).collect();
    format!("tcptrace: {}\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn an_error_keeps_its_code_and_hint_under_context() {
        let refused: Result<(), _> = Err(CannotRun {
            what: "load eBPF programs".to_owned(),
            why: "no permission".to_owned(),
            fix: "run it with sudo".to_owned(),
        });
        let error = refused.context("watch").unwrap_err();
        assert_eq!(exit_code(&error), EXIT_CANNOT_RUN);
        assert_eq!(
            message(&error),
            "tcptrace: watch: load eBPF programs: no permission\nhint: run it with sudo\n"
        );
        assert_eq!(
            exit_code(&Usage::new("no process 1", "x").into()),
            EXIT_USAGE
        );
        assert_eq!(exit_code(&anyhow::anyhow!("x")), EXIT_FAILED);
    }

    #[test]
    fn a_reader_that_went_away_is_recognised() {
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        let error = anyhow::Error::from(gone()).context("write the summary");
        assert!(is_broken_pipe(&error));
        let wrapped = anyhow::Error::from(serde_json::Error::io(gone()));
        assert!(is_broken_pipe(&wrapped));
        assert!(!is_broken_pipe(&anyhow::anyhow!("broken pipe")));
    }

    #[test]
    fn a_hostile_path_cannot_drive_the_terminal() {
        let error = anyhow::Error::from(Usage::new("no cgroup \x1b[2J", "look\nhere"));
        assert!(!message(&error).contains('\x1b'));
        assert_eq!(message(&error).lines().count(), 2);
    }
}

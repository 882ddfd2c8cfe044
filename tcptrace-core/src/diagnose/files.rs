//! File descriptors, and their limits.

use super::case::Case;
use super::finding::{Finding, Id, Label, Severity};
use super::words::percent;
use crate::host::Activity;
use crate::report::snapshot::thousands;

/// From this share of the limit on it is near, and here it is reached any moment, in percent.
const NEAR: u64 = 80;
const FULL: u64 = 95;

/// A finding for each process that was looked at and has nearly as many descriptors as it may have.
pub(super) fn find(case: &Case<'_>) -> Vec<Finding> {
    case.tracker
        .activities()
        .filter_map(|activity| near(case, activity))
        .collect()
}

fn near(case: &Case<'_>, activity: &Activity) -> Option<Finding> {
    let (open, most) = activity.files.zip(activity.files_max)?;
    let severity = match open.saturating_mul(100) / most.max(1) {
        FULL.. => Severity::Critical,
        NEAR.. => Severity::Warning,
        _ => return None,
    };
    let owned: Vec<_> = case
        .sockets
        .iter()
        .filter(|s| s.view.owner.pid == Some(activity.pid))
        .collect();
    let comm = owned.iter().find_map(|s| s.view.owner.comm);
    let comm = comm.map_or("?".to_owned(), |comm| comm.to_string());
    let headline = format!(
        "pid {} {comm} has {} of {} file descriptors ({})",
        activity.pid,
        thousands(open),
        thousands(most),
        percent(open, most)
    );
    let mut finding = Finding::new(Id::FdLimit, severity, owned.len() as u64, headline);
    let mut states: Vec<(String, u64)> = super::case::tally(
        owned
            .iter()
            .filter(|s| !s.view.mini)
            .map(|s| s.view.state.to_string()),
    );
    states.truncate(3);
    let states: Vec<String> = states
        .iter()
        .map(|(state, n)| format!("{} in {state}", thousands(*n)))
        .collect();
    let sockets = match states.is_empty() {
        true => "none of them is a TCP connection".to_owned(),
        false => format!("of these are TCP connections: {}", states.join(", ")),
    };
    finding.say(Label::What, sockets);
    let text = "beyond it accept(), socket() and open() fail with EMFILE (24), Too many open files";
    finding.say(Label::Kernel, text.to_owned());
    let text = format!(
        "prlimit --pid {} --nofile=N  (until the leak is mended; at most the hard limit)",
        activity.pid
    );
    finding.say(Label::Now, text);
    let text =
        "close what leaks: what the other findings name. A higher limit alone only delays it";
    finding.say(Label::Fix, text.to_owned());
    let text = "fs.file-max: that is the limit of the whole host, and not what is reached here";
    finding.say(Label::Not, text.to_owned());
    finding.number("pid", activity.pid);
    finding.number("files", open);
    finding.number("files_max", most);
    Some(finding)
}

/// `fd 27,371 of 65,536`.
pub(super) fn text(case: &Case<'_>, pid: Option<u32>) -> Option<String> {
    let activity = case.tracker.activity(pid?)?;
    let open = thousands(activity.files?);
    Some(match activity.files_max {
        Some(most) => format!("fd {open} of {}", thousands(most)),
        None => format!("fd {open}, without limit"),
    })
}

/// How many more it may have.
pub(super) fn room(case: &Case<'_>, pid: Option<u32>) -> Option<u64> {
    let activity = case.tracker.activity(pid?)?;
    Some(activity.files_max?.saturating_sub(activity.files?))
}

//! What `kill` prints: a line per socket, and what it comes to.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use serde_json::{Value, json};
use tcptrace_core::report::snapshot::Socket;
use tcptrace_core::state::{self, TcpState};
use tcptrace_core::text::escape;
use tcptrace_core::time::WallAnchor;

use super::destroy::{Outcome, Target};
use super::spared::Spared;
use crate::clock;

/// How many came to what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) destroyed: usize,
    pub(super) gone: usize,
    pub(super) moved: usize,
    pub(super) refused: usize,
    pub(super) not_reached: usize,
    /// Of those that were destroyed or gone, how many a dump shows nevertheless.
    pub(super) still_there: usize,
}

impl Sums {
    /// Counts one.
    pub(super) fn add(&mut self, outcome: &Outcome) {
        *match outcome {
            Outcome::Destroyed => &mut self.destroyed,
            Outcome::Gone => &mut self.gone,
            Outcome::Moved(_) => &mut self.moved,
            Outcome::Refused(_) | Outcome::Hidden => &mut self.refused,
            Outcome::NotReached => &mut self.not_reached,
        } += 1;
    }

    /// All of them.
    pub(super) fn all(&self) -> usize {
        self.destroyed + self.gone + self.moved + self.refused + self.not_reached
    }

    /// `destroyed 3, had gone 1, refused 0`, and what else is not 0.
    fn text(&self) -> String {
        let mut text = format!(
            "destroyed {}, had gone {}, refused {}",
            self.destroyed, self.gone, self.refused
        );
        for (number, what) in [
            (self.moved, "had changed their state and were left alone"),
            (self.not_reached, "not reached"),
            (self.still_there, "still there"),
        ] {
            if number > 0 {
                let _ = write!(text, ", {what} {number}");
            }
        }
        text
    }
}

/// Whether the kernel tells the peer by a RST (`tcp_need_reset`); minisockets and half-open requests
/// just vanish.
fn tells_peer(socket: &Socket) -> bool {
    use TcpState::{CloseWait, Established, FinWait1, FinWait2};
    let state = socket.view.state;
    !socket.view.mini && matches!(state, Established | CloseWait | FinWait1 | FinWait2)
}

/// What `--yes` would do.
pub(super) fn would(targets: &[Target], spared: &[(Socket, Spared)]) -> String {
    let sockets = || targets.iter().map(|t| &t.socket);
    let mut text = match targets.len() {
        0 => "nothing would be destroyed\n".to_owned(),
        n => format!("would destroy {n} sockets: {}\n", by_state(sockets())),
    };
    let held = sockets().filter(|s| s.facts.inode.is_some()).count();
    if held > 0 {
        let _ = writeln!(
            text,
            "the descriptors of {held} stay open: the next write fails with ECONNABORTED, a read gives \
             what is unread and then an error or the end"
        );
    }
    let told = sockets().filter(|s| tells_peer(s)).count();
    let listeners = sockets()
        .filter(|s| s.view.state == TcpState::Listen)
        .count();
    let untold = targets.len() - told - listeners;
    if told > 0 {
        let _ = writeln!(text, "the peers of {told} get a RST");
    }
    if untold > 0 {
        let _ = writeln!(
            text,
            "the peers of {untold} are not told: minisockets, half-open requests, and SYN_SENT, \
             LAST_ACK and CLOSING just vanish"
        );
    }
    if listeners > 0 {
        let _ = writeln!(
            text,
            "what waits in the queues of {listeners} listeners is reset, their ports stay bound"
        );
    }
    text += &spared_text(spared);
    if !targets.is_empty() {
        text += "nothing was done: --yes does it, and writes what it destroys to a file first\n";
    }
    text
}

/// `close_wait 12, time_wait 2`.
fn by_state<'a>(sockets: impl Iterator<Item = &'a Socket> + Clone) -> String {
    let counts = state::ALL.iter().filter_map(|state| {
        let count = sockets.clone().filter(|s| s.view.state == *state).count();
        (count > 0).then(|| format!("{} {count}", state.name()))
    });
    counts.collect::<Vec<_>>().join(", ")
}

/// A line for each reason.
fn spared_text(spared: &[(Socket, Spared)]) -> String {
    let mut reasons: Vec<Spared> = spared.iter().map(|(_, why)| *why).collect();
    reasons.sort_unstable();
    let groups = reasons.chunk_by(|a, b| a == b);
    groups
        .map(|group| format!("spared {}: {}\n", group.len(), group[0].why()))
        .collect()
}

/// What it came to.
pub(super) fn sum(sums: &Sums, spared: &[(Socket, Spared)], evidence: Option<&Path>) -> String {
    let mut text = format!("{}\n{}", sums.text(), spared_text(spared));
    if let Some(path) = evidence {
        let _ = writeln!(text, "evidence: {}", escape(&path.display().to_string()));
    }
    text
}

/// `destroyed  CLOSE_WAIT  4711/12 report-job  10.1.0.5:41822 -> 10.0.0.9:443`.
pub(super) fn line(target: &Target, outcome: &Outcome) -> String {
    let view = &target.socket.view;
    let number = |n: Option<u32>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let owner = match &view.owner.comm {
        Some(comm) => format!(
            "{}/{} {comm}",
            number(view.owner.pid),
            number(view.owner.fd)
        ),
        None => "-".to_owned(),
    };
    let why = match why(outcome) {
        Some(why) => format!("  {why}"),
        None => String::new(),
    };
    format!(
        "{:<11}  {:<10}  {owner}  {} -> {}{why}\n",
        outcome.name().replace('_', " "),
        view.state,
        view.tuple.local,
        view.tuple.remote
    )
}

fn why(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Moved(state) => Some(format!("it is in {state} now")),
        Outcome::Hidden => Some("the kernel finds another listener of its port".to_owned()),
        Outcome::Refused(errno) => Some(io::Error::from(*errno).to_string()),
        _ => None,
    }
}

/// The JSON line of a socket; `outcome` is the stable name.
pub(super) fn object(
    socket: &Socket,
    outcome: &str,
    why: Option<String>,
    anchor: WallAnchor,
) -> Value {
    let view = &socket.view;
    json!({
        "type": "kill",
        "ts": anchor.rfc3339(clock::mono()),
        "id": view.id.to_string(),
        "state": view.state.name(),
        "local": view.tuple.local,
        "remote": view.tuple.remote,
        "netns": view.tuple.netns,
        "pid": view.owner.pid,
        "comm": view.owner.comm.map(|comm| comm.to_text()),
        "fd": view.owner.fd,
        "outcome": outcome,
        "why": why,
    })
}

/// The JSON line of a socket with what became of it.
pub(super) fn outcome_object(target: &Target, outcome: &Outcome, anchor: WallAnchor) -> Value {
    object(&target.socket, outcome.name(), why(outcome), anchor)
}

/// The last JSON line.
pub(super) fn sum_object(
    selected: usize,
    sums: Option<&Sums>,
    spared: usize,
    evidence: Option<&Path>,
    anchor: WallAnchor,
) -> Value {
    let count = |of: fn(&Sums) -> usize| sums.map(of);
    json!({
        "type": "kill_summary",
        "ts": anchor.rfc3339(clock::mono()),
        "dry_run": sums.is_none(),
        "selected": selected,
        "spared": spared,
        "destroyed": count(|s| s.destroyed),
        "gone": count(|s| s.gone),
        "moved": count(|s| s.moved),
        "refused": count(|s| s.refused),
        "not_reached": count(|s| s.not_reached),
        "still_there": count(|s| s.still_there),
        "evidence": evidence.map(|path| path.display().to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_is_counted_once() {
        let mut sums = Sums::default();
        let outcomes = [
            Outcome::Destroyed,
            Outcome::Destroyed,
            Outcome::Gone,
            Outcome::Moved(TcpState::LastAck),
            Outcome::Refused(rustix::io::Errno::PERM),
            Outcome::NotReached,
        ];
        for outcome in &outcomes {
            sums.add(outcome);
        }
        assert_eq!(sums.all(), outcomes.len());
        let text = "destroyed 2, had gone 1, refused 1, had changed their state and were left alone 1, \
                    not reached 1";
        assert_eq!(sums.text(), text);
        assert_eq!(Sums::default().text(), "destroyed 0, had gone 0, refused 0");
    }
}

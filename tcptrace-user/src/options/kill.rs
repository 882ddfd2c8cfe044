//! Options of `kill`.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use tcptrace_core::filter::{Filter, Ports};
use tcptrace_core::state::{StateSet, TcpState};

use super::recording::one_file;
use super::{Snapshot, Terminal, filter};
use crate::cli;
use crate::error::Usage;
use crate::recorder::Place;

/// Options of `kill`.
#[derive(Clone, Debug)]
pub(crate) struct Kill {
    /// Which sockets, and how they are listed.
    pub(crate) which: Snapshot,
    /// Destroy them.
    pub(crate) yes: bool,
    /// So many per second, at most.
    pub(crate) rate: NonZeroU32,
    /// Listeners were asked for by name.
    pub(crate) listeners: bool,
    /// Where what is destroyed is written to first.
    pub(crate) evidence: Place,
}

impl Kill {
    /// Resolves what was typed.
    pub(crate) fn resolve(typed: cli::Kill, terminal: Terminal) -> anyhow::Result<Kill> {
        let listeners = typed.filters.state.iter().any(names_listeners);
        let path = typed.evidence.unwrap_or_else(default_evidence);
        if path == Path::new("-") {
            return Err(Usage::new(
                "the evidence goes to a file, and - is none",
                "give a name with --evidence; standard output has the report",
            )
            .into());
        }
        let filter = filter(typed.filters, 0)?;
        if is_everything(&filter) {
            return Err(Usage::new(
                "these filters select every socket",
                "name states, processes, ports, addresses, roles or cgroups; --min-age, --netns, -4 \
                 and -6 alone are not enough",
            )
            .into());
        }
        Ok(Kill {
            which: Snapshot {
                terminal,
                filter,
                by: Vec::new(),
                summary: false,
                json: typed.json,
                all_netns: typed.all_netns,
            },
            yes: typed.yes,
            rate: typed.rate,
            listeners,
            evidence: one_file(path, false),
        })
    }
}

/// Whether `listen` stands in the list; groups of states have it, too, and are not meant.
fn names_listeners(list: &StateSet) -> bool {
    let group = "big".parse().unwrap_or_else(|_| StateSet::all());
    let is_group = group.iter().all(|state| list.contains(state));
    list.contains(TcpState::Listen) && !is_group
}

/// Whether nothing says which sockets are meant. An age, a family and a namespace do not: what they
/// select is everything of a kind.
fn is_everything(filter: &Filter) -> bool {
    let every_state = filter.states.is_empty() || names_every_state(filter.states);
    let ports = [&filter.local_ports, &filter.remote_ports, &filter.any_ports];
    every_state
        && filter.pids.is_empty()
        && filter.comms.is_empty()
        && filter.cgroups.is_empty()
        && filter.roles.is_empty()
        && filter.local_nets.is_empty()
        && filter.remote_nets.is_empty()
        && ports.iter().all(|ports| **ports == Ports::default())
}

/// Every state that connections stay in.
fn names_every_state(states: StateSet) -> bool {
    let connected = "connected".parse().unwrap_or_else(|_| StateSet::all());
    connected.iter().all(|state| states.contains(state))
}

/// `tcptrace-kill-20261122T024110Z.jsonl`, of the time in UTC.
fn default_evidence() -> PathBuf {
    let now = jiff::Timestamp::now();
    now.strftime("tcptrace-kill-%Y%m%dT%H%M%SZ.jsonl")
        .to_string()
        .into()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn kill(args: &[&str]) -> anyhow::Result<Kill> {
        let cli = cli::Cli::parse_from(["tcptrace", "kill"].iter().chain(args));
        let terminal = Terminal {
            width: None,
            color: false,
            quiet: false,
            verbose: 0,
        };
        match cli.command {
            cli::Command::Kill(typed) => Kill::resolve(typed, terminal),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_selects_everything_is_refused() {
        for args in [
            &[][..],
            &["--yes"],
            &["--min-age", "10m", "--yes"],
            &["-4"],
            &["--all-netns"],
            &["-s", "all"],
            &["-s", "connected,listen"],
        ] {
            let error = kill(args).expect_err("refused");
            assert!(error.downcast_ref::<Usage>().is_some(), "{args:?}: {error}");
        }
        for args in [
            &["-s", "cw"][..],
            &["-D", "443"],
            &["--raddr", "10.0.0.0/8"],
            &["--role", "unaccepted"],
            &["--comm", "java*", "--min-age", "10m"],
        ] {
            assert!(kill(args).is_ok(), "{args:?}");
        }
    }

    #[test]
    fn listeners_have_to_be_named() {
        let listeners = |args: &[&str]| kill(args).expect("options").listeners;
        assert!(listeners(&["-s", "listen"]));
        assert!(listeners(&["-s", "cw,listen"]));
        assert!(listeners(&["-s", "big", "-s", "listen"]));
        assert!(!listeners(&["-s", "big"]));
        assert!(!listeners(&["-s", "all", "-L", "80"]));
        assert!(!listeners(&["-L", "80"]));
    }
}

//! Numbers of the running kernel by name: settings, counters, limits, sockets of a kind.
//!
//! All of this network namespace, or of this process.

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;

use super::sysctl;
use crate::proc::files;

/// A number, or why there is none.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Value {
    /// Its name: `net.ipv4.tcp_fin_timeout`, `TcpExt.ListenDrops`, `sockstat.tw`, `RLIMIT_NOFILE`.
    pub(crate) name: &'static str,
    /// As the kernel writes it; `None` where it cannot be read.
    pub(crate) value: Option<String>,
    /// Why it cannot be read.
    pub(crate) why_not: Option<String>,
    /// What it does here.
    pub(crate) note: Option<String>,
}

impl Value {
    /// The name without where it stands: `tcp_fin_timeout`, `sockstat tw`.
    pub(crate) fn short(&self) -> String {
        match self.name.rsplit_once('.') {
            Some(("sockstat", word)) => format!("sockstat {word}"),
            Some((_, last)) => last.to_owned(),
            None => self.name.to_owned(),
        }
    }
}

/// Reads one under `proc`, which is `/proc`.
pub(crate) fn read(proc: &Path, name: &'static str) -> Value {
    let (value, why_not) = match text(proc, name) {
        Ok(text) => (Some(text), None),
        Err(why) => (None, Some(why)),
    };
    let rows = sysctl::read(proc);
    let note = rows.into_iter().find(|row| row.name == name);
    Value {
        name,
        value,
        why_not,
        note: note.map(|row| row.note),
    }
}

fn text(proc: &Path, name: &str) -> Result<String, String> {
    let file = |path: &str| {
        fs::read_to_string(proc.join(path)).map_err(|e| format!("cannot read /proc/{path}: {e}"))
    };
    let missing = |path: &str| format!("this kernel has none in /proc/{path}");
    match name.split_once('.') {
        Some(("net" | "fs", _)) => sysctl::setting(proc, name).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => {
                "this kernel has no such setting, or not in this network namespace".to_owned()
            }
            _ => e.to_string(),
        }),
        Some(("TcpExt", counter)) => {
            let path = "net/netstat";
            of_netstat(&file(path)?, counter).ok_or_else(|| missing(path))
        }
        Some(("sockstat", word)) => {
            let path = "net/sockstat";
            let text = file(path)?;
            let number = sysctl::of_sockstat(&text, word);
            number.map(str::to_owned).ok_or_else(|| missing(path))
        }
        _ if name == "RLIMIT_NOFILE" => {
            let path = "self/limits";
            of_limits(&file(path)?).ok_or_else(|| missing(path))
        }
        _ => Err("there is no such value".to_owned()),
    }
}

/// The value under a name in two lines `TcpExt: names…` and `TcpExt: numbers…` of `/proc/net/netstat`.
pub(crate) fn of_netstat(text: &str, counter: &str) -> Option<String> {
    let mut lines = text.lines().filter_map(|l| l.strip_prefix("TcpExt:"));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let mut pairs = names.split_whitespace().zip(numbers.split_whitespace());
    let (_, number) = pairs.find(|(name, _)| *name == counter)?;
    Some(number.to_owned())
}

/// The soft and the hard limit of `Max open files  1024  20000  files`.
fn of_limits(text: &str) -> Option<String> {
    let (soft, hard) = files::limits(text)?;
    Some(format!("{soft}, at most {hard}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_name() {
        let text = "TcpExt: SyncookiesSent ListenDrops\nTcpExt: 3 7\nIpExt: A\nIpExt: 1\n";
        assert_eq!(of_netstat(text, "ListenDrops").as_deref(), Some("7"));
        assert_eq!(of_netstat(text, "Gone"), None);
        let text = "Limit  Soft  Hard  Units\nMax open files   1024   20000   files \n";
        assert_eq!(of_limits(text).as_deref(), Some("1024, at most 20000"));
    }

    #[test]
    fn what_cannot_be_read_is_said_and_not_guessed() {
        let value = read(Path::new("/nowhere"), "net.ipv4.tcp_fin_timeout");
        assert_eq!(value.value, None);
        assert!(
            value
                .why_not
                .is_some_and(|why| why.contains("no such setting"))
        );
        assert_eq!(value.note, None);
    }
}

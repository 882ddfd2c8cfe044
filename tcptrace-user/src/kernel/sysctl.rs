//! The settings that people turn when sockets linger, with what they really do.
//!
//! Much of what is said about them is folklore; each note says what the kernel's source does
//! (`Documentation/networking/ip-sysctl.rst` and `net/ipv4`). The values are those of this
//! process's network namespace.

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;
use tcptrace_core::host;

/// A setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Sysctl {
    /// As sysctl(8) takes it: `net.ipv4.tcp_fin_timeout`.
    pub(crate) name: &'static str,
    /// Its value, with blanks for tabs; `None` where this kernel has no such setting.
    pub(crate) value: Option<String>,
    /// What it does here, with this value.
    pub(crate) note: String,
}

/// Reads the settings under `proc`, which is `/proc`.
pub(crate) fn read(proc: &Path) -> Vec<Sysctl> {
    let host = Host { proc };
    ROWS.iter()
        .filter_map(|row| {
            let value = host.value(row.name);
            let note = (row.note)(&host, value.as_deref())?;
            Some(Sysctl {
                name: row.name,
                value,
                note,
            })
        })
        .collect()
}

/// The value of one setting, with blanks for tabs.
pub(crate) fn setting(proc: &Path, name: &str) -> io::Result<String> {
    let text = fs::read_to_string(proc.join("sys").join(name.replace('.', "/")))?;
    Ok(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// A number of the line `TCP: inuse 1 orphan 0 tw 0 …` of `/proc/net/sockstat`.
pub(super) fn of_sockstat<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let line = text.lines().find_map(|line| line.strip_prefix("TCP:"))?;
    let mut words = line.split_whitespace();
    words.find(|w| *w == word)?;
    words.next()
}

/// One setting; its note is `None` where there is nothing to say.
struct Row {
    name: &'static str,
    note: fn(&Host<'_>, Option<&str>) -> Option<String>,
}

const ROWS: &[Row] = &[
    Row {
        name: "net.ipv4.tcp_fin_timeout",
        note: fin_timeout,
    },
    Row {
        name: "net.ipv4.tcp_tw_reuse",
        note: tw_reuse,
    },
    Row {
        name: "net.ipv4.tcp_tw_reuse_delay",
        note: |_, value| value.map(|ms| format!("tcp_tw_reuse waits for {ms} ms of TIME_WAIT")),
    },
    Row {
        name: "net.ipv4.tcp_tw_recycle",
        note: tw_recycle,
    },
    Row {
        name: "net.ipv4.tcp_max_tw_buckets",
        note: max_tw_buckets,
    },
    Row {
        name: "net.ipv4.tcp_max_orphans",
        note: max_orphans,
    },
    Row {
        name: "net.ipv4.ip_local_port_range",
        note: port_range,
    },
    Row {
        name: "net.ipv4.tcp_keepalive_time",
        note: keepalive,
    },
    Row {
        name: "net.core.somaxconn",
        note: somaxconn,
    },
    Row {
        name: "net.ipv4.tcp_max_syn_backlog",
        note: max_syn_backlog,
    },
    Row {
        name: "net.ipv4.tcp_syncookies",
        note: syncookies,
    },
    Row {
        name: "net.ipv4.tcp_timestamps",
        note: timestamps,
    },
    Row {
        name: "net.netfilter.nf_conntrack_tcp_timeout_time_wait",
        note: conntrack,
    },
];

/// An orphan's FIN_WAIT_2 beyond `TCP_TIMEWAIT_LEN` is spent twice, once as a full socket and once
/// as a minisocket, each for what exceeds 60 s (`tcp_rcv_state_process`, `tcp_keepalive_timer`).
fn fin_timeout(_: &Host<'_>, value: Option<&str>) -> Option<String> {
    let seconds: u64 = value?.parse().ok()?;
    let mut note = "ends FIN_WAIT_2 of closed sockets only; never one that was shut down and is \
                    still open, never TIME_WAIT, which is 60 s in every kernel"
        .to_owned();
    if seconds > 60 {
        let real = 2 * (seconds - 60);
        note += &format!("; above 60 it means 2 × ({seconds} − 60) = {real} s");
    }
    Some(note)
}

fn tw_reuse(host: &Host<'_>, value: Option<&str>) -> Option<String> {
    let note = match value? {
        "0" => "off: connect() does not take over a TIME_WAIT",
        "2" => "on loopback only: connect() may take over a TIME_WAIT older than about 1 s",
        _ => {
            "connect() may take over a TIME_WAIT older than about 1 s if both ends use timestamps; \
             does nothing for a server's accepted connections"
        }
    };
    let dead = value != Some("0") && host.value("net.ipv4.tcp_timestamps").as_deref() == Some("0");
    Some(format!(
        "{note}{}",
        if dead {
            "; without effect, as tcp_timestamps is 0"
        } else {
            ""
        }
    ))
}

fn tw_recycle(_: &Host<'_>, value: Option<&str>) -> Option<String> {
    Some(match value {
        None => "gone since Linux 4.12: advice to set it is out of date".into(),
        Some("0") => "off, as it should be: it loses clients behind NAT".into(),
        Some(_) => "on: loses connections of clients behind NAT; set it to 0".into(),
    })
}

fn max_tw_buckets(host: &Host<'_>, value: Option<&str>) -> Option<String> {
    let used = host
        .sockstat("tw")
        .map(|tw| format!("{tw} now{}; ", share(tw, value)));
    Some(format!(
        "{}beyond it a closed connection gets no TIME_WAIT and no FIN_WAIT_2 minisocket at all",
        used.unwrap_or_default(),
    ))
    .filter(|_| value.is_some())
}

fn max_orphans(host: &Host<'_>, value: Option<&str>) -> Option<String> {
    let Some(value) = value else {
        return Some("to be seen in the initial network namespace only".into());
    };
    let used = host.sockstat("orphan");
    let used = used
        .map(|n| format!("{n} now{}; ", share(n, Some(value))))
        .unwrap_or_default();
    Some(format!(
        "{used}closed full sockets of the whole machine (FIN_WAIT_1, LAST_ACK, …): beyond it they \
         are reset; minisockets do not count"
    ))
}

fn port_range(host: &Host<'_>, value: Option<&str>) -> Option<String> {
    let (low, high) = host::port_range(value?)?;
    let reserved = host
        .value("net.ipv4.ip_local_reserved_ports")
        .unwrap_or_default();
    let taken = host::reserved_ports(&reserved).range(low..=high).count();
    let free = usize::from(high - low) + 1 - taken;
    let minus = match taken {
        0 => String::new(),
        n => format!(", {n} reserved ones taken off"),
    };
    Some(format!(
        "{free} ports{minus}, for each destination (address and port); connect() fails with \
         EADDRNOTAVAIL when they are used up, TIME_WAIT included"
    ))
}

fn keepalive(host: &Host<'_>, value: Option<&str>) -> Option<String> {
    let number = |name| host.value(name)?.parse::<u64>().ok();
    let time: u64 = value?.parse().ok()?;
    let interval = number("net.ipv4.tcp_keepalive_intvl")?;
    let probes = number("net.ipv4.tcp_keepalive_probes")?;
    let total = time.saturating_add(interval.saturating_mul(probes));
    Some(format!(
        "interval {interval}, probes {probes}: with SO_KEEPALIVE, and only then, a vanished peer \
         is given up after {total} s; this does not close the descriptor of a CLOSE_WAIT"
    ))
}

fn somaxconn(_: &Host<'_>, value: Option<&str>) -> Option<String> {
    let value = value?;
    Some(format!(
        "a listener queues at most min(backlog, {value}) + 1 connections to accept"
    ))
}

/// `tcp_conn_request` looks at it only without SYN cookies.
fn max_syn_backlog(host: &Host<'_>, value: Option<&str>) -> Option<String> {
    value?;
    Some(match host.value("net.ipv4.tcp_syncookies").as_deref() {
        Some("0") => "half-open connections of one listener".into(),
        _ => "without effect while tcp_syncookies is on: the listener's own backlog limits".into(),
    })
}

fn syncookies(_: &Host<'_>, value: Option<&str>) -> Option<String> {
    Some(match value? {
        "0" => "off: a full SYN queue drops SYNs".into(),
        "2" => "always: TCP options beyond the cookie are lost, meant for tests".into(),
        _ => "when a SYN queue is full".into(),
    })
}

fn timestamps(_: &Host<'_>, value: Option<&str>) -> Option<String> {
    Some(
        match value? {
            "0" => "off: no reuse of TIME_WAIT, and no protection against wrapped sequence numbers",
            _ => "on, as tcp_tw_reuse needs",
        }
        .to_owned(),
    )
}

fn conntrack(host: &Host<'_>, value: Option<&str>) -> Option<String> {
    value?;
    let number = |name| host.value(name)?.parse::<u64>().ok();
    let table = number("net.netfilter.nf_conntrack_count")
        .zip(number("net.netfilter.nf_conntrack_max"))
        .map(|(count, max)| format!("; its table holds {count} of {max}"));
    Some(format!(
        "conntrack's own table, not sockets: its timeouts change no TCP state{}",
        table.unwrap_or_default(),
    ))
}

/// ` (12 %)` of a limit, nothing where there is none.
fn share(used: u64, limit: Option<&str>) -> String {
    match limit.and_then(|limit| limit.parse::<u64>().ok()) {
        Some(limit) if limit > 0 => format!(" ({} %)", used.saturating_mul(100) / limit),
        _ => String::new(),
    }
}

/// Where the values come from.
struct Host<'a> {
    proc: &'a Path,
}

impl Host<'_> {
    fn value(&self, name: &str) -> Option<String> {
        setting(self.proc, name).ok()
    }

    fn sockstat(&self, word: &str) -> Option<u64> {
        let text = fs::read_to_string(self.proc.join("net/sockstat")).ok()?;
        of_sockstat(&text, word)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The settings of a /proc with these files.
    fn read_from(files: &[(&str, &str)]) -> Vec<Sysctl> {
        let proc = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = proc.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        read(proc.path())
    }

    #[track_caller]
    fn note(files: &[(&str, &str)], name: &str, part: &str) {
        let sysctls = read_from(files);
        let sysctl = sysctls
            .iter()
            .find(|s| s.name.ends_with(name))
            .expect("it is listed");
        assert!(sysctl.note.contains(part), "{sysctl:?}");
    }

    const RANGE: &str = "sys/net/ipv4/ip_local_port_range";
    const RESERVED: &str = "sys/net/ipv4/ip_local_reserved_ports";

    #[test]
    fn the_port_range_is_counted_without_reserved_ones() {
        note(
            &[(RANGE, "32768\t60999\n")],
            "port_range",
            "28232 ports, for each",
        );
        let files = [
            (RANGE, "32768\t60999\n"),
            (RESERVED, "8080,32000-32769,60999,61000\n"),
        ];
        note(
            &files,
            "port_range",
            "28229 ports, 3 reserved ones taken off",
        );
        note(
            &[(RANGE, "1 65535"), (RESERVED, "0-65535")],
            "port_range",
            "0 ports",
        );
    }

    #[test]
    fn a_long_fin_timeout_is_not_what_it_says() {
        let name = "sys/net/ipv4/tcp_fin_timeout";
        note(&[(name, "62\n")], "fin_timeout", "2 × (62 − 60) = 4 s");
        let sysctls = read_from(&[(name, "60\n")]);
        assert!(!sysctls[0].note.contains("above"), "{sysctls:?}");
    }

    #[test]
    fn reuse_needs_timestamps() {
        let files = [
            ("sys/net/ipv4/tcp_tw_reuse", "2"),
            ("sys/net/ipv4/tcp_timestamps", "0"),
        ];
        note(&files, "tcp_tw_reuse", "on loopback only");
        note(&files, "tcp_tw_reuse", "without effect");
    }

    #[test]
    fn limits_are_shown_with_their_use() {
        let sockstat = (
            "net/sockstat",
            "sockets: used 9\nTCP: inuse 1 orphan 3 tw 50 alloc 8\n",
        );
        let files = [sockstat, ("sys/net/ipv4/tcp_max_tw_buckets", "200")];
        note(&files, "max_tw_buckets", "50 now (25 %)");
        let files = [sockstat, ("sys/net/ipv4/tcp_max_orphans", "0")];
        note(&files, "max_orphans", "3 now; ");
    }

    #[test]
    fn what_is_missing_is_left_out_or_explained() {
        let names: Vec<_> = read_from(&[])
            .into_iter()
            .map(|s| (s.name, s.value))
            .collect();
        let gone = [
            ("net.ipv4.tcp_tw_recycle", None),
            ("net.ipv4.tcp_max_orphans", None),
        ];
        assert_eq!(names, gone);
    }
}

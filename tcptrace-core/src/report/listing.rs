//! `snapshot` for people: tables of sockets and of groups.

use std::io::{self, Write};
use std::net::SocketAddr;

use super::snapshot::{Group, Socket, thousands};
use super::summary::Key;
use super::table::{Align, Column, Table};
use crate::change::View;
use crate::state::TcpState;
use crate::text::escape;

const fn column(title: &'static str, align: Align, min: usize, rank: u8) -> Column {
    Column {
        title,
        align,
        min,
        rank,
    }
}

const SOCKETS: [Column; 12] = [
    column("AGE", Align::Right, 6, 1),
    column("STATE", Align::Left, 10, 0),
    column("PID/FD", Align::Left, 6, 3),
    column("COMM", Align::Left, 6, 6),
    column("LOCAL", Align::Left, 12, 4),
    column("PEER", Align::Left, 10, 2),
    column("RECV-Q", Align::Right, 6, 7),
    column("SEND-Q", Align::Right, 6, 9),
    column("KEEPALIVE", Align::Left, 9, 10),
    column("ROLE", Align::Left, 7, 8),
    column("NETNS", Align::Right, 10, 11),
    column("VERDICT", Align::Left, 12, 5),
];
/// Where NETNS stands in [`SOCKETS`].
const NETNS: usize = 10;

/// One line per socket under a header. Unknown is `?`, what cannot be is `-`.
///
/// `width`: columns of the terminal, `None` for as many as it takes; `netns`: whether there is a
/// column for the network namespace.
pub fn sockets(
    sockets: &[Socket],
    netns: bool,
    width: Option<usize>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut columns = SOCKETS.to_vec();
    let mut rows: Vec<Vec<String>> = sockets.iter().map(socket_row).collect();
    if !netns {
        columns.remove(NETNS);
        for row in &mut rows {
            row.remove(NETNS);
        }
    }
    print(&columns, &rows, width, out)
}

fn socket_row(socket: &Socket) -> Vec<String> {
    let view = &socket.view;
    let number = |n: Option<u32>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
    vec![
        view.age.to_string(),
        match view.mini && view.state == TcpState::FinWait2 {
            true => format!("{} mini", view.state),
            false => view.state.to_string(),
        },
        pid_fd(socket),
        match view.owner.comm {
            Some(comm) => comm.to_string(),
            None => no_owner(socket).to_owned(),
        },
        endpoint(view.tuple.local),
        endpoint(view.tuple.remote),
        number(view.recv_q),
        number(view.send_q),
        keepalive(view).to_owned(),
        view.role.map_or("-", |r| r.name()).to_owned(),
        number(view.tuple.netns),
        view.verdict.map_or("-", |v| v.text()).to_owned(),
    ]
}

/// `4711/9`, `4711/9 +2` where others hold it too, `4711/-` for the listener of a connection
/// that waits to be accepted.
fn pid_fd(socket: &Socket) -> String {
    let owner = &socket.view.owner;
    let Some(pid) = owner.pid else {
        return no_owner(socket).to_owned();
    };
    let fd = owner.fd.map_or_else(|| "-".to_owned(), |fd| fd.to_string());
    match owner.holders.len() {
        0 | 1 => format!("{pid}/{fd}"),
        n => format!("{pid}/{fd} +{}", n - 1),
    }
}

/// `?` where there is an owner that we do not know, `-` where there is none.
fn no_owner(socket: &Socket) -> &'static str {
    match socket.facts.inode.is_some() || socket.view.owner.by_listener {
        true => "?",
        false => "-",
    }
}

/// As `ss -n` has it: `*` for no port.
fn endpoint(addr: SocketAddr) -> String {
    let text = addr.to_string();
    match addr.port() {
        0 => format!("{}*", text.trim_end_matches('0')),
        _ => text,
    }
}

fn keepalive(view: &View) -> &'static str {
    match view.keepalive {
        Some(true) => "on",
        Some(false) => "off",
        None if view.mini || view.state == TcpState::Listen => "-",
        None => "?",
    }
}

/// One line per group: how many, their keys in the order they were asked for, the oldest.
pub fn groups(
    groups: &[Group],
    by: &[Key],
    width: Option<usize>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut columns = vec![column("COUNT", Align::Right, 5, 0)];
    for (key, rank) in by.iter().zip(1..) {
        let align = if *key == Key::Pid {
            Align::Right
        } else {
            Align::Left
        };
        columns.push(column(key.title(), align, 6, rank));
    }
    columns.push(column("OLDEST", Align::Right, 6, u8::MAX));
    let rows: Vec<Vec<String>> = groups.iter().map(group_row).collect();
    print(&columns, &rows, width, out)
}

fn group_row(group: &Group) -> Vec<String> {
    let mut row = vec![thousands(group.count)];
    row.extend(
        group
            .key
            .iter()
            .map(|v| v.as_deref().map_or("-".to_owned(), escape)),
    );
    row.push(group.oldest.to_string());
    row
}

fn print(
    columns: &[Column],
    rows: &[Vec<String>],
    width: Option<usize>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let table = Table::for_rows(columns, rows, width);
    writeln!(out, "{}", table.header())?;
    for row in rows {
        writeln!(out, "{}", table.row(row))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::json::SocketFacts;
    use super::super::snapshot::group;
    use super::super::snapshot::tests::{MINUTE, snapshot};
    use super::super::table;
    use super::*;
    use crate::infer::{Listeners, view};
    use crate::input::Timer;
    use crate::owner::{Comm, Holder, Owner};

    fn some_sockets() -> Vec<Socket> {
        let comm = Comm::from_bytes(b"py\x1b[31m");
        let holder = |fd| Holder {
            pid: 4711,
            fd,
            comm,
        };
        let owner = Owner {
            pid: Some(4711),
            comm: Some(comm),
            fd: Some(9),
            holders: vec![holder(9), holder(10)],
            ..Owner::default()
        };
        let mut leaked = snapshot(TcpState::CloseWait, "10.1.0.5:41822", "10.0.0.9:443");
        leaked.recv_q = 25;
        leaked.last_ack_recv_ms = Some(6_725_000);
        let mut mini = snapshot(TcpState::FinWait2, "10.1.0.5:41823", "[2001:db8::9]:443");
        mini.mini = true;
        mini.inode = 0;
        mini.timer = Timer::TimeWait { left_ms: 48_000 };
        let listener = snapshot(TcpState::Listen, "[::]:7000", "[::]:0");
        [
            (leaked, owner),
            (mini, Owner::default()),
            (listener, Owner::default()),
        ]
        .into_iter()
        .map(|(s, owner)| Socket {
            view: view(&s, &Listeners::default(), Some(MINUTE), owner),
            facts: SocketFacts {
                inode: (s.inode != 0).then_some(s.inode),
                uid: None,
                timer: "off",
                timer_left_ms: None,
            },
        })
        .collect()
    }

    fn printed(width: Option<usize>) -> String {
        let mut out = Vec::new();
        sockets(&some_sockets(), false, width, &mut out).expect("memory");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_pipe_gets_every_column() {
        assert_eq!(
            printed(None),
            "   AGE  STATE           PID/FD     COMM        LOCAL           PEER               \
             RECV-Q  SEND-Q  KEEPALIVE  ROLE    VERDICT\n\
             ~1h52m  CLOSE_WAIT      4711/9 +1  py\\x1b[31m  10.1.0.5:41822  10.0.0.9:443       \
             \x20   25       0  off        active  close_notify unread\n\
             ~12.0s  FIN_WAIT2 mini  -          -           10.1.0.5:41823  [2001:db8::9]:443  \
             \x20    -       -  -          active  orphan, timer runs\n\
             \x20    ?  LISTEN          ?          ?           [::]:7000       [::]:*             \
             \x20    0       0  -          -       -\n"
        );
    }

    #[test]
    fn forty_columns_are_enough_and_never_exceeded() {
        let text = printed(Some(40));
        assert!(
            text.starts_with("   AGE  STATE         PID/FD  PEER\n"),
            "{text}"
        );
        for width in [1, 10, 40, 80, 100] {
            for line in printed(Some(width)).lines() {
                assert!(table::width(line) <= width, "{width}: {line}");
            }
        }
    }

    #[test]
    fn groups_have_their_keys_in_order() {
        let by = [Key::Comm, Key::State];
        let mut out = Vec::new();
        let all = group(&some_sockets(), &by);
        groups(&all, &by, None, &mut out).expect("memory");
        assert_eq!(
            String::from_utf8(out).expect("text"),
            "COUNT  COMM        STATE       OLDEST\n\
             \x20   1  -           fin_wait2   ~12.0s\n\
             \x20   1  py\\x1b[31m  close_wait  ~1h52m\n\
             \x20   1  -           listen           ?\n"
        );
    }
}

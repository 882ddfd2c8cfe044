//! A connection's facts as short texts, each safe for a terminal. What is not known is `?`, what
//! does not exist is `-`, and neither is ever 0.

use std::net::SocketAddr;

use crate::change::View;
use crate::text::escape;
use crate::time::Age;
use crate::verdict::Verdict;

/// `4711/812`; `4711/812+2`: two more have it open; `- [:7000]`: in the queue of a listener.
pub(crate) fn pid_fd(view: &View) -> String {
    let owner = &view.owner;
    if owner.by_listener {
        return format!("- [:{}]", view.tuple.local.port());
    }
    let Some(pid) = owner.pid else {
        return "?".to_owned();
    };
    let mut text = String::with_capacity(16);
    push_number(&mut text, pid);
    text.push('/');
    match owner.fd {
        _ if owner.remembered => text.push('-'),
        Some(fd) => push_number(&mut text, fd),
        None => text.push('?'),
    }
    match owner.holders.len() {
        0 | 1 => text,
        n => format!("{text}+{}", n - 1),
    }
}

/// `4711`, `?`.
pub(crate) fn pid(view: &View) -> String {
    view.owner.pid.map_or("?".to_owned(), |pid| pid.to_string())
}

/// `python3`; `(python3)`: it has closed the socket or is gone.
pub(crate) fn comm(view: &View) -> String {
    match (view.owner.comm, view.owner.remembered) {
        (None, _) => "?".to_owned(),
        (Some(comm), false) => escape(&comm.to_text()),
        (Some(comm), true) => ["(", &escape(&comm.to_text()), ")"].concat(),
    }
}

/// `127.0.0.1:80`; `[::1]:80`. The same as the standard library's, in a tenth of the time.
pub(crate) fn end(end: SocketAddr) -> String {
    let SocketAddr::V4(end) = end else {
        return end.to_string();
    };
    let mut text = String::with_capacity(21);
    for (place, byte) in end.ip().octets().into_iter().enumerate() {
        if place > 0 {
            text.push('.');
        }
        push_number(&mut text, u32::from(byte));
    }
    text.push(':');
    push_number(&mut text, u32::from(end.port()));
    text
}

fn push_number(text: &mut String, mut number: u32) {
    let mut digits = [0; 10];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    text.push_str(str::from_utf8(&digits[first..]).unwrap_or_default());
}

/// Recv-Q; a minisocket has none.
pub(crate) fn recv_q(view: &View) -> String {
    match (view.recv_q, view.mini) {
        (_, true) => "-".to_owned(),
        (Some(bytes), _) => bytes.to_string(),
        (None, _) => "?".to_owned(),
    }
}

/// `FIN unread`; `never accepted, listener pid 800`; empty where there is nothing to say.
pub(crate) fn verdict(view: &View) -> String {
    let text = view.verdict.map_or("", Verdict::text);
    match view.owner.pid {
        Some(pid) if view.owner.by_listener => match text {
            "" => format!("listener pid {pid}"),
            _ => format!("{text}, listener pid {pid}"),
        },
        _ => text.to_owned(),
    }
}

/// `9 connection attempts dropped`; `~9 …`: other drops are among them.
pub(crate) fn dropped(dropped: u64, estimated: bool) -> String {
    let about = if estimated { "~" } else { "" };
    let attempts = if dropped == 1 { "attempt" } else { "attempts" };
    format!("{about}{dropped} connection {attempts} dropped")
}

/// `9 wait, limit 8`: the accept queue of a listener; it lets one more in than the limit says.
pub(crate) fn queue(view: &View) -> String {
    let number = |n: Option<u32>| n.map_or("?".to_owned(), |n| n.to_string());
    format!(
        "{} wait for accept, limit {}",
        number(view.recv_q),
        number(view.send_q)
    )
}

/// The first twelve characters of the container id, as its tools print it.
pub(crate) fn container(view: &View) -> String {
    match view.owner.container.as_deref() {
        Some(id) => escape(&id.chars().take(12).collect::<String>()),
        None => "-".to_owned(),
    }
}

/// The arguments of the owner.
pub(crate) fn cmdline(view: &View) -> String {
    view.owner.cmdline.as_deref().map_or("?".to_owned(), escape)
}

/// Milliseconds with three decimals, as tcpstates prints them; `~` estimated.
pub(crate) fn milliseconds(age: Age) -> String {
    let ms = |ns: u64| format!("{}.{:03}", ns / 1_000_000, ns / 1_000 % 1_000);
    match age {
        Age::Exact(ns) => ms(ns),
        Age::Between { min, .. } => format!("~{}", ms(min)),
        Age::Unknown => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ends_are_written_as_the_standard_library_does(v4: [u8; 4], v6: [u16; 8], port: u16) {
            for end in [SocketAddr::from((v4, port)), SocketAddr::from((v6, port))] {
                prop_assert_eq!(super::end(end), end.to_string());
            }
        }
    }
}

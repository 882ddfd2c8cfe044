//! How old a socket's state is, judged from one look at it.

use crate::input::{SocketSnapshot, Timer};
use crate::state::TcpState;
use crate::time::Age;

const MS: u64 = 1_000_000;

/// `TCP_TIMEWAIT_LEN`, a constant of the kernel, ns.
pub const TIME_WAIT_NS: u64 = 60_000 * MS;

/// The age of the state that a socket was found in.
///
/// CLOSE_WAIT, and FIN_WAIT_2 of a full socket: the FIN (or its ACK) was the last ACK to come, or
/// an older one, so the age is at least `tcpi_last_ack_recv`; and no data came after it, so it is
/// at most `tcpi_last_data_recv`. The two are close where the peer stayed silent; the lower one is
/// the truth unless we sent data since, or probes were answered.
///
/// A minisocket: what its timer has run. The timer of TIME_WAIT starts anew with every FIN that
/// comes again, so that is a lower bound; that of FIN_WAIT_2 needs `fin_timeout_ns`.
pub fn age(socket: &SocketSnapshot, fin_timeout_ns: Option<u64>) -> Age {
    match (socket.state, socket.timer) {
        (TcpState::TimeWait, Timer::TimeWait { left_ms }) => Age::Between {
            min: TIME_WAIT_NS.saturating_sub(u64::from(left_ms) * MS),
            max: None,
        },
        (TcpState::FinWait2, Timer::TimeWait { left_ms }) => match fin_timeout_ns {
            Some(total) if u64::from(left_ms) * MS <= total => Age::Between {
                min: total - u64::from(left_ms) * MS,
                max: None,
            },
            _ => Age::Unknown,
        },
        (TcpState::CloseWait, _) => last_heard(socket),
        (TcpState::FinWait2, _) if !socket.mini => last_heard(socket),
        _ => Age::Unknown,
    }
}

fn last_heard(socket: &SocketSnapshot) -> Age {
    let Some(ack) = socket.last_ack_recv_ms else {
        return Age::Unknown;
    };
    let min = u64::from(ack) * MS;
    let max = socket.last_data_recv_ms.map(|ms| u64::from(ms) * MS);
    Age::Between {
        min,
        max: max.filter(|max| *max >= min),
    }
}

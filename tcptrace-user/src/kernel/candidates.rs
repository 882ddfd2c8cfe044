//! The ways to each event: in the order of their accuracy, what each needs, and what it costs to
//! come down to it. Another mechanism is another row.

use super::facts::{Fact, Facts};
use super::plan::{Event, Mechanism};
use super::programs::{self, Attachment};

/// A row of the table.
pub(super) struct Row {
    pub(super) event: Event,
    pub(super) mechanism: Mechanism,
    pub(super) hooks: &'static [&'static str],
    pub(super) programs: &'static [Attachment],
    /// What it needs beyond what its mechanism needs.
    pub(super) needs: &'static [fn(&Facts) -> &Fact],
    pub(super) cost: Option<&'static str>,
}

/// Rows of one event stand together, the most accurate first.
pub(super) const CANDIDATES: &[Row] = &[
    Row {
        event: Event::State,
        mechanism: Mechanism::TpBtf,
        hooks: &["inet_sock_set_state"],
        programs: programs::STATE_TP_BTF,
        needs: &[|f| &f.socket_cookie, |f| &f.skc_to_tcp_sock],
        cost: None,
    },
    Row {
        event: Event::State,
        mechanism: Mechanism::RawTp,
        hooks: &["inet_sock_set_state", "cgroup/sock_create", "sockops"],
        programs: programs::STATE_RAW_TP,
        needs: &[|f| &f.cgroup_cookie],
        cost: Some("as true, and dearer: each field is read by a call of its own"),
    },
    Row {
        event: Event::State,
        mechanism: Mechanism::Tracepoint,
        hooks: &["inet_sock_set_state", "cgroup/sock_create", "sockops"],
        programs: programs::STATE_TRACEPOINT,
        needs: &[|f| &f.tracefs, |f| &f.cgroup_cookie],
        cost: Some(
            "a change in softirq that interrupts another perf or kprobe program on that CPU is \
             not seen, and counted from 6.7 on only: dumps find it later",
        ),
    },
    Row {
        event: Event::State,
        mechanism: Mechanism::Netlink,
        hooks: &["sock_diag"],
        programs: &[],
        needs: &[|f| &f.sock_diag],
        cost: Some("every time is an estimate, and what is shorter than the interval is not seen"),
    },
    Row {
        event: Event::Minisocket,
        mechanism: Mechanism::Fentry,
        hooks: &["__inet_twsk_schedule", "tw_timer_handler", "inet_twsk_kill"],
        programs: programs::MINI_FENTRY,
        needs: &[],
        cost: None,
    },
    Row {
        event: Event::Minisocket,
        mechanism: Mechanism::TpBtf,
        hooks: &[
            "timer_start",
            "timer_cancel",
            "timer_expire_entry",
            "kfree_skb",
        ],
        programs: programs::MINI_TIMERS_AND_SEGMENTS,
        needs: &[|f| &f.timer_address, |f| &f.drop_socket],
        cost: None,
    },
    Row {
        event: Event::Minisocket,
        mechanism: Mechanism::TpBtf,
        hooks: &[
            "timer_start",
            "timer_cancel",
            "timer_expire_entry",
            "kfree_skb's segment",
        ],
        programs: programs::MINI_TIMERS_AND_DROPS,
        needs: &[|f| &f.timer_address],
        cost: None,
    },
    Row {
        event: Event::Minisocket,
        mechanism: Mechanism::Kprobe,
        hooks: &["__inet_twsk_schedule", "tw_timer_handler", "inet_twsk_kill"],
        programs: programs::MINI_KPROBE,
        needs: &[],
        cost: Some(
            "what happens in softirq that interrupts another perf or kprobe program on that CPU \
             is not seen, and counted from 6.7 on only: dumps find it later",
        ),
    },
    Row {
        event: Event::Minisocket,
        mechanism: Mechanism::TpBtf,
        hooks: &["timer_start", "timer_cancel", "timer_expire_entry"],
        programs: programs::MINI_TIMERS,
        needs: &[|f| &f.timer_address],
        cost: Some(
            "a FIN that comes within 2 s of the FIN_WAIT_2 minisocket's birth may go unseen \
             until TIME_WAIT ends: the change is then dated back to the jiffy",
        ),
    },
    Row {
        event: Event::Accept,
        mechanism: Mechanism::Fentry,
        hooks: &["inet_csk_accept"],
        programs: programs::ACCEPT_FEXIT,
        needs: &[],
        cost: None,
    },
    Row {
        event: Event::Accept,
        mechanism: Mechanism::Tracepoint,
        hooks: &["sys_exit_accept", "sys_exit_accept4"],
        programs: programs::ACCEPT_SYSCALLS,
        needs: &[|f| &f.tracefs, |f| &f.accept_tracepoints],
        cost: Some(
            "not of io_uring and 32-bit processes: there the owner is who holds the descriptor",
        ),
    },
    Row {
        event: Event::Accept,
        mechanism: Mechanism::RawTp,
        hooks: &["sys_exit"],
        programs: programs::ACCEPT_RAW,
        needs: &[],
        cost: Some("as true, but it costs every system call of the machine about 0.1 µs"),
    },
    Row {
        event: Event::Accept,
        mechanism: Mechanism::Kprobe,
        hooks: &["inet_csk_accept"],
        programs: programs::ACCEPT_KRETPROBE,
        needs: &[],
        cost: Some(
            "blind while more calls block in accept than the kretprobe has instances (10, or \
             twice the CPUs): there the owner is who holds the descriptor",
        ),
    },
    Row {
        event: Event::Connect,
        mechanism: Mechanism::Derived,
        hooks: &["state"],
        programs: &[],
        needs: &[],
        cost: None,
    },
    Row {
        event: Event::Close,
        mechanism: Mechanism::Fentry,
        hooks: &["tcp_close"],
        programs: programs::CLOSE_FENTRY,
        needs: &[],
        cost: None,
    },
    Row {
        event: Event::Close,
        mechanism: Mechanism::TpBtf,
        hooks: &["tcp_destroy_sock"],
        programs: programs::CLOSE_DESTROY,
        needs: &[],
        cost: None,
    },
    Row {
        event: Event::Close,
        mechanism: Mechanism::Kprobe,
        hooks: &["tcp_close"],
        programs: programs::CLOSE_KPROBE,
        needs: &[],
        cost: None,
    },
    Row {
        event: Event::Close,
        mechanism: Mechanism::Derived,
        hooks: &["state"],
        programs: &[],
        needs: &[],
        cost: Some("the close of a socket that a reset had ended before is not seen"),
    },
    Row {
        event: Event::Eof,
        mechanism: Mechanism::TpBtf,
        hooks: &["sock_recv_length"],
        programs: programs::EOF_TP_BTF,
        needs: &[],
        cost: None,
    },
    Row {
        event: Event::Eof,
        mechanism: Mechanism::Fentry,
        hooks: &["tcp_recvmsg"],
        programs: programs::EOF_FEXIT,
        needs: &[],
        cost: None,
    },
    Row {
        event: Event::Eof,
        mechanism: Mechanism::Kprobe,
        hooks: &["tcp_recvmsg"],
        programs: programs::EOF_KRETPROBE,
        needs: &[],
        cost: Some("blind while more calls block in a receive than the kretprobe has instances"),
    },
    Row {
        event: Event::Eof,
        mechanism: Mechanism::Derived,
        hooks: &["state"],
        programs: &[],
        needs: &[],
        cost: Some(
            "whether the end of the stream was read is told from the receive queue when the \
             socket is next looked at: not when, nor by whom",
        ),
    },
    Row {
        event: Event::Overflow,
        mechanism: Mechanism::Fentry,
        hooks: &[
            "tcp_conn_request",
            "tcp_v4_syn_recv_sock",
            "tcp_v6_syn_recv_sock",
        ],
        programs: programs::OVERFLOW_FENTRY,
        needs: &[],
        cost: None,
    },
    Row {
        event: Event::Overflow,
        mechanism: Mechanism::Kprobe,
        hooks: &[
            "tcp_conn_request",
            "tcp_v4_syn_recv_sock",
            "tcp_v6_syn_recv_sock",
        ],
        programs: programs::OVERFLOW_KPROBE,
        needs: &[],
        cost: Some(
            "what happens in softirq that interrupts another perf or kprobe program on that CPU \
             is not counted",
        ),
    },
    Row {
        event: Event::Overflow,
        mechanism: Mechanism::Derived,
        hooks: &["sk_drops"],
        programs: &[],
        needs: &[|f| &f.sock_diag],
        cost: Some(
            "counted when all sockets are dumped, so not of a listener that is gone by then; and \
             what it drops for other reasons is among it",
        ),
    },
    Row {
        event: Event::Owners,
        mechanism: Mechanism::Iter,
        hooks: &["task_file"],
        programs: programs::OWNERS_ITER,
        needs: &[|f| &f.iter_task_file, |f| &f.socket_cookie],
        cost: None,
    },
    Row {
        event: Event::Owners,
        mechanism: Mechanism::Proc,
        hooks: &["/proc/PID/fd"],
        programs: &[],
        needs: &[],
        cost: Some(
            "slower, and other users' processes take CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH",
        ),
    },
];

//! Which programs of the object make up each mechanism, and what each hangs on.

/// A program, and what it is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attachment {
    /// Its name in the object.
    pub(crate) program: &'static str,
    /// What it hangs on.
    pub(crate) on: On,
    /// What a run means that the kernel skipped.
    pub(crate) skipped: Skipped,
    /// Programs that stand in for it where the function takes so many arguments.
    variants: &'static [(u32, &'static str)],
}

impl Attachment {
    /// Whether this is that program, or has it for a number of arguments.
    pub(crate) fn may_be(&self, program: &str) -> bool {
        self.program == program || self.variants.iter().any(|(_, name)| *name == program)
    }

    /// The same with the program for a function that takes so many arguments.
    pub(crate) fn for_arguments(self, count: impl Fn(&str) -> u32) -> Attachment {
        let variant = match self.on {
            On::Fexit(function) | On::Kprobe(function) => {
                let count = count(function);
                self.variants.iter().find(|(n, _)| *n == count)
            }
            _ => None,
        };
        Attachment {
            program: variant.map_or(self.program, |(_, program)| program),
            ..self
        }
    }
}

/// What a program hangs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    /// A BTF-typed tracepoint.
    TpBtf(&'static str),
    /// A raw tracepoint.
    RawTp(&'static str),
    /// Perf tracepoints of one category.
    Tracepoint(&'static str, &'static [&'static str]),
    /// The entry of a function, by a trampoline.
    Fentry(&'static str),
    /// The return of a function, by a trampoline.
    Fexit(&'static str),
    /// The entry or, for a kretprobe program, the return of a function, by a breakpoint.
    Kprobe(&'static str),
    /// socket(), on the root cgroup.
    SockCreate,
    /// TCP's callbacks, on the root cgroup.
    SockOps,
    /// An iterator: read when it is asked.
    Iter(&'static str),
}

/// What a run means that the kernel skipped, since the program, or another one of its kind, was
/// active on that CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Skipped {
    /// An event is lost.
    Lost,
    /// An event is lost, unless the twin made up for it.
    MadeUp,
    /// Nothing: the twin is one that makes up, or what it sees is seen again.
    Nothing,
}

const fn attachment(program: &'static str, on: On, skipped: Skipped) -> Attachment {
    Attachment {
        program,
        on,
        skipped,
        variants: &[],
    }
}

const fn lost(program: &'static str, on: On) -> Attachment {
    attachment(program, on, Skipped::Lost)
}

const fn made_up(program: &'static str, on: On) -> Attachment {
    attachment(program, on, Skipped::MadeUp)
}

const fn unimportant(program: &'static str, on: On) -> Attachment {
    attachment(program, on, Skipped::Nothing)
}

const fn with(variants: &'static [(u32, &'static str)], attachment: Attachment) -> Attachment {
    Attachment {
        variants,
        ..attachment
    }
}

const SET_STATE: &str = "inet_sock_set_state";

// The twins behind it: they are called in this order.

pub(super) const STATE_TP_BTF: &[Attachment] = &[
    made_up("state", On::TpBtf(SET_STATE)),
    unimportant("state_shadow", On::TpBtf(SET_STATE)),
    unimportant("state_last", On::TpBtf(SET_STATE)),
];
pub(super) const STATE_RAW_TP: &[Attachment] = &[
    unimportant("cookie_create", On::SockCreate),
    unimportant("cookie_established", On::SockOps),
    made_up("state_raw", On::RawTp(SET_STATE)),
    unimportant("state_raw_shadow", On::RawTp(SET_STATE)),
    unimportant("state_raw_last", On::RawTp(SET_STATE)),
];
pub(super) const STATE_TRACEPOINT: &[Attachment] = &[
    unimportant("cookie_create", On::SockCreate),
    unimportant("cookie_established", On::SockOps),
    lost("state_perf", On::Tracepoint("sock", &[SET_STATE])),
];

pub(super) const MINI_FENTRY: &[Attachment] = &[
    lost("mini_schedule_fentry", On::Fentry("__inet_twsk_schedule")),
    lost("mini_handler_fentry", On::Fentry("tw_timer_handler")),
    lost("mini_kill_fentry", On::Fentry("inet_twsk_kill")),
];
pub(super) const MINI_KPROBE: &[Attachment] = &[
    lost("mini_schedule_kprobe", On::Kprobe("__inet_twsk_schedule")),
    lost("mini_handler_kprobe", On::Kprobe("tw_timer_handler")),
    lost("mini_kill_kprobe", On::Kprobe("inet_twsk_kill")),
];
pub(super) const MINI_TIMERS: &[Attachment] = &[
    lost("mini_start", On::TpBtf("timer_start")),
    lost("mini_cancel", On::TpBtf("timer_cancel")),
    lost("mini_expire", On::TpBtf("timer_expire_entry")),
];
pub(super) const MINI_TIMERS_AND_SEGMENTS: &[Attachment] = &[
    MINI_TIMERS[0],
    MINI_TIMERS[1],
    MINI_TIMERS[2],
    // Nearly all that kfree_skb tells is of other sockets, and so are its skipped runs.
    unimportant("mini_segment", On::TpBtf("kfree_skb")),
];

/// The map of minisockets is kept for this one: [`notes_fin_wait2`].
pub(super) const MINI_TIMERS_AND_DROPS: &[Attachment] = &[
    MINI_TIMERS[0],
    MINI_TIMERS[1],
    MINI_TIMERS[2],
    unimportant(BY_SEGMENT, On::TpBtf("kfree_skb")),
];

const BY_SEGMENT: &str = "mini_segment_skb";

/// Whether these programs look minisockets up by the ends in a segment.
pub(crate) fn notes_fin_wait2(programs: &[Attachment]) -> bool {
    programs.iter().any(|a| a.program == BY_SEGMENT)
}

pub(super) const ACCEPT_FEXIT: &[Attachment] = &[with(
    &[(2, "accept_fexit_2"), (4, "accept_fexit_4")],
    lost("accept_fexit", On::Fexit("inet_csk_accept")),
)];
pub(super) const ACCEPT_KRETPROBE: &[Attachment] =
    &[lost("accept_kretprobe", On::Kprobe("inet_csk_accept"))];
pub(super) const ACCEPT_SYSCALLS: &[Attachment] = &[lost(
    "accept_exit",
    On::Tracepoint("syscalls", &["sys_exit_accept", "sys_exit_accept4"]),
)];
/// Nearly all that it sees are other calls, and so is what is skipped. An accept among them is made
/// up for by who holds the descriptor.
pub(super) const ACCEPT_RAW: &[Attachment] = &[unimportant("accept_raw", On::RawTp("sys_exit"))];

pub(super) const CLOSE_FENTRY: &[Attachment] = &[lost("close_fentry", On::Fentry("tcp_close"))];
pub(super) const CLOSE_KPROBE: &[Attachment] = &[lost("close_kprobe", On::Kprobe("tcp_close"))];
pub(super) const CLOSE_DESTROY: &[Attachment] =
    &[lost("close_destroy", On::TpBtf("tcp_destroy_sock"))];

// What is not seen here is told from the receive queue.

pub(super) const EOF_TP_BTF: &[Attachment] = &[unimportant("eof", On::TpBtf("sock_recv_length"))];
pub(super) const EOF_FEXIT: &[Attachment] = &[with(
    &[(4, "eof_fexit_4"), (5, "eof_fexit_5"), (6, "eof_fexit_6")],
    unimportant("eof_fexit", On::Fexit("tcp_recvmsg")),
)];
pub(super) const EOF_KRETPROBE: &[Attachment] = &[
    with(
        &[(6, "eof_kprobe_6")],
        unimportant("eof_kprobe", On::Kprobe("tcp_recvmsg")),
    ),
    unimportant("eof_kretprobe", On::Kprobe("tcp_recvmsg")),
];

pub(super) const OVERFLOW_FENTRY: &[Attachment] = &[
    lost("overflow_syn_fentry", On::Fentry("tcp_conn_request")),
    lost("overflow_ack_fentry", On::Fentry("tcp_v4_syn_recv_sock")),
    lost("overflow_ack6_fentry", On::Fentry("tcp_v6_syn_recv_sock")),
];
/// What is skipped is nearly always an attempt that finds room.
pub(super) const OVERFLOW_KPROBE: &[Attachment] = &[
    unimportant("overflow_syn_kprobe", On::Kprobe("tcp_conn_request")),
    unimportant("overflow_ack_kprobe", On::Kprobe("tcp_v4_syn_recv_sock")),
    unimportant("overflow_ack6_kprobe", On::Kprobe("tcp_v6_syn_recv_sock")),
];

pub(super) const OWNERS_ITER: &[Attachment] = &[unimportant(FILES, On::Iter("task_file"))];

/// The iterator over open files.
pub(super) const FILES: &str = "files";

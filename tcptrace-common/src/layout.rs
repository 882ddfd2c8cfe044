//! Where the kernel keeps the fields that the programs read.
//!
//! User space resolves every offset from the running kernel's BTF and passes them as one
//! read-only global, so that a load at such an offset is a load at a constant for the verifier.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The offset of a field that this kernel does not have.
pub const ABSENT: u32 = u32::MAX;

macro_rules! layout {
    ($($(#[$doc:meta])* $field:ident,)*) => {
        /// Byte offsets of kernel fields, [`ABSENT`] where the kernel has none.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
        pub struct Layout { $($(#[$doc])* pub $field: u32,)* }

        impl Layout {
            /// No field resolved.
            pub const UNRESOLVED: Layout = Layout { $($field: ABSENT,)* };
            /// The names of the fields, in the order of the struct.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($field),)*];
        }
    };
}

layout! {
    /// `sock_common.skc_daddr`: the remote IPv4 address.
    skc_daddr,
    /// `sock_common.skc_rcv_saddr`: the local IPv4 address.
    skc_rcv_saddr,
    /// `sock_common.skc_dport`: the remote port, big endian.
    skc_dport,
    /// `sock_common.skc_num`: the local port, host order.
    skc_num,
    /// `sock_common.skc_family`.
    skc_family,
    /// `sock_common.skc_state`.
    skc_state,
    /// `sock_common.skc_flags`: the `SOCK_*` bits.
    skc_flags,
    /// `sock_common.skc_net.net`.
    skc_net,
    /// `sock_common.skc_v6_daddr`.
    skc_v6_daddr,
    /// `sock_common.skc_v6_rcv_saddr`.
    skc_v6_rcv_saddr,
    /// `sock_common.skc_cookie`, 0 until somebody asked for it.
    skc_cookie,
    /// `sock.sk_socket`, NULL before accept and after close.
    sk_socket,
    /// `sock.sk_shutdown`: 1 receive, 2 send.
    sk_shutdown,
    /// `sock.sk_err`, a positive errno.
    sk_err,
    /// `sock.sk_ack_backlog`: of a listener, connections that wait to be accepted.
    sk_ack_backlog,
    /// `sock.sk_max_ack_backlog`: of a listener, the limit of those; one more is let in.
    sk_max_ack_backlog,
    /// `sock.sk_protocol`, 16 bits (8 before 5.6).
    sk_protocol,
    /// `sock.sk_lock.owned`: a task holds the socket lock.
    sk_lock_owned,
    /// `inet_sock.inet_sport`, big endian; survives the release of the port.
    inet_sport,
    /// `tcp_sock.rcv_nxt`.
    rcv_nxt,
    /// `tcp_sock.copied_seq`.
    copied_seq,
    /// `tcp_sock.write_seq`.
    write_seq,
    /// `tcp_sock.snd_una`.
    snd_una,
    /// `tcp_sock.linger2`, seconds × HZ; negative: no FIN_WAIT_2 at all.
    linger2,
    /// `tcp_sock.is_mptcp`; absent without CONFIG_MPTCP.
    is_mptcp,
    /// `inet_timewait_sock.tw_substate`: FIN_WAIT2 or TIME_WAIT.
    tw_substate,
    /// `inet_timewait_sock.tw_timer`.
    tw_timer,
    /// `timer_list.expires`, in jiffies.
    timer_expires,
    /// `timer_list.function`.
    timer_function,
    /// `socket.file`.
    socket_file,
    /// `socket.sk`.
    socket_sk,
    /// `file.f_count`, up to 6.12.
    file_f_count,
    /// `file.f_ref`, from 6.13 on: biased by one.
    file_f_ref,
    /// `file.private_data`.
    file_private_data,
    /// `file.f_inode`.
    file_f_inode,
    /// `inode.i_mode`.
    inode_i_mode,
    /// `files_struct.fdt`.
    files_fdt,
    /// `fdtable.max_fds`.
    fdt_max_fds,
    /// `fdtable.fd`.
    fdt_fd,
    /// `task_struct.files`.
    task_files,
    /// `task_struct.flags`: the `PF_*` bits.
    task_flags,
    /// `task_struct.tgid`.
    task_tgid,
    /// `task_struct.pid`: the thread id.
    task_pid,
    /// `task_struct.comm`.
    task_comm,
    /// `task_struct.start_boottime`, ns (`real_start_time` before 5.5).
    task_start_boottime,
    /// `task_struct.group_leader`: the process' first thread.
    task_group_leader,
    /// `task_struct.stack`: the lowest address of the kernel stack, at whose top the user registers
    /// are.
    task_stack,
    /// `task_struct.mm`, NULL of a kernel thread.
    task_mm,
    /// `task_struct.thread.fsbase`: which thread it is to its own library.
    task_fsbase,
    /// `mm_struct.start_stack`: another after each exec.
    mm_start_stack,
    /// `net.ns.inum`: the number in /proc/PID/ns/net.
    net_ns_inum,
    /// `sk_buff.head`.
    skb_head,
    /// `sk_buff.transport_header`, from `head`.
    skb_transport_header,
    /// `sk_buff.network_header`, from `head`.
    skb_network_header,
    /// `sk_buff.protocol`, big endian.
    skb_protocol,
    /// `sk_buff.dev`.
    skb_dev,
    /// `net_device.nd_net.net`.
    dev_net,
}

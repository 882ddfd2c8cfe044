//! Which kernel field stands behind each offset of [`Layout`], and what its absence means.
//!
//! One row per field. A field that moved or was renamed gets another place in its row; nothing
//! here looks at a version number, since stable kernels carry newer layouts (6.1.192 has fields
//! that 6.12 lacks).

use serde::Serialize;
use tcptrace_common::layout::{ABSENT, Layout};
use thiserror::Error;

use super::btf::Btf;
use super::member::{Field, MemberError};

/// An optional field that this kernel does not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Absence {
    /// The field of [`Layout`].
    pub(crate) field: &'static str,
    /// When that is so, and what is done instead.
    pub(crate) why: &'static str,
}

/// Why the programs cannot be told where to read.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum LayoutError {
    /// A field without which nothing can be traced.
    #[error("no offset for {field}: {source}; please report this kernel")]
    Missing {
        /// The field of [`Layout`].
        field: &'static str,
        /// What was not there, of the first place where it was looked for.
        source: MemberError,
    },
    /// A field of another width than the programs read.
    #[error(
        "{field} takes {size} bytes here, and the programs read {wanted}; please report this kernel"
    )]
    Width {
        /// The field of [`Layout`].
        field: &'static str,
        /// Bytes in this kernel.
        size: u32,
        /// Bytes that the programs read.
        wanted: u32,
    },
    /// A struct that does not begin with the one it extends, so that a pointer to one is no
    /// pointer to the other.
    #[error("struct {structure} does not begin with its {base} here; please report this kernel")]
    Base {
        /// The struct.
        structure: &'static str,
        /// What it should begin with.
        base: &'static str,
    },
}

/// Resolves every field of [`Layout`] in a kernel's BTF; [`ABSENT`] where an optional one is
/// missing, which the second value lists.
///
/// # Errors
/// When a mandatory field is missing, or one is not what the programs take it for.
pub(crate) fn resolve(btf: &Btf) -> Result<(Layout, Vec<Absence>), LayoutError> {
    for &(structure, base) in BASES {
        if btf.field(structure, base).map(|f| f.offset) != Ok(0) {
            return Err(LayoutError::Base { structure, base });
        }
    }
    let mut layout = Layout::UNRESOLVED;
    let mut absences = Vec::new();
    for row in ROWS {
        match (find(btf, row.places), row.absent) {
            (Ok(Field { offset, size }), _) if size == row.size || row.size == ANY_SIZE => {
                *(row.slot)(&mut layout) = offset;
            }
            (Ok(Field { size, .. }), _) => {
                return Err(LayoutError::Width {
                    field: row.field,
                    size,
                    wanted: row.size,
                });
            }
            (Err(MemberError::NoStruct(_) | MemberError::NoMember { .. }), Some(why)) => {
                *(row.slot)(&mut layout) = ABSENT;
                absences.push(Absence {
                    field: row.field,
                    why,
                });
            }
            (Err(source), _) => {
                return Err(LayoutError::Missing {
                    field: row.field,
                    source,
                });
            }
        }
    }
    Ok((layout, absences))
}

/// Every place that is looked at.
#[cfg(test)]
pub(super) fn paths() -> impl Iterator<Item = (&'static str, &'static str)> {
    let places = ROWS.iter().flat_map(|row| row.places);
    places.chain(BASES).copied()
}

/// The first of several places that exists.
fn find(btf: &Btf, places: &[(&str, &str)]) -> Result<Field, MemberError> {
    let mut first_error = None;
    for (structure, path) in places {
        match btf.field(structure, path) {
            Ok(field) => return Ok(field),
            Err(e) => first_error = first_error.or(Some(e)),
        }
    }
    Err(first_error.unwrap_or(MemberError::NoStruct(String::new())))
}

/// A field of [`Layout`].
struct Row {
    field: &'static str,
    slot: fn(&mut Layout) -> &mut u32,
    /// Bytes that the programs read, or [`ANY_SIZE`] where they only take the address.
    size: u32,
    /// (struct, path), the newest name first.
    places: &'static [(&'static str, &'static str)],
    /// For an optional field: when it is absent and what that costs.
    absent: Option<&'static str>,
}

const ANY_SIZE: u32 = 0;

/// Every pointer to the first is taken for a pointer to what it begins with.
const BASES: &[(&str, &str)] = &[
    ("sock", "__sk_common"),
    ("inet_sock", "sk"),
    ("tcp_sock", "inet_conn.icsk_inet"),
    ("inet_timewait_sock", "__tw_common"),
    ("tcp_timewait_sock", "tw_sk"),
];

macro_rules! rows {
    ($($field:ident: $size:expr, [$($structure:literal . $path:literal),+] $(, absent: $why:literal)?;)*) => {
        &[$(Row {
            field: stringify!($field),
            slot: |layout| &mut layout.$field,
            size: $size,
            places: &[$(($structure, $path)),+],
            absent: rows!(@absent $($why)?),
        }),*]
    };
    (@absent) => { None };
    (@absent $why:literal) => { Some($why) };
}

const ROWS: &[Row] = rows! {
    skc_daddr: 4, ["sock_common"."skc_daddr"];
    skc_rcv_saddr: 4, ["sock_common"."skc_rcv_saddr"];
    skc_dport: 2, ["sock_common"."skc_dport"];
    skc_num: 2, ["sock_common"."skc_num"];
    skc_family: 2, ["sock_common"."skc_family"];
    skc_state: 1, ["sock_common"."skc_state"];
    skc_flags: 8, ["sock_common"."skc_flags"];
    skc_net: 8, ["sock_common"."skc_net.net"];
    skc_v6_daddr: 16, ["sock_common"."skc_v6_daddr"],
        absent: "kernel without IPv6: only IPv4 is traced";
    skc_v6_rcv_saddr: 16, ["sock_common"."skc_v6_rcv_saddr"],
        absent: "kernel without IPv6: only IPv4 is traced";
    skc_cookie: 8, ["sock_common"."skc_cookie"];
    sk_socket: 8, ["sock"."sk_socket"];
    sk_shutdown: 1, ["sock"."sk_shutdown"];
    sk_err: 4, ["sock"."sk_err"];
    sk_ack_backlog: 4, ["sock"."sk_ack_backlog"];
    sk_max_ack_backlog: 4, ["sock"."sk_max_ack_backlog"];
    sk_protocol: 2, ["sock"."sk_protocol"];
    sk_lock_owned: 4, ["sock"."sk_lock.owned"];
    inet_sport: 2, ["inet_sock"."inet_sport"];
    rcv_nxt: 4, ["tcp_sock"."rcv_nxt"];
    copied_seq: 4, ["tcp_sock"."copied_seq"];
    write_seq: 4, ["tcp_sock"."write_seq"];
    snd_una: 4, ["tcp_sock"."snd_una"];
    linger2: 4, ["tcp_sock"."linger2"];
    is_mptcp: 1, ["tcp_sock"."is_mptcp"],
        absent: "kernel without MPTCP: there are no subflows to leave out";
    tw_substate: 1, ["inet_timewait_sock"."tw_substate"];
    tw_timer: ANY_SIZE, ["inet_timewait_sock"."tw_timer"];
    timer_expires: 8, ["timer_list"."expires"];
    timer_function: 8, ["timer_list"."function"];
    socket_file: 8, ["socket"."file"];
    socket_sk: 8, ["socket"."sk"];
    file_f_count: 8, ["file"."f_count"],
        absent: "files are counted in f_ref (6.13 and later)";
    file_f_ref: 8, ["file"."f_ref"],
        absent: "files are counted in f_count (before 6.13)";
    file_private_data: 8, ["file"."private_data"];
    file_f_inode: 8, ["file"."f_inode"];
    inode_i_mode: 2, ["inode"."i_mode"];
    files_fdt: 8, ["files_struct"."fdt"];
    fdt_max_fds: 4, ["fdtable"."max_fds"];
    fdt_fd: 8, ["fdtable"."fd"];
    task_files: 8, ["task_struct"."files"];
    task_flags: 4, ["task_struct"."flags"];
    task_tgid: 4, ["task_struct"."tgid"];
    task_pid: 4, ["task_struct"."pid"];
    task_comm: 16, ["task_struct"."comm"];
    task_start_boottime: 8, ["task_struct"."start_boottime", "task_struct"."real_start_time"];
    task_group_leader: 8, ["task_struct"."group_leader"];
    task_stack: 8, ["task_struct"."stack"];
    task_mm: 8, ["task_struct"."mm"];
    task_fsbase: 8, ["task_struct"."thread.fsbase"];
    mm_start_stack: 8, ["mm_struct"."start_stack"];
    net_ns_inum: 4, ["net"."ns.inum"];
    skb_head: 8, ["sk_buff"."head"];
    skb_transport_header: 2, ["sk_buff"."transport_header"];
    skb_network_header: 2, ["sk_buff"."network_header"];
    skb_protocol: 2, ["sk_buff"."protocol"];
    skb_dev: 8, ["sk_buff"."dev"];
    dev_net: 8, ["net_device"."nd_net.net"];
};

#[cfg(test)]
mod tests {
    use super::super::btf::{Btf, STRUCT};
    use super::super::inspect::VMLINUX;
    use super::super::member::tests::Builder;
    use super::*;

    #[test]
    fn every_field_of_the_layout_has_its_row() {
        let rows: Vec<_> = ROWS.iter().map(|r| r.field).collect();
        assert_eq!(rows, Layout::NAMES);
    }

    #[test]
    fn a_missing_struct_is_named() {
        let mut b = Builder::new();
        let int = b.int("int", 4);
        b.structure("sock", STRUCT, false, &[("__sk_common", int, 32)]);
        let error = resolve(&Btf::parse(b.bytes()).unwrap())
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("struct sock does not begin with its __sk_common"),
            "{error}"
        );
    }

    /// The offsets of five kernels were read with bpftool; this checks ours on the running one.
    #[test]
    fn the_running_kernel_has_every_mandatory_field() {
        let Ok(bytes) = std::fs::read(VMLINUX) else {
            return;
        };
        let (layout, absences) = resolve(&Btf::parse(bytes).unwrap()).unwrap();
        // Part of struct sock_common since 3.x, and the same on 5.10 to 7.3.
        assert_eq!(
            (layout.skc_daddr, layout.skc_rcv_saddr, layout.skc_dport),
            (0, 4, 12)
        );
        assert_eq!(
            (layout.skc_num, layout.skc_family, layout.skc_state),
            (14, 16, 18)
        );
        let refs = absences
            .iter()
            .filter(|a| a.field.starts_with("file_f_"))
            .count();
        assert_eq!(
            refs, 1,
            "a file is counted in exactly one place: {absences:?}"
        );
    }
}

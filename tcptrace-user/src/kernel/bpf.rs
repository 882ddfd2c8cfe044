//! The few bpf(2) and perf_event_open(2) calls with which the kernel is asked what it can do.
//!
//! The programs here do nothing and are gone when their descriptor is closed. They are loaded
//! without a log buffer: a log of a refusal costs memory and tells a probe nothing. All `unsafe`
//! of the kernel room is in this file.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A program to load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Program<'a> {
    pub(super) kind: ProgramKind,
    pub(super) instructions: &'a [u64],
}

/// What a program is written for.
#[derive(Clone, Copy, Debug)]
pub(super) enum ProgramKind {
    /// `BPF_PROG_TYPE_TRACING` on the `btf_trace_…` typedef with this type id.
    TpBtf(u32),
    /// `BPF_PROG_TYPE_TRACING` on the entry of the function with this type id.
    Fentry(u32),
    /// `BPF_PROG_TYPE_TRACING` on the iterator whose `bpf_iter_…` function has this type id.
    Iter(u32),
    /// `BPF_PROG_TYPE_RAW_TRACEPOINT`.
    RawTracepoint,
    /// `BPF_PROG_TYPE_TRACEPOINT`.
    Tracepoint,
    /// `BPF_PROG_TYPE_KPROBE`.
    Kprobe,
    /// `BPF_PROG_TYPE_CGROUP_SOCK`, in socket().
    CgroupSockCreate,
    /// `BPF_PROG_TYPE_SOCK_OPS`.
    SockOps,
}

/// `return 0`.
pub(super) const RETURN_0: &[u64] = &[MOV_R0_0, EXIT];
/// `helper(first argument); return 0`.
pub(super) const fn call_with_first_argument(helper: u32) -> [u64; 4] {
    [
        LOAD_R1_ARGUMENT_0,
        CALL | (helper as u64) << 32,
        MOV_R0_0,
        EXIT,
    ]
}
/// `helper(context); return 1`, which on a cgroup lets things go on.
pub(super) const fn call_with_context(helper: u32) -> [u64; 3] {
    [CALL | (helper as u64) << 32, MOV_R0_1, EXIT]
}
/// `bpf_get_socket_cookie` of `include/uapi/linux/bpf.h`.
pub(super) const GET_SOCKET_COOKIE: u32 = 46;
/// `bpf_skc_to_tcp_sock`.
pub(super) const SKC_TO_TCP_SOCK: u32 = 137;

const MOV_R0_0: u64 = 0xb7;
const MOV_R0_1: u64 = 0x1_0000_00b7;
const EXIT: u64 = 0x95;
const CALL: u64 = 0x85;
/// `r1 = *(u64 *)(r1 + 0)`.
const LOAD_R1_ARGUMENT_0: u64 = 0x1179;

/// Loads a program.
///
/// # Errors
/// The errno of `BPF_PROG_LOAD`.
pub(super) fn load(program: Program<'_>) -> io::Result<OwnedFd> {
    let (prog_type, expected_attach_type, attach_btf_id) = match program.kind {
        ProgramKind::TpBtf(id) => (26, 23, id),
        ProgramKind::Fentry(id) => (26, 24, id),
        ProgramKind::Iter(id) => (26, ATTACH_ITER, id),
        ProgramKind::RawTracepoint => (17, 0, 0),
        ProgramKind::Tracepoint => (5, 0, 0),
        ProgramKind::Kprobe => (2, 0, 0),
        ProgramKind::CgroupSockCreate => (9, 2, 0),
        ProgramKind::SockOps => (13, 3, 0),
    };
    let attr = LoadAttr {
        prog_type,
        insn_cnt: program.instructions.len() as u32,
        insns: program.instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        expected_attach_type,
        attach_btf_id,
        ..LoadAttr::default()
    };
    bpf(PROG_LOAD, &attr)
}

/// A reader of an iterator program.
///
/// # Errors
/// The errno of `BPF_LINK_CREATE` or `BPF_ITER_CREATE`.
pub(super) fn open_iter(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let attr = LinkAttr {
        prog_fd: raw(program),
        target_fd: 0,
        attach_type: ATTACH_ITER,
        flags: 0,
    };
    let link = bpf(LINK_CREATE, &attr)?;
    bpf(
        ITER_CREATE,
        &IterAttr {
            link_fd: raw(link.as_fd()),
            flags: 0,
        },
    )
}

/// Creates a ring buffer of one page.
///
/// # Errors
/// The errno of `BPF_MAP_CREATE`.
pub(super) fn create_ring_buffer() -> io::Result<OwnedFd> {
    // BPF_MAP_TYPE_RINGBUF; keys and values have no size, and the buffer is whole pages.
    bpf(
        MAP_CREATE,
        &MapAttr {
            map_type: 27,
            key_size: 0,
            value_size: 0,
            max_entries: 4096,
        },
    )
}

/// Attaches a tracepoint program to the tracepoint with this id, until the descriptor is closed.
///
/// # Errors
/// The errno of perf_event_open(2) or of the ioctl that sets the program.
pub(super) fn attach_tracepoint(program: BorrowedFd<'_>, id: u64) -> io::Result<OwnedFd> {
    const PERF_TYPE_TRACEPOINT: u32 = 2;
    const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;
    const PERF_EVENT_IOC_SET_BPF: libc::c_ulong = 0x4004_2408;
    // The head of `struct perf_event_attr` (PERF_ATTR_SIZE_VER0, 64 bytes).
    let mut attr = [0_u64; 8];
    attr[0] = u64::from(PERF_TYPE_TRACEPOINT) | 64 << 32;
    attr[1] = id;
    // SAFETY: `attr` is a perf_event_attr of the size it names and lives through the call; a
    // non-negative result is a new descriptor that nothing else owns.
    let event = unsafe {
        let any_process: libc::c_int = -1;
        let (cpu, group): (libc::c_int, libc::c_int) = (0, -1);
        owned(libc::syscall(
            libc::SYS_perf_event_open,
            attr.as_ptr(),
            any_process,
            cpu,
            group,
            PERF_FLAG_FD_CLOEXEC,
        ))?
    };
    // SAFETY: PERF_EVENT_IOC_SET_BPF takes a descriptor by value; both are open.
    let done = unsafe {
        libc::ioctl(
            event.as_raw_fd(),
            PERF_EVENT_IOC_SET_BPF,
            program.as_raw_fd(),
        )
    };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(event)
    }
}

const MAP_CREATE: libc::c_int = 0;
const PROG_LOAD: libc::c_int = 5;
const LINK_CREATE: libc::c_int = 28;
const ITER_CREATE: libc::c_int = 33;
const ATTACH_ITER: u32 = 28;

/// A prefix of `union bpf_attr`: integers without padding.
///
/// # Safety
/// The type is `repr(C)`, has no padding, and every address in it is valid for what its command
/// reads there.
unsafe trait Attr {}

/// As far as `attach_btf_id`.
#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    attach_btf_id: u32,
}
// SAFETY: 112 bytes of integers without padding; `insns` and `license` point to memory that
// outlives the call in `load`.
unsafe impl Attr for LoadAttr {}
const _: () = assert!(size_of::<LoadAttr>() == 112);

#[repr(C)]
struct LinkAttr {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
}
// SAFETY: integers without padding, no address.
unsafe impl Attr for LinkAttr {}

#[repr(C)]
struct IterAttr {
    link_fd: u32,
    flags: u32,
}
// SAFETY: integers without padding, no address.
unsafe impl Attr for IterAttr {}

#[repr(C)]
struct MapAttr {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}
// SAFETY: integers without padding, no address.
unsafe impl Attr for MapAttr {}

/// bpf(2), for the commands that return a descriptor.
fn bpf<A: Attr>(command: libc::c_int, attr: &A) -> io::Result<OwnedFd> {
    // SAFETY: `Attr` promises a prefix of `union bpf_attr` with valid addresses; the kernel takes
    // the rest for zero. A non-negative result of these commands is a new descriptor.
    unsafe {
        owned(libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attr),
            size_of::<A>(),
        ))
    }
}

/// # Safety
/// `result` is a new descriptor of this process, or negative.
unsafe fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    match i32::try_from(result) {
        // SAFETY: the caller promises it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

//! Who has which TCP socket open: an iterator over the files of all tasks, read like a file.
//!
//! `iter/task_file` (5.8 and later), context `struct bpf_iter__task_file`: pointers to
//! `bpf_iter_meta`, `task_struct`, a u32 fd, `struct file`, each in 8 bytes. It crosses
//! namespaces, and skips threads that share their leader's table.

use aya_ebpf::bindings::seq_file;
use aya_ebpf::helpers::generated::{
    bpf_get_socket_cookie, bpf_probe_read_kernel, bpf_seq_write, bpf_sock_from_file,
};
use core::ffi::c_void;
use tcptrace_common::event::HeldFile;
use tcptrace_common::tcp;

use crate::kernel::{Reader, Typed, offset};

/// One step of the iteration.
#[inline(always)]
pub(crate) fn step(ctx: *const u8) {
    let meta = Typed.pointer(ctx, 0);
    let task = Typed.pointer(ctx, 8);
    let fd: u32 = Typed.read(ctx, 16);
    let file = Typed.pointer(ctx, 24);
    if task.is_null() || file.is_null() {
        return;
    }
    // SAFETY: the verifier knows `file` as a trusted file; NULL where it is no socket.
    let socket = unsafe { bpf_sock_from_file(file as *mut _) } as *const u8;
    if socket.is_null() {
        return;
    }
    let sk = Typed.pointer(socket, offset!(socket_sk));
    if sk.is_null() {
        return;
    }
    let family: u16 = Typed.read(sk, offset!(skc_family));
    let protocol: u16 = Typed.read(sk, offset!(sk_protocol));
    if (family != tcp::AF_INET && family != tcp::AF_INET6) || protocol != tcp::IPPROTO_TCP {
        return;
    }
    let mut held = HeldFile {
        // SAFETY: the verifier knows `sk` as a sock.
        cookie: unsafe { bpf_get_socket_cookie(sk as *mut _) },
        tgid: Typed.read(task, offset!(task_tgid)),
        tid: Typed.read(task, offset!(task_pid)),
        fd,
        pad: 0,
        start_ns: Typed.read(task, offset!(task_start_boottime)),
        comm: [0; 16],
    };
    let comm = task.wrapping_add(offset!(task_comm) as usize);
    let seq = Typed.pointer(meta, 0) as *mut seq_file;
    // SAFETY: the helpers are given the sizes of what they write and read.
    unsafe {
        bpf_probe_read_kernel((&raw mut held.comm).cast(), 16, comm.cast());
        bpf_seq_write(
            seq,
            (&raw const held).cast::<c_void>(),
            size_of::<HeldFile>() as u32,
        );
    }
}

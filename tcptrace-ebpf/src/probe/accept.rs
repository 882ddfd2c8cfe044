//! Who accepted a connection: the state tracepoint does not tell, since the handshake ends in
//! softirq and accept() changes no state. Process context.
//!
//! `inet_csk_accept` returns the sock (fexit, kretprobe), before it has a descriptor. A kretprobe
//! is blind while as many calls block in it as it has instances.
//!
//! At the exit of accept() and accept4() the new descriptor is looked up in the task's table the
//! way the kernel does: `current->files->fdt->fd[ret]->private_data->sk`. Blind to io_uring's
//! accept, which is no system call, and to 32-bit tasks, whose numbers differ: their owners come
//! from the holders.

use tcptrace_common::event::{Acquire, KIND_ACQUIRE, NO_FD};
use tcptrace_common::layout::ABSENT;
use tcptrace_common::tcp;

use crate::filter::{self, Birth};
use crate::kernel::{Probed, Reader, Window, current_task, offset};
use crate::maps::emit;
use crate::sock;

const S_IFMT: u16 = 0o170000;
const S_IFSOCK: u16 = 0o140000;

/// The call returned `fd`.
#[inline(always)]
pub(crate) fn returned(fd: i64) {
    if fd < 0 {
        return;
    }
    if let Some(sk) = socket_of(fd as u64) {
        acquired(sk, fd as u32);
    }
}

/// `inet_csk_accept` returned `sk`.
#[inline(always)]
pub(crate) fn got(sk: *const u8) {
    if !sk.is_null() {
        acquired(sk, NO_FD);
    }
}

#[inline(always)]
fn acquired(sk: *const u8, fd: u32) {
    let common = Window::of(sk);
    let family: u16 = common.read(sk, offset!(skc_family));
    let protocol: u16 = Probed.read(sk, offset!(sk_protocol));
    if (family != tcp::AF_INET && family != tcp::AF_INET6) || protocol != tcp::IPPROTO_TCP {
        return;
    }
    // What MPTCP accepts of its own subflows is no connection of its own.
    if offset!(is_mptcp) != ABSENT && Probed.read::<u8>(sk, offset!(is_mptcp)) & 1 != 0 {
        return;
    }
    let cookie: u64 = common.read(sk, offset!(skc_cookie));
    if cookie == 0 {
        return;
    }
    let tuple = sock::tuple(&common, sk, 0);
    if !filter::wants_tuple(&tuple) {
        return;
    }
    filter::select(cookie, Birth::Accept);
    if !filter::selected(cookie) {
        return;
    }
    let state: u8 = common.read(sk, offset!(skc_state));
    emit::<Acquire>(|record| {
        record.header = sock::header::<Acquire>(KIND_ACQUIRE, cookie, sk);
        record.tuple = tuple;
        record.fd = fd;
        record.state = u32::from(state);
        sock::actor(&mut record.actor);
    });
}

/// The sock behind a descriptor of the running task.
#[inline(always)]
fn socket_of(fd: u64) -> Option<*const u8> {
    let files = Probed.pointer(current_task(), offset!(task_files));
    let table = Probed.pointer(files, offset!(files_fdt));
    let max: u32 = Probed.read(table, offset!(fdt_max_fds));
    if fd >= u64::from(max) {
        return None;
    }
    let array = Probed.pointer(table, offset!(fdt_fd));
    let file = Probed.pointer(array.wrapping_add(fd as usize * 8), 0);
    if file.is_null() {
        return None;
    }
    let inode = Probed.pointer(file, offset!(file_f_inode));
    let mode: u16 = Probed.read(inode, offset!(inode_i_mode));
    if mode & S_IFMT != S_IFSOCK {
        return None;
    }
    let socket = Probed.pointer(file, offset!(file_private_data));
    let sk = Probed.pointer(socket, offset!(socket_sk));
    (!sk.is_null()).then_some(sk)
}

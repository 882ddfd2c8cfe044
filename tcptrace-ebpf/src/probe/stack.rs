//! The user stack of the running thread, which acts on a socket. Process context.
//!
//! The registers lie at the top of the kernel stack (`task_pt_regs`, arch/x86), where the entry of the
//! system call stored all of them. The stack is copied from the stack pointer upward, unless user space
//! knows one like it, or its frame pointers are followed. User space unwinds and names: nothing here
//! knows code.

use aya_ebpf::helpers::generated::{bpf_get_current_pid_tgid, bpf_ktime_get_ns};
use tcptrace_common::config::STACKS_CHAIN;
use tcptrace_common::counters;
use tcptrace_common::stack::{
    CHAIN_FRAMES, Chain, KIND_CHAIN, KIND_PATH, KIND_STACK, LOOKS_PER_COPY, Path, Registers,
    STACK_BYTES, Stack, StackHead,
};

use crate::kernel::{Probed, Reader, current_task, offset};
use crate::maps::{BPF_RB_NO_WAKEUP, STACKS, STACKS_TAKEN, config, count};
use crate::{probe, sock, user};

/// `THREAD_SIZE` without KASAN.
const KERNEL_STACK: u32 = 16_384;
/// `struct pt_regs`.
const PT_REGS: u32 = 168;
/// `TOP_OF_KERNEL_STACK_PADDING` of kernels that can use FRED (6.9 and later), 0 on others.
const FRED_PADDING: u32 = 16;
/// `__USER_CS`: 64-bit code.
const USER_CS: u64 = 0x33;

/// The stack is copied in pieces of so many bytes, since it may end anywhere.
const PIECE: usize = 1_024;
const SMALL_PIECE: usize = 128;

/// Takes the stack of the running thread, if stacks are wanted.
#[inline(always)]
pub(crate) fn take(point: u8, cookie: u64, sk: *const u8) {
    if config!(stacks) == 0 {
        return;
    }
    let task = current_task();
    let Some(registers) = registers(task) else {
        count(counters::STACK_UNREADABLE);
        return;
    };
    let taken = match config!(stacks) {
        STACKS_CHAIN => within(COPIES, 1) && chain(point, cookie, sk, task, &registers),
        _ => within(LOOKS, LOOKS_PER_COPY) && look(point, cookie, sk, task, &registers),
    };
    if !taken {
        count(counters::STACK_OVER_BUDGET);
    }
}

/// Places of `STACKS_TAKEN`.
const COPIES: u32 = 0;
const LOOKS: u32 = 1;

/// Whether another one may be taken in this second (of 2^30 ns), of so many times the rate. Processors
/// may count at the same time: some more than allowed are taken then.
#[inline(always)]
fn within(place: u32, times: u64) -> bool {
    let Some(taken) = STACKS_TAKEN.get_ptr_mut(place) else {
        return false;
    };
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() } >> 30 << 32;
    // SAFETY: a valid pointer into the map.
    let before = unsafe { core::ptr::read_volatile(taken) };
    let sofar = match before & !0xffff_ffff == now {
        true => before,
        false => now,
    };
    if sofar & 0xffff_ffff >= u64::from(config!(stack_rate)) * times {
        return false;
    }
    // SAFETY: as above.
    unsafe { core::ptr::write_volatile(taken, sofar + 1) };
    true
}

/// Tells which known path it is, or copies the stack; `false`: that may not be.
#[inline(always)]
fn look(point: u8, cookie: u64, sk: *const u8, task: *const u8, registers: &Registers) -> bool {
    let process = Process::of(task);
    if let Some(number) = probe::path::known(&process, registers) {
        path(point, cookie, sk, task, &process, number);
        return true;
    }
    if !within(COPIES, 1) {
        return false;
    }
    copy(point, cookie, sk, task, &process, registers);
    true
}

#[inline(always)]
fn path(point: u8, cookie: u64, sk: *const u8, task: *const u8, process: &Process, number: u32) {
    let Some(mut entry) = STACKS.reserve::<Path>(0) else {
        count(counters::STACK_FULL);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the entry is as large as a record; what is not written is not said to be there.
    let record = unsafe { &mut *record };
    head(&mut record.head, point, process);
    record.head.header = sock::header::<Path>(KIND_PATH, cookie, sk);
    record.head.len = 0;
    record.number = number;
    record.pad = 0;
    probe::python::frames(&mut record.head, &mut record.python, task);
    entry.submit(BPF_RB_NO_WAKEUP);
}

#[inline(always)]
fn copy(
    point: u8,
    cookie: u64,
    sk: *const u8,
    task: *const u8,
    process: &Process,
    registers: &Registers,
) {
    let Some(mut entry) = STACKS.reserve::<Stack>(0) else {
        count(counters::STACK_FULL);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the entry is as large as a record; what is not written is not said to be there.
    let record = unsafe { &mut *record };
    head(&mut record.head, point, process);
    record.head.header = sock::header::<Stack>(KIND_STACK, cookie, sk);
    record.registers = *registers;
    record.head.len = pieces(&mut record.bytes, registers.sp);
    probe::python::frames(&mut record.head, &mut record.python, task);
    entry.submit(BPF_RB_NO_WAKEUP);
}

/// Copies as much as can be read; gives how many bytes.
#[inline(always)]
fn pieces(bytes: &mut [u8; STACK_BYTES], sp: u64) -> u32 {
    let to = bytes.as_mut_ptr();
    let mut at = 0;
    while at < STACK_BYTES {
        // SAFETY: within the array.
        let piece = unsafe { to.add(at) }.cast::<[u8; PIECE]>();
        if !user::copy(piece, sp.wrapping_add(at as u64)) {
            break;
        }
        at += PIECE;
    }
    let end = at + PIECE;
    while at < end && at < STACK_BYTES {
        // SAFETY: within the array.
        let piece = unsafe { to.add(at) }.cast::<[u8; SMALL_PIECE]>();
        if !user::copy(piece, sp.wrapping_add(at as u64)) {
            break;
        }
        at += SMALL_PIECE;
    }
    at as u32
}

#[inline(always)]
fn chain(point: u8, cookie: u64, sk: *const u8, task: *const u8, registers: &Registers) -> bool {
    let Some(mut entry) = STACKS.reserve::<Chain>(0) else {
        count(counters::STACK_FULL);
        return true;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the entry is as large as a record; what is not written is not said to be there.
    let record = unsafe { &mut *record };
    head(&mut record.head, point, &Process::of(task));
    record.head.header = sock::header::<Chain>(KIND_CHAIN, cookie, sk);
    record.addresses[0] = registers.ip;
    record.head.len = 1;
    let mut frame = registers.bp;
    for place in 1..CHAIN_FRAMES {
        let Some([caller, address]) = user::read::<[u64; 2]>(frame) else {
            break;
        };
        record.addresses[place] = address;
        record.head.len = place as u32 + 1;
        if caller <= frame {
            break;
        }
        frame = caller;
    }
    probe::python::frames(&mut record.head, &mut record.python, task);
    entry.submit(BPF_RB_NO_WAKEUP);
    true
}

/// Which process runs, and which program.
pub(crate) struct Process {
    pub(crate) tgid: u32,
    tid: u32,
    pub(crate) start_ns: u64,
    pub(crate) start_stack: u64,
}

impl Process {
    #[inline(always)]
    fn of(task: *const u8) -> Process {
        // SAFETY: a helper without arguments.
        let id = unsafe { bpf_get_current_pid_tgid() };
        let leader = Probed.pointer(task, offset!(task_group_leader));
        let mm = Probed.pointer(task, offset!(task_mm));
        Process {
            tgid: (id >> 32) as u32,
            tid: id as u32,
            start_ns: Probed.read(leader, offset!(task_start_boottime)),
            start_stack: Probed.read(mm, offset!(mm_start_stack)),
        }
    }
}

#[inline(always)]
fn head(head: &mut StackHead, point: u8, process: &Process) {
    head.tgid = process.tgid;
    head.tid = process.tid;
    head.start_ns = process.start_ns;
    head.start_stack = process.start_stack;
    head.point = point;
    head.python_len = 0;
    head.python_more = 0;
    head.pad = 0;
}

/// The user registers; `None` of what is no 64-bit program.
#[inline(always)]
fn registers(task: *const u8) -> Option<Registers> {
    const CS: u32 = 17 * 8;
    if Probed.pointer(task, offset!(task_mm)).is_null() {
        return None;
    }
    let stack = Probed.pointer(task, offset!(task_stack));
    let top = stack.wrapping_add((KERNEL_STACK - PT_REGS) as usize);
    let padded = top.wrapping_sub(FRED_PADDING as usize);
    let is_user = |regs: *const u8| Probed.read::<u64>(regs, CS) & 0xffff == USER_CS;
    let regs = if is_user(top) {
        top
    } else if is_user(padded) {
        padded
    } else {
        return None;
    };
    let word = |place: u32| Probed.read::<u64>(regs, place * 8);
    let ip = word(16);
    if ip == 0 {
        // A worker of io_uring, which came from no system call.
        return None;
    }
    Some(Registers {
        ip,
        sp: word(19),
        bp: word(4),
        bx: word(5),
        r: [word(3), word(2), word(1), word(0)],
    })
}

//! accept() through io_uring, by bare system calls: no accept system call is made.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

const OFF_SQ_RING: libc::off_t = 0;
const OFF_CQ_RING: libc::off_t = 0x800_0000;
const OFF_SQES: libc::off_t = 0x1000_0000;
const OP_ACCEPT: u8 = 13;
const ENTER_GETEVENTS: u32 = 1;
const PAGE: usize = 4096;

/// Whether a ring can be made.
pub fn supported() -> io::Result<()> {
    setup().map(drop)
}

/// Accepts one connection from `listener`.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let (ring, params) = setup()?;
    let sq = Map::new(&ring, OFF_SQ_RING)?;
    let cq = Map::new(&ring, OFF_CQ_RING)?;
    let sqes = Map::new(&ring, OFF_SQES)?;

    let sqe = sqes.at::<Sqe>(0);
    // SAFETY: the first submission entry lies in the mapping, and the kernel does not look at
    // it before the tail moves.
    unsafe {
        sqe.write(Sqe {
            opcode: OP_ACCEPT,
            fd: listener.as_raw_fd(),
            op_flags: libc::SOCK_CLOEXEC as u32,
            ..Sqe::default()
        });
        sq.at::<u32>(params.sq_off.array).write(0);
    }
    sq.word(params.sq_off.tail).store(1, Ordering::Release);

    // SAFETY: io_uring_enter takes numbers and a null signal mask.
    let done = unsafe {
        libc::syscall(
            libc::SYS_io_uring_enter,
            ring.as_raw_fd(),
            1,
            1,
            ENTER_GETEVENTS,
            ptr::null::<libc::sigset_t>(),
            0,
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    if cq.word(params.cq_off.tail).load(Ordering::Acquire) == 0 {
        return Err(io::Error::other("no completion"));
    }
    // SAFETY: the tail says that the first completion entry has been written.
    let result = unsafe { cq.at::<Cqe>(params.cq_off.cqes).read() }.res;
    match result {
        // SAFETY: the result of a successful accept is a new descriptor that nobody else owns.
        0.. => Ok(unsafe { OwnedFd::from_raw_fd(result) }),
        _ => Err(io::Error::from_raw_os_error(-result)),
    }
}

fn setup() -> io::Result<(OwnedFd, Params)> {
    let mut params = Params::default();
    // SAFETY: the kernel fills `params`, which has its layout.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, &raw mut params) };
    match fd {
        // SAFETY: a successful setup returns a new descriptor.
        0.. => Ok((unsafe { OwnedFd::from_raw_fd(fd as i32) }, params)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// One page of a ring; each of the parts of a ring of one entry fits in a page.
struct Map(*mut u8);

impl Map {
    fn new(ring: &OwnedFd, offset: libc::off_t) -> io::Result<Map> {
        // SAFETY: a new shared mapping of the ring's pages, at an address of the kernel's choice.
        let at = unsafe {
            libc::mmap(
                ptr::null_mut(),
                PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                ring.as_raw_fd(),
                offset,
            )
        };
        match at == libc::MAP_FAILED {
            true => Err(io::Error::last_os_error()),
            false => Ok(Map(at.cast())),
        }
    }

    fn at<T>(&self, offset: u32) -> *mut T {
        assert!(offset as usize + size_of::<T>() <= PAGE);
        self.0.wrapping_add(offset as usize).cast()
    }

    fn word(&self, offset: u32) -> &AtomicU32 {
        // SAFETY: the offset is in the mapping, which lives as long as `self`; the kernel
        // aligns ring words, and both sides access them atomically.
        unsafe { AtomicU32::from_ptr(self.at(offset)) }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `Map::new` and nothing borrows from it any more.
        unsafe { libc::munmap(self.0.cast(), PAGE) };
    }
}

#[repr(C)]
#[derive(Default)]
struct Params {
    sq_entries: u32,
    cq_entries: u32,
    flags: u32,
    sq_thread_cpu: u32,
    sq_thread_idle: u32,
    features: u32,
    wq_fd: u32,
    resv: [u32; 3],
    sq_off: SqOffsets,
    cq_off: CqOffsets,
}

#[repr(C)]
#[derive(Default)]
struct SqOffsets {
    head: u32,
    tail: u32,
    ring_mask: u32,
    ring_entries: u32,
    flags: u32,
    dropped: u32,
    array: u32,
    resv1: u32,
    user_addr: u64,
}

#[repr(C)]
#[derive(Default)]
struct CqOffsets {
    head: u32,
    tail: u32,
    ring_mask: u32,
    ring_entries: u32,
    overflow: u32,
    cqes: u32,
    flags: u32,
    resv1: u32,
    user_addr: u64,
}

#[repr(C)]
#[derive(Default)]
struct Sqe {
    opcode: u8,
    flags: u8,
    ioprio: u16,
    fd: i32,
    addr2: u64,
    addr: u64,
    len: u32,
    op_flags: u32,
    user_data: u64,
    pad: [u64; 3],
}

#[repr(C)]
struct Cqe {
    user_data: u64,
    res: i32,
    flags: u32,
}

const _: () = assert!(size_of::<Params>() == 120 && size_of::<Sqe>() == 64);

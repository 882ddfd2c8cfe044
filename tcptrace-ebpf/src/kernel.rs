//! How kernel memory is read: the only place that knows which reads the verifier allows where.

use aya_ebpf::helpers::generated::{
    bpf_get_current_task, bpf_get_socket_cookie, bpf_probe_read_kernel, bpf_skc_to_tcp_sock,
};
use tcptrace_common::counters;
use tcptrace_common::layout::ABSENT;

use crate::maps::count;

/// The value of a [`Layout`] field. The map behind it is frozen, so the verifier knows the value
/// and drops the branches that it rules out.
macro_rules! offset {
    ($field:ident) => {
        // SAFETY: a read of a static; volatile, since user space sets it before load.
        unsafe { core::ptr::read_volatile(&raw const $crate::maps::LAYOUT_V6.$field) }
    };
}
pub(crate) use offset;

/// A way to read a field of a kernel object.
pub(crate) trait Reader: Copy {
    /// The `T` at `base + offset`; zero where the kernel has no such field or the read failed.
    fn read<T: Copy + Default>(self, base: *const u8, offset: u32) -> T;

    /// A pointer field.
    fn pointer(self, base: *const u8, offset: u32) -> *const u8;

    /// A field of another object, which a pointer of this one led to.
    #[inline(always)]
    fn follow<T: Copy + Default>(self, base: *const u8, offset: u32) -> T {
        self.read(base, offset)
    }

    /// A pointer field of another object.
    #[inline(always)]
    fn follow_pointer(self, base: *const u8, offset: u32) -> *const u8 {
        self.pointer(base, offset)
    }
}

/// Plain loads, for pointers whose type the verifier knows (tp_btf and iterator arguments, and
/// what hangs off them). A bad pointer reads as zero: the kernel handles the fault.
#[derive(Clone, Copy)]
pub(crate) struct Typed;

impl Reader for Typed {
    #[inline(always)]
    fn read<T: Copy + Default>(self, base: *const u8, offset: u32) -> T {
        if offset == ABSENT {
            return T::default();
        }
        // SAFETY: the verifier checks type and bounds of this load.
        unsafe { core::ptr::read_volatile(base.add(offset as usize).cast::<T>()) }
    }

    #[inline(always)]
    fn pointer(self, base: *const u8, offset: u32) -> *const u8 {
        if offset == ABSENT {
            return core::ptr::null();
        }
        // SAFETY: as above; a pointer member keeps its type.
        unsafe { core::ptr::read_volatile(base.add(offset as usize).cast::<*const u8>()) }
    }
}

/// `bpf_probe_read_kernel`, for addresses that came by arithmetic or through an untyped pointer.
#[derive(Clone, Copy)]
pub(crate) struct Probed;

impl Reader for Probed {
    #[inline(always)]
    fn read<T: Copy + Default>(self, base: *const u8, offset: u32) -> T {
        let mut value = T::default();
        if offset == ABSENT {
            return value;
        }
        // SAFETY: the helper writes exactly `size_of::<T>()` bytes to `value`: zeroes if it fails
        // (`bpf_probe_read_kernel_common`, since 5.5). Zeroes of our own would be another number to
        // the verifier, and make two ways of each read.
        let failed = unsafe {
            bpf_probe_read_kernel(
                (&raw mut value).cast(),
                size_of::<T>() as u32,
                base.wrapping_add(offset as usize).cast(),
            )
        };
        if failed != 0 {
            count(counters::READ_FAULT);
        }
        value
    }

    #[inline(always)]
    fn pointer(self, base: *const u8, offset: u32) -> *const u8 {
        self.read::<u64>(base, offset) as *const u8
    }
}

/// The first bytes of a kernel object, copied by one `bpf_probe_read_kernel`: cheaper than one
/// for each field. A field behind them is read by itself.
pub(crate) struct Window([u64; Window::BYTES as usize / 8]);

impl Window {
    /// All of `sock_common` up to the cookie, on every kernel so far.
    const BYTES: u32 = 96;

    /// The object at `base`; zeroes where it cannot be read.
    #[inline(always)]
    pub(crate) fn of(base: *const u8) -> Window {
        let mut bytes = [0; Window::BYTES as usize / 8];
        // SAFETY: the helper writes exactly as many bytes, or fails.
        let failed =
            unsafe { bpf_probe_read_kernel((&raw mut bytes).cast(), Window::BYTES, base.cast()) };
        if failed != 0 {
            count(counters::READ_FAULT);
        }
        Window(bytes)
    }
}

impl Reader for &Window {
    #[inline(always)]
    fn read<T: Copy + Default>(self, base: *const u8, offset: u32) -> T {
        if offset == ABSENT || offset + size_of::<T>() as u32 > Window::BYTES {
            return Probed.read(base, offset);
        }
        // SAFETY: within the array, as just checked.
        unsafe { core::ptr::read_volatile((&raw const self.0).byte_add(offset as usize).cast()) }
    }

    #[inline(always)]
    fn pointer(self, base: *const u8, offset: u32) -> *const u8 {
        self.read::<u64>(base, offset) as *const u8
    }

    #[inline(always)]
    fn follow<T: Copy + Default>(self, base: *const u8, offset: u32) -> T {
        Probed.read(base, offset)
    }

    #[inline(always)]
    fn follow_pointer(self, base: *const u8, offset: u32) -> *const u8 {
        Probed.pointer(base, offset)
    }
}

/// What more there is to have of a sock, where helpers take it as one.
pub(crate) trait Sock: Reader {
    /// Its cookie; 0 if it has none yet.
    fn cookie(self, sk: *const u8) -> u64;

    /// The sock, known to be TCP, as a `tcp_sock`; NULL if it is none.
    fn tcp(self, sk: *const u8) -> *const u8;
}

/// The verifier knows the sock. Whatever follows on it, accept and its minisocket, finds the
/// cookie that is made here.
impl Sock for Typed {
    #[inline(always)]
    fn cookie(self, sk: *const u8) -> u64 {
        // SAFETY: the verifier knows `sk` as a trusted sock.
        unsafe { bpf_get_socket_cookie(sk as *mut _) }
    }

    #[inline(always)]
    fn tcp(self, sk: *const u8) -> *const u8 {
        // SAFETY: as above; NULL where it is no TCP sock.
        unsafe { bpf_skc_to_tcp_sock(sk as *mut _) as *const u8 }
    }
}

/// The sock is an address: [`crate::probe::cookie`] has made the cookie, if it could be made.
impl Sock for &Window {
    #[inline(always)]
    fn cookie(self, sk: *const u8) -> u64 {
        self.read(sk, offset!(skc_cookie))
    }

    #[inline(always)]
    fn tcp(self, sk: *const u8) -> *const u8 {
        sk
    }
}

/// The task that runs; read it with [`Probed`].
#[inline(always)]
pub(crate) fn current_task() -> *const u8 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_get_current_task() as *const u8 }
}

//! How memory of the running process is read. Pages that are not in memory are not read: a program
//! cannot wait for them.

use aya_ebpf::helpers::generated::bpf_probe_read_user;

/// The value at `address`; `None` if it cannot be read.
#[inline(always)]
pub(crate) fn read<T: Copy + Default>(address: u64) -> Option<T> {
    let mut value = T::default();
    copy(&raw mut value, address).then_some(value)
}

/// Copies what is at `address` to `to`; whether it could be read.
#[inline(always)]
pub(crate) fn copy<T>(to: *mut T, address: u64) -> bool {
    // SAFETY: the helper writes exactly `size_of::<T>()` bytes to `to`, whatever happens.
    unsafe { bpf_probe_read_user(to.cast(), size_of::<T>() as u32, address as *const _) == 0 }
}

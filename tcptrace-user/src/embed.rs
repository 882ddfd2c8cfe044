//! The eBPF object inside this binary.

/// The object, aligned to 8 bytes as an ELF64 reader and the kernel's instructions need it.
pub(crate) static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tcptrace.bpf.o"));

/// The first 12 hexadecimal digits of the SHA-256 of [`OBJECT`].
pub(crate) const OBJECT_SHA256: &str = env!("TCPTRACE_OBJECT_SHA256");

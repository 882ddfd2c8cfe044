//! The embedded eBPF object.

/// SHA-256 of the object, in hexadecimal.
pub(crate) const OBJECT_SHA256: &str = "unbuilt";

//! sock_diag: every TCP socket of a network namespace, as the kernel has it now, and the end of one.
//!
//! Our own code rather than a crate: the raw prefix of `tcp_info` is wanted, one socket per
//! namespace, and a parser that can be fuzzed.

mod dump;
mod parse;
mod request;
mod wire;

pub(crate) use dump::{Diag, DiagError};
pub(crate) use wire::Name;

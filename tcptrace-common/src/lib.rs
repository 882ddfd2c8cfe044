//! The ABI between the eBPF programs and the agent.
//!
//! Both sides are built from this crate, and an object whose [`ABI_VERSION`] differs from the
//! agent's is refused. Rules: integers only, explicit padding, sizes asserted, every struct a
//! multiple of 8 bytes, numbers never reused, growth at the tail only, zero means "not known".
//! There is no logic here.
#![no_std]

pub mod config;
pub mod counters;
pub mod event;
pub mod layout;
pub mod stack;
pub mod tcp;

#[cfg(target_endian = "big")]
compile_error!("tcptrace's ABI is little endian");

/// Bumped with every change of a struct in this crate.
///
/// The names of the object's globals end with it (`CONFIG_V6`), and the agent sets them by that
/// name: an object of another version does not load.
pub const ABI_VERSION: u32 = 6;

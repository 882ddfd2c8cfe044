//! Indices of the per-CPU counter map `COUNTERS`.

/// Records that found the ring buffer full.
pub const RING_FULL: u32 = 0;
/// State changes that a shadow twin handled because the main program was interrupted.
pub const SHADOW_STATE: u32 = 1;
/// Kernel memory that could not be read where it had to be.
pub const READ_FAULT: u32 = 2;
/// Sockets that matched an owner filter and found the map `SELECTED` full.
pub const SELECTED_FULL: u32 = 3;
/// State changes of MPTCP subflows, which are left out.
pub const MPTCP: u32 = 4;
/// Listeners with a full queue that found the map `OVERFLOWS` full.
pub const OVERFLOWS_FULL: u32 = 5;
/// Stacks that were not taken, since the budget was used up.
pub const STACK_OVER_BUDGET: u32 = 6;
/// Stacks that found the ring `STACKS` full.
pub const STACK_FULL: u32 = 7;
/// Threads that acted on a socket without a user stack that could be taken.
pub const STACK_UNREADABLE: u32 = 8;
/// How many counters there are.
pub const COUNT: u32 = 9;

//! Call paths that user space knows: a stack on one of them need not be copied.
//!
//! A walk up the stack is decided by where it starts and by the words that it looks at. User space has
//! put what its walks saw into a tree; whoever sees the same, where the tree says to look, is on the
//! path at its leaf, and on no other.

use aya_ebpf::helpers::generated::bpf_probe_read_user;
use tcptrace_common::stack::{
    LOOK_BP, LOOK_FOUND, LOOK_OFFSET, LOOK_PLACE, PATH_WORDS, PathNext, PathSeen, Registers,
    SEEN_ADDRESS, SEEN_PLACE, SEEN_PROCESS, SEEN_PROGRAM, SEEN_ZERO,
};

use crate::maps::PATHS;
use crate::probe::stack::Process;

/// The number of the path that the thread is on.
#[inline(always)]
pub(crate) fn known(process: &Process, registers: &Registers) -> Option<u32> {
    let at = next(process.tgid, SEEN_PROCESS, process.start_ns)?;
    let at = next(at.node, SEEN_PROGRAM, process.start_stack)?;
    let mut at = next(at.node, SEEN_ADDRESS, registers.ip)?;
    for _ in 0..PATH_WORDS {
        if at.look & LOOK_FOUND != 0 {
            return Some(at.node);
        }
        let (kind, value) = see(at.look, registers);
        at = next(at.node, kind, value)?;
    }
    None
}

/// What is seen there. Without branches: each would double what the verifier follows in each turn.
#[inline(always)]
fn see(look: u32, registers: &Registers) -> (u32, u64) {
    const { assert!(SEEN_ADDRESS == 0 && SEEN_PLACE == 1 && SEEN_ZERO == 2) };
    let mut word = 0u64;
    let address = registers.sp.wrapping_add(u64::from(look & LOOK_OFFSET));
    // SAFETY: the helper writes exactly the word, whatever happens.
    let fault = unsafe { bpf_probe_read_user((&raw mut word).cast(), 8, address as *const _) };
    let bp = mask(look & LOOK_BP);
    let place = mask(look & LOOK_PLACE);
    let word = registers.bp & bp | word & !bp;
    let some = mask64(word);
    let kind = (place & 1) + (place & !some & 1);
    // No kind is like an error, so that nothing is found where nothing could be read.
    let unseen = fault as u64 & !bp;
    (
        (kind | unseen) as u32,
        word.wrapping_sub(registers.sp & place & some),
    )
}

/// All bits set, or none if it is 0.
#[inline(always)]
fn mask(bits: u32) -> u64 {
    mask64(u64::from(bits))
}

#[inline(always)]
fn mask64(bits: u64) -> u64 {
    let mut sign = (bits | bits.wrapping_neg()) >> 63;
    // SAFETY: an addition of nothing. The compiler would make a branch of what it knows to be 0 or 1.
    unsafe { core::arch::asm!("{0} += 0", inlateout(reg) sign, options(nomem, nostack)) };
    sign.wrapping_neg()
}

/// The node that what was seen at another leads to.
#[inline(always)]
fn next(node: u32, kind: u32, value: u64) -> Option<PathNext> {
    let seen = PathSeen { node, kind, value };
    // SAFETY: the value is copied at once; user space never changes one that is there.
    unsafe { PATHS.get(seen) }.copied()
}

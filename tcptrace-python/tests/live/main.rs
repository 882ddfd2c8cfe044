//! Real CPython processes, which say their own stack before they block.

mod blocked;
mod cost;
mod others;
mod python;
mod running;
mod walked;

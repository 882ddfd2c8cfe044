//! The connection-lifecycle model of tcptrace.
//!
//! This crate is deterministic and does no I/O: it opens no file, reads no clock, starts no
//! thread, asks no environment. Everything that can change its state comes through
//! `Tracker::apply` as an [`Input`](input::Input), time included, so
//! the same inputs give the same bytes out, live or replayed.
#![forbid(unsafe_code)]

pub mod cause;
pub mod change;
pub mod condition;
pub mod decode;
pub mod diagnose;
pub mod export;
pub mod filter;
pub mod histogram;
pub mod host;
pub mod infer;
pub mod input;
pub mod owner;
pub mod recording;
pub mod report;
pub mod stack;
pub mod state;
pub mod text;
pub mod time;
pub mod tracker;
pub mod tuple;
pub mod verdict;

//! Report models and their printers.

pub mod infer;
pub mod json;
pub mod listing;
pub mod snapshot;
pub mod table;

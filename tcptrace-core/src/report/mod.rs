//! Report models and their printers.

pub mod json;
pub mod listing;
pub mod snapshot;
pub mod summary;
pub mod table;

//! Report models and their printers.

mod cells;
pub mod json;
pub mod listing;
pub mod snapshot;
pub mod summary;
pub mod summary_text;
pub mod table;
pub mod timeline;
pub mod watch;

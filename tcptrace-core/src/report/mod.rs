//! Report models and their printers.

mod cells;
pub mod summary;
pub mod summary_text;
pub mod table;
pub mod watch;

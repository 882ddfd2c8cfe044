//! Report models and their printers.

mod cells;
pub mod diff;
pub mod flame;
pub mod frames;
pub mod full;
pub mod full_text;
pub mod histogram;
pub mod html;
pub mod json;
pub mod leaks;
pub mod leaks_text;
pub mod listing;
pub mod series;
pub mod snapshot;
pub mod summary;
pub mod summary_text;
pub mod svg;
pub mod table;
pub mod timeline;
pub mod watch;

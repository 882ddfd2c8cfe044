//! Report models and their printers.

pub mod table;

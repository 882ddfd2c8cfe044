//! Report models and their printers.

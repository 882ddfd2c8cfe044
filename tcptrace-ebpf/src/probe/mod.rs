//! The probe bodies, one file per semantic event.

pub(crate) mod accept;
pub(crate) mod close;
pub(crate) mod cookie;
pub(crate) mod eof;
pub(crate) mod files;
pub(crate) mod mini;
pub(crate) mod overflow;
pub(crate) mod path;
pub(crate) mod python;
pub(crate) mod segment;
pub(crate) mod stack;
pub(crate) mod state;

//! The verbs.

pub(crate) mod snapshot;

//! Where inputs come from.

pub(crate) mod facts;
pub(crate) mod live;
pub(crate) mod replay;
pub(crate) mod self_check;
pub(crate) mod start;

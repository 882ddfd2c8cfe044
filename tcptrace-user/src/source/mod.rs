//! Where inputs come from.

pub(crate) mod cost;
pub(crate) mod dumps;
pub(crate) mod facts;
pub(crate) mod live;
mod newcomers;
mod overflows;
pub(crate) mod replay;
pub(crate) mod self_check;
pub(crate) mod stacks;
pub(crate) mod start;
pub(crate) mod survey;

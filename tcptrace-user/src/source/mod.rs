//! Where inputs come from.

pub mod facts;
pub mod live;

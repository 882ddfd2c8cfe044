//! What /proc says of processes: which sockets they hold, and who they are.

mod container;
mod owners;
mod process;
pub(crate) mod threads;

pub(crate) use owners::{Owners, holders};
pub(crate) use process::{Program, pids, process, program};

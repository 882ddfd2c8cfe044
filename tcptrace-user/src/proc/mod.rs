//! What /proc says of processes: which sockets they hold, and who they are.

pub(crate) mod ancestors;
mod container;
pub(crate) mod files;
mod owners;
mod process;
pub(crate) mod readings;
pub(crate) mod threads;

pub(crate) use owners::{Owners, holders};
pub(crate) use process::{Program, pids, process, program};

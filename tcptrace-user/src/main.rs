//! tcptrace.

mod clock;
mod command;
mod kernel;
mod netlink;
mod netns;
mod pipeline;
mod proc;
mod source;

fn main() {}

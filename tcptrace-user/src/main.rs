//! tcptrace.

mod clock;
mod command;
mod netlink;
mod netns;
mod proc;

fn main() {}

//! tcptrace.
mod kernel;
fn main() {}

//! The workloads of the live tests: processes that use TCP and log the truth about it.
//!
//! `workload peer` does what it is told, a command per line on stdin, and answers each with a
//! truth line. `burst`, `leak` and `busy` are crowds; `churn` and `hold` are loads for measurements.

mod crowd;
mod load;
mod script;

use std::io::{BufRead as _, Write as _};

fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["peer"] => peer(),
        ["burst", ip, count, threads] => crowd::burst(ip, number(count), number(threads)),
        ["leak", ip, count] => crowd::leak(ip, number(count)),
        ["busy", name] => crowd::busy(name),
        ["churn", ref shape @ ..] => load::churn(shape),
        ["hold", count] => load::hold(number(count) as u64),
        _ => panic!(
            "usage: workload peer | burst IP COUNT THREADS | leak IP COUNT | busy NAME | \
             churn SHAPE… | hold COUNT"
        ),
    }
}

fn number(text: &str) -> usize {
    text.parse().expect("a number")
}

/// Does one command after the other until stdin ends.
fn peer() -> std::io::Result<()> {
    let mut script = script::Script::default();
    for line in std::io::stdin().lock().lines() {
        let act = script.run(&line?);
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", act.to_json())?;
        out.flush()?;
    }
    Ok(())
}

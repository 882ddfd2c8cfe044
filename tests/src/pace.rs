//! How much a test asks of the machine it runs on. Emulated processors are 10 to 20 times slower.

use std::time::Duration;

/// `count`, divided by `TCPTRACE_TEST_SCALE`: for tests whose truth does not depend on how many
/// there are, but which are worth more with many.
pub fn scaled(count: u64) -> u64 {
    (count / variable("TCPTRACE_TEST_SCALE")).max(1)
}

/// `limit`, multiplied by `TCPTRACE_TEST_PATIENCE`: for ends that come or do not. It is never
/// right for a duration that the kernel guarantees.
pub fn patient(limit: Duration) -> Duration {
    let factor = u32::try_from(variable("TCPTRACE_TEST_PATIENCE")).expect("a small factor");
    limit * factor
}

/// Whether every `watch` is recorded, and its recording replayed: unless `TCPTRACE_TEST_REPLAYS` is 0.
pub fn replays() -> bool {
    variable("TCPTRACE_TEST_REPLAYS") != 0
}

fn variable(name: &str) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|e| panic!("{name}={text}: {e}")),
        Err(_) => 1,
    }
}

//! `tcptrace doctor`.

use std::process::ExitCode;

use crate::options::Doctor;

/// Not here yet.
pub(crate) fn run(options: &Doctor) -> anyhow::Result<ExitCode> {
    anyhow::bail!("doctor is not here yet: {options:?}")
}

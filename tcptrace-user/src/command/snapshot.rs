//! `tcptrace snapshot`.

use std::process::ExitCode;

use crate::options::Snapshot;

/// Not here yet.
pub(crate) fn run(options: &Snapshot) -> anyhow::Result<ExitCode> {
    anyhow::bail!("snapshot is not here yet: {options:?}")
}

//! `tcptrace watch`.

use std::process::ExitCode;

use crate::options::Watch;

/// Not here yet.
pub(crate) fn run(options: &Watch) -> anyhow::Result<ExitCode> {
    anyhow::bail!("watch is not here yet: {options:?}")
}

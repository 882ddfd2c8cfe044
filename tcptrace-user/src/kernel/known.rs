//! The kernels that the project is tested on, as they were met: what tests start from.

use super::facts::Facts;

/// A kernel.
pub(crate) struct Known {
    version: &'static str,
    facts: &'static str,
    /// Its BTF, cut down to what is asked of it.
    pub(crate) btf: &'static [u8],
}

macro_rules! known {
    ($($version:literal),+) => {
        [$(Known {
            version: $version,
            facts: include_str!(concat!("testdata/facts-", $version, ".json")),
            btf: include_bytes!(concat!("testdata/btf-", $version, ".bin")),
        }),+]
    };
}

pub(crate) const KNOWN: [Known; 5] = known!["5.10", "6.1", "6.12", "6.18", "7.3"];

/// A 6.18 without kprobes and trampolines.
pub(crate) const HOST: &Known = &KNOWN[3];

impl Known {
    /// What it answered, as root.
    pub(crate) fn facts(&self) -> Facts {
        serde_json::from_str(self.facts).unwrap()
    }

    /// What a snapshot of it is called.
    pub(crate) fn snapshot(&self) -> String {
        format!("kernel_{}", self.version.replace('.', "_"))
    }
}

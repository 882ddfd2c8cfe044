//! What reports write beside standard output.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;

use crate::options::Terminal;
use crate::recorder::{self, Place};

/// A document that is to be written.
pub(super) struct Document<'a> {
    place: &'a Place,
    file: File,
}

impl Document<'_> {
    /// Makes it.
    ///
    /// # Errors
    /// If it cannot be made, or is there already.
    pub(super) fn open(place: &Place) -> anyhow::Result<Document<'_>> {
        let file = recorder::output(place)?;
        Ok(Document { place, file })
    }

    /// Writes all of it, and says so.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn save(mut self, bytes: &[u8], terminal: &Terminal) -> anyhow::Result<()> {
        let name = self.place.path.display();
        let mut written = self.file.write_all(bytes);
        let is_file = self.place.path != Path::new("-");
        if is_file {
            written = written.and_then(|()| self.file.sync_data());
            if written.is_err() {
                // Rather none of it than a part.
                let _ = self.file.set_len(0);
            }
        }
        written.with_context(|| format!("cannot write {name}"))?;
        if is_file {
            terminal.notice(&format!("wrote {name}"));
        }
        Ok(())
    }
}

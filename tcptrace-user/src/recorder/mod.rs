//! The recorder: takes every input before it is applied, and sees to it that little of it is lost
//! whatever happens.

mod file;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tcptrace_core::input::Input;
use tcptrace_core::recording::{Ending, Session, Writer};

pub(crate) use file::{Destination, Place, create};

/// A block is closed after so long, full or not; with the longest pause between two looks at the
/// clock it is in the file within a second.
const FLUSH_AFTER: Duration = Duration::from_millis(700);

/// When another file is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rotate {
    /// At so many bytes.
    Bytes(u64),
    /// After so long.
    Every(Duration),
}

/// What was written so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// Inputs.
    pub(crate) inputs: u64,
    /// Bytes, of all files.
    pub(crate) bytes: u64,
    /// Files.
    pub(crate) files: u32,
}

/// Writes a recording. What goes wrong is kept until it is asked for: the tracker goes on.
pub(crate) struct Recorder {
    session: Session,
    destination: Destination,
    rotate: Option<Rotate>,
    writer: Writer,
    /// When the first input of the open block came.
    open_since: Option<Instant>,
    file_since: Instant,
    file_bytes: u64,
    /// What the files before this one have.
    before: Progress,
    buffer: Vec<u8>,
    failure: Option<io::Error>,
}

impl Recorder {
    /// Begins a recording.
    ///
    /// # Errors
    /// If its first bytes cannot be written.
    pub(crate) fn begin(
        session: Session,
        destination: Destination,
        rotate: Option<Rotate>,
    ) -> io::Result<Recorder> {
        let mut buffer = Vec::new();
        let writer = Writer::begin(&session, &mut buffer);
        let mut recorder = Recorder {
            session,
            destination,
            rotate,
            writer,
            open_since: None,
            file_since: Instant::now(),
            file_bytes: 0,
            before: Progress::default(),
            buffer,
            failure: None,
        };
        recorder.write();
        match recorder.failure.take() {
            Some(error) => Err(error),
            None => Ok(recorder),
        }
    }

    /// Takes an input.
    pub(crate) fn append(&mut self, input: &Input) {
        if self.failure.is_some() {
            return;
        }
        if let Err(error) = self.writer.append(input) {
            self.failure = Some(io::Error::other(error));
        }
        let since = *self.open_since.get_or_insert_with(Instant::now);
        // A long dump comes without a pause in it, and fills blocks quickly.
        if self.writer.is_full() || (self.writer.records().is_multiple_of(256) && old(since)) {
            self.flush();
        }
    }

    /// Writes what has waited long enough.
    pub(crate) fn pause(&mut self) {
        if self.open_since.is_some_and(old) {
            self.flush();
        }
    }

    /// Whether it is time for another file.
    pub(crate) fn is_due(&self) -> bool {
        self.failure.is_none()
            && match self.rotate {
                None => false,
                Some(Rotate::Bytes(bytes)) => {
                    self.file_bytes + self.writer.pending() as u64 >= bytes
                }
                Some(Rotate::Every(time)) => self.file_since.elapsed() >= time,
            }
    }

    /// Ends this file and begins the next.
    pub(crate) fn rotate(&mut self) {
        self.session.part += 1;
        let mut begun = Vec::new();
        let next = Writer::begin(&self.session, &mut begun);
        let last = std::mem::replace(&mut self.writer, next);
        self.before.inputs += last.records();
        last.end(Ending::Continued, &mut self.buffer);
        self.write();
        self.before.bytes += self.file_bytes;
        self.before.files += 1;
        self.file_bytes = 0;
        self.file_since = Instant::now();
        self.open_since = None;
        if self.failure.is_none() {
            self.failure = self.destination.next().err();
        }
        self.buffer = begun;
        self.write();
    }

    /// What was written so far.
    pub(crate) fn progress(&self) -> Progress {
        Progress {
            inputs: self.before.inputs + self.writer.records(),
            bytes: self.before.bytes + self.file_bytes,
            files: self.before.files + 1,
        }
    }

    /// Whether nothing is recorded any more.
    pub(crate) fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Ends the recording.
    ///
    /// # Errors
    /// The first thing that went wrong since it began. Up to there it can be read.
    pub(crate) fn end(mut self) -> Result<(Arc<str>, Progress), (Arc<str>, io::Error)> {
        let mut progress = self.progress();
        let writer = std::mem::replace(
            &mut self.writer,
            Writer::begin(&self.session, &mut Vec::new()),
        );
        writer.end(Ending::Ended, &mut self.buffer);
        self.write();
        progress.bytes = self.before.bytes + self.file_bytes;
        let name = self.destination.name();
        let failed = self
            .failure
            .take()
            .map_or_else(|| self.destination.sync(), Err);
        match failed {
            Ok(()) => Ok((name, progress)),
            Err(error) => Err((name, error)),
        }
    }

    fn flush(&mut self) {
        self.open_since = None;
        self.writer.flush(&mut self.buffer);
        self.write();
    }

    fn write(&mut self) {
        if self.failure.is_none() {
            match self.destination.write(&self.buffer, self.file_bytes) {
                Ok(()) => self.file_bytes += self.buffer.len() as u64,
                Err(error) => self.failure = Some(error),
            }
        }
        self.buffer.clear();
    }
}

fn old(since: Instant) -> bool {
    since.elapsed() >= FLUSH_AFTER
}

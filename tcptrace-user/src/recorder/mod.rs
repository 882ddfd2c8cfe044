//! The recorder: takes every input before it is applied, and sees to it that little of it is lost
//! whatever happens.

mod file;
mod ring;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tcptrace_core::input::Input;
use tcptrace_core::recording::{Ending, Session, Writer};

#[cfg(feature = "parquet")]
pub(crate) use file::create;
pub(crate) use file::{Destination, Place, check, output};
use ring::Ring;

use crate::clock;

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

/// A recorder that holds what comes in memory, and writes it where somebody asks for it.
#[derive(Clone, Debug)]
pub(crate) struct Flight {
    /// Where dumps go.
    pub(crate) place: Place,
    /// Bytes of memory.
    pub(crate) size: usize,
    /// How much of what was before goes into a dump; `None`: all that is held.
    pub(crate) pre: Option<Duration>,
    /// How long a dump goes on.
    pub(crate) post: Duration,
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
    /// What is held in memory, where nothing is being written.
    pub(crate) held: Option<Held>,
}

/// What a recorder holds in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    /// Bytes, and how many there may be.
    pub(crate) bytes: (u64, u64),
    /// How far back it reaches.
    pub(crate) reaches: Duration,
}

/// A dump that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Dump {
    /// In this file, from what was so long ago.
    Begun(Arc<str>, Duration),
    /// In this file, with nothing of what was before: it is to be told what is known.
    Bare(Arc<str>),
    /// One was being written, and goes on for longer.
    Prolonged(Arc<str>),
}

/// Writes a recording. What goes wrong is kept until it is asked for: the tracker goes on.
pub(crate) struct Recorder {
    session: Session,
    writer: Writer,
    /// When the first input of the open block came.
    open_since: Option<Instant>,
    buffer: Vec<u8>,
    way: Way,
    /// Where blocks go; `None`: into memory.
    file: Option<OpenFile>,
    /// What the files before this one have.
    before: Progress,
    failure: Option<(Arc<str>, io::Error)>,
}

/// What becomes of what is recorded.
enum Way {
    /// It goes to files.
    Files(Option<Rotate>),
    /// It goes to memory, and from there to files.
    Memory(Flight, Ring),
}

/// The file that is being written.
struct OpenFile {
    destination: Destination,
    since: Instant,
    /// A dump ends here.
    until: Option<Instant>,
    bytes: u64,
    /// Of these, what it began with.
    introduction: u64,
    /// Inputs of its parts that have ended.
    records: u64,
}

impl OpenFile {
    fn new(destination: Destination, until: Option<Instant>) -> OpenFile {
        OpenFile {
            destination,
            since: Instant::now(),
            until,
            bytes: 0,
            introduction: 0,
            records: 0,
        }
    }

    fn write(&mut self, blocks: &[u8]) -> Result<(), (Arc<str>, io::Error)> {
        self.destination
            .write(blocks, self.bytes)
            .map_err(|error| (self.destination.name(), error))?;
        self.bytes += blocks.len() as u64;
        Ok(())
    }
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
        let file = OpenFile::new(destination, None);
        let mut recorder = Recorder::new(session, Way::Files(rotate), Some(file));
        recorder.write();
        match recorder.failure.take() {
            Some((_, error)) => Err(error),
            None => Ok(recorder),
        }
    }

    /// Begins to hold in memory what comes.
    pub(crate) fn hold(session: Session, flight: Flight) -> Recorder {
        let mut ring = Ring::new(flight.size, flight.pre);
        ring.begin(Instant::now());
        let mut recorder = Recorder::new(session, Way::Memory(flight, ring), None);
        recorder.write();
        recorder
    }

    fn new(session: Session, way: Way, file: Option<OpenFile>) -> Recorder {
        let mut buffer = Vec::new();
        Recorder {
            writer: Writer::begin(&session, &mut buffer),
            session,
            open_since: None,
            buffer,
            way,
            file,
            before: Progress::default(),
            failure: None,
        }
    }

    /// Takes an input.
    pub(crate) fn append(&mut self, input: &Input) {
        if self.failure.is_some() {
            return;
        }
        if let Err(error) = self.writer.append(input) {
            self.failure = Some((self.name(), io::Error::other(error)));
        }
        if let Input::Lost(lost) = input {
            // The next part begins with that.
            self.session.lost_before = *lost;
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

    /// Whether it is time for another part.
    pub(crate) fn is_due(&self) -> bool {
        let pending = self.writer.pending();
        self.failure.is_none()
            && match (&self.way, &self.file) {
                (Way::Files(Some(Rotate::Bytes(bytes))), Some(file)) => {
                    // Where what is known fills a file, it holds as much again.
                    file.bytes + pending as u64 >= (*bytes).max(2 * file.introduction)
                }
                (Way::Files(Some(Rotate::Every(time))), Some(file)) => {
                    file.since.elapsed() >= *time
                }
                (Way::Memory(..), Some(file)) => {
                    file.until.is_some_and(|until| Instant::now() >= until)
                }
                (Way::Memory(_, ring), None) => ring.is_due(pending),
                (Way::Files(_), _) => false,
            }
    }

    /// Ends this part and begins the next, which is to be told what is known. Gives the name and the
    /// extent of a dump that has ended with it.
    pub(crate) fn rotate(&mut self) -> Option<(Arc<str>, Progress)> {
        if self.is_dumping() {
            // Time has come to be this, though nothing may have happened.
            self.append(&Input::End(clock::mono()));
        }
        self.turn()
    }

    /// Ends the dump that is being written, if there is one: the recording has had its end.
    pub(crate) fn end_dump(&mut self) -> Option<(Arc<str>, Progress)> {
        match self.is_dumping() {
            true => self.turn(),
            false => None,
        }
    }

    fn turn(&mut self) -> Option<(Arc<str>, Progress)> {
        let ending = match self.is_dumping() {
            true => Ending::Ended,
            false => Ending::Continued,
        };
        self.session.part += 1;
        let mut begun = Vec::new();
        let next = Writer::begin(&self.session, &mut begun);
        let records = self.end_part(next, ending);
        let mut written = None;
        match (&mut self.way, self.file.take()) {
            (Way::Memory(_, ring), None) => {
                ring.end(records);
                ring.begin(Instant::now());
            }
            (Way::Memory(_, ring), Some(file)) => {
                ring.begin(Instant::now());
                written = self.close(file, records);
            }
            (Way::Files(_), Some(file)) => {
                self.file = self.next(file, records);
            }
            (Way::Files(_), None) => {}
        }
        self.buffer = begun;
        self.write();
        written
    }

    /// All that a reader of the new part has to know was told. False: there is no room to hold it.
    pub(crate) fn introduced(&mut self) -> bool {
        let pending = self.writer.pending() as u64;
        match (&mut self.way, &mut self.file) {
            (Way::Memory(_, ring), None) => ring.introduced(),
            (_, Some(file)) => {
                file.introduction = file.bytes + pending;
                true
            }
            (Way::Files(_), None) => true,
        }
    }

    /// Writes what is held, and what comes from now on; `None`: that failed, or nothing is held.
    pub(crate) fn dump(&mut self) -> Option<Dump> {
        let Way::Memory(flight, ring) = &mut self.way else {
            return None;
        };
        if self.failure.is_some() {
            return None;
        }
        let now = Instant::now();
        let until = now + flight.post;
        if let Some(file) = &mut self.file {
            file.until = Some(until);
            return Some(Dump::Prolonged(file.destination.name()));
        }
        let destination = match Destination::create(flight.place.clone()) {
            Ok(destination) => destination,
            Err((name, error)) => {
                self.failure = Some((Arc::from(name.to_string_lossy()), error));
                return None;
            }
        };
        let name = destination.name();
        let mut file = OpenFile::new(destination, Some(until));
        let Some(held) = ring.take() else {
            self.file = Some(file);
            self.session.part += 1;
            self.open_since = None;
            self.writer = Writer::begin(&self.session, &mut self.buffer);
            self.write();
            return Some(Dump::Bare(name));
        };
        file.records = held.records;
        let written = held.blocks.iter().try_for_each(|block| file.write(block));
        self.file = Some(file);
        self.failure = written.err();
        self.flush();
        Some(Dump::Begun(name, now.duration_since(held.since)))
    }

    /// What was written so far.
    pub(crate) fn progress(&self) -> Progress {
        let mut progress = self.before;
        if let Some(file) = &self.file {
            progress.inputs += file.records + self.writer.records();
            progress.bytes += file.bytes;
            progress.files += 1;
        } else if let Way::Memory(flight, ring) = &self.way {
            progress.held = Some(Held {
                bytes: (ring.bytes(), flight.size as u64),
                reaches: ring.since().map_or(Duration::ZERO, |since| since.elapsed()),
            });
        }
        progress
    }

    /// Whether a dump is being written.
    pub(crate) fn is_dumping(&self) -> bool {
        matches!(self.way, Way::Memory(..)) && self.file.is_some()
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
        let name = self.name();
        if self.file.is_some() {
            let none = Writer::begin(&self.session, &mut Vec::new());
            let records = self.end_part(none, Ending::Ended);
            if let Some(file) = self.file.take() {
                self.close(file, records);
            }
        }
        match self.failure {
            None => Ok((name, self.before)),
            Some(failure) => Err(failure),
        }
    }

    /// Ends the part, and gives how many inputs it has.
    fn end_part(&mut self, next: Writer, ending: Ending) -> u64 {
        let last = std::mem::replace(&mut self.writer, next);
        let records = last.records();
        last.end(ending, &mut self.buffer);
        self.open_since = None;
        self.write();
        records
    }

    /// Counts a file whose last part has so many inputs, and goes on to the next.
    fn next(&mut self, file: OpenFile, records: u64) -> Option<OpenFile> {
        self.before.add(&file, records);
        let mut destination = file.destination;
        if self.failure.is_none()
            && let Err(error) = destination.next()
        {
            self.failure = Some((destination.name(), error));
        }
        Some(OpenFile::new(destination, None))
    }

    /// Counts a file whose last part has so many inputs, and waits until it is on the disk.
    fn close(&mut self, file: OpenFile, records: u64) -> Option<(Arc<str>, Progress)> {
        self.before.add(&file, records);
        if self.failure.is_none()
            && let Err(error) = file.destination.sync()
        {
            self.failure = Some((file.destination.name(), error));
        }
        let mut written = Progress::default();
        written.add(&file, records);
        let whole = self.failure.is_none();
        whole.then(|| (file.destination.name(), written))
    }

    fn name(&self) -> Arc<str> {
        match (&self.file, &self.way) {
            (Some(file), _) => file.destination.name(),
            (None, Way::Memory(flight, _)) => Arc::from(flight.place.path.to_string_lossy()),
            (None, Way::Files(_)) => Arc::from("the recording"),
        }
    }

    fn flush(&mut self) {
        self.open_since = None;
        self.writer.flush(&mut self.buffer);
        self.write();
    }

    fn write(&mut self) {
        if self.failure.is_none() {
            match (&mut self.file, &mut self.way) {
                (Some(file), _) => self.failure = file.write(&self.buffer).err(),
                (None, Way::Memory(_, ring)) => ring.push(&self.buffer),
                (None, Way::Files(_)) => {}
            }
        }
        self.buffer.clear();
    }
}

impl Progress {
    fn add(&mut self, file: &OpenFile, records: u64) {
        self.inputs += file.records + records;
        self.bytes += file.bytes;
        self.files += 1;
    }
}

fn old(since: Instant) -> bool {
    since.elapsed() >= FLUSH_AFTER
}

#[cfg(test)]
impl Recorder {
    /// Of parts of so many bytes, `r.00001` and so on.
    pub(crate) fn rotating(directory: &std::path::Path, bytes: u64) -> Recorder {
        let place = Place {
            path: directory.join("r"),
            force: false,
            numbered: Some(None),
            owner: None,
        };
        let destination = Destination::open(place).expect("opens");
        let rotate = Some(Rotate::Bytes(bytes));
        Recorder::begin(Session::default(), destination, rotate).expect("begins")
    }
}

#[cfg(test)]
mod tests {
    use tcptrace_core::input::Definition;

    use super::*;

    /// A text that hardly gets shorter.
    fn note(number: u64) -> Input {
        let mut state = number;
        let words = (0..64).map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            format!("{state:016x}")
        });
        Input::Define(Definition::Note(Arc::from(words.collect::<String>())))
    }

    #[test]
    fn a_file_is_twice_as_long_as_what_it_begins_with() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut recorder = Recorder::rotating(directory.path(), 4 << 10);
        let introduction = 100;
        (0..introduction).for_each(|number| recorder.append(&note(number)));
        recorder.introduced();
        let mut more = introduction;
        while !recorder.is_due() {
            recorder.append(&note(more));
            more += 1;
        }
        assert!(
            more.abs_diff(2 * introduction) < introduction / 10,
            "{more}"
        );
        recorder.rotate();
        recorder.introduced();
        let mut few = 0;
        while !recorder.is_due() {
            recorder.append(&note(few));
            few += 1;
        }
        assert!(few < introduction / 10, "{few}");
    }
}

//! Recordings as a source: the same inputs in the same order as they were live.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use tcptrace_core::input::Input;
use tcptrace_core::recording::{Ending, Item, Reader, Session, Tally};

use crate::error::{Failure, Usage};

/// Bytes that are read at once.
const CHUNK: usize = 256 << 10;

/// The files of one recording, in their order.
pub(crate) struct Recording {
    session: Session,
    /// The part that is read, and those after it.
    parts: VecDeque<Part>,
    missing: Missing,
    buffer: Vec<u8>,
    /// Bytes of the parts that were read whole.
    read: u64,
    /// Bytes of all parts, if that is known.
    length: Option<u64>,
}

/// What of a recording is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Missing {
    /// Bytes that are no part of a whole block.
    pub(crate) bytes: u64,
    /// Places at which something is missing, the end included.
    pub(crate) gaps: u64,
    /// Records that a later version has added.
    pub(crate) unknown: u64,
    /// It breaks off.
    pub(crate) no_end: bool,
}

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// There may be inputs, and more to come.
    More,
    /// All was read.
    Done,
}

/// One file.
struct Part {
    name: String,
    file: Box<dyn Read>,
    /// Its bytes, if that is known, and how many of them were read.
    length: Option<u64>,
    read: u64,
    reader: Reader,
    session: Session,
    ending: Option<Ending>,
}

impl Recording {
    /// Opens the files, which may be given in any order; `-` is standard input.
    ///
    /// # Errors
    /// [`Usage`] if there is no such file, it is no recording, or they are not of one recording.
    pub(crate) fn open(files: &[PathBuf]) -> anyhow::Result<Recording> {
        let mut buffer = vec![0; CHUNK];
        let mut parts = Vec::new();
        for file in files {
            parts.push(Part::open(file, &mut buffer)?);
        }
        parts.sort_by_key(|part| part.session.part);
        for pair in parts.windows(2) {
            follow(&pair[0], &pair[1].session)?;
            if pair[0].session.part == pair[1].session.part {
                let (one, other) = (&pair[0].name, &pair[1].name);
                return Err(Usage::new(
                    format!("{one} and {other} are the same part of a recording"),
                    "give every file once",
                )
                .into());
            }
        }
        let parts = VecDeque::from(parts);
        let length = parts.iter().map(|part| part.length).sum();
        let session = parts.front().map(|part| part.session.clone());
        Ok(Recording {
            // One file at least was typed.
            session: session.ok_or_else(|| Usage::new("no recording", "give a file"))?,
            parts,
            missing: Missing::default(),
            buffer,
            read: 0,
            length,
        })
    }

    /// How it was taken.
    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    /// How many bytes were read, and how many there are, if that is known.
    pub(crate) fn progress(&self) -> (u64, Option<u64>) {
        let read = self.parts.front().map_or(0, |part| part.read);
        (self.read + read, self.length)
    }

    /// What is missing of what was read so far.
    pub(crate) fn missing(&self) -> Missing {
        let mut missing = self.missing;
        if let Some(part) = self.parts.front() {
            missing.add(part.reader.tally());
        }
        missing
    }

    /// Appends the next inputs.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub(crate) fn next(&mut self, inputs: &mut Vec<Input>) -> anyhow::Result<Step> {
        let Some(part) = self.parts.front_mut() else {
            return Ok(Step::Done);
        };
        match part.next(inputs, &mut self.buffer)? {
            Item::Done => {
                let tally = part.reader.tally();
                let ended = part.ending.is_some();
                self.missing.add(tally);
                if !ended {
                    self.missing.no_end |= self.parts.len() == 1;
                    // A torn tail has been counted.
                    self.missing.gaps += u64::from(tally.lost_bytes == 0);
                }
                if let Some(part) = self.parts.pop_front() {
                    self.read += part.read;
                    if let Some(next) = self.parts.front() {
                        // By its last session, of which it may have had several.
                        self.missing.gaps += u64::from(follow(&part, &next.session)?);
                        return Ok(Step::More);
                    }
                }
                Ok(Step::Done)
            }
            Item::Session(session) => {
                // A file may hold several, one behind the other.
                self.missing.gaps += u64::from(follow(part, &session)?);
                part.session = *session;
                Ok(Step::More)
            }
            Item::Inputs | Item::Gap | Item::End(_) | Item::More => Ok(Step::More),
        }
    }
}

impl Missing {
    fn add(&mut self, tally: Tally) {
        self.bytes += tally.lost_bytes;
        self.gaps += tally.gaps;
        self.unknown += tally.unknown;
    }
}

/// Whether something is missing between a part and what comes behind it.
fn follow(part: &Part, next: &Session) -> Result<bool, Usage> {
    let session = &part.session;
    if session.recording != next.recording {
        return Err(Usage::new(
            format!("{} and what follows it are not of one recording", part.name),
            "replay them one by one",
        ));
    }
    // The same again is its second copy.
    Ok(next.part > session.part.saturating_add(1))
}

impl Part {
    fn open(path: &Path, buffer: &mut [u8]) -> anyhow::Result<Part> {
        let name = path.display().to_string();
        let cannot_open = |error: io::Error| {
            Usage::new(
                format!("cannot open {name}: {error}"),
                "`tcptrace record` writes recordings",
            )
        };
        let (file, length): (Box<dyn Read>, _) = match path == Path::new("-") {
            true => (Box::new(io::stdin()), None),
            false => {
                let file = File::open(path).map_err(cannot_open)?;
                // A pipe has a name, too, and no length.
                let regular = file.metadata().ok().filter(|meta| meta.is_file());
                (Box::new(file), regular.map(|meta| meta.len()))
            }
        };
        let mut part = Part {
            name,
            file,
            length,
            read: 0,
            reader: Reader::new(),
            session: Session::default(),
            ending: None,
        };
        let mut inputs = Vec::new();
        loop {
            match part.next(&mut inputs, buffer)? {
                Item::Session(session) => {
                    part.session = *session;
                    return Ok(part);
                }
                Item::Gap | Item::More => {}
                // Both copies of what it begins with are gone, or were never there.
                Item::Inputs | Item::End(_) | Item::Done => {
                    return Err(part.without_beginning().into());
                }
            }
        }
    }

    /// Why it cannot be replayed, which does not say how it was taken.
    fn without_beginning(&self) -> Failure {
        let name = &self.name;
        let tally = self.reader.tally();
        let (what, fix) = match (self.reader.is_cut(), tally == Tally::default()) {
            (true, _) => (
                format!("{name} was cut before its first block was whole"),
                "nothing of it can be read: what the tracer took is lost, or in another copy",
            ),
            (false, true) => (
                format!("{name} is empty"),
                "nothing was written to it: give the file of a tracer that has begun",
            ),
            (false, false) => (
                format!("{name} has lost its beginning"),
                "nothing in it says how it was taken: it cannot be replayed",
            ),
        };
        Failure {
            what,
            fix: fix.to_owned(),
        }
    }

    fn next(&mut self, inputs: &mut Vec<Input>, buffer: &mut [u8]) -> anyhow::Result<Item> {
        loop {
            let item = self.reader.next(inputs).map_err(|refusal| {
                Usage::new(
                    format!("{}: {refusal}", self.name),
                    "give files that `tcptrace record` of this version or an older one wrote",
                )
            })?;
            match item {
                Item::More => match self.file.read(buffer) {
                    Ok(0) => self.reader.finish(),
                    Ok(length) => {
                        self.read += length as u64;
                        self.reader.push(&buffer[..length]);
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        let name = &self.name;
                        return Err(
                            anyhow::Error::from(error).context(format!("cannot read {name}"))
                        );
                    }
                },
                Item::End(ending) => {
                    self.ending = Some(ending);
                    return Ok(item);
                }
                // In a file of several the last one counts.
                Item::Session(_) => {
                    self.ending = None;
                    return Ok(item);
                }
                item => return Ok(item),
            }
        }
    }
}

//! What /proc says of a thread, and of a process.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;

use crate::{FindError, Unreadable};

/// How much is read of a file that the target can make long.
const MAX_MAPS: u64 = 16 << 20;
/// How many files are looked into for an interpreter.
const MAX_FILES: usize = 8;

/// What a thread does at one moment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Task {
    /// Its number in its own PID namespace.
    pub(crate) number: u32,
    asleep: bool,
    switches: u64,
}

impl Task {
    pub(crate) fn read(pid: u32, tid: u32) -> Result<Task, Unreadable> {
        let status = fs::read_to_string(format!("/proc/{pid}/task/{tid}/status"));
        status
            .map(|status| Task::parse(&status, tid))
            .map_err(|error| match error.kind() {
                ErrorKind::PermissionDenied => Unreadable::Denied,
                _ => Unreadable::Gone,
            })
    }

    fn parse(status: &str, tid: u32) -> Task {
        let mut task = Task {
            number: tid,
            asleep: false,
            switches: 0,
        };
        for line in status.lines() {
            let Some((key, value)) = line.split_once(':') else {
                continue;
            };
            let number = || {
                value
                    .split_whitespace()
                    .last()
                    .and_then(|word| word.parse().ok())
            };
            match key {
                "State" => task.asleep = value.trim_start().starts_with(['S', 'D', 'T', 't']),
                "NSpid" => task.number = number().map_or(tid, |number| number as u32),
                "voluntary_ctxt_switches" | "nonvoluntary_ctxt_switches" => {
                    task.switches += number().unwrap_or(0);
                }
                _ => {}
            }
        }
        task
    }

    /// Whether it did not run since `before`.
    pub(crate) fn slept_since(&self, before: &Task) -> bool {
        before.asleep && *self == *before
    }
}

/// Which program a process runs: another one after it executed one, or when its number was given anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    started: u64,
    device: u64,
    inode: u64,
}

impl Program {
    pub(crate) fn of(pid: u32) -> Result<Program, FindError> {
        let stat = fs::read(format!("/proc/{pid}/stat")).map_err(|error| find_error(&error))?;
        let exe = match fs::metadata(format!("/proc/{pid}/exe")) {
            Ok(exe) => exe,
            // A thread of the kernel, or a process that ended, has none.
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(FindError::NotPython),
            Err(error) => return Err(find_error(&error)),
        };
        Ok(Program {
            started: started(&stat),
            device: exe.dev(),
            inode: exe.ino(),
        })
    }
}

/// The 22nd field of `/proc/PID/stat`. The second one is a name, which may hold anything.
fn started(stat: &[u8]) -> u64 {
    let after = stat
        .iter()
        .rposition(|byte| *byte == b')')
        .map_or(0, |end| end + 1);
    let fields = String::from_utf8_lossy(&stat[after..]);
    fields
        .split_whitespace()
        .nth(19)
        .and_then(|field| field.parse().ok())
        .unwrap_or(0)
}

/// Where the files start that may hold an interpreter: the program, and libraries and programs named
/// after Python.
pub(crate) fn candidates(pid: u32) -> Result<Vec<u64>, FindError> {
    let exe = match fs::read_link(format!("/proc/{pid}/exe")) {
        Ok(exe) => exe.into_os_string().into_encoded_bytes(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(FindError::NotPython),
        Err(error) => return Err(find_error(&error)),
    };
    let mut maps = Vec::new();
    File::open(format!("/proc/{pid}/maps"))
        .and_then(|file| file.take(MAX_MAPS).read_to_end(&mut maps))
        .map_err(|error| find_error(&error))?;
    Ok(starts(&maps, &exe))
}

fn starts(maps: &[u8], exe: &[u8]) -> Vec<u64> {
    let (mut program, mut libraries) = (Vec::new(), Vec::new());
    for line in maps.split(|byte| *byte == b'\n') {
        let Some((start, path)) = first_mapping(line) else {
            continue;
        };
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        if path == exe {
            program.push(start);
        } else if name.starts_with(b"libpython") || name.starts_with(b"python") {
            libraries.push(start);
        }
    }
    program.truncate(1);
    program.extend(libraries);
    program.truncate(MAX_FILES);
    program
}

/// The address and the path, when the line is the mapping of a file's start.
fn first_mapping(line: &[u8]) -> Option<(u64, &[u8])> {
    let slash = line.iter().position(|byte| *byte == b'/')?;
    let (fields, path) = line.split_at(slash);
    let mut fields = std::str::from_utf8(fields).ok()?.split_whitespace();
    let (start, _) = fields.next()?.split_once('-')?;
    let (_, offset) = (fields.next()?, fields.next()?);
    let start = u64::from_str_radix(start, 16).ok()?;
    offset
        .bytes()
        .all(|digit| digit == b'0')
        .then_some((start, path))
}

/// What it means that a file of a process could not be read.
pub(crate) fn find_error(error: &io::Error) -> FindError {
    match error.kind() {
        ErrorKind::PermissionDenied => FindError::Denied,
        _ => FindError::Gone,
    }
}

#[cfg(test)]
mod tests {
    use super::{Task, started, starts};

    const STATUS: &str = "Name:\tpython3\nState:\tS (sleeping)\nPid:\t4711\nNSpid:\t4711\t17\n\
        voluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t2\n";

    #[test]
    fn a_thread_has_the_number_of_its_namespace() {
        let task = Task::parse(STATUS, 4711);
        assert_eq!(
            task,
            Task {
                number: 17,
                asleep: true,
                switches: 7
            }
        );
    }

    #[test]
    fn a_thread_that_was_switched_to_did_not_sleep() {
        let before = Task::parse(STATUS, 4711);
        assert!(Task::parse(STATUS, 4711).slept_since(&before));
        assert!(!Task::parse(&STATUS.replace(":\t5", ":\t6"), 4711).slept_since(&before));
        let running = Task::parse(&STATUS.replace("S (sleeping)", "R (running)"), 4711);
        assert!(!running.slept_since(&running));
    }

    #[test]
    fn a_name_cannot_forge_when_a_process_started() {
        let stat = b"4711 (a) R 1 (b)) S 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 98765 1 1";
        assert_eq!(started(stat), 98765);
    }

    #[test]
    fn the_program_comes_first_and_then_what_is_named_after_python() {
        let maps = b"7f00-7f10 r--p 00000000 00:1b 11 /usr/lib/libpython3.9.so.1.0\n\
            7f10-7f20 r-xp 00010000 00:1b 11 /usr/lib/libpython3.9.so.1.0\n\
            5500-5510 r--p 00000000 00:1b 12 /usr/bin/my app (deleted)\n\
            6600-6610 r--p 00000000 00:1b 13 /usr/lib/x.cpython-39-x86_64-linux-gnu.so\n\
            7ffd-7fff rw-p 00000000 00:00 0 [stack]\n";
        assert_eq!(starts(maps, b"/usr/bin/my app (deleted)"), [0x5500, 0x7f00]);
    }
}

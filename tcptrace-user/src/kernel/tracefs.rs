//! Perf tracepoints, by their ids in tracefs, be it mounted or not.

use std::io::{self, Read as _};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags, openat};
use thiserror::Error;

use super::{bpf, mount};

/// An open tracefs.
#[derive(Debug)]
pub(crate) struct Tracefs {
    root: OwnedFd,
}

/// Why there is no tracefs to read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum TracefsError {
    /// It is mounted, and closed to us.
    #[error("{path} cannot be read ({source}): that takes root or CAP_DAC_READ_SEARCH")]
    Unreadable {
        /// Its `events` directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not mounted, and we may not mount it for ourselves.
    #[error(
        "tracefs is not mounted, and mounting it privately failed ({0}): \
         `mount -t tracefs tracefs /sys/kernel/tracing` as root"
    )]
    NotMounted(io::Error),
}

impl Tracefs {
    /// Opens the mounted one, else one that only this descriptor sees.
    ///
    /// # Errors
    /// When neither works.
    pub(crate) fn open() -> Result<Tracefs, TracefsError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut closed = None;
        for root in PLACES {
            let events = PathBuf::from(root).join("events");
            // An empty mount point has no `events`.
            match rustix::fs::open(&events, flags, Mode::empty())
                .and_then(|_| rustix::fs::open(root, flags, Mode::empty()))
            {
                Ok(root) => return Ok(Tracefs { root }),
                Err(rustix::io::Errno::NOENT) => {}
                Err(e) => {
                    closed.get_or_insert(TracefsError::Unreadable {
                        path: events,
                        source: e.into(),
                    });
                }
            }
        }
        match mount::detached("tracefs") {
            Ok(root) => Ok(Tracefs { root }),
            Err(e) => Err(closed.unwrap_or(TracefsError::NotMounted(e))),
        }
    }

    /// Attaches a loaded tracepoint program until the descriptor is closed. aya's own way reads
    /// the id from a mounted tracefs and no other.
    ///
    /// # Errors
    /// When there is no such tracepoint, or perf events are forbidden.
    pub(crate) fn attach(
        &self,
        program: BorrowedFd<'_>,
        category: &str,
        name: &str,
    ) -> io::Result<OwnedFd> {
        bpf::attach_tracepoint(program, self.event_id(category, name)?)
    }

    /// The id that perf_event_open(2) takes for a tracepoint.
    ///
    /// # Errors
    /// When there is no such tracepoint, or its file cannot be read.
    pub(super) fn event_id(&self, category: &str, name: &str) -> io::Result<u64> {
        let path = format!("events/{category}/{name}/id");
        let file = openat(
            &self.root,
            path,
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let mut text = String::new();
        std::fs::File::from(file)
            .take(32)
            .read_to_string(&mut text)?;
        text.trim().parse().map_err(io::Error::other)
    }
}

const PLACES: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

//! What this crate may spend and believe, and what it counts.

use std::path::PathBuf;

/// Bounds on work and memory. What is read may belong to somebody hostile.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Frames of a walk, inlined ones not counted.
    pub frames: usize,
    /// Bytes of one section of an ELF file.
    pub section_bytes: u64,
    /// Bytes of the debug sections of one file, taken together and uncompressed.
    pub debug_bytes: u64,
    /// Bytes of all modules in the cache.
    pub module_bytes: usize,
    /// Modules in the cache.
    pub modules: usize,
    /// Processes in the cache.
    pub processes: usize,
    /// Bytes of a `/proc/PID/maps`.
    pub maps_bytes: u64,
    /// Bytes of a perf map.
    pub perf_map_bytes: u64,
    /// Bytes of the traces in the cache.
    pub trace_bytes: usize,
    /// Words in the cache of call paths, of which each costs at most [`Limits::PATH_WORD_BYTES`] bytes.
    pub path_words: usize,
}

impl Limits {
    /// Bytes that a word in the cache of call paths costs at most, when its tables have just grown.
    pub const PATH_WORD_BYTES: usize = 112;
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            frames: 512,
            section_bytes: 64 << 20,
            debug_bytes: 128 << 20,
            module_bytes: 256 << 20,
            modules: 1024,
            processes: 1024,
            maps_bytes: 16 << 20,
            perf_map_bytes: 32 << 20,
            trace_bytes: 32 << 20,
            path_words: 256 * 1024,
        }
    }
}

/// Whose debug information is believed to mean no harm: DWARF has so many ways to say much in few bytes
/// that bounds on its size are none on the time and memory that it takes.
#[derive(Debug, Clone)]
pub struct DebugInfo {
    /// Directories with separate debug files, which are found by build id (`.build-id/ab/cdef.debug`), or
    /// else below the path of the file.
    pub directories: Vec<PathBuf>,
    /// The users whose own files may have debug information in them, if not everybody may write them.
    pub users: Vec<u32>,
}

impl Default for DebugInfo {
    /// `/usr/lib/debug`; the superuser, and the user that the tracer runs as.
    fn default() -> DebugInfo {
        DebugInfo {
            directories: vec![PathBuf::from("/usr/lib/debug")],
            users: vec![0, rustix::process::geteuid().as_raw()],
        }
    }
}

impl DebugInfo {
    /// None at all: names are those of symbol tables, and there are no lines.
    pub fn none() -> DebugInfo {
        DebugInfo {
            directories: Vec::new(),
            users: Vec::new(),
        }
    }
}

/// What was done since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Samples that were named.
    pub samples: u64,
    /// Samples whose call path was known, so that nothing was unwound.
    pub path_hits: u64,
    /// Samples that were unwound.
    pub path_misses: u64,
    /// Words dropped from the cache of call paths to keep its bound.
    pub path_words_evicted: u64,
    /// Walks that were unwound to a trace known already.
    pub trace_hits: u64,
    /// Traces dropped to keep the bound.
    pub traces_evicted: u64,
    /// Processes dropped to keep the bound.
    pub processes_evicted: u64,
    /// Modules dropped to keep the bound.
    pub modules_evicted: u64,
    /// Modules that were read.
    pub modules_read: u64,
    /// Mapped files that could not be opened, were not the mapped file, or were no ELF file.
    pub modules_refused: u64,
    /// Times that a process's maps were read.
    pub maps_read: u64,
    /// Perf maps that were refused: no regular file, another owner, too large.
    pub perf_maps_refused: u64,
}

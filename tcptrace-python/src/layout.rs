//! Where the fields that are read lie in the structures of each CPython.
//!
//! From 3.13 the interpreter says it itself, in a table at the start of `_PyRuntime`. Before that the
//! offsets are those of the public headers, which did not change between the releases of a minor version.

use std::fmt;

use crate::lines::LineTable;
use crate::memory::u64_at;

/// A version of CPython. Of 3.8 to 3.10 only the minor version can be told from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// 3.
    pub major: u8,
    /// 8 to 14.
    pub minor: u8,
    /// The release of that minor version, where the interpreter says it.
    pub micro: Option<u8>,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        self.micro.map_or(Ok(()), |micro| write!(f, ".{micro}"))
    }
}

impl Version {
    /// The version, and whether it is a release, of `Py_Version` and `PY_VERSION_HEX`.
    pub(crate) fn from_hex(hex: u64) -> (Version, bool) {
        let [_, _, _, _, major, minor, micro, level] = hex.to_be_bytes();
        (
            Version {
                major,
                minor,
                micro: Some(micro),
            },
            level >> 4 == 0xf,
        )
    }
}

/// How a frame says which instruction it is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// An `int`, in units of this many bytes.
    Index(i64),
    /// A pointer into the code object, which has its byte code at its end.
    Pointer,
}

/// The offsets of one CPython.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) version: Version,
    pub(crate) interpreters_head: u64,
    pub(crate) interpreter_next: u64,
    pub(crate) interpreter_id: u64,
    pub(crate) threads_head: u64,
    pub(crate) thread_next: usize,
    pub(crate) thread_interpreter: usize,
    /// The `pthread_t`.
    pub(crate) thread_id: usize,
    /// The number of the thread in its PID namespace.
    pub(crate) native_thread_id: Option<usize>,
    /// The innermost frame, or the `_PyCFrame` that points to it.
    pub(crate) thread_frame: usize,
    /// Where in the `_PyCFrame` the pointer to the frame is, in 3.11 and 3.12.
    pub(crate) cframe_frame: Option<u64>,
    pub(crate) frame_previous: usize,
    pub(crate) frame_code: usize,
    pub(crate) frame_at: usize,
    /// Who owns the frame, from 3.12: some frames are only marks for calls from C.
    pub(crate) frame_owner: Option<usize>,
    pub(crate) at: At,
    pub(crate) code_file: usize,
    pub(crate) code_name: usize,
    pub(crate) code_line_table: usize,
    pub(crate) code_first_line: usize,
    /// The byte code itself, or before 3.11 the pointer to its `bytes`.
    pub(crate) code_code: usize,
    pub(crate) line_table: LineTable,
    pub(crate) object_type: usize,
    pub(crate) object_size: usize,
    pub(crate) bytes_data: usize,
    pub(crate) string_length: usize,
    pub(crate) string_state: usize,
    /// Where the characters of a string that is all ASCII start.
    pub(crate) string_ascii: usize,
    /// Where the characters of other strings start.
    pub(crate) string_other: usize,
}

impl Layout {
    /// The offsets of a version that does not say them itself.
    pub(crate) fn of(version: Version) -> Option<Layout> {
        match version.minor {
            8 | 9 => Some(Layout::of_3_8(version)),
            10 => Some(Layout::of_3_10(version)),
            11 => Some(Layout::of_3_11(version)),
            12 => Some(Layout::of_3_12(version)),
            _ => None,
        }
    }

    fn of_3_8(version: Version) -> Layout {
        Layout {
            version,
            interpreters_head: 32,
            interpreter_next: 0,
            interpreter_id: if version.minor == 8 { 16 } else { 24 },
            threads_head: 8,
            thread_next: 8,
            thread_interpreter: 16,
            thread_id: 176,
            native_thread_id: None,
            thread_frame: 24,
            cframe_frame: None,
            frame_previous: 24,
            frame_code: 32,
            frame_at: 104,
            frame_owner: None,
            at: At::Index(1),
            code_file: 104,
            code_name: 112,
            code_line_table: 120,
            code_first_line: 40,
            code_code: 48,
            line_table: LineTable::Pairs,
            object_type: 8,
            object_size: 16,
            bytes_data: 32,
            string_length: 16,
            string_state: 32,
            string_ascii: 48,
            string_other: 72,
        }
    }

    fn of_3_10(version: Version) -> Layout {
        Layout {
            frame_at: 96,
            at: At::Index(2),
            line_table: LineTable::Ranges,
            interpreter_id: 24,
            ..Layout::of_3_8(version)
        }
    }

    fn of_3_11(version: Version) -> Layout {
        Layout {
            interpreters_head: 40,
            interpreter_id: 48,
            threads_head: 16,
            thread_id: 152,
            native_thread_id: Some(160),
            thread_frame: 56,
            cframe_frame: Some(8),
            frame_previous: 48,
            frame_code: 32,
            frame_at: 56,
            at: At::Pointer,
            code_file: 112,
            code_name: 128,
            code_line_table: 136,
            code_first_line: 72,
            code_code: 184,
            line_table: LineTable::Locations,
            ..Layout::of_3_8(version)
        }
    }

    fn of_3_12(version: Version) -> Layout {
        Layout {
            interpreter_id: 8,
            threads_head: 72,
            thread_id: 136,
            native_thread_id: Some(144),
            cframe_frame: Some(0),
            frame_previous: 8,
            frame_code: 0,
            frame_owner: Some(70),
            code_first_line: 68,
            code_code: 192,
            string_ascii: 40,
            string_other: 56,
            ..Layout::of_3_11(version)
        }
    }

    /// The offsets that the interpreter says itself, from 3.13. `table` is the start of `_PyRuntime`.
    pub(crate) fn said(version: Version, table: &[u8]) -> Option<Layout> {
        let places = match version.minor {
            13 => &SAID_3_13,
            14 => &SAID_3_14,
            _ => return None,
        };
        // Structures that are read in one piece are small.
        let small = |place: usize| match u64_at(table, place) {
            offset if offset <= 1024 => Some(offset as usize),
            _ => None,
        };
        let large = |place: usize| Some(u64_at(table, place)).filter(|offset| *offset <= 16 << 20);
        let ascii = small(places.string_ascii)?;
        Some(Layout {
            interpreters_head: large(places.interpreters_head)?,
            interpreter_next: large(places.interpreter_next)?,
            interpreter_id: large(places.interpreter_id)?,
            threads_head: large(places.threads_head)?,
            thread_next: small(places.thread_next)?,
            thread_interpreter: small(places.thread_interpreter)?,
            thread_id: small(places.thread_id)?,
            native_thread_id: Some(small(places.native_thread_id)?),
            thread_frame: small(places.thread_frame)?,
            cframe_frame: None,
            frame_previous: small(places.frame_previous)?,
            frame_code: small(places.frame_code)?,
            frame_at: small(places.frame_at)?,
            frame_owner: Some(small(places.frame_owner)?),
            code_file: small(places.code_file)?,
            code_name: small(places.code_name)?,
            code_line_table: small(places.code_line_table)?,
            code_first_line: small(places.code_first_line)?,
            code_code: small(places.code_code)?,
            object_type: small(places.object_type)?,
            object_size: small(places.object_size)?,
            bytes_data: small(places.bytes_data)?,
            string_length: small(places.string_length)?,
            string_state: small(places.string_state)?,
            string_ascii: ascii,
            string_other: ascii + 16,
            ..Layout::of_3_12(version)
        })
    }
}

#[cfg(test)]
impl Layout {
    /// What a CPython of that layout has to say in `_Py_DebugOffsets`, and where.
    pub(crate) fn said_places(version: Version, layout: &Layout) -> Vec<(usize, u64)> {
        let places = if version.minor == 13 {
            &SAID_3_13
        } else {
            &SAID_3_14
        };
        vec![
            (places.interpreters_head, layout.interpreters_head),
            (places.interpreter_id, layout.interpreter_id),
            (places.interpreter_next, layout.interpreter_next),
            (places.threads_head, layout.threads_head),
            (places.thread_next, layout.thread_next as u64),
            (places.thread_interpreter, layout.thread_interpreter as u64),
            (places.thread_frame, layout.thread_frame as u64),
            (places.thread_id, layout.thread_id as u64),
            (
                places.native_thread_id,
                layout.native_thread_id.unwrap_or(0) as u64,
            ),
            (places.frame_previous, layout.frame_previous as u64),
            (places.frame_code, layout.frame_code as u64),
            (places.frame_at, layout.frame_at as u64),
            (places.frame_owner, layout.frame_owner.unwrap_or(0) as u64),
            (places.code_file, layout.code_file as u64),
            (places.code_name, layout.code_name as u64),
            (places.code_line_table, layout.code_line_table as u64),
            (places.code_first_line, layout.code_first_line as u64),
            (places.code_code, layout.code_code as u64),
            (places.object_type, layout.object_type as u64),
            (places.object_size, layout.object_size as u64),
            (places.bytes_data, layout.bytes_data as u64),
            (places.string_state, layout.string_state as u64),
            (places.string_length, layout.string_length as u64),
            (places.string_ascii, layout.string_ascii as u64),
        ]
    }
}

/// Where `_Py_DebugOffsets` has each offset.
struct Said {
    interpreters_head: usize,
    interpreter_id: usize,
    interpreter_next: usize,
    threads_head: usize,
    thread_next: usize,
    thread_interpreter: usize,
    thread_frame: usize,
    thread_id: usize,
    native_thread_id: usize,
    frame_previous: usize,
    frame_code: usize,
    frame_at: usize,
    frame_owner: usize,
    code_file: usize,
    code_name: usize,
    code_line_table: usize,
    code_first_line: usize,
    code_code: usize,
    object_type: usize,
    object_size: usize,
    bytes_data: usize,
    string_state: usize,
    string_length: usize,
    string_ascii: usize,
}

/// What `_Py_DebugOffsets` starts with.
pub(crate) const COOKIE: &[u8] = b"xdebugpy";
/// Where it says `PY_VERSION_HEX`.
pub(crate) const SAID_VERSION: usize = 8;
/// Where it says whether the interpreter was built without the GIL.
pub(crate) const SAID_FREE_THREADED: usize = 16;
/// How much of it is read.
pub(crate) const SAID_SIZE: usize = 656;

const SAID_3_13: Said = Said {
    interpreters_head: 40,
    interpreter_id: 56,
    interpreter_next: 64,
    threads_head: 72,
    thread_next: 168,
    thread_interpreter: 176,
    thread_frame: 184,
    thread_id: 192,
    native_thread_id: 200,
    frame_previous: 232,
    frame_code: 240,
    frame_at: 248,
    frame_owner: 264,
    code_file: 280,
    code_name: 296,
    code_line_table: 304,
    code_first_line: 312,
    code_code: 344,
    object_type: 360,
    object_size: 520,
    bytes_data: 528,
    string_state: 544,
    string_length: 552,
    string_ascii: 560,
};

const SAID_3_14: Said = Said {
    interpreters_head: 40,
    interpreter_id: 56,
    interpreter_next: 64,
    threads_head: 72,
    thread_next: 192,
    thread_interpreter: 200,
    thread_frame: 208,
    thread_id: 216,
    native_thread_id: 224,
    frame_previous: 256,
    frame_code: 264,
    frame_at: 272,
    frame_owner: 288,
    code_file: 320,
    code_name: 336,
    code_line_table: 344,
    code_first_line: 352,
    code_code: 384,
    object_type: 408,
    object_size: 600,
    bytes_data: 608,
    string_state: 624,
    string_length: 632,
    string_ascii: 640,
};

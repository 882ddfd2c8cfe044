//! A CPython made by hand, in a memory made by hand, for tests.

use std::cell::Cell;

use crate::Unreadable;
use crate::layout::{At, COOKIE, Layout, SAID_SIZE, Version};
use crate::lines::LineTable;
use crate::memory::Memory;

/// Where the memory starts. Nothing is below, and nothing behind its end.
pub(crate) const BASE: u64 = 0x40_0000;

/// A piece of memory, and how often it was read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fake {
    pub(crate) bytes: Vec<u8>,
    pub(crate) reads: Cell<u32>,
}

impl Memory for Fake {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Unreadable> {
        self.reads.set(self.reads.get() + 1);
        let fault = Unreadable::Fault { address };
        let start = address.checked_sub(BASE).ok_or(fault.clone())? as usize;
        let end = start.checked_add(into.len()).ok_or(fault.clone())?;
        into.copy_from_slice(self.bytes.get(start..end).ok_or(fault)?);
        Ok(())
    }
}

impl Fake {
    /// Room for `size` bytes of zero.
    pub(crate) fn room(&mut self, size: usize) -> u64 {
        let address = BASE + self.bytes.len() as u64;
        self.bytes
            .resize((self.bytes.len() + size).next_multiple_of(16), 0);
        address
    }

    pub(crate) fn write(&mut self, address: u64, bytes: &[u8]) {
        let start = (address - BASE) as usize;
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
    }

    pub(crate) fn put(&mut self, address: u64, value: u64) {
        self.write(address, &value.to_le_bytes());
    }

    fn put_int(&mut self, address: u64, value: u32) {
        self.write(address, &value.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) -> u64 {
        let address = self.room(bytes.len());
        self.write(address, bytes);
        address
    }
}

/// A process that runs a CPython with one thread.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) memory: Fake,
    /// Where the file is mapped that has the symbols.
    pub(crate) start: u64,
    pub(crate) layout: Layout,
    pub(crate) runtime: u64,
    pub(crate) thread: u64,
    /// The frames, the innermost first.
    pub(crate) frames: Vec<u64>,
    /// The code objects of `leaf` and `root`.
    pub(crate) codes: [u64; 2],
    pub(crate) file: u64,
}

/// The number of the thread.
pub(crate) const TID: u32 = 4711;
/// What each function is called, and where its frame is.
pub(crate) const FUNCTIONS: [(&str, u32); 2] = [("leaf", 12), ("root", 22)];
/// The file of them.
pub(crate) const FILE: &str = "/srv/client.py";

impl Process {
    /// A process of CPython `3.minor`, which says that it is `hex` if it says its version.
    pub(crate) fn new(minor: u8, hex: u64) -> Process {
        let version = Version {
            major: 3,
            minor,
            micro: None,
        };
        let layout = Layout::of(version).unwrap_or_else(|| {
            let newest = Layout::of(Version {
                minor: 12,
                ..version
            });
            Layout {
                version,
                cframe_frame: None,
                thread_frame: 72,
                ..newest.expect("3.12 is known")
            }
        });
        let mut process = Process {
            memory: Fake::default(),
            start: BASE,
            layout,
            runtime: 0,
            thread: 0,
            frames: Vec::new(),
            codes: [0; 2],
            file: 0,
        };
        process.memory.room(4096);
        let types = [408, 408, 408, 408].map(|size| process.memory.room(size));
        process.runtime = process.memory.room(4096);
        let version_at = process.memory.room(8);
        process.memory.put(version_at, hex);
        let mut symbols = vec![
            ("_PyRuntime", process.runtime),
            ("PyCode_Type", types[0]),
            ("PyUnicode_Type", types[1]),
            ("PyBytes_Type", types[2]),
            ("PyFrame_Type", types[3]),
        ];
        let marks = ["PyCode_NewWithPosOnlyArgs", "PyFrame_GetCode", "Py_NewRef"];
        symbols.extend(
            marks
                .iter()
                .take(usize::from(minor.max(7) - 7))
                .map(|mark| (*mark, process.runtime)),
        );
        if minor >= 11 {
            symbols.push(("Py_Version", version_at));
        }
        process.put_symbols(&symbols);
        if minor >= 13 {
            process.put_table(hex);
        }
        process.put_state(types);
        process
    }

    /// A file with a table of symbols, all of them in one bucket.
    fn put_symbols(&mut self, symbols: &[(&str, u64)]) {
        let memory = &mut self.memory;
        let mut names = vec![0];
        let table = memory.room(24 * (symbols.len() + 1));
        let hash = memory.room(16 + 8 + 4 + 4 * symbols.len());
        for (field, value) in [1, 1, 1, 0].into_iter().enumerate() {
            memory.put_int(hash + 4 * field as u64, value);
        }
        memory.put_int(hash + 24, 1);
        for (index, (name, address)) in symbols.iter().enumerate() {
            let entry = table + 24 * (index as u64 + 1);
            memory.put_int(entry, names.len() as u32);
            memory.put_int(entry + 4, 0x0001_0011);
            memory.put(entry + 8, *address - BASE);
            names.extend(name.bytes().chain([0]));
            let value = name
                .bytes()
                .fold(5381u32, |sum, byte| sum.wrapping_mul(33) + u32::from(byte));
            let last = u32::from(index + 1 == symbols.len());
            memory.put_int(hash + 28 + 4 * index as u64, value & !1 | last);
        }
        let names = memory.bytes(&names);
        let dynamic = memory.room(64);
        // Half of the addresses as glibc's loader leaves them, half as the file has them.
        for (index, (tag, value)) in [(5, names), (6, table - BASE), (0x6fff_fef5, hash)]
            .into_iter()
            .enumerate()
        {
            memory.put(dynamic + 16 * index as u64, tag);
            memory.put(dynamic + 16 * index as u64 + 8, value);
        }
        memory.write(BASE, b"\x7fELF\x02\x01");
        memory.put(BASE + 32, 64);
        memory.write(BASE + 54, &[56, 0, 2, 0]);
        memory.put_int(BASE + 64, 1);
        memory.put_int(BASE + 120, 2);
        memory.put(BASE + 120 + 16, dynamic - BASE);
        memory.put(BASE + 120 + 40, 64);
    }

    /// What 3.13 and later say of their layout.
    fn put_table(&mut self, hex: u64) {
        let runtime = self.runtime;
        self.layout.interpreters_head = 2048;
        self.memory.write(runtime, COOKIE);
        self.memory.put(runtime + 8, hex);
        for (place, value) in Layout::said_places(self.layout.version, &self.layout) {
            assert!(place + 8 <= SAID_SIZE, "{place} is not read");
            self.memory.put(runtime + place as u64, value);
        }
    }

    fn put_state(&mut self, types: [u64; 4]) {
        let layout = self.layout.clone();
        let [code_type, string_type, bytes_type, frame_type] = types;
        let interpreter = self.memory.room(1024);
        self.thread = self.memory.room(512);
        self.memory
            .put(self.runtime + layout.interpreters_head, interpreter);
        self.memory
            .put(interpreter + layout.threads_head, self.thread);
        let pthread = self.memory.room(1024);
        self.memory.put(pthread + 16, pthread);
        self.memory.put_int(pthread + 720, TID);
        let thread = self.thread;
        self.memory
            .put(thread + layout.thread_interpreter as u64, interpreter);
        self.memory.put(thread + layout.thread_id as u64, pthread);
        if let Some(offset) = layout.native_thread_id {
            self.memory.put(thread + offset as u64, u64::from(TID));
        }
        self.file = self.put_string(string_type, FILE);
        for (index, (function, line)) in FUNCTIONS.into_iter().enumerate() {
            let name = self.put_string(string_type, function);
            let table: &[u8] = match layout.line_table {
                LineTable::Pairs => &[2, 2, 2, 1],
                LineTable::Ranges => &[2, 0, 2, 2, 2, 1],
                LineTable::Locations => &[0xe8, 0, 0xe8, 4, 0xe8, 2],
            };
            let table = self.put_bytes(bytes_type, table);
            let byte_code = self.put_bytes(bytes_type, &[0; 6]);
            let code = self.memory.room(512);
            self.memory.put(code + layout.object_type as u64, code_type);
            self.memory.put(code + layout.code_file as u64, self.file);
            self.memory.put(code + layout.code_name as u64, name);
            self.memory.put(code + layout.code_line_table as u64, table);
            self.memory
                .put_int(code + layout.code_first_line as u64, line - 2);
            match layout.at {
                At::Pointer => self.memory.put(code + layout.object_size as u64, 3),
                At::Index(_) => self.memory.put(code + layout.code_code as u64, byte_code),
            }
            self.codes[index] = code;
        }
        let mut previous = 0;
        // From 3.12 a frame that only marks a call from C is between the two.
        let marks = layout.frame_owner.is_some();
        for (code, owner) in [(self.codes[1], 0), (1, 3), (self.codes[0], 1)] {
            if owner != 3 || marks {
                previous = self.put_frame(previous, code, owner, frame_type);
            }
        }
        let top = match layout.cframe_frame {
            Some(offset) => {
                let cframe = self.memory.room(32);
                self.memory.put(cframe + offset, previous);
                cframe
            }
            None => previous,
        };
        self.memory.put(thread + layout.thread_frame as u64, top);
    }

    fn put_frame(&mut self, previous: u64, code: u64, owner: u8, frame_type: u64) -> u64 {
        let layout = self.layout.clone();
        let frame = self.memory.room(128);
        // The lowest bit is how 3.14 says that it does not count this reference.
        let tag = u64::from(layout.version.minor == 14);
        let at = match layout.at {
            At::Pointer => code + layout.code_code as u64 + 2,
            At::Index(unit) => (2 / unit) as u64 | 77 << 32,
        };
        if let At::Index(_) = layout.at {
            self.memory
                .put(frame + layout.object_type as u64, frame_type);
        }
        self.memory
            .put(frame + layout.frame_previous as u64, previous);
        self.memory
            .put(frame + layout.frame_code as u64, code | tag);
        self.memory.put(frame + layout.frame_at as u64, at);
        if let Some(offset) = layout.frame_owner {
            self.memory.write(frame + offset as u64, &[owner]);
        }
        self.frames.insert(0, frame);
        frame
    }

    fn put_string(&mut self, string_type: u64, text: &str) -> u64 {
        let layout = self.layout.clone();
        let string = self.memory.room(layout.string_other + text.len());
        self.memory
            .put(string + layout.object_type as u64, string_type);
        self.memory
            .put(string + layout.string_length as u64, text.len() as u64);
        self.memory.put_int(
            string + layout.string_state as u64,
            1 | 1 << 2 | 1 << 5 | 1 << 6,
        );
        self.memory
            .write(string + layout.string_ascii as u64, text.as_bytes());
        string
    }

    fn put_bytes(&mut self, bytes_type: u64, bytes: &[u8]) -> u64 {
        let layout = self.layout.clone();
        let object = self.memory.room(layout.bytes_data + bytes.len());
        self.memory
            .put(object + layout.object_type as u64, bytes_type);
        self.memory
            .put(object + layout.object_size as u64, bytes.len() as u64);
        self.memory.write(object + layout.bytes_data as u64, bytes);
        object
    }
}

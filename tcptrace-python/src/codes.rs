//! Code objects that were read, remembered by their address.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::chain::code_address;
use crate::object::{Code, Objects};
use crate::{Frame, Unreadable};

/// Bytes of memory that the code objects of one interpreter may take.
const MAX_BYTES: usize = 512 << 10;

/// What was read of the code objects of one interpreter.
#[derive(Debug, Default)]
pub(crate) struct Codes {
    known: HashMap<u64, Code>,
    bytes: usize,
    /// Another one whenever something was forgotten.
    generation: u64,
}

impl Codes {
    /// Names a frame. A code object that is known is read again if it changed.
    pub(crate) fn frame(
        &mut self,
        objects: &Objects<'_>,
        word: u64,
        at: u64,
    ) -> Result<Frame, Unreadable> {
        let address = code_address(word);
        if !self.holds(objects, address) {
            self.forget(address);
            let code = objects.code(objects.head(address)?)?;
            if code.bytes() > MAX_BYTES / 4 {
                return code.frame(objects.layout, at);
            }
            self.keep(address, code);
        }
        let code = self.known.get(&address).ok_or(Unreadable::Gone)?;
        code.frame(objects.layout, at)
    }

    /// A number that stays the same for as long as what was said of known code objects holds; `None` if
    /// one of these is not known, or is another by now.
    pub(crate) fn unchanged(&self, objects: &Objects<'_>, raw: &[(u64, u64)]) -> Option<u64> {
        let hold = raw
            .iter()
            .all(|(word, _)| self.holds(objects, code_address(*word)));
        hold.then_some(self.generation)
    }

    /// Whether a code object is known, and is still the same.
    fn holds(&self, objects: &Objects<'_>, address: u64) -> bool {
        let Some(known) = self.known.get(&address) else {
            return false;
        };
        match objects.head(address) {
            Ok(head) => head == *known.head(),
            // What ran to the end of its process is what was read while it lived.
            Err(Unreadable::Gone) => true,
            Err(_) => false,
        }
    }

    fn forget(&mut self, address: u64) {
        if let Entry::Occupied(known) = self.known.entry(address) {
            self.bytes -= known.remove().bytes();
            self.generation += 1;
        }
    }

    fn keep(&mut self, address: u64, code: Code) {
        if self.bytes + code.bytes() > MAX_BYTES {
            self.known.clear();
            self.bytes = 0;
            self.generation += 1;
        }
        self.bytes += code.bytes();
        self.known.insert(address, code);
    }
}

#[cfg(test)]
mod tests {
    use super::{Codes, MAX_BYTES};
    use crate::fake::{FILE, FUNCTIONS, Process};
    use crate::layout::At;
    use crate::memory::{Memory, Reader, u64_at};
    use crate::runtime::Runtime;
    use crate::{Frame, Unreadable};

    fn process(minor: u8) -> (Process, Runtime) {
        let process = Process::new(minor, 0x0300_02f0 | u64::from(minor) << 16);
        let runtime = Runtime::find(&process.memory, &[process.start]).expect("a CPython");
        (process, runtime)
    }

    fn u64_of(process: &Process, address: u64) -> u64 {
        let mut word = [0; 8];
        process
            .memory
            .read(address, &mut word)
            .expect("it is there");
        u64::from_le_bytes(word)
    }

    /// The words that a program in the kernel copies, found as it finds them.
    fn walked(process: &Process, runtime: &Runtime) -> Vec<(u64, u64)> {
        let walk = runtime.kernel_walk(&process.memory).expect("a walk");
        let at = |base: u64, offset: u16| u64_of(process, base + u64::from(offset));
        let thread = u64_of(process, walk.threads);
        let top = at(thread, walk.thread_frame);
        let mut frame = walk.cframe_frame.map_or(top, |offset| at(top, offset));
        let mut words = Vec::new();
        while frame != 0 {
            let owner = walk.frame_owner.map_or(0, |offset| at(frame, offset) as u8);
            if owner < 3 {
                words.push((at(frame, walk.frame_code), at(frame, walk.frame_at)));
            }
            frame = at(frame, walk.frame_previous);
        }
        words
    }

    /// What becomes of the words, and the number of that answer.
    fn named(
        codes: &mut Codes,
        memory: &dyn Memory,
        runtime: &Runtime,
        raw: &[(u64, u64)],
    ) -> (Vec<Result<Frame, Unreadable>>, Option<u64>) {
        let reader = Reader::new(memory);
        let objects = runtime.objects(&reader);
        let frames = raw
            .iter()
            .map(|(code, at)| codes.frame(&objects, *code, *at))
            .collect();
        (frames, codes.unchanged(&objects, raw))
    }

    fn expected() -> Vec<Result<Frame, Unreadable>> {
        let frame = |(function, line): (&str, u32)| {
            Ok(Frame {
                file: FILE.to_owned(),
                function: function.to_owned(),
                line: Some(line),
            })
        };
        FUNCTIONS.map(frame).to_vec()
    }

    #[test]
    fn what_the_kernel_walked_is_named_on_each_version() {
        for minor in 8..=14 {
            let (process, runtime) = process(minor);
            let raw = walked(&process, &runtime);
            let mut codes = Codes::default();
            let (frames, generation) = named(&mut codes, &process.memory, &runtime, &raw);
            assert_eq!(frames, expected(), "3.{minor}");
            assert!(generation.is_some());
            let before = process.memory.reads.get();
            let again = named(&mut codes, &process.memory, &runtime, &raw);
            assert_eq!(again, (expected(), generation));
            let reads = process.memory.reads.get() - before;
            assert_eq!(reads, 4, "no name is read again");
        }
    }

    #[test]
    fn another_code_object_in_its_place_is_read() {
        for minor in 8..=14 {
            let (mut process, runtime) = process(minor);
            let raw = walked(&process, &runtime);
            let mut codes = Codes::default();
            let (_, before) = named(&mut codes, &process.memory, &runtime, &raw);
            let (layout, [leaf, root]) = (process.layout.clone(), process.codes);
            let name = u64_of(&process, root + layout.code_name as u64);
            process.memory.put(leaf + layout.code_name as u64, name);
            let reader = Reader::new(&process.memory);
            assert_eq!(codes.unchanged(&runtime.objects(&reader), &raw), None);
            let (frames, after) = named(&mut codes, &process.memory, &runtime, &raw);
            assert_eq!(frames[0].as_ref().expect("a frame").function, "root");
            assert!(after.is_some() && after != before);
        }
    }

    #[test]
    fn what_is_no_code_object_is_no_frame() {
        let (process, runtime) = process(12);
        let raw = [
            (process.file, 0),
            (0, 0),
            (u64::MAX, 1),
            (process.codes[0], 0),
        ];
        let (frames, generation) = named(&mut Codes::default(), &process.memory, &runtime, &raw);
        assert!(frames.iter().all(Result::is_err), "{frames:?}");
        assert_eq!(generation, None);
    }

    /// A process that ended.
    struct Gone;

    impl Memory for Gone {
        fn read(&self, _: u64, _: &mut [u8]) -> Result<(), Unreadable> {
            Err(Unreadable::Gone)
        }
    }

    #[test]
    fn what_was_read_outlives_the_process() {
        let (process, runtime) = process(12);
        let raw = walked(&process, &runtime);
        let mut codes = Codes::default();
        let before = named(&mut codes, &process.memory, &runtime, &raw);
        assert_eq!(named(&mut codes, &Gone, &runtime, &raw), before);
        let (frames, _) = named(&mut Codes::default(), &Gone, &runtime, &raw);
        assert!(frames.iter().all(|frame| *frame == Err(Unreadable::Gone)));
    }

    #[test]
    fn memory_is_bounded() {
        let (mut process, runtime) = process(12);
        let layout = process.layout.clone();
        let At::Pointer = layout.at else {
            panic!("3.12 has pointers");
        };
        let size = 64 << 10;
        let table = u64_of(&process, process.codes[0] + layout.code_line_table as u64);
        let bytes_type = u64_of(&process, table + layout.object_type as u64);
        let large = process.memory.room(layout.bytes_data + size);
        process
            .memory
            .put(large + layout.object_type as u64, bytes_type);
        process
            .memory
            .put(large + layout.object_size as u64, size as u64);
        let mut head = vec![0; 512];
        process
            .memory
            .read(process.codes[0], &mut head)
            .expect("it is there");
        assert_eq!(u64_at(&head, layout.code_line_table), table);
        let mut codes = Codes::default();
        for _ in 0..20 {
            let code = process.memory.room(512);
            process.memory.write(code, &head);
            process
                .memory
                .put(code + layout.code_line_table as u64, large);
            let raw = [(code, code + layout.code_code as u64)];
            let (frames, generation) = named(&mut codes, &process.memory, &runtime, &raw);
            assert!(frames[0].is_ok() && generation.is_some());
            assert!(codes.bytes <= MAX_BYTES);
        }
        assert!(codes.generation > 0 && codes.known.len() < 8);
    }
}

//! Python objects: strings, `bytes`, and code objects.

use crate::layout::{At, Layout};
use crate::memory::{Reader, u32_at, u64_at};
use crate::{Frame, Unreadable};

/// The longest file or function name, in characters.
const MAX_NAME: u64 = 4096;
/// The longest table of lines. That of a module with 100,000 lines is shorter.
const MAX_TABLE: u64 = 1 << 20;
/// The longest byte code of one function.
const MAX_CODE: u64 = 64 << 20;

/// The addresses of the types, which every object that is read is checked against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Types {
    pub(crate) code: u64,
    pub(crate) string: u64,
    pub(crate) bytes: u64,
    pub(crate) frame: u64,
}

/// Reads objects of one interpreter.
pub(crate) struct Objects<'a> {
    pub(crate) reader: &'a Reader<'a>,
    pub(crate) layout: &'a Layout,
    pub(crate) types: &'a Types,
}

/// The words of a code object, by which another one that took its place is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    address: u64,
    file: u64,
    name: u64,
    line_table: u64,
    first_line: i32,
    /// How many units of byte code it ends with, or before 3.11 the pointer to its `bytes`.
    byte_code: u64,
}

/// What a code object says of a function.
#[derive(Debug)]
pub(crate) struct Code {
    head: Head,
    file: String,
    function: String,
    table: Vec<u8>,
    start: u64,
    size: u64,
}

impl Objects<'_> {
    /// The words of the code object at `address`.
    pub(crate) fn head(&self, address: u64) -> Result<Head, Unreadable> {
        let layout = self.layout;
        let byte_code = match layout.at {
            At::Pointer => layout.object_size,
            At::Index(_) => layout.code_code,
        };
        let last = [
            layout.code_file,
            layout.code_name,
            layout.code_line_table,
            layout.code_first_line,
            byte_code,
        ];
        let object = self.object(address, last.into_iter().max().unwrap_or(0) + 8)?;
        if u64_at(&object, layout.object_type) != self.types.code {
            return Err(Unreadable::Invalid("a frame without a code object"));
        }
        Ok(Head {
            address,
            file: u64_at(&object, layout.code_file),
            name: u64_at(&object, layout.code_name),
            line_table: u64_at(&object, layout.code_line_table),
            first_line: u32_at(&object, layout.code_first_line).cast_signed(),
            byte_code: u64_at(&object, byte_code),
        })
    }

    /// What the code object of these words says.
    pub(crate) fn code(&self, head: Head) -> Result<Code, Unreadable> {
        let (start, size) = match self.layout.at {
            At::Pointer => (
                head.address.wrapping_add(self.layout.code_code as u64),
                head.byte_code.saturating_mul(2),
            ),
            At::Index(_) => (0, self.bytes_size(head.byte_code)?.1),
        };
        if size > MAX_CODE {
            return Err(Unreadable::Invalid("byte code without end"));
        }
        Ok(Code {
            head,
            file: self.string(head.file)?,
            function: self.string(head.name)?,
            table: self.bytes(head.line_table)?,
            start,
            size,
        })
    }

    /// The characters of the string at `address`.
    fn string(&self, address: u64) -> Result<String, Unreadable> {
        let layout = self.layout;
        let object = self.object(address, layout.string_other)?;
        if u64_at(&object, layout.object_type) != self.types.string {
            return Err(Unreadable::Invalid("a name that is no string"));
        }
        let length = u64_at(&object, layout.string_length);
        if length > MAX_NAME {
            return Err(Unreadable::Invalid("a name of more than 4096 characters"));
        }
        let Some(form) = Form::of(u32_at(&object, layout.string_state)) else {
            return Err(Unreadable::Invalid("a string of an unknown form"));
        };
        let offset = if form.ascii {
            layout.string_ascii
        } else {
            layout.string_other
        };
        let characters = address.wrapping_add(offset as u64);
        Ok(form.text(
            &self
                .reader
                .bytes(characters, length as usize * form.width)?,
        ))
    }

    /// What is in the `bytes` at `address`.
    fn bytes(&self, address: u64) -> Result<Vec<u8>, Unreadable> {
        let (data, size) = self.bytes_size(address)?;
        if size > MAX_TABLE {
            return Err(Unreadable::Invalid("a line table without end"));
        }
        self.reader.bytes(data, size as usize)
    }

    fn bytes_size(&self, address: u64) -> Result<(u64, u64), Unreadable> {
        let layout = self.layout;
        let object = self.object(address, layout.object_size.max(layout.object_type) + 8)?;
        if u64_at(&object, layout.object_type) != self.types.bytes {
            return Err(Unreadable::Invalid("a table that is no bytes object"));
        }
        let data = address.wrapping_add(layout.bytes_data as u64);
        Ok((data, u64_at(&object, layout.object_size)))
    }

    fn object(&self, address: u64, size: usize) -> Result<Vec<u8>, Unreadable> {
        if address & 7 != 0 {
            return Err(Unreadable::Invalid("an object at an odd address"));
        }
        self.reader.bytes(address, size)
    }
}

impl Code {
    /// Where this code object is.
    pub(crate) fn address(&self) -> u64 {
        self.head.address
    }

    /// Its words when it was read.
    pub(crate) fn head(&self) -> &Head {
        &self.head
    }

    /// Bytes of memory that it takes here, about.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Code>() + self.file.len() + self.function.len() + self.table.len()
    }

    /// The frame that says `raw` for the instruction it is at.
    pub(crate) fn frame(&self, layout: &Layout, raw: u64) -> Result<Frame, Unreadable> {
        Ok(Frame {
            file: self.file.clone(),
            function: self.function.clone(),
            line: self.line(layout, raw)?,
        })
    }

    /// The line of a frame that says `raw` for the instruction it is at.
    fn line(&self, layout: &Layout, raw: u64) -> Result<Option<u32>, Unreadable> {
        let at = match layout.at {
            // Only the lower half is the number.
            At::Index(unit) => i64::from((raw as u32).cast_signed()) * unit,
            At::Pointer => raw.wrapping_sub(self.start).cast_signed(),
        };
        // Before the first instruction it has started none.
        if at < -2 || at >= self.size.cast_signed() {
            return Err(Unreadable::Invalid("an instruction outside its function"));
        }
        Ok(layout
            .line_table
            .line(&self.table, self.head.first_line, at))
    }
}

/// How a string has its characters.
#[derive(Debug, PartialEq, Eq)]
struct Form {
    width: usize,
    ascii: bool,
}

impl Form {
    /// The form of a compact string. `state` starts with two bits for interning, and 3.14 had also 8 and
    /// 16; they are followed by three bits of width, and one each for compact and ASCII.
    fn of(state: u32) -> Option<Form> {
        let interning = match state {
            state if state & 0xfc != 0 => 2,
            state if state & 0xff00 != 0 => 8,
            _ => 16,
        };
        let bits = state >> interning;
        let (width, compact, ascii) = (bits & 7, bits & 8 != 0, bits & 16 != 0);
        let known = matches!(width, 1 | 2 | 4) && compact && (!ascii || width == 1);
        known.then_some(Form {
            width: width as usize,
            ascii,
        })
    }

    /// What is no character, such as half a surrogate pair, becomes U+FFFD.
    fn text(&self, characters: &[u8]) -> String {
        let number = |bytes: &[u8]| {
            bytes
                .iter()
                .rev()
                .fold(0u32, |sum, byte| sum << 8 | u32::from(*byte))
        };
        let text = characters.chunks_exact(self.width).map(number);
        text.map(|number| char::from_u32(number).unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Form;

    /// The state of a string as 3.8 to 3.13 have it.
    fn state(width: u32, compact: bool, ascii: bool) -> u32 {
        let interned = 1;
        interned | width << 2 | u32::from(compact) << 5 | u32::from(ascii) << 6
    }

    #[test]
    fn strings_have_three_widths() {
        let ascii = Form::of(state(1, true, true)).unwrap();
        assert_eq!(
            ascii,
            Form {
                width: 1,
                ascii: true
            }
        );
        assert_eq!(ascii.text(b"client.py"), "client.py");
        let latin = Form::of(state(1, true, false)).unwrap();
        assert_eq!(latin.text(&[0xfc, b'.']), "ü.");
        let two = Form::of(state(2, true, false)).unwrap();
        assert_eq!(two.text(&[0x2d, 0x4e, 0x00, 0xdc]), "中\u{fffd}");
        let four = Form::of(state(4, true, false)).unwrap();
        assert_eq!(four.text(&[0x00, 0xf6, 0x01, 0x00]), "😀");
    }

    #[test]
    fn forms_that_cannot_be_are_refused() {
        assert_eq!(Form::of(0), None);
        assert_eq!(Form::of(state(1, false, true)), None, "not compact");
        assert_eq!(
            Form::of(state(3, true, false)),
            None,
            "three bytes a character"
        );
        assert_eq!(Form::of(state(2, true, true)), None, "ASCII of two bytes");
    }

    #[test]
    fn wider_interning_is_told_apart() {
        let (bits, ascii) = (
            state(1, true, true) >> 2,
            Some(Form {
                width: 1,
                ascii: true,
            }),
        );
        assert_eq!(Form::of(bits << 2 | 3), ascii);
        assert_eq!(Form::of(bits << 8 | 1), ascii);
        assert_eq!(Form::of(bits << 16 | 2), ascii);
    }
}

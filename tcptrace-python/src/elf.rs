//! Dynamic symbols of a program or library, read from where it is mapped.
//!
//! What the loader reads is in memory: the program headers, the dynamic section, the symbol table and
//! its hash table. Reading them there needs no file, so it is the same in a container, for a deleted
//! file and for a stripped one, and the symbols are those of the code that runs.

use crate::Unreadable;
use crate::memory::{Reader, u16_at, u32_at, u64_at};

const MAX_PROGRAM_HEADERS: u16 = 64;
const MAX_DYNAMIC: u64 = 64 << 10;
const MAX_CHAIN: u32 = 1024;

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const DT_STRTAB: u64 = 5;
const DT_SYMTAB: u64 = 6;
const DT_GNU_HASH: u64 = 0x6fff_fef5;
const SYMBOL_SIZE: u64 = 24;

/// The tables of dynamic symbols of one mapped file.
#[derive(Debug)]
pub(crate) struct Symbols {
    bias: u64,
    strings: u64,
    symbols: u64,
    buckets: u64,
    bucket_count: u32,
    chains: u64,
    first_hashed: u32,
}

impl Symbols {
    /// The symbols of the file whose start is mapped at `start`, or none when it is not a 64-bit
    /// little-endian ELF file with a GNU hash table.
    pub(crate) fn read(reader: &Reader<'_>, start: u64) -> Result<Option<Symbols>, Unreadable> {
        let header = reader.bytes(start, 64)?;
        if !header.starts_with(b"\x7fELF\x02\x01") {
            return Ok(None);
        }
        let (offset, size, count) = (
            u64_at(&header, 32),
            u16_at(&header, 54),
            u16_at(&header, 56),
        );
        if size != 56 || count > MAX_PROGRAM_HEADERS {
            return Ok(None);
        }
        let headers = reader.bytes(
            start.wrapping_add(offset),
            usize::from(size) * usize::from(count),
        )?;
        let mut bias = None;
        let mut dynamic = None;
        for header in headers.chunks_exact(56) {
            let (file_offset, address, size) =
                (u64_at(header, 8), u64_at(header, 16), u64_at(header, 40));
            match u32_at(header, 0) {
                PT_LOAD if file_offset == 0 => bias = Some(start.wrapping_sub(address)),
                PT_DYNAMIC => dynamic = Some((address, size.min(MAX_DYNAMIC))),
                _ => {}
            }
        }
        let (Some(bias), Some((address, size))) = (bias, dynamic) else {
            return Ok(None);
        };
        let section = reader.bytes(bias.wrapping_add(address), size as usize)?;
        Symbols::tables(reader, start, bias, &section)
    }

    fn tables(
        reader: &Reader<'_>,
        start: u64,
        bias: u64,
        dynamic: &[u8],
    ) -> Result<Option<Symbols>, Unreadable> {
        let table = |wanted: u64| {
            let entry = dynamic
                .chunks_exact(16)
                .find(|entry| u64_at(entry, 0) == wanted)?;
            let address = u64_at(entry, 8);
            // glibc's loader writes the address over what the file says, musl's does not.
            Some(if address < start {
                bias.wrapping_add(address)
            } else {
                address
            })
        };
        let (Some(strings), Some(symbols), Some(hash)) =
            (table(DT_STRTAB), table(DT_SYMTAB), table(DT_GNU_HASH))
        else {
            return Ok(None);
        };
        let header = reader.bytes(hash, 16)?;
        let (bucket_count, first_hashed, bloom_words) =
            (u32_at(&header, 0), u32_at(&header, 4), u32_at(&header, 8));
        if bucket_count == 0 {
            return Ok(None);
        }
        let buckets = hash.wrapping_add(16 + 8 * u64::from(bloom_words));
        let chains = buckets.wrapping_add(4 * u64::from(bucket_count));
        Ok(Some(Symbols {
            bias,
            strings,
            symbols,
            buckets,
            bucket_count,
            chains,
            first_hashed,
        }))
    }

    /// The address of a symbol that this file defines.
    pub(crate) fn find(&self, reader: &Reader<'_>, name: &str) -> Result<Option<u64>, Unreadable> {
        let wanted = gnu_hash(name);
        let mut word = [0; 4];
        let bucket = u64::from(wanted % self.bucket_count);
        reader.fill(self.buckets.wrapping_add(4 * bucket), &mut word)?;
        let mut index = u32::from_le_bytes(word);
        if index < self.first_hashed {
            return Ok(None);
        }
        for _ in 0..MAX_CHAIN {
            let place = u64::from(index - self.first_hashed);
            reader.fill(self.chains.wrapping_add(4 * place), &mut word)?;
            let hash = u32::from_le_bytes(word);
            if hash | 1 == wanted | 1
                && let Some(address) = self.symbol(reader, index, name)?
            {
                return Ok(Some(address));
            }
            let Some(next) = index.checked_add(1).filter(|_| hash & 1 == 0) else {
                break;
            };
            index = next;
        }
        Ok(None)
    }

    fn symbol(
        &self,
        reader: &Reader<'_>,
        index: u32,
        name: &str,
    ) -> Result<Option<u64>, Unreadable> {
        let symbol = reader.bytes(
            self.symbols.wrapping_add(SYMBOL_SIZE * u64::from(index)),
            24,
        )?;
        let (at, section, value) = (u32_at(&symbol, 0), u16_at(&symbol, 6), u64_at(&symbol, 8));
        let read = reader.bytes(self.strings.wrapping_add(u64::from(at)), name.len() + 1)?;
        let same = read
            .split_last()
            .is_some_and(|(end, text)| *end == 0 && text == name.as_bytes());
        Ok((same && section != 0).then(|| self.bias.wrapping_add(value)))
    }
}

fn gnu_hash(name: &str) -> u32 {
    name.bytes().fold(5381u32, |hash, byte| {
        hash.wrapping_mul(33).wrapping_add(u32::from(byte))
    })
}

#[cfg(test)]
mod tests {
    use super::gnu_hash;

    #[test]
    fn names_hash_as_the_gnu_linker_hashes_them() {
        assert_eq!(gnu_hash(""), 0x1505);
        assert_eq!(gnu_hash("printf"), 0x156b_2bb8);
    }
}

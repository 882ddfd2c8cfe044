//! What programs are attached by: types of the kernel, told to aya by their numbers.
//!
//! aya finds them in the kernel's BTF, which it parses as a whole and searches from its beginning
//! for each program. What it gets is BTF with the same numbers and no other names.

use std::collections::BTreeMap;

use aya::Endianness;
use zerocopy::IntoBytes as _;

use super::btf::{Btf, CONST, FUNC, HEADER, Kind, MAGIC, TYPEDEF, TypeId, VERSION};
use super::candidates::CANDIDATES;
use super::programs::On;

/// The types that any program can be attached by, of those that this kernel has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Targets(BTreeMap<TypeId, (u8, String)>);

impl Targets {
    pub(super) fn find(btf: &Btf) -> Targets {
        let attachments = CANDIDATES.iter().flat_map(|row| row.programs);
        let names = attachments.filter_map(|attachment| match attachment.on {
            On::TpBtf(event) => Some((Kind::Typedef, TYPEDEF, format!("btf_trace_{event}"))),
            On::Fentry(function) | On::Fexit(function) => {
                Some((Kind::Func, FUNC, function.to_owned()))
            }
            On::Iter(target) => Some((Kind::Func, FUNC, format!("bpf_iter_{target}"))),
            On::RawTp(_) | On::Tracepoint(..) | On::Kprobe(_) | On::SockCreate | On::SockOps => {
                None
            }
        });
        let found = names.filter_map(|(of, kind, name)| Some((btf.find(of, &name)?, (kind, name))));
        Targets(found.collect())
    }

    /// BTF in which aya finds them.
    ///
    /// # Errors
    /// None that is known: it is well-formed.
    pub(super) fn to_aya(&self) -> Result<aya::Btf, aya::BtfError> {
        aya::Btf::parse(&self.to_bytes(), Endianness::default())
    }

    fn to_bytes(&self) -> Vec<u8> {
        let last = self.0.keys().last().map_or(0, |id| *id as usize);
        // A record is its name, its kind, and the type that it is of.
        let mut records = vec![[0, u32::from(CONST) << 24, 0]; last];
        let mut strings = vec![0];
        for (id, (kind, name)) in &self.0 {
            records[*id as usize - 1] = [strings.len() as u32, u32::from(*kind) << 24, 0];
            strings.extend(name.bytes().chain([0]));
        }
        let types = records.as_bytes();
        let [low, high] = MAGIC.to_ne_bytes();
        let (types_len, strings_len) = (types.len() as u32, strings.len() as u32);
        let header = [
            u32::from_ne_bytes([low, high, VERSION, 0]),
            HEADER as u32,
            0,
            types_len,
            types_len,
            strings_len,
        ];
        [header.as_bytes(), types, &strings].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::super::member::tests::Builder;
    use super::*;

    #[test]
    fn they_keep_their_numbers() {
        let mut b = Builder::new();
        let int = b.int("int", 4);
        let event = b.ty("btf_trace_timer_start", TYPEDEF, false, 0, int, &[]);
        b.ty("btf_trace_of_no_interest", TYPEDEF, false, 0, int, &[]);
        let bytes = Targets::find(&Btf::parse(b.bytes()).unwrap()).to_bytes();
        let btf = Btf::parse(bytes.clone()).unwrap();
        assert_eq!(
            btf.find(Kind::Typedef, "btf_trace_timer_start"),
            Some(event)
        );
        assert_eq!(btf.find(Kind::Typedef, "btf_trace_of_no_interest"), None);
        assert_eq!(btf.types(), event as usize);
        assert!(aya::Btf::parse(&bytes, Endianness::default()).is_ok());
    }

    #[test]
    fn none_are_well_formed_as_well() {
        assert!(Targets::default().to_aya().is_ok());
    }
}

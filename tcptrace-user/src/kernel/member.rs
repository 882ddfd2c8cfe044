//! Where a field lies: a path such as `__sk_common.skc_num` resolved in a struct of the BTF.

use thiserror::Error;

use super::btf::{self, Btf, Kind, Record, TypeId};

/// A field that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    /// Bytes from the start of the struct.
    pub(crate) offset: u32,
    /// Bytes it takes; 0 where the type has no size of its own.
    pub(crate) size: u32,
}

/// Why a field has no offset.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum MemberError {
    /// No such struct or union.
    #[error("this kernel has no struct {0}")]
    NoStruct(String),
    /// The struct is there, the field is not.
    #[error("struct {structure} has no member {member}")]
    NoMember {
        /// The struct that was asked for.
        structure: String,
        /// The part of the path that was not found.
        member: String,
    },
    /// The field is a bit-field, which has no address.
    #[error("{member} of struct {structure} is a bit-field")]
    BitField {
        /// The struct that was asked for.
        structure: String,
        /// The bit-field.
        member: String,
    },
    /// Structs in structs beyond all measure: damaged or hostile bytes.
    #[error("struct {0} nests without end in this BTF")]
    TooDeep(String),
}

impl Btf {
    /// The place of `path` (members joined by dots) in `structure`, looking into anonymous
    /// members, be their type named (`struct slock_owned;` with -fms-extensions) or not.
    ///
    /// # Errors
    /// When the struct or the field is not there, or is a bit-field.
    pub(crate) fn field(&self, structure: &str, path: &str) -> Result<Field, MemberError> {
        let mut error = MemberError::NoStruct(structure.to_owned());
        // One for all of that name: damaged bytes may have any number of them.
        let mut budget = MAX_VISITED;
        for id in self.find_all(Kind::Struct, structure) {
            match self.resolve(id, structure, path, &mut budget) {
                Err(e @ MemberError::TooDeep(_)) => return Err(e),
                Ok(field) => return Ok(field),
                Err(e) => error = e,
            }
        }
        Err(error)
    }

    fn resolve(
        &self,
        root: TypeId,
        structure: &str,
        path: &str,
        budget: &mut u32,
    ) -> Result<Field, MemberError> {
        let mut ty = root;
        let mut offset = 0_u32;
        for name in path.split('.') {
            let missing = || MemberError::NoMember {
                structure: structure.to_owned(),
                member: name.to_owned(),
            };
            let record = self.data(ty).ok_or_else(missing)?;
            *budget = budget.saturating_sub(1);
            let found = match self.search(record, name.as_bytes(), 0, budget) {
                Some(found) => found,
                None if *budget == 0 => return Err(MemberError::TooDeep(structure.to_owned())),
                None => return Err(missing()),
            };
            if found.bitfield {
                let (structure, member) = (structure.to_owned(), name.to_owned());
                return Err(MemberError::BitField { structure, member });
            }
            offset = offset.checked_add(found.bits / 8).ok_or_else(missing)?;
            ty = found.ty;
        }
        Ok(Field {
            offset,
            size: self.size(ty),
        })
    }

    /// A member by name, here or in the anonymous members; its place in bits from here.
    fn search(&self, record: Record, name: &[u8], depth: u32, budget: &mut u32) -> Option<Found> {
        for member in self.members(record) {
            *budget = budget.checked_sub(1)?;
            if member.name != 0 {
                if self.string(member.name) == name {
                    let bitfield = member.bitfield || self.is_bitfield(member.ty, member.bits);
                    return Some(Found {
                        ty: member.ty,
                        bits: member.bits,
                        bitfield,
                    });
                }
            } else if depth < MAX_DEPTH
                && let Some(inner) = self.data(member.ty)
                && let Some(found) = self.search(inner, name, depth + 1, budget)
            {
                return Some(Found {
                    bits: found.bits.checked_add(member.bits)?,
                    ..found
                });
            }
        }
        None
    }

    /// Bit-fields as BTF without the kind flag writes them: an integer narrower than its bytes, or
    /// a place that is no whole byte.
    fn is_bitfield(&self, ty: TypeId, bits: u32) -> bool {
        let narrow = self.data(ty).is_some_and(|r| {
            let encoding = self.u32(r.body);
            r.kind == btf::INT
                && (encoding >> 16 & 0xff != 0
                    || encoding & 0xff != r.size_or_type.saturating_mul(8))
        });
        narrow || !bits.is_multiple_of(8)
    }

    fn size(&self, ty: TypeId) -> u32 {
        let Some(record) = self.data(ty) else {
            return 0;
        };
        match record.kind {
            btf::INT | btf::STRUCT | btf::UNION | btf::ENUM | btf::ENUM64 => record.size_or_type,
            btf::PTR => 8,
            btf::ARRAY => {
                let (element, count) = (self.u32(record.body), self.u32(record.body + 8));
                // An array of arrays has no size here; none of our fields is one.
                match self.data(element) {
                    Some(r) if r.kind != btf::ARRAY => self.size(element).saturating_mul(count),
                    _ => 0,
                }
            }
            _ => 0,
        }
    }

    /// The record behind typedefs and qualifiers.
    fn data(&self, ty: TypeId) -> Option<Record> {
        self.record(self.skip(ty, btf::MODIFIERS)?)
    }
}

struct Found {
    ty: TypeId,
    bits: u32,
    bitfield: bool,
}

/// Anonymous structs in anonymous structs: the kernel has three levels.
const MAX_DEPTH: u32 = 16;
/// Members looked at for one field: `task_struct` has fewer than a thousand.
const MAX_VISITED: u32 = 100_000;

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::super::btf::{BtfError, Param};
    use super::*;

    /// A BTF under construction: types are numbered from 1 in the order they are added.
    pub(in super::super) struct Builder {
        types: Vec<u8>,
        strings: Vec<u8>,
        next: TypeId,
    }

    impl Builder {
        pub(in super::super) fn new() -> Builder {
            Builder {
                types: Vec::new(),
                strings: vec![0],
                next: 1,
            }
        }

        pub(in super::super) fn string(&mut self, text: &str) -> u32 {
            if text.is_empty() {
                return 0;
            }
            let at = self.strings.len() as u32;
            self.strings.extend(text.bytes());
            self.strings.push(0);
            at
        }

        fn words(&mut self, words: &[u32]) {
            self.types
                .extend(words.iter().flat_map(|w| w.to_ne_bytes()));
        }

        pub(in super::super) fn ty(
            &mut self,
            name: &str,
            kind: u8,
            flag: bool,
            vlen: u32,
            size_or_type: u32,
            body: &[u32],
        ) -> TypeId {
            let name = self.string(name);
            let info = u32::from(flag) << 31 | u32::from(kind) << 24 | vlen;
            self.words(&[name, info, size_or_type]);
            self.words(body);
            self.next += 1;
            self.next - 1
        }

        pub(in super::super) fn int(&mut self, name: &str, bytes: u32) -> TypeId {
            self.ty(name, btf::INT, false, 0, bytes, &[bytes * 8])
        }

        /// Members are (name, type, offset word as BTF has it).
        pub(in super::super) fn structure(
            &mut self,
            name: &str,
            kind: u8,
            flag: bool,
            members: &[(&str, TypeId, u32)],
        ) -> TypeId {
            let body: Vec<u32> = members
                .iter()
                .flat_map(|(n, ty, at)| [self.string(n), *ty, *at])
                .collect();
            self.ty(name, kind, flag, members.len() as u32, 64, &body)
        }

        pub(in super::super) fn bytes(self) -> Vec<u8> {
            let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
            let mut bytes = vec![0x9f, 0xeb, 1, 0];
            for word in [24, 0, types, types, strings] {
                bytes.extend(u32::to_ne_bytes(word));
            }
            bytes.extend(self.types);
            bytes.extend(self.strings);
            bytes
        }
    }

    /// Bytes with some of them changed: whole, and cut off.
    pub(in super::super) fn damaged(
        mut bytes: Vec<u8>,
        hits: Vec<(Index, u8)>,
        cut: Index,
    ) -> [Vec<u8>; 2] {
        for (at, byte) in hits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let short = bytes[..cut.index(bytes.len())].to_vec();
        [bytes, short]
    }

    /// A small kernel: an anonymous union, a tagged anonymous member, a bit-field, a tracepoint.
    fn sample() -> Vec<u8> {
        let mut b = Builder::new();
        let int = b.int("int", 4);
        let owned = b.structure("slock_owned", btf::STRUCT, false, &[("owned", int, 32)]);
        let anonymous = b.structure("", btf::UNION, false, &[("first", int, 0), ("", owned, 0)]);
        let lock = b.structure(
            "",
            btf::STRUCT,
            false,
            &[("slock", int, 0), ("", anonymous, 64)],
        );
        let lock_t = b.ty("socket_lock_t", 8, false, 0, lock, &[]);
        let sock = b.structure(
            "sock",
            btf::STRUCT,
            true,
            &[
                ("sk_lock", lock_t, 128),
                ("sk_flag", int, 3 << 24 | 40),
                ("sk_err", int, 96),
            ],
        );
        let narrow = b.ty("", btf::INT, false, 0, 4, &[3]);
        b.structure(
            "old",
            btf::STRUCT,
            false,
            &[("narrow", narrow, 0), ("odd", int, 3)],
        );
        let constant = b.ty("", 10, false, 0, sock, &[]);
        let pointer = b.ty("", btf::PTR, false, 0, constant, &[]);
        let data = b.ty("", btf::PTR, false, 0, 0, &[]);
        let (n_sk, n_state) = (b.string("sk"), b.string("newstate"));
        let proto = b.ty("", 13, false, 3, 0, &[0, data, n_sk, pointer, n_state, int]);
        let to_proto = b.ty("", btf::PTR, false, 0, proto, &[]);
        b.ty("btf_trace_set_state", 8, false, 0, to_proto, &[]);
        b.ty("tcp_close", 12, false, 0, proto, &[]);
        b.bytes()
    }

    fn no_member(structure: &str, member: &str) -> MemberError {
        MemberError::NoMember {
            structure: structure.into(),
            member: member.into(),
        }
    }

    #[test]
    fn fields_are_found_in_anonymous_and_tagged_members() {
        let btf = Btf::parse(sample()).unwrap();
        assert_eq!(
            btf.field("sock", "sk_err"),
            Ok(Field {
                offset: 12,
                size: 4
            })
        );
        assert_eq!(
            btf.field("sock", "sk_lock.first"),
            Ok(Field {
                offset: 24,
                size: 4
            })
        );
        assert_eq!(
            btf.field("sock", "sk_lock.owned"),
            Ok(Field {
                offset: 28,
                size: 4
            })
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let btf = Btf::parse(sample()).unwrap();
        assert_eq!(
            btf.field("socket", "sk"),
            Err(MemberError::NoStruct("socket".into()))
        );
        assert_eq!(
            btf.field("sock", "sk_lock.wq"),
            Err(no_member("sock", "wq"))
        );
        assert_eq!(btf.field("sock", "sk_err.x"), Err(no_member("sock", "x")));
    }

    #[test]
    fn bit_fields_are_refused_in_both_encodings() {
        let btf = Btf::parse(sample()).unwrap();
        for (structure, member) in [("sock", "sk_flag"), ("old", "narrow"), ("old", "odd")] {
            let expected = MemberError::BitField {
                structure: structure.into(),
                member: member.into(),
            };
            assert_eq!(btf.field(structure, member), Err(expected));
        }
    }

    #[test]
    fn prototypes_are_read() {
        let btf = Btf::parse(sample()).unwrap();
        let param = |name: &str, ty: &str| Param {
            name: name.into(),
            ty: ty.into(),
        };
        let (_, params) = btf.tracepoint("set_state").unwrap();
        assert_eq!(
            params,
            [param("sk", "struct sock *"), param("newstate", "int")]
        );
        assert_eq!(btf.function("tcp_close").unwrap()[0], param("", "void *"));
        assert!(btf.tracepoint("nothing").is_none());
        assert!(btf.function("sock").is_none());
    }

    #[test]
    fn types_that_contain_themselves_end() {
        let mut b = Builder::new();
        b.structure("loop", btf::STRUCT, false, &[("", 1, 0), ("", 1, 0)]);
        b.ty("chain", 8, false, 0, 2, &[]);
        b.structure("holder", btf::STRUCT, false, &[("chain", 2, 0)]);
        let btf = Btf::parse(b.bytes()).unwrap();
        assert_eq!(
            btf.field("loop", "x"),
            Err(MemberError::TooDeep("loop".into()))
        );
        assert_eq!(
            btf.field("holder", "chain.x"),
            Err(no_member("holder", "x"))
        );
        assert_eq!(
            btf.field("holder", "chain"),
            Ok(Field { offset: 0, size: 0 })
        );
    }

    #[test]
    fn an_unknown_kind_is_an_error_and_not_a_guess() {
        let mut b = Builder::new();
        b.ty("future", 25, false, 0, 0, &[]);
        let error = Btf::parse(b.bytes()).err();
        assert_eq!(error, Some(BtfError::UnknownKind { id: 1, kind: 25 }));
    }

    /// Every question, whatever the answer.
    fn ask(bytes: Vec<u8>) {
        if let Ok(btf) = Btf::parse(bytes) {
            for path in ["sk_lock.owned", "sk_err", "narrow", "x"] {
                for structure in ["sock", "old", "loop", ""] {
                    let _ = btf.field(structure, path);
                }
            }
            let _ = btf.tracepoint("set_state");
            let _ = btf.function("tcp_close");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            ask(bytes);
        }

        #[test]
        fn no_damage_to_a_good_one_panics(
            cut in any::<Index>(),
            hits in proptest::collection::vec((any::<Index>(), any::<u8>()), 0..8),
        ) {
            damaged(sample(), hits, cut).into_iter().for_each(ask);
        }
    }
}

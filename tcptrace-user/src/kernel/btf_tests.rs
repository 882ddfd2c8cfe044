//! A kernel's BTF, cut down to what is asked of it, whole and damaged in every way.
//!
//! `BLESS=NAME=FILE` makes the fixture of that name from a kernel's whole BTF.

use std::collections::BTreeMap;
use std::path::PathBuf;

use proptest::prelude::*;
use proptest::sample::Index;

use super::super::inspect::VMLINUX;
use super::super::known::{HOST, KNOWN};
use super::super::layout;
use super::super::member::tests::{Builder, damaged};
use super::super::prototypes::{FUNCTIONS, TRACEPOINTS};
use super::*;

#[test]
fn the_layouts_of_known_kernels() {
    for kernel in &KNOWN {
        let btf = Btf::parse(kernel.btf.to_vec()).unwrap();
        let (layout, absences) = layout::resolve(&btf).unwrap();
        let functions: Vec<_> = FUNCTIONS
            .iter()
            .map(|(name, ..)| {
                let params = btf.function(name).unwrap_or_default();
                let types: Vec<_> = params.into_iter().map(|p| p.ty).collect();
                format!("{name}({})", types.join(", "))
            })
            .collect();
        insta::assert_debug_snapshot!(kernel.snapshot(), (layout, absences, functions));
    }
}

#[test]
fn what_is_cut_away_is_not_missed() {
    let Some(own) = own() else { return };
    let trimmed = Btf::parse(trim(&own)).unwrap();
    assert_eq!(layout::resolve(&trimmed), layout::resolve(&own));
    for (name, _) in TRACEPOINTS {
        let params = |btf: &Btf| btf.tracepoint(name).map(|(_, params)| params);
        assert_eq!(params(&trimmed), params(&own), "{name}");
    }
}

#[test]
fn bless() {
    let Ok(asked) = std::env::var("BLESS") else {
        return;
    };
    let (name, file) = asked.split_once('=').expect("BLESS=NAME=FILE");
    let whole = Btf::parse(std::fs::read(file).unwrap()).unwrap();
    let name = format!("src/kernel/testdata/btf-{name}.bin");
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::write(file, trim(&whole)).unwrap();
}

/// Names that are as long as the section, which all types share.
#[test]
fn a_section_without_zeros_is_read_once() {
    let mut builder = Builder::new();
    for _ in 0..200_000 {
        builder.ty("", STRUCT, false, 0, 0, &[]);
    }
    let mut bytes = builder.bytes();
    let types = 24..bytes.len() - 1;
    for record in bytes[types].chunks_exact_mut(RECORD) {
        record[..4].copy_from_slice(&1_u32.to_ne_bytes());
    }
    let strings = 8 << 20;
    bytes.resize(bytes.len() + strings, b'a');
    bytes[20..24].copy_from_slice(&(strings as u32 + 1).to_ne_bytes());
    ask(bytes);
}

/// Every one is looked at, and none leads anywhere.
#[test]
fn any_number_of_structs_of_one_name_is_survived() {
    let mut builder = Builder::new();
    let member = ("", 1, 0);
    for _ in 0..50_000 {
        builder.structure("sock", STRUCT, false, &[member, member]);
    }
    ask(builder.bytes());
}

#[test]
fn regressions_are_survived() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/regressions/btf");
    let files: Vec<_> = std::fs::read_dir(dir).unwrap().collect();
    assert!(!files.is_empty());
    for file in files {
        ask(std::fs::read(file.unwrap().path()).unwrap());
    }
}

proptest! {
    #[test]
    fn any_bytes_are_survived(mut bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        ask(bytes.clone());
        let header = HOST.btf;
        let head = bytes.len().min(8);
        bytes[..head].copy_from_slice(&header[..head]);
        ask(bytes);
    }

    #[test]
    fn damaged_bytes_are_survived(
        hits in prop::collection::vec((any::<Index>(), any::<u8>()), 1..40),
        cut in any::<Index>(),
    ) {
        damaged(HOST.btf.to_vec(), hits, cut).into_iter().for_each(ask);
    }

    /// Words become ids of other types: members, pointers and modifiers in circles.
    #[test]
    fn types_in_circles_are_survived(
        hits in prop::collection::vec((any::<Index>(), 0u32..600), 1..200),
    ) {
        let mut bytes = HOST.btf.to_vec();
        let types = Header::read(&bytes).unwrap().types;
        for (at, id) in hits {
            let at = types.start + 4 * at.index(types.len() / 4);
            bytes[at..at + 4].copy_from_slice(&id.to_ne_bytes());
        }
        ask(bytes);
    }
}

/// Every question that the program has, whatever the answer.
fn ask(bytes: Vec<u8>) {
    let Ok(btf) = Btf::parse(bytes) else { return };
    let _ = layout::resolve(&btf);
    for (name, _) in TRACEPOINTS {
        let _ = btf.tracepoint(name);
    }
    for name in ["tcp_close", "bpf_iter_task_file"] {
        let _ = btf.function(name);
    }
}

fn own() -> Option<Btf> {
    Btf::parse(std::fs::read(VMLINUX).ok()?).ok()
}

/// Only what the layout and the tracepoints ask for: other members stay, without a type.
fn trim(btf: &Btf) -> Vec<u8> {
    let mut trim = Trim {
        btf,
        out: Builder::new(),
        done: BTreeMap::new(),
        wanted: layout::paths()
            .flat_map(|(_, path)| path.split('.'))
            .collect(),
    };
    for (structure, _) in layout::paths() {
        if let Some(id) = btf.find(Kind::Struct, structure) {
            trim.data(id);
        }
    }
    for (name, _) in TRACEPOINTS {
        if let Some(id) = btf.find(Kind::Typedef, &format!("btf_trace_{name}")) {
            trim.tracepoint(id);
        }
    }
    for (name, ..) in FUNCTIONS {
        if let Some(id) = btf.find(Kind::Func, name) {
            trim.function(id);
        }
    }
    trim.out.bytes()
}

struct Trim<'a> {
    btf: &'a Btf,
    out: Builder,
    done: BTreeMap<TypeId, TypeId>,
    wanted: Vec<&'static str>,
}

impl Trim<'_> {
    /// The type as far as its values go: a pointer points to nothing.
    fn data(&mut self, id: TypeId) -> TypeId {
        let Some(record) = self.btf.record(id) else {
            return 0;
        };
        if let Some(done) = self.done.get(&id) {
            return *done;
        }
        let name = String::from_utf8_lossy(self.btf.string(record.name)).into_owned();
        let word = |at| self.btf.u32(record.body + at);
        let (kind, flag, size) = (record.kind, record.flag, record.size_or_type);
        let new = match kind {
            STRUCT | UNION => {
                let members: Vec<Member> = self.btf.members(record).collect();
                let mut body = Vec::new();
                for member in members {
                    let name = String::from_utf8_lossy(self.btf.string(member.name)).into_owned();
                    let ty = match name.is_empty() || self.wanted.contains(&&*name) {
                        true => self.data(member.ty),
                        false => 0,
                    };
                    let width = if member.bitfield { 1 << 24 } else { 0 };
                    body.extend([self.out.string(&name), ty, member.bits | width]);
                }
                let vlen = body.len() as u32 / 3;
                self.out.ty(&name, kind, flag, vlen, size, &body)
            }
            ARRAY => {
                let (element, index, count) = (word(0), word(4), word(8));
                let (element, index) = (self.data(element), self.data(index));
                self.out.ty("", kind, false, 0, 0, &[element, index, count])
            }
            INT => self.out.ty(&name, kind, flag, 0, size, &[word(0)]),
            PTR => self.out.ty("", kind, false, 0, 0, &[]),
            ENUM | ENUM64 | FWD | FLOAT => self.out.ty(&name, kind, flag, 0, size, &[]),
            _ => {
                let to = self.data(size);
                self.out.ty(&name, kind, flag, 0, to, &[])
            }
        };
        self.done.insert(id, new);
        new
    }

    /// `typedef void (*btf_trace_NAME)(void *, …)`.
    fn tracepoint(&mut self, id: TypeId) {
        let follow = |id| self.btf.record(id).filter(|r| r.size_or_type != 0);
        let Some(typedef) = follow(id) else { return };
        let Some(proto) =
            follow(typedef.size_or_type).and_then(|p| self.btf.record(p.size_or_type))
        else {
            return;
        };
        let proto = self.prototype(proto);
        let pointer = self.out.ty("", PTR, false, 0, proto, &[]);
        let name = String::from_utf8_lossy(self.btf.string(typedef.name)).into_owned();
        self.out.ty(&name, TYPEDEF, false, 0, pointer, &[]);
    }

    fn function(&mut self, id: TypeId) {
        let Some(func) = self.btf.record(id) else {
            return;
        };
        let Some(proto) = self.btf.record(func.size_or_type) else {
            return;
        };
        let proto = self.prototype(proto);
        let name = String::from_utf8_lossy(self.btf.string(func.name)).into_owned();
        self.out.ty(&name, FUNC, false, 0, proto, &[]);
    }

    fn prototype(&mut self, proto: Record) -> TypeId {
        let mut body = Vec::new();
        for i in 0..proto.vlen {
            let at = proto.body + 8 * i;
            let ty = self.parameter(self.btf.u32(at + 4));
            body.extend([0, ty]);
        }
        self.out
            .ty("", FUNC_PROTO, false, proto.vlen as u32, 0, &body)
    }

    /// The same in its words: what a pointer points to has a name and nothing else.
    fn parameter(&mut self, id: TypeId) -> TypeId {
        let Some(record) = self
            .btf
            .skip(id, QUALIFIERS)
            .and_then(|id| self.btf.record(id))
        else {
            return 0;
        };
        if record.kind != PTR {
            return self.data(id);
        }
        let to = self.btf.skip(record.size_or_type, QUALIFIERS);
        let to = to.and_then(|id| self.btf.record(id)).map_or(0, |to| {
            let name = String::from_utf8_lossy(self.btf.string(to.name)).into_owned();
            self.out.ty(&name, FWD, to.kind == UNION, 0, 0, &[])
        });
        self.out.ty("", PTR, false, 0, to, &[])
    }
}

//! Sockets that linger, as a profile of the places where they were acquired. Names and numbers are
//! those of `proto/profile.proto` in <https://github.com/google/pprof>.

use std::collections::BTreeMap;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;

use crate::report::leaks::{Leaks, Sample};
use crate::stack::{Frame, FrameKind};

/// A gzipped `perftools.profiles.Profile`: a sample per stack, owner, peer and state.
pub fn to_pprof(leaks: &Leaks) -> Vec<u8> {
    let mut builder = Builder::default();
    builder.text("");
    let sockets = builder.text("sockets");
    let count = builder.text("count");
    let samples = leaks.groups.iter().flat_map(|group| &group.samples);
    let samples: Vec<SampleMessage> = samples.map(|sample| builder.sample(sample)).collect();
    let profile = Profile {
        sample_type: vec![ValueType {
            r#type: sockets,
            unit: count,
        }],
        sample: samples,
        mapping: builder.mappings,
        location: builder.locations,
        function: builder.functions,
        string_table: builder.texts,
        time_nanos: leaks.anchor.wall_ns(leaks.from),
        duration_nanos: i64::try_from(leaks.to.since(leaks.from)).unwrap_or(i64::MAX),
    };
    // A vector takes whatever it is given.
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    let _ = gzip.write_all(&profile.encode_to_vec());
    gzip.finish().unwrap_or_default()
}

/// The tables of a profile; ids count from 1, texts from 0.
#[derive(Default)]
struct Builder {
    texts: Vec<String>,
    text_ids: BTreeMap<String, i64>,
    functions: Vec<Function>,
    function_ids: BTreeMap<[i64; 2], u64>,
    mappings: Vec<Mapping>,
    mapping_ids: BTreeMap<[i64; 2], u64>,
    locations: Vec<Location>,
    location_ids: BTreeMap<(u64, u64, Vec<[i64; 2]>), u64>,
}

impl Builder {
    fn text(&mut self, text: &str) -> i64 {
        if let Some(id) = self.text_ids.get(text) {
            return *id;
        }
        let id = self.texts.len() as i64;
        self.texts.push(text.to_owned());
        self.text_ids.insert(text.to_owned(), id);
        id
    }

    fn sample(&mut self, sample: &Sample) -> SampleMessage {
        let frames = sample.at.as_deref().map(|stack| &*stack.frames);
        let none = [Frame {
            function: Some("[no stack]".into()),
            ..Frame::default()
        }];
        let frames = frames.unwrap_or(&none);
        // An inlined function is a line of the location of the one that it is inlined in.
        let inlined_in_next = |frame: &Frame| frame.kind == FrameKind::Inlined;
        let locations = frames.chunk_by(|frame, _| inlined_in_next(frame));
        let location_id = locations.map(|frames| self.location(frames)).collect();
        let comm = sample
            .owner
            .comm
            .as_deref()
            .map(|comm| self.label("comm", comm));
        let peer = sample.peer.as_deref().map(|peer| self.label("peer", peer));
        let state = self.label("state", sample.state.name());
        let pid = sample.owner.pid.map(|pid| Label {
            key: self.text("pid"),
            num: i64::from(pid),
            ..Label::default()
        });
        SampleMessage {
            location_id,
            value: vec![i64::try_from(sample.count).unwrap_or(i64::MAX)],
            label: [pid, comm, peer, Some(state)]
                .into_iter()
                .flatten()
                .collect(),
        }
    }

    fn label(&mut self, key: &str, value: &str) -> Label {
        Label {
            key: self.text(key),
            str: self.text(value),
            num: 0,
        }
    }

    /// Of a function, after those that are inlined in it.
    fn location(&mut self, frames: &[Frame]) -> u64 {
        let lines: Vec<[i64; 2]> = frames.iter().map(|frame| self.line(frame)).collect();
        let outer = frames.last();
        let mapping_id = outer.map_or(0, |frame| self.mapping(frame));
        let address = outer.map_or(0, |frame| frame.address);
        let next = self.locations.len() as u64 + 1;
        let id = *self
            .location_ids
            .entry((mapping_id, address, lines.clone()))
            .or_insert(next);
        if id == next {
            let line = |[function, line]: [i64; 2]| Line {
                function_id: function as u64,
                line,
            };
            self.locations.push(Location {
                id,
                mapping_id,
                address,
                line: lines.into_iter().map(line).collect(),
            });
        }
        id
    }

    /// A function's id and the line.
    fn line(&mut self, frame: &Frame) -> [i64; 2] {
        let name = match &frame.function {
            Some(name) => self.text(name),
            None => self.text(&crate::report::frames::name(frame)),
        };
        let filename = self.text(frame.file.as_deref().unwrap_or_default());
        let next = self.functions.len() as u64 + 1;
        let id = *self.function_ids.entry([name, filename]).or_insert(next);
        if id == next {
            self.functions.push(Function { id, name, filename });
        }
        [id as i64, frame.line.map_or(0, i64::from)]
    }

    /// 0: it is of no file.
    fn mapping(&mut self, frame: &Frame) -> u64 {
        let Some(module) = frame.module.as_deref() else {
            return 0;
        };
        let filename = self.text(module);
        let build_id = self.text(frame.build_id.as_deref().unwrap_or_default());
        let next = self.mappings.len() as u64 + 1;
        let id = *self.mapping_ids.entry([filename, build_id]).or_insert(next);
        if id == next {
            self.mappings.push(Mapping {
                id,
                filename,
                build_id,
                has_functions: true,
            });
        }
        id
    }
}

#[derive(Clone, PartialEq, Message)]
struct Profile {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<SampleMessage>,
    #[prost(message, repeated, tag = "3")]
    mapping: Vec<Mapping>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    #[prost(int64, tag = "9")]
    time_nanos: i64,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
}

#[derive(Clone, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    r#type: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

/// `Sample` there.
#[derive(Clone, PartialEq, Message)]
struct SampleMessage {
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
    #[prost(message, repeated, tag = "3")]
    label: Vec<Label>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(int64, tag = "1")]
    key: i64,
    #[prost(int64, tag = "2")]
    str: i64,
    #[prost(int64, tag = "3")]
    num: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Mapping {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "5")]
    filename: i64,
    #[prost(int64, tag = "6")]
    build_id: i64,
    #[prost(bool, tag = "7")]
    has_functions: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    mapping_id: u64,
    #[prost(uint64, tag = "3")]
    address: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

#[derive(Clone, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
    #[prost(int64, tag = "2")]
    line: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "4")]
    filename: i64,
}

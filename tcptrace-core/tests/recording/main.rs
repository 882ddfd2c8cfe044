//! Recordings: what is written is read, whatever it is, and as far as it is there.

mod arbitrary;
mod churn;
mod evolution;

use proptest::prelude::*;
use tcptrace_core::filter::Filter;
use tcptrace_core::input::{Input, Loss};
use tcptrace_core::recording::{Capture, Ending, Item, Reader, Refusal, Session, Tally, Writer};
use tcptrace_core::state::StateSet;
use tcptrace_core::time::{Mono, WallAnchor};
use tcptrace_core::tracker::Minisockets;

fn session() -> Session {
    Session {
        recording: *b"0123456789abcdef",
        part: 1,
        anchor: WallAnchor {
            mono: Mono(5_000_000_000_000),
            wall_ns: 1_795_000_000_000_000_000,
        },
        capture: Capture {
            mode: "full".to_owned(),
            minisockets: Minisockets::Seen,
            overflows_seen: true,
            stacks: true,
            selective: false,
            polled_ns: None,
            states: StateSet::all(),
            shown: "cw,fw2,tw".parse().expect("it fits"),
            min_age_ns: 1_000_000_000,
            within: Filter {
                local_ports: "80,8000-8010".parse().expect("it fits"),
                netns: vec![4_026_531_840],
                ..Filter::default()
            },
        },
        lost_before: Loss {
            ring_full: 300,
            ..Loss::default()
        },
        program: "0.1.0".to_owned(),
        host: "web-3".to_owned(),
        kernel: "6.18.0".to_owned(),
        boot_id: "b".to_owned(),
        facts: "{}".to_owned(),
    }
}

/// A file of these inputs, with a block closed after so many of them.
fn file(inputs: &[Input], per_block: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::begin(&session(), &mut out);
    for (number, input) in inputs.iter().enumerate() {
        writer.append(input).expect("it fits");
        if (number + 1) % per_block == 0 {
            writer.flush(&mut out);
        }
    }
    writer.end(Ending::Ended, &mut out);
    out
}

/// All that a reader makes of bytes.
#[derive(Debug, Default, PartialEq)]
struct Read {
    sessions: Vec<Session>,
    inputs: Vec<Input>,
    gaps: usize,
    ended: Option<Ending>,
    tally: Tally,
}

/// Reads bytes that come in pieces of this length.
fn read(bytes: &[u8], piece: usize) -> Result<Read, Refusal> {
    let mut reader = Reader::new();
    let mut pieces = bytes.chunks(piece);
    let mut read = Read::default();
    loop {
        match reader.next(&mut read.inputs)? {
            Item::More => match pieces.next() {
                Some(piece) => reader.push(piece),
                None => reader.finish(),
            },
            Item::Session(session) => read.sessions.push(*session),
            Item::Inputs => {}
            Item::Gap => read.gaps += 1,
            Item::End(ending) => read.ended = Some(ending),
            Item::Done => break,
        }
    }
    read.tally = reader.tally();
    Ok(read)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read(
        inputs in prop::collection::vec(arbitrary::input(), 0..60),
        per_block in 1usize..40,
        piece in 1usize..5_000,
    ) {
        let read = read(&file(&inputs, per_block), piece).expect("it fits");
        prop_assert_eq!(&read.inputs, &inputs);
        prop_assert_eq!(read.sessions, vec![session(), session()]);
        prop_assert_eq!((read.gaps, read.ended), (0, Some(Ending::Ended)));
        let blocks = read.tally.blocks;
        let expected = Tally { inputs: inputs.len() as u64, blocks, ..Tally::default() };
        prop_assert_eq!(read.tally, expected);
    }

    #[test]
    fn damage_loses_its_own_block_and_is_told(
        inputs in prop::collection::vec(arbitrary::input(), 1..40),
        place in any::<prop::sample::Index>(),
        flip in 1u8..,
    ) {
        let mut bytes = file(&inputs, 4);
        let place = place.index(bytes.len());
        bytes[place] ^= flip;
        let read = read(&bytes, 700).expect("it fits");
        let lost = inputs.len() - read.inputs.len();
        prop_assert!(lost <= 4, "{lost}");
        prop_assert!(!read.sessions.is_empty());
        let mut rest = inputs.iter();
        prop_assert!(read.inputs.iter().all(|kept| rest.any(|input| input == kept)));
        prop_assert!(read.tally.lost_bytes > 0 && read.gaps > 0, "{:?}", read.tally);
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..400), piece in 1usize..90) {
        let _ = read(&bytes, piece);
        let mut after = file(&[], 1);
        let begun = after.len() as u64;
        after.extend(&bytes);
        let read = read(&after, piece).expect("it fits");
        prop_assert!(read.tally.lost_bytes <= after.len() as u64 - begun);
    }

    /// Blocks whose checksums are right and whose records are anything.
    #[test]
    fn any_records_are_survived(records in prop::collection::vec(any::<u8>(), 0..300), count in 0u32..9) {
        let mut bytes = file(&[], 1);
        bytes.extend(evolution::block(2, 3, count, &records));
        bytes.extend(evolution::block(4, 4, count, &records));
        let read = read(&bytes, 4_096).expect("it fits");
        prop_assert!(read.inputs.len() as u64 + read.tally.unknown <= 2 * u64::from(count));
    }
}

#[test]
fn a_file_cut_at_any_byte_gives_its_whole_blocks_and_the_rest_in_bytes() {
    let inputs = churn::inputs(12);
    let whole = file(&inputs, 20);
    let starts: Vec<usize> = (0..whole.len())
        .filter(|at| whole[*at..].starts_with(b"\xb1TCB"))
        .collect();
    let ends = [&starts[1..], &[whole.len()]].concat();
    for cut in 16..whole.len() {
        let read = read(&whole[..cut], 512).expect("it fits");
        let blocks = ends.iter().filter(|end| **end <= cut).count();
        assert_eq!(read.tally.blocks, blocks as u64, "cut at {cut}");
        let kept = blocks.saturating_sub(2) * 20;
        assert_eq!(
            read.inputs,
            inputs[..kept.min(inputs.len())],
            "cut at {cut}"
        );
        let whole_bytes = match blocks {
            0 => 16,
            _ => starts[blocks],
        };
        assert_eq!(
            read.tally.lost_bytes,
            (cut - whole_bytes) as u64,
            "cut at {cut}"
        );
        assert_eq!(read.ended, None);
    }
}

/// A power cut in a real recording, at every byte: a prefix of its inputs is left, and the rest is
/// counted.
#[test]
fn a_stored_recording_cut_at_any_byte_gives_a_prefix() {
    let bytes = stored("lifecycle-1.1");
    let whole = read(&bytes, 1 << 20).expect("it is one");
    assert_eq!((whole.gaps, whole.ended), (0, Some(Ending::Ended)));
    assert!(whole.inputs.len() > 100);
    let mut kept = 0;
    for cut in 16..bytes.len() {
        let read = read(&bytes[..cut], 1 << 20).expect("it is one still");
        assert!(whole.inputs.starts_with(&read.inputs), "cut at {cut}");
        assert!(read.inputs.len() >= kept, "cut at {cut}");
        assert!(
            read.tally.lost_bytes < 5_000 && read.ended.is_none(),
            "cut at {cut}"
        );
        kept = read.inputs.len();
    }
    assert_eq!(kept, whole.inputs.len());
}

fn stored(name: &str) -> Vec<u8> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/recordings");
    std::fs::read(format!("{directory}/{name}.rec")).expect("the stored recording")
}

/// Both hold the same life, as the versions of the format wrote it.
#[test]
fn the_versions_tell_the_same() {
    let read = |name| read(&stored(name), 1 << 20).expect("it is one");
    let (rows, columns) = (read("lifecycle-1.0"), read("lifecycle-1.1"));
    assert!(rows.inputs == columns.inputs);
    assert_eq!(rows.sessions, columns.sessions);
}

#[test]
fn files_may_follow_one_another() {
    let inputs = churn::inputs(3);
    let bytes = [file(&inputs, 9), file(&inputs, 9)].concat();
    let read = read(&bytes, 333).expect("it fits");
    assert_eq!(read.inputs, [inputs.clone(), inputs].concat());
    assert_eq!((read.sessions.len(), read.gaps), (4, 0));
}

#[test]
fn a_block_that_is_missing_is_a_gap() {
    let inputs = churn::inputs(3);
    let whole = file(&inputs, 10);
    let starts: Vec<usize> = (0..whole.len())
        .filter(|at| whole[*at..].starts_with(b"\xb1TCB"))
        .collect();
    let bytes = [&whole[..starts[2]], &whole[starts[3]..]].concat();
    let read = read(&bytes, 4_096).expect("it fits");
    assert_eq!(read.inputs, inputs[10..]);
    assert_eq!(
        (read.gaps, read.tally.gaps, read.tally.lost_bytes),
        (1, 1, 0)
    );
}

#[test]
fn what_is_no_recording_is_refused() {
    for bytes in [&b"\x89TCX"[..], b"#!/bin/sh\n", &[0; 100]] {
        assert_eq!(read(bytes, 7), Err(Refusal::NoRecording), "{bytes:?}");
    }
    assert_eq!(read(&[], 1), Ok(Read::default()));
}

#[test]
fn a_beginning_that_was_cut_is_known_from_a_damaged_one() {
    let whole = file(&churn::inputs(3), 10);
    let is_cut = |bytes: &[u8]| {
        let mut reader = Reader::new();
        reader.push(bytes);
        reader.finish();
        while reader.next(&mut Vec::new()) != Ok(Item::Done) {}
        reader.is_cut()
    };
    let first = (17..whole.len()).find(|at| whole[*at..].starts_with(b"\xb1TCB"));
    for length in 1..first.expect("a second block") {
        assert!(is_cut(&whole[..length]), "{length}");
    }
    assert!(!is_cut(&[]) && !is_cut(&whole));
    assert!(!is_cut(&[&whole[..16], &[7; 99]].concat()));
}

/// The promise of docs/format.md about size, on what it is made for.
#[test]
fn an_event_takes_few_bytes() {
    let inputs = churn::inputs(20_000);
    let mut out = Vec::new();
    let mut writer = Writer::begin(&session(), &mut out);
    for input in &inputs {
        writer.append(input).expect("it fits");
        if writer.is_full() {
            writer.flush(&mut out);
        }
    }
    writer.end(Ending::Ended, &mut out);
    let per_event = out.len() as f64 / inputs.len() as f64;
    assert!(per_event < 5.0, "{per_event:.2} bytes per event");
}

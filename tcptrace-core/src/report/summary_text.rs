//! The summary for people.

use super::cells;
use super::summary::{Completeness, Durations, Key, OverflowLine, StateLine, Summary};
use super::table::{Align, Column, Table, cut, width};
use crate::text::escape;
use crate::time::{Age, duration_text};

/// The summary as lines, each with its newline. On a terminal too narrow for the table, every
/// state is a paragraph: no number is left out.
pub fn to_text(summary: &Summary, terminal: Option<usize>, color: bool) -> String {
    let title = format!("SUMMARY of {}", duration_text(summary.span_ns));
    let mut lines = paragraph(title.split(' '), terminal);
    lines.extend(states(summary, terminal));
    lines.extend(groups(summary, usize::MAX, terminal));
    lines.extend(end(summary, terminal, color));
    lines.into_iter().map(|line| line + "\n").collect()
}

/// A row per state.
pub(super) fn states(summary: &Summary, terminal: Option<usize>) -> Vec<String> {
    let all = summary.states.iter().map(|line| cells(&[], line));
    block(&[], all.collect(), terminal)
}

/// A row per state of each of the first groups, with an empty line before, if there are any.
pub(super) fn groups(summary: &Summary, most: usize, terminal: Option<usize>) -> Vec<String> {
    let shown = &summary.groups[..most.min(summary.groups.len())];
    let rows = shown.iter().flat_map(|group| {
        let lines = group.lines.iter();
        lines.map(|line| cells(&group.key, line))
    });
    let rows: Vec<Vec<String>> = rows.collect();
    if rows.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![String::new()];
    lines.extend(block(&summary.by, rows, terminal));
    if summary.groups.len() > shown.len() {
        let more = format!("and {} more groups", summary.groups.len() - shown.len());
        lines.extend(paragraph(more.split(' '), terminal));
    }
    lines
}

/// Overflows, notes, and what is missing.
pub(super) fn end(summary: &Summary, terminal: Option<usize>, color: bool) -> Vec<String> {
    let mut lines = Vec::new();
    for line in overflows(&summary.overflows) {
        lines.extend(paragraph(line.split(' '), terminal));
    }
    for note in &summary.completeness.notes {
        let note = format!("note: {}", escape(note));
        lines.extend(paragraph(note.split(' '), terminal));
    }
    let data = completeness(&summary.completeness);
    let data = paragraph(data.split(' '), terminal);
    match color && !summary.completeness.complete() {
        true => lines.extend(data.iter().map(|line| format!("\x1b[31m{line}\x1b[0m"))),
        false => lines.extend(data),
    }
    lines
}

/// Listeners that are told of one by one.
const MAX_OVERFLOWS: usize = 10;

/// `overflow of 127.0.0.1:9500 (nginx, pid 800): 9 connection attempts dropped, …`.
fn overflows(all: &[OverflowLine]) -> Vec<String> {
    let told = all.iter().take(MAX_OVERFLOWS).map(|line| {
        format!(
            "overflow of {} ({}, pid {}): {}; {}",
            line.view.tuple.local,
            cells::comm(&line.view),
            cells::pid(&line.view),
            cells::dropped(line.dropped, line.estimated),
            cells::queue(&line.view),
        )
    });
    let mut lines: Vec<String> = told.collect();
    if let Some(more) = all.len().checked_sub(MAX_OVERFLOWS).filter(|n| *n > 0) {
        lines.push(format!("overflow of {more} other listeners: see --json"));
    }
    lines
}

/// `data: complete`, or what is missing.
pub fn completeness(c: &Completeness) -> String {
    let missing = c.missing().filter(|(n, _)| *n > 0);
    let missing: Vec<String> = missing.map(|(n, what)| format!("{what}: {n}")).collect();
    let polled = c.polled_ns.map(|ns| {
        let every = duration_text(ns);
        format!("sampled every {every}: shorter stays are not seen")
    });
    let mut text = match (c.complete(), polled) {
        (true, None) => "data: complete".to_owned(),
        (true, Some(polled)) => format!("data: {polled}"),
        (false, None) => format!("data: INCOMPLETE: {}", missing.join("; ")),
        (false, Some(polled)) => format!("data: INCOMPLETE: {}; {polled}", missing.join("; ")),
    };
    let aside = [
        (c.estimated, "estimated durations (~)"),
        (c.mptcp, "MPTCP events left out"),
        (c.stacks_not_taken, "stacks not taken"),
    ];
    for (n, what) in aside.into_iter().filter(|(n, _)| *n > 0) {
        text.push_str(&format!("; {what}: {n}"));
    }
    match c.mode.as_str() {
        "" => text,
        mode => format!("{text}; mode {}", escape(mode)),
    }
}

/// A table with one row per state, or a paragraph for each where the table does not fit.
fn block(by: &[Key], rows: Vec<Vec<String>>, terminal: Option<usize>) -> Vec<String> {
    let columns = columns(by);
    let table = Table::for_rows(&columns, &rows, None);
    let lines = std::iter::once(table.header()).chain(rows.iter().map(|row| table.row(row)));
    let lines: Vec<String> = lines.collect();
    match terminal {
        Some(terminal) if lines.iter().any(|line| width(line) > terminal) => {
            let names = by.len() + 1;
            let titles: Vec<&str> = columns.iter().map(|column| column.title).collect();
            let rows = rows.iter();
            rows.flat_map(|row| in_words(&titles, row, names, terminal))
                .collect()
        }
        _ => lines,
    }
}

/// `close_wait: entered 255, left 4, open 251, …`.
fn in_words(titles: &[&str], row: &[String], names: usize, terminal: usize) -> Vec<String> {
    let name = format!("{}:", row[..names].join(" "));
    let pairs = titles.iter().zip(row).skip(names);
    let mut items: Vec<String> = pairs
        .map(|(title, value)| format!("{} {value},", title.to_lowercase()))
        .collect();
    if let Some(last) = items.last_mut() {
        last.pop();
    }
    let items = items.iter().map(String::as_str);
    paragraph(std::iter::once(&*name).chain(items), Some(terminal))
}

/// Words in lines that fit the terminal, all but the first indented.
pub(crate) fn paragraph<'a>(
    words: impl Iterator<Item = &'a str>,
    terminal: Option<usize>,
) -> Vec<String> {
    let terminal = terminal.unwrap_or(usize::MAX);
    let mut lines: Vec<String> = Vec::new();
    for word in words {
        match lines.last_mut() {
            Some(line) if width(line) + 1 + width(word) <= terminal => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) => lines.push(format!("  {word}")),
            None => lines.push(word.to_owned()),
        }
    }
    lines
        .iter()
        .map(|line| cut(line, terminal).into_owned())
        .collect()
}

/// The titles of [`numbers`].
pub(super) const NUMBERS: [&str; 11] = [
    "BEFORE", "ENTERED", "LEFT", "OPEN", "OLDEST", "MIN", "P50", "P90", "P99", "P99.9", "MAX",
];

pub(super) fn columns(by: &[Key]) -> Vec<Column> {
    let column = |title, align| Column {
        title,
        align,
        min: 0,
        rank: 0,
    };
    let names = by.iter().map(|key| key.title()).chain(["STATE"]);
    names
        .map(|title| column(title, Align::Left))
        .chain(NUMBERS.map(|title| column(title, Align::Right)))
        .collect()
}

pub(super) fn cells(key: &[Option<String>], line: &StateLine) -> Vec<String> {
    let key = key.iter();
    let key = key.map(|value| value.as_deref().map_or("?".to_owned(), escape));
    key.chain([line.state.name().to_owned()])
        .chain(numbers(line, |n| n.to_string()))
        .collect()
}

/// What was counted of a state, with counts written as `count` does.
pub(super) fn numbers(line: &StateLine, count: fn(u64) -> String) -> [String; 11] {
    let duration = |of: fn(&Durations) -> u64| {
        let durations = line.durations.as_ref();
        let tilde = if line.estimated > 0 { "~" } else { "" };
        durations.map_or("-".to_owned(), |d| {
            format!("{tilde}{}", duration_text(of(d)))
        })
    };
    let oldest = match (line.open, line.oldest_open) {
        (0, _) => "-".to_owned(),
        (_, age) => age.unwrap_or(Age::Unknown).to_string(),
    };
    [
        count(line.before),
        count(line.entered),
        count(line.left),
        count(line.open),
        oldest,
        duration(|d| d.min_ns),
        duration(|d| d.p50_ns),
        duration(|d| d.p90_ns),
        duration(|d| d.p99_ns),
        duration(|d| d.p999_ns),
        duration(|d| d.max_ns),
    ]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::summary::Group;
    use super::*;
    use crate::state::TcpState;

    const S: u64 = 1_000_000_000;

    fn line(state: TcpState, open: u64, durations: Option<Durations>) -> StateLine {
        StateLine {
            state,
            before: 5,
            entered: 250,
            left: 255 - open,
            open,
            estimated: u64::from(open > 0),
            oldest_open: Some(Age::Between {
                min: 6_725 * S,
                max: None,
            }),
            durations,
        }
    }

    fn summary() -> Summary {
        let durations = Durations {
            min_ns: 100_000,
            p50_ns: 60 * S,
            p90_ns: 60 * S,
            p99_ns: 60 * S,
            p999_ns: 61 * S,
            max_ns: 62 * S,
        };
        let states = vec![
            line(TcpState::CloseWait, 255, None),
            line(TcpState::TimeWait, 0, Some(durations)),
        ];
        Summary {
            span_ns: 62 * S,
            states: states.clone(),
            by: vec![Key::Comm, Key::Peer],
            groups: vec![Group {
                key: vec![Some("py\x1b[2J".to_owned()), None],
                lines: states[..1].to_vec(),
            }],
            overflows: Vec::new(),
            completeness: Completeness {
                ring_full: 123,
                reconciled: 2,
                estimated: 1,
                mode: "full".to_owned(),
                notes: vec!["the clock of cpu 3 is late".to_owned()],
                ..Completeness::default()
            },
        }
    }

    #[track_caller]
    fn check(summary: &Summary, terminal: Option<usize>, expected: &str) {
        let text = to_text(summary, terminal, false);
        assert_eq!(text, expected, "\n{text}");
    }

    #[test]
    fn a_table_with_a_row_per_state() {
        check(
            &summary(),
            None,
            concat!(
                "SUMMARY of 62.0s\n",
                "STATE       BEFORE  ENTERED  LEFT  OPEN  OLDEST    MIN    P50    P90    P99  P99.9    MAX\n",
                "close_wait       5      250     0   255  ~1h52m      -      -      -      -      -      -\n",
                "time_wait        5      250   255     0       -  100us  60.0s  60.0s  60.0s  61.0s  62.0s\n",
                "\n",
                "COMM       PEER  STATE       BEFORE  ENTERED  LEFT  OPEN  OLDEST  MIN  P50  P90  P99  P99.9  MAX\n",
                "py\\x1b[2J  ?     close_wait       5      250     0   255  ~1h52m    -    -    -    -      -    -\n",
                "note: the clock of cpu 3 is late\n",
                "data: INCOMPLETE: events that found the ring buffer full: 123; ",
                "sockets whose start or end was not seen: 2; estimated durations (~): 1; mode full\n",
            ),
        );
    }

    #[test]
    fn a_narrow_terminal_gets_every_number() {
        check(
            &summary(),
            Some(40),
            concat!(
                "SUMMARY of 62.0s\n",
                "close_wait: before 5, entered 250,\n",
                "  left 0, open 255, oldest ~1h52m,\n",
                "  min -, p50 -, p90 -, p99 -, p99.9 -,\n",
                "  max -\n",
                "time_wait: before 5, entered 250,\n",
                "  left 255, open 0, oldest -, min 100us,\n",
                "  p50 60.0s, p90 60.0s, p99 60.0s,\n",
                "  p99.9 61.0s, max 62.0s\n",
                "\n",
                "py\\x1b[2J ? close_wait: before 5,\n",
                "  entered 250, left 0, open 255,\n",
                "  oldest ~1h52m, min -, p50 -, p90 -,\n",
                "  p99 -, p99.9 -, max -\n",
                "note: the clock of cpu 3 is late\n",
                "data: INCOMPLETE: events that found the\n",
                "  ring buffer full: 123; sockets whose\n",
                "  start or end was not seen: 2;\n",
                "  estimated durations (~): 1; mode full\n",
            ),
        );
    }

    #[test]
    fn whole_data_is_said_to_be_whole() {
        let mut whole = summary();
        whole.groups = Vec::new();
        whole.completeness = Completeness::default();
        let text = to_text(&whole, None, true);
        assert_eq!(text.lines().last(), Some("data: complete"));
    }

    #[test]
    fn what_was_polled_is_not_called_complete() {
        let mut polled = summary();
        polled.groups = Vec::new();
        polled.completeness = Completeness {
            polled_ns: Some(S / 4),
            mode: "netlink".to_owned(),
            ..Completeness::default()
        };
        let text = to_text(&polled, None, false);
        assert_eq!(
            text.lines().last(),
            Some("data: sampled every 250ms: shorter stays are not seen; mode netlink")
        );
    }

    proptest! {
        #[test]
        fn no_line_is_too_wide(terminal in 1usize..250, name in ".{0,30}", note in ".{0,60}") {
            let mut summary = summary();
            summary.groups[0].key[0] = Some(name);
            summary.completeness.notes.push(note);
            for line in to_text(&summary, Some(terminal), false).lines() {
                prop_assert!(width(line) <= terminal, "{line}");
                prop_assert!(!line.chars().any(char::is_control), "{line:?}");
            }
        }
    }
}

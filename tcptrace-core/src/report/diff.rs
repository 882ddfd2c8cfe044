//! What lingers in one recording and did not in another, per owner and state.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::snapshot::thousands;
use super::summary::{CompletenessObject, Durations, Key, StateLine, Summary, key_object};
use super::summary_text;
use super::table::{Align, Column, Table};
use crate::state::TcpState;
use crate::text::escape;
use crate::time::{Age, duration_text};

/// The sockets of one owner in one state, before and after.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The values of the keys; `None`: not known.
    pub key: Vec<Option<String>>,
    /// The state.
    pub state: TcpState,
    /// How it was.
    pub before: Side,
    /// How it is.
    pub after: Side,
}

/// An owner, by the values of the keys, and a state.
type Who = (Vec<Option<String>>, TcpState);

/// What one recording says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Side {
    /// Sockets that were open at its end.
    pub open: u64,
    /// The age that the oldest of them had reached.
    pub oldest: Option<Age>,
    /// Sockets that entered the state.
    pub entered: u64,
    /// The same per second.
    pub rate: f64,
    /// How long those that left had stayed.
    pub durations: Option<Durations>,
    /// Some of these times are not exact.
    pub estimated: bool,
}

/// Two recordings side by side.
#[derive(Clone, Debug, PartialEq)]
pub struct Diff<'a> {
    /// Of the one.
    pub before: &'a Summary,
    /// Of the other.
    pub after: &'a Summary,
    /// What has grown most comes first.
    pub rows: Vec<Row>,
}

impl Row {
    /// By how many the open sockets are more.
    fn growth(&self) -> i128 {
        i128::from(self.after.open) - i128::from(self.before.open)
    }
}

impl<'a> Diff<'a> {
    /// Compares two summaries with the same keys.
    pub fn new(before: &'a Summary, after: &'a Summary) -> Diff<'a> {
        let mut sides: BTreeMap<Who, (Side, Side)> = BTreeMap::new();
        for (key, line) in lines(before) {
            sides.entry((key, line.state)).or_default().0 = side(line, before.span_ns);
        }
        for (key, line) in lines(after) {
            sides.entry((key, line.state)).or_default().1 = side(line, after.span_ns);
        }
        let rows = sides
            .into_iter()
            .map(|((key, state), (before, after))| Row {
                key,
                state,
                before,
                after,
            });
        let mut rows: Vec<Row> = rows.collect();
        // Equal ones stay in the order of their keys.
        rows.sort_by_key(|row| Reverse((row.growth(), row.after.open, row.after.entered)));
        Diff {
            before,
            after,
            rows,
        }
    }

    /// For people; `all`: what has not grown is shown, too.
    pub fn to_text(&self, all: bool, terminal: Option<usize>) -> String {
        let title = format!(
            "DIFF of {} (A) and {} (B)",
            duration_text(self.before.span_ns),
            duration_text(self.after.span_ns)
        );
        let mut lines = summary_text::paragraph(title.split(' '), terminal);
        let shown: Vec<&Row> = self
            .rows
            .iter()
            .filter(|row| all || row.growth() > 0)
            .collect();
        let hidden = self.rows.len() - shown.len();
        match shown.is_empty() {
            true => {
                let none = "nothing lingers in B that did not in A".split(' ');
                lines.extend(summary_text::paragraph(none, terminal));
            }
            false => {
                let columns = columns(&self.after.by);
                let rows: Vec<Vec<String>> = shown.iter().map(|row| cells(row)).collect();
                let table = Table::for_rows(&columns, &rows, terminal);
                lines.push(table.header());
                lines.extend(rows.iter().map(|row| table.row(row)));
            }
        }
        if hidden > 0 {
            let more = format!(
                "{} more have not grown: see --all",
                thousands(hidden as u64)
            );
            lines.extend(summary_text::paragraph(more.split(' '), terminal));
        }
        for (name, summary) in [("A", self.before), ("B", self.after)] {
            let data = summary_text::completeness(&summary.completeness);
            let data = format!("{name}: {data}");
            lines.extend(summary_text::paragraph(data.split(' '), terminal));
        }
        lines.into_iter().map(|line| line + "\n").collect()
    }

    /// As one object, with every row.
    pub fn to_json(&self) -> impl Serialize {
        DiffLine {
            r#type: "diff",
            before: side_object(self.before),
            after: side_object(self.after),
            rows: self.rows.iter().map(|row| self.row_object(row)).collect(),
        }
    }

    fn row_object(&self, row: &Row) -> Map<String, Value> {
        let mut object = Map::new();
        let key = key_object(&self.after.by, &row.key);
        object.insert("key".to_owned(), key.into());
        object.insert("state".to_owned(), row.state.name().into());
        object.insert("before".to_owned(), row_side(&row.before));
        object.insert("after".to_owned(), row_side(&row.after));
        object
    }
}

#[derive(Clone, Debug, Serialize)]
struct DiffLine {
    r#type: &'static str,
    before: Value,
    after: Value,
    rows: Vec<Map<String, Value>>,
}

fn side_object(summary: &Summary) -> Value {
    json!({
        "span_ns": summary.span_ns,
        "completeness": CompletenessObject::new(&summary.completeness),
    })
}

fn row_side(side: &Side) -> Value {
    json!({
        "open": side.open,
        "oldest_open_ns": side.oldest.and_then(Age::at_least),
        "entered": side.entered,
        "entered_per_s": side.rate,
        "p50_ns": side.durations.map(|d| d.p50_ns),
        "p99_ns": side.durations.map(|d| d.p99_ns),
        "estimated": side.estimated,
    })
}

fn lines(summary: &Summary) -> impl Iterator<Item = (Vec<Option<String>>, &StateLine)> {
    let groups = summary.groups.iter();
    groups.flat_map(|group| group.lines.iter().map(|line| (group.key.clone(), line)))
}

fn side(line: &StateLine, span_ns: u64) -> Side {
    Side {
        open: line.open,
        oldest: line.oldest_open,
        entered: line.entered,
        rate: match span_ns {
            0 => 0.0,
            ns => line.entered as f64 * 1e9 / ns as f64,
        },
        durations: line.durations,
        estimated: line.estimated > 0,
    }
}

/// What matters least goes first where a terminal is narrow: the last of the ranks.
fn columns(by: &[Key]) -> Vec<Column> {
    let keys = by.iter().map(|key| (key.title(), Align::Left, 8));
    let numbers = [
        ("OPEN A", Align::Right, 0),
        ("OPEN B", Align::Right, 0),
        ("CHANGE", Align::Right, 0),
        ("OLDEST B", Align::Right, 0),
        ("IN/s A", Align::Right, 0),
        ("IN/s B", Align::Right, 0),
        ("P50 A", Align::Right, 0),
        ("P50 B", Align::Right, 0),
    ];
    let all = keys.chain([("STATE", Align::Left, 10)]).chain(numbers);
    all.zip(0..)
        .map(|((title, align, min), rank)| Column {
            title,
            align,
            min: min.max(title.len()),
            rank,
        })
        .collect()
}

fn cells(row: &Row) -> Vec<String> {
    let key = row.key.iter();
    let key = key.map(|value| value.as_deref().map_or("?".to_owned(), escape));
    let growth = row.growth();
    let sign = if growth > 0 { "+" } else { "" };
    let p50 = |side: &Side| {
        let tilde = if side.estimated { "~" } else { "" };
        let text = |d: Durations| format!("{tilde}{}", duration_text(d.p50_ns));
        side.durations.map_or("-".to_owned(), text)
    };
    let oldest = match row.after.open {
        0 => "-".to_owned(),
        _ => row.after.oldest.unwrap_or(Age::Unknown).to_string(),
    };
    key.chain([
        row.state.name().to_owned(),
        thousands(row.before.open),
        thousands(row.after.open),
        format!("{sign}{growth}"),
        oldest,
        format!("{:.1}", row.before.rate),
        format!("{:.1}", row.after.rate),
        p50(&row.before),
        p50(&row.after),
    ])
    .collect()
}

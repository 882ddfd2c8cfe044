//! The whole report for people at a terminal.

use super::full::Report;
use super::histogram::{Bucket, Histogram, PERCENTILES};
use super::series::Series;
use super::snapshot::thousands;
use super::summary_text;
use super::table::{Align, Column, Table, cut, width};
use crate::time::duration_text;

/// How the report is printed.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Columns of the terminal; `None`: a pipe or a file.
    pub terminal: Option<usize>,
    /// With ANSI colors.
    pub color: bool,
    /// With a table of percentiles.
    pub percentiles: bool,
    /// Groups that are shown at most.
    pub top: usize,
}

/// Columns that a bar or a curve takes at most.
const BAR: usize = 40;

/// The report as lines, each with its newline.
pub fn to_text(report: &Report, style: Style) -> String {
    let terminal = style.terminal;
    let summary = &report.summary;
    let [from, to] = report.period();
    let span = duration_text(summary.span_ns);
    let title = format!("REPORT of {span}, {from} to {to}");
    let mut lines = summary_text::paragraph(title.split(' '), terminal);
    lines.extend(summary_text::states(summary, terminal));
    for histogram in report.full_histograms() {
        lines.push(String::new());
        lines.extend(bars(histogram, terminal));
    }
    if style.percentiles {
        lines.extend(percentiles(report, terminal));
    }
    lines.extend(curves(&report.series, terminal));
    lines.extend(summary_text::groups(summary, style.top, terminal));
    lines.push(String::new());
    lines.extend(summary_text::end(summary, terminal, style.color));
    lines.into_iter().map(|line| line + "\n").collect()
}

/// A line per bucket; `█` are stays that have ended, `░` those that go on.
fn bars(histogram: &Histogram, terminal: Option<usize>) -> Vec<String> {
    let name = histogram.state.name();
    let tilde = if histogram.estimated { "~" } else { "" };
    let count = |n: u64| match n {
        0 => "-".to_owned(),
        n => thousands(n),
    };
    let range = |bucket: &Bucket| match bucket.to_ns {
        Some(to) => format!(
            "{tilde}{} - {}",
            Bucket::bound_text(bucket.from_ns),
            Bucket::bound_text(to)
        ),
        None => format!("{tilde}{} and more", Bucket::bound_text(bucket.from_ns)),
    };
    let mut rows: Vec<[String; 3]> = vec![[name.to_owned(), "LEFT".to_owned(), "OPEN".to_owned()]];
    let buckets = histogram.buckets.iter();
    rows.extend(buckets.map(|b| [range(b), count(b.left), count(b.open)]));
    if histogram.open_unknown > 0 {
        let unknown = thousands(histogram.open_unknown);
        rows.push(["age unknown".to_owned(), "-".to_owned(), unknown]);
    }
    let widest = |column: usize| rows.iter().map(|row| width(&row[column])).max();
    let [w0, w1, w2] = [0, 1, 2].map(|column| widest(column).unwrap_or(0));
    let room = terminal.map_or(BAR, |terminal| {
        terminal.saturating_sub(w0 + w1 + w2 + 6).min(BAR)
    });
    let full = histogram.buckets.iter().map(|b| b.left + b.open).max();
    let bar = |bucket: Option<&Bucket>| {
        let (left, open) = bucket.map_or((0, 0), |b| (b.left, b.open));
        let left_part = scaled(left, full.unwrap_or(0), room);
        let whole = scaled(left + open, full.unwrap_or(0), room);
        let open_part = match open {
            0 => 0,
            _ => whole.saturating_sub(left_part).max(1),
        };
        format!("{}{}", "█".repeat(left_part), "░".repeat(open_part))
    };
    let lines = rows.iter().enumerate().map(|(index, [range, left, open])| {
        let bucket = index.checked_sub(1).and_then(|i| histogram.buckets.get(i));
        let line = format!("{range:<w0$}  {left:>w1$}  {open:>w2$}  {}", bar(bucket));
        let line = line.trim_end();
        let line = terminal.map_or(line.to_owned(), |t| cut(line, t).into_owned());
        (line, bucket.is_some_and(|b| b.left + b.open == 0))
    });
    folded(lines)
}

/// The lines, with one for all of a long row of empty ones.
fn folded(lines: impl Iterator<Item = (String, bool)>) -> Vec<String> {
    const LONG: usize = 4;
    let mut folded = Vec::new();
    let mut empty = Vec::new();
    for (line, is_empty) in lines {
        if is_empty {
            empty.push(line);
            continue;
        }
        match empty.len() < LONG {
            true => folded.append(&mut empty),
            false => folded.push("…".to_owned()),
        }
        empty.clear();
        folded.push(line);
    }
    folded
}

/// `part` of `full` in columns; what is there has one at least.
fn scaled(part: u64, full: u64, room: usize) -> usize {
    if part == 0 || full == 0 || room == 0 {
        return 0;
    }
    let columns = u128::from(part) * room as u128 / u128::from(full);
    usize::try_from(columns).unwrap_or(room).clamp(1, room)
}

/// A row per percentile, a column per state.
fn percentiles(report: &Report, terminal: Option<usize>) -> Vec<String> {
    let with: Vec<&Histogram> = report
        .full_histograms()
        .filter(|h| h.percentiles.is_some())
        .collect();
    if with.is_empty() {
        let none = "no stay has ended: no percentiles".split(' ');
        let mut lines = vec![String::new()];
        lines.extend(summary_text::paragraph(none, terminal));
        return lines;
    }
    let mut columns = vec![Column {
        title: "PERCENTILE",
        align: Align::Left,
        min: 0,
        rank: 0,
    }];
    columns.extend(with.iter().zip(1..).map(|(histogram, rank)| Column {
        title: histogram.state.name(),
        align: Align::Right,
        min: 7,
        rank,
    }));
    let row = |name: String, of: &dyn Fn(&Histogram) -> String| -> Vec<String> {
        let cells = with.iter().map(|histogram| of(histogram));
        std::iter::once(name).chain(cells).collect()
    };
    let time = |h: &Histogram, ns: Option<u64>| {
        let tilde = if h.estimated { "~" } else { "" };
        ns.map_or("-".to_owned(), |ns| format!("{tilde}{}", duration_text(ns)))
    };
    let mut rows = vec![row("min".to_owned(), &|h| {
        time(h, h.extremes.map(|(min, _)| min))
    })];
    rows.extend(PERCENTILES.iter().enumerate().map(|(index, percentile)| {
        row(percentile.to_string(), &|h| {
            time(h, h.percentiles.map(|all| all[index]))
        })
    }));
    rows.push(row("max".to_owned(), &|h| {
        time(h, h.extremes.map(|(_, max)| max))
    }));
    rows.push(row("stays".to_owned(), &|h| thousands(h.left)));
    let table = Table::for_rows(&columns, &rows, terminal);
    let mut lines = vec![String::new(), table.header()];
    lines.extend(rows.iter().map(|row| table.row(row)));
    lines
}

/// A curve per state that had open sockets, and one of what was lost.
fn curves(series: &Series, terminal: Option<usize>) -> Vec<String> {
    let mut curves: Vec<(&str, Vec<u64>, String)> = Vec::new();
    for state in &series.states {
        let open = series.open(*state);
        let most = open.iter().max().copied().unwrap_or(0);
        let last = open.last().copied().unwrap_or(0);
        if most > 0 {
            let text = format!(
                "at most {}, at the end {}",
                thousands(most),
                thousands(last)
            );
            curves.push((state.name(), open, text));
        }
    }
    let lost: Vec<u64> = series.points.iter().map(|p| p.lost + p.gaps).collect();
    if lost.iter().any(|n| *n > 0) {
        let events: u64 = series.points.iter().map(|p| p.lost).sum();
        let gaps: u64 = series.points.iter().map(|p| p.gaps).sum();
        let text = match (events, gaps) {
            (0, gaps) => format!("gaps in the recording: {gaps}"),
            (events, 0) => format!("{} events", thousands(events)),
            (events, gaps) => format!("{} events; gaps: {gaps}", thousands(events)),
        };
        curves.push(("lost", lost, text));
    }
    if curves.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![String::new()];
    lines.extend(summary_text::paragraph(
        "OPEN OVER TIME".split(' '),
        terminal,
    ));
    let names = curves
        .iter()
        .map(|(name, ..)| width(name))
        .max()
        .unwrap_or(0);
    let texts = curves
        .iter()
        .map(|(.., text)| width(text))
        .max()
        .unwrap_or(0);
    let room = terminal.map_or(BAR, |t| t.saturating_sub(names + texts + 4).min(BAR));
    for (name, values, text) in &curves {
        let line = format!("{name:<names$}  {}  {text}", curve(values, room));
        lines.push(terminal.map_or(line.clone(), |t| cut(&line, t).into_owned()));
    }
    lines
}

/// `▁▂▅█`: the greatest value of each part.
fn curve(values: &[u64], room: usize) -> String {
    const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = values.iter().max().copied().unwrap_or(0);
    let columns = room.min(values.len());
    let level = |column: usize| {
        let (from, to) = (
            column * values.len() / columns,
            (column + 1) * values.len() / columns,
        );
        let value = values[from..to].iter().max().copied().unwrap_or(0);
        match scaled(value, most, LEVELS.len() - 1) {
            level if value > 0 => LEVELS[level],
            _ => LEVELS[0],
        }
    };
    (0..columns).map(level).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_keep_their_peaks() {
        assert_eq!(curve(&[0, 1, 100, 0, 50, 100], 6), "▁▂█▁▄█");
        assert_eq!(curve(&[0, 9, 0, 0], 2), "█▁");
        assert_eq!(curve(&[], 6), "");
        assert_eq!(curve(&[1], 0), "");
    }

    #[test]
    fn long_rows_of_nothing_are_folded() {
        let lines = |marks: &str| {
            let lines = marks.chars().map(|c| (c.to_string(), c == '0'));
            folded(lines).concat()
        };
        assert_eq!(lines("a000b"), "a000b");
        assert_eq!(lines("a0000b00c"), "a…b00c");
    }

    #[test]
    fn what_is_there_is_seen() {
        assert_eq!(scaled(0, 10, 40), 0);
        assert_eq!(scaled(1, 1_000_000, 40), 1);
        assert_eq!(scaled(u64::MAX, u64::MAX, 40), 40);
        assert_eq!(scaled(1, 0, 40), 0);
    }
}

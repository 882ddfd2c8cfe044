//! Columns that fit the terminal: a line is never wider than it, and never wraps.

use std::borrow::Cow;

/// On which side of its column a cell stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// A column of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its title.
    pub title: &'static str,
    /// Where cells stand.
    pub align: Align,
    /// Fewest columns of the terminal that make sense: with less it is left out.
    pub min: usize,
    /// Importance: the one with the greatest goes first when there is no room. No two alike.
    pub rank: u8,
}

/// A table whose columns have got their widths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table<'a> {
    columns: Cow<'a, [Column]>,
    /// 0: left out.
    widths: Vec<usize>,
    terminal: Option<usize>,
}

const GAP: usize = 2;
/// Most lines for a pipe have fewer bytes than this.
const USUAL: usize = 160;

impl<'a> Table<'a> {
    /// Distributes a terminal of so many columns; `None`: as wide as it gets, for a pipe.
    ///
    /// `wanted` is the width that each column would like to have; its title always counts. The
    /// most important columns are taken while they fit with their least width, and what is left
    /// goes to them in the same order.
    pub fn new(columns: &'a [Column], wanted: &[usize], terminal: Option<usize>) -> Table<'a> {
        let want: Vec<usize> = columns
            .iter()
            .enumerate()
            .map(|(i, c)| width(c.title).max(wanted.get(i).copied().unwrap_or(0)))
            .collect();
        let mut widths = vec![0; columns.len()];
        let mut left = terminal.unwrap_or(usize::MAX);
        let mut order: Vec<usize> = (0..columns.len()).collect();
        order.sort_by_key(|i| columns[*i].rank);
        let mut taken = Vec::new();
        for i in order {
            let gap = if taken.is_empty() { 0 } else { GAP };
            let least = columns[i].min.min(want[i]);
            if least + gap > left && !taken.is_empty() {
                break;
            }
            widths[i] = least.min(left);
            left -= widths[i] + gap;
            taken.push(i);
        }
        for i in taken {
            let more = (want[i] - widths[i]).min(left);
            widths[i] += more;
            left -= more;
        }
        Table {
            columns: Cow::Borrowed(columns),
            widths,
            terminal,
        }
    }

    /// A table with columns of its own, for many lines.
    pub fn into_owned(self) -> Table<'static> {
        Table {
            columns: Cow::Owned(self.columns.into_owned()),
            widths: self.widths,
            terminal: self.terminal,
        }
    }

    /// As [`new`](Table::new), wide enough for these rows.
    pub fn for_rows(
        columns: &'a [Column],
        rows: &[Vec<String>],
        terminal: Option<usize>,
    ) -> Table<'a> {
        let mut wanted = vec![0; columns.len()];
        for row in rows {
            for (most, cell) in wanted.iter_mut().zip(row) {
                *most = width(cell).max(*most);
            }
        }
        Table::new(columns, &wanted, terminal)
    }

    /// The titles.
    pub fn header(&self) -> String {
        let titles: Vec<String> = self.columns.iter().map(|c| c.title.to_owned()).collect();
        self.row(&titles)
    }

    /// A line. Cells must be safe to print; those that do not fit end with `…`.
    ///
    /// For a pipe nothing is cut, even where a cell is wider than its column was said to be.
    pub fn row(&self, cells: &[String]) -> String {
        let mut line = String::with_capacity(USUAL);
        let mut blanks = 0;
        let mut first = true;
        for ((column, wide), cell) in self.columns.iter().zip(&self.widths).zip(cells) {
            if *wide == 0 {
                continue;
            }
            if !first {
                blanks += GAP;
            }
            first = false;
            let cell: Cow<'_, str> = match self.terminal {
                Some(_) => cut(cell, *wide),
                None => cell.into(),
            };
            let pad = wide.saturating_sub(width(&cell));
            let (before, after) = match column.align {
                Align::Left => (0, pad),
                Align::Right => (pad, 0),
            };
            // Blanks are owed, so that no line ends with them.
            if !cell.is_empty() {
                push_blanks(&mut line, blanks + before);
                line.push_str(&cell);
                blanks = after;
            } else {
                blanks += pad;
            }
        }
        line
    }
}

/// Columns of a terminal that a text takes. What may be wide or narrow counts as wide: better a
/// gap than a wrapped line.
pub fn width(text: &str) -> usize {
    match text.is_ascii() {
        true => text.len(),
        false => text.chars().map(char_width).sum(),
    }
}

fn push_blanks(line: &mut String, mut count: usize) {
    const BLANKS: &str = "                                ";
    while count > 0 {
        let some = count.min(BLANKS.len());
        line.push_str(&BLANKS[..some]);
        count -= some;
    }
}

/// The text in at most `wide` columns, with `…` where something is missing.
pub fn cut(text: &str, wide: usize) -> Cow<'_, str> {
    if width(text) <= wide {
        return text.into();
    }
    let mut short = String::new();
    let mut left = wide.saturating_sub(1);
    for c in text.chars() {
        let Some(after) = left.checked_sub(char_width(c)) else {
            break;
        };
        short.push(c);
        left = after;
    }
    if wide > 0 {
        short.push('…');
    }
    short.into()
}

/// Hangul, CJK, emoji: everything from U+1100 on but punctuation and arrows.
fn char_width(c: char) -> usize {
    match c {
        '\u{2010}'..='\u{2bff}' => 1,
        '\u{1100}'.. => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [
        Column {
            title: "AGE",
            align: Align::Right,
            min: 4,
            rank: 0,
        },
        Column {
            title: "COMM",
            align: Align::Left,
            min: 4,
            rank: 2,
        },
        Column {
            title: "LOCAL",
            align: Align::Left,
            min: 6,
            rank: 1,
        },
    ];

    fn cells(row: [&str; 3]) -> Vec<String> {
        row.map(str::to_owned).to_vec()
    }

    fn lines(terminal: Option<usize>) -> Vec<String> {
        let rows = [
            cells(["~1h52m", "python3", "10.1.0.5:41822"]),
            cells(["3s", "", "[::1]:80"]),
        ];
        let table = Table::for_rows(&COLUMNS, &rows, terminal);
        let mut lines = vec![table.header()];
        lines.extend(rows.iter().map(|r| table.row(r)));
        lines
    }

    #[test]
    fn a_pipe_gets_everything() {
        assert_eq!(
            lines(None),
            [
                "   AGE  COMM     LOCAL",
                "~1h52m  python3  10.1.0.5:41822",
                "    3s           [::1]:80",
            ]
        );
    }

    #[test]
    fn what_matters_least_goes_first() {
        assert_eq!(
            lines(Some(26)),
            [
                "   AGE  COMM  LOCAL",
                "~1h52m  pyt…  10.1.0.5:41…",
                "    3s        [::1]:80",
            ]
        );
        assert_eq!(lines(Some(14))[1], "~1h52m  10.1.…");
        assert_eq!(lines(Some(3))[1], "~1…");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for terminal in 1..60 {
            for line in lines(Some(terminal)) {
                assert!(width(&line) <= terminal, "{terminal}: {line:?}");
                assert_eq!(line.trim_end(), line);
            }
        }
    }

    #[test]
    fn wide_letters_count_twice() {
        assert_eq!(width("日本"), 4);
        assert_eq!(cut("日本語", 4), "日…");
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abc", 0), "");
    }
}

//! What `watch` prints for people: a line per change.

use jiff::tz::TimeZone;

use super::table::{Align, Column, Table, cut};
use super::{cells, frames};
use crate::cause::Cause;
use crate::change::{Change, View};
use crate::state::TcpState;
use crate::time::{Mono, WallAnchor};
use crate::verdict::Verdict;

/// How a time is written.
#[derive(Clone, Debug)]
pub enum TimeStyle {
    /// Time of day: `02:58:31.123`.
    Local(TimeZone),
    /// RFC 3339: `2026-11-22T02:58:31.123Z`.
    Utc,
    /// Seconds since the anchor, which is read at the start: `62.123`.
    SinceStart,
    /// CLOCK_MONOTONIC, ns.
    Monotonic,
}

/// How lines look.
#[derive(Clone, Debug, Default)]
pub struct Style {
    /// Start every line with the time.
    pub time: Option<TimeStyle>,
    /// Columns of the terminal; `None`: a pipe or a file, nothing is left out or cut.
    pub width: Option<usize>,
    /// With ANSI colors.
    pub color: bool,
    /// With container and command line.
    pub wide: bool,
    /// The table is one of transitions; stuck sockets are sentences in it.
    pub transitions: bool,
    /// Under stuck sockets stands where they were acquired.
    pub stack: bool,
}

/// Prints changes. Lines have no newline at their end.
#[derive(Clone, Debug)]
pub struct Printer {
    style: Style,
    anchor: WallAnchor,
    table: Table<'static>,
}

impl Printer {
    /// A printer; `anchor` gives instants their date, and is the start.
    pub fn new(style: Style, anchor: WallAnchor) -> Printer {
        let mut columns: Vec<(Column, usize)> = style.time.iter().map(time_column).collect();
        columns.extend(match style.transitions {
            true => TRANSITION,
            false => STUCK,
        });
        if style.wide {
            columns.extend(WIDE);
        }
        let (columns, usual): (Vec<Column>, Vec<usize>) = columns.into_iter().unzip();
        let table = Table::new(&columns, &usual, style.width).into_owned();
        Printer {
            style,
            anchor,
            table,
        }
    }

    /// The line above the first.
    pub fn header(&self) -> String {
        self.paint(self.table.header(), BOLD)
    }

    /// The line of a change, and those of a stack under it.
    pub fn line(&self, change: &Change) -> String {
        let mut text = self.first_line(change);
        if let (Change::Stuck(view), true) = (change, self.style.stack) {
            for line in stacks(view) {
                text.push('\n');
                match self.style.width {
                    Some(wide) => text.push_str(&cut(&line, wide)),
                    None => text.push_str(&line),
                }
            }
        }
        text
    }

    fn first_line(&self, change: &Change) -> String {
        match change {
            Change::Stuck(view) if self.style.transitions => self.sentence(
                view,
                ("stuck", stuck_color(view)),
                &[
                    view.age.to_string(),
                    view.state.to_string(),
                    cells::verdict(view),
                ],
            ),
            Change::Stuck(view) => self.paint(self.row(view, stuck(view)), stuck_color(view)),
            Change::Resolved { view, next, cause } => self.sentence(
                view,
                ("resolved", GREEN),
                &[
                    view.age.to_string(),
                    format!("{} -> {next}", view.state),
                    why(view, *cause),
                ],
            ),
            Change::Transition { view, next, cause } => {
                self.row(view, transition(view, *next, *cause))
            }
            Change::Overflow {
                view,
                dropped,
                estimated,
            } => self.sentence(
                view,
                ("overflow", RED),
                &[
                    "LISTEN".to_owned(),
                    cells::dropped(*dropped, *estimated),
                    cells::queue(view),
                ],
            ),
        }
    }

    fn row(&self, view: &View, cells: [String; 8]) -> String {
        let mut row: Vec<String> = self.time(view.at).into_iter().collect();
        row.extend(cells);
        if self.style.wide {
            row.extend([cells::container(view), cells::cmdline(view)]);
        }
        self.table.row(&row)
    }

    /// A line that is no row of the table: its first word says so. What matters most comes first,
    /// since a narrow terminal cuts the end.
    fn sentence(&self, view: &View, (word, color): (&str, Color), what: &[String]) -> String {
        let who = format!("{} {}", cells::pid_fd(view), cells::comm(view));
        let ends = match view.state {
            TcpState::Listen => view.tuple.local.to_string(),
            _ => format!("{} -> {}", view.tuple.local, view.tuple.remote),
        };
        let time = self.time(view.at);
        let parts = time.iter().map(String::as_str).chain([word]);
        let rest = what.iter().chain([&who, &ends]).map(String::as_str);
        let parts: Vec<&str> = parts.chain(rest).filter(|p| !p.is_empty()).collect();
        let line = parts.join("  ");
        let line = self
            .style
            .width
            .map_or(line.clone(), |w| cut(&line, w).into_owned());
        self.paint(line, color)
    }

    fn paint(&self, line: String, color: Color) -> String {
        match self.style.color && !color.is_empty() {
            true => format!("\x1b[{color}m{line}\x1b[0m"),
            false => line,
        }
    }

    fn time(&self, at: Mono) -> Option<String> {
        let style = self.style.time.as_ref()?;
        let wall = jiff::Timestamp::from_nanosecond(i128::from(self.anchor.wall_ns(at)));
        Some(match (style, wall) {
            (TimeStyle::Monotonic, _) => at.0.to_string(),
            (TimeStyle::SinceStart, _) => {
                let us = at.since(self.anchor.mono) / 1_000;
                format!("{}.{:03}", us / 1_000_000, us / 1_000 % 1_000)
            }
            (TimeStyle::Utc, Ok(wall)) => format!("{wall:.3}"),
            (TimeStyle::Local(zone), Ok(wall)) => wall
                .to_zoned(zone.clone())
                .strftime("%H:%M:%S%.3f")
                .to_string(),
            (_, Err(_)) => "?".to_owned(),
        })
    }
}

/// Where a socket was acquired, and where its end was read, as far as that was seen.
fn stacks(view: &View) -> Vec<String> {
    let acquired = view.acquired_at.as_ref().map(|at| ("acquired at", at));
    let eof = view.eof_at.as_ref().map(|at| ("EOF read at", at));
    let stacks = acquired.into_iter().chain(eof);
    let lines = stacks.flat_map(|(what, at)| {
        let frames = frames::lines(at, frames::SHOWN).into_iter();
        let frames = frames.map(|line| format!("            {line}"));
        std::iter::once(format!("        {what}")).chain(frames)
    });
    lines.collect()
}

/// An SGR code; empty: as the terminal is.
type Color = &'static str;

const BOLD: Color = "1";
const RED: Color = "31";
const GREEN: Color = "32";
const PLAIN: Color = "";

/// The columns of stuck sockets, each with the width that its usual contents take.
const STUCK: [(Column, usize); 8] = [
    column("AGE", Align::Right, 6, 7, 1),
    column("STATE", Align::Left, 10, 11, 0),
    column("PID/FD", Align::Left, 8, 12, 3),
    column("COMM", Align::Left, 8, 15, 4),
    column("LOCAL", Align::Left, 15, 21, 7),
    column("PEER", Align::Left, 15, 21, 5),
    column("RQ", Align::Right, 4, 6, 8),
    column("VERDICT", Align::Left, 12, 34, 6),
];

fn stuck(view: &View) -> [String; 8] {
    [
        view.age.to_string(),
        view.state.to_string(),
        cells::pid_fd(view),
        cells::comm(view),
        cells::end(view.tuple.local),
        cells::end(view.tuple.remote),
        cells::recv_q(view),
        cells::verdict(view),
    ]
}

fn stuck_color(view: &View) -> Color {
    match view.verdict {
        Some(Verdict::NeverAccepted | Verdict::DeadFdOpen) => RED,
        _ => PLAIN,
    }
}

/// The columns of transitions, those of tcpstates.
const TRANSITION: [(Column, usize); 8] = [
    column("ID", Align::Left, 6, 8, 8),
    column("PID", Align::Left, 7, 7, 1),
    column("COMM", Align::Left, 8, 15, 5),
    column("LOCAL", Align::Left, 15, 21, 6),
    column("PEER", Align::Left, 15, 21, 4),
    column("OLD -> NEW", Align::Left, 25, 26, 0),
    column("MS", Align::Right, 9, 12, 3),
    column("CAUSE", Align::Left, 8, 40, 7),
];

fn transition(view: &View, next: TcpState, cause: Cause) -> [String; 8] {
    [
        view.id.to_string(),
        cells::pid(view),
        cells::comm(view),
        cells::end(view.tuple.local),
        cells::end(view.tuple.remote),
        format!("{:<11} -> {next}", view.state),
        cells::milliseconds(view.age),
        cause.text().to_owned(),
    ]
}

/// What `--wide` adds.
const WIDE: [(Column, usize); 2] = [
    column("CONTAINER", Align::Left, 12, 12, 9),
    column("COMMAND", Align::Left, 10, 40, 10),
];

fn time_column(style: &TimeStyle) -> (Column, usize) {
    let width = match style {
        TimeStyle::Local(_) => 12,
        TimeStyle::Utc => 24,
        TimeStyle::SinceStart => 9,
        TimeStyle::Monotonic => 16,
    };
    column("TIME", Align::Left, width, width, 2)
}

const fn column(
    title: &'static str,
    align: Align,
    min: usize,
    usual: usize,
    rank: u8,
) -> (Column, usize) {
    let column = Column {
        title,
        align,
        min,
        rank,
    };
    (column, usual)
}

/// Why a socket left its state; a connection can be dead while its descriptor is still open.
fn why(view: &View, cause: Cause) -> String {
    match (view.verdict, view.owner.fd) {
        (Some(Verdict::DeadFdOpen), Some(fd)) => format!("{}, fd {fd} still open", cause.text()),
        (Some(Verdict::DeadFdOpen), None) => format!("{}, fd still open", cause.text()),
        _ => cause.text().to_owned(),
    }
}

#[cfg(test)]
mod tests;

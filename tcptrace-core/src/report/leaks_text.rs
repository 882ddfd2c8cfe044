//! Sockets that nobody closes, for people at a terminal.

use super::frames;
use super::leaks::{Acquired, Fate, Group, Key, Leaks, Owner, Place, StacksMissing, Trend};
use super::snapshot::thousands;
use super::summary_text::{self, paragraph};
use super::table::cut;
use crate::cause::Cause;
use crate::stack::Point;
use crate::text::escape;
use crate::time::duration_text;
use crate::verdict::Verdict;

/// How the report is printed.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Columns of the terminal; `None`: a pipe or a file.
    pub terminal: Option<usize>,
    /// With ANSI colors.
    pub color: bool,
    /// Groups that are shown at most.
    pub top: usize,
    /// All frames of a stack.
    pub full_stacks: bool,
}

/// Places that are shown of those at which sockets of a group were acquired, read or closed.
const PLACES: usize = 3;

/// Owners and peers that are named in a headline.
const NAMES: usize = 2;

/// The report as lines, each with its newline.
pub fn to_text(leaks: &Leaks, style: Style) -> String {
    let page = Page {
        terminal: style.terminal,
        frames: match style.full_stacks {
            true => usize::MAX,
            false => frames::SHOWN,
        },
        color: style.color,
        lines: Vec::new(),
    };
    let lines = page.report(leaks, style.top);
    lines.into_iter().map(|line| line + "\n").collect()
}

struct Page {
    terminal: Option<usize>,
    /// Frames of a stack that are shown.
    frames: usize,
    color: bool,
    lines: Vec<String>,
}

impl Page {
    fn report(mut self, leaks: &Leaks, top: usize) -> Vec<String> {
        let [from, to] = [leaks.from, leaks.to].map(|at| leaks.anchor.rfc3339_ms(at));
        let span = duration_text(leaks.to.since(leaks.from));
        self.words(0, &format!("LEAKS of {span}, {from} to {to}"));
        let states: Vec<String> = leaks.states.iter().map(|s| s.to_string()).collect();
        let states = states.join(", ");
        let least = match leaks.question.min_age_ns {
            0 => String::new(),
            ns => format!(" for {} or longer", duration_text(ns)),
        };
        self.words(0, &format!("{} in {states}{least}", sockets(leaks.total)));
        for (number, group) in leaks.groups.iter().take(top).enumerate() {
            self.lines.push(String::new());
            self.group(number + 1, group, leaks);
        }
        let rest = leaks.groups.iter().skip(top);
        let (groups, more) = rest.fold((0, 0), |(n, sum), group| (n + 1, sum + group.size()));
        self.lines.push(String::new());
        if groups > 0 {
            let more = sockets(more);
            self.words(
                0,
                &format!("and {groups} more groups with {more}: see --top"),
            );
        }
        self.end(leaks);
        self.lines
    }

    fn group(&mut self, number: usize, group: &Group, leaks: &Leaks) {
        let headline = headline(number, group, leaks);
        let from = self.lines.len();
        self.words(0, &headline);
        if self.color {
            for line in &mut self.lines[from..] {
                *line = format!("\x1b[1m{line}\x1b[0m");
            }
        }
        if group.count > 0 {
            self.words(4, &evidence(group));
        }
        if group.inferred > 0 {
            let n = thousands(group.inferred);
            self.words(
                4,
                &format!("with ~{n} without a stack, same pid and peer: inferred"),
            );
        }
        for now in &group.now {
            self.words(4, &format!("now: {}", escape(now)));
        }
        if group.acquired.is_empty() {
            let why = "no stack: acquired before the trace began, or not taken";
            self.words(4, why);
        }
        for acquired in group.acquired.iter().take(PLACES) {
            let by = match acquired.point {
                Point::Accept => "accepted at",
                _ => "acquired at",
            };
            let some = some_of(acquired.count, group.count).unwrap_or_default();
            self.place(by, &some, &acquired.at);
            self.fate(acquired);
        }
        self.more(group.acquired.len(), "places");
        for (at, count) in group.eof_at.iter().take(PLACES) {
            let some = some_of(*count, group.count).unwrap_or_default();
            self.place("EOF read at", &some, at);
        }
        self.more(group.eof_at.len(), "places");
    }

    /// Where others that were acquired there are closed.
    fn fate(&mut self, acquired: &Acquired) {
        if acquired.fate.closed > 0 {
            self.closed_at(&acquired.fate, "there");
            return;
        }
        self.words(4, &outcome(&acquired.fate, "there"));
        if let Some(kin) = &acquired.kin {
            let shared = escape(&frames::name(&kin.shared));
            self.closed_at(&kin.fate, &format!("by {shared} for others"));
        }
    }

    /// Where those are closed that were acquired `so`.
    fn closed_at(&mut self, fate: &Fate, so: &str) {
        let [first, rest @ ..] = &fate.places[..] else {
            self.words(4, &format!("closed elsewhere: {}", outcome(fate, so)));
            return;
        };
        let (at, count) = first;
        let text = match some_of(*count, fate.closed) {
            Some(some) => format!("{}; here {some}", outcome(fate, so)),
            None => outcome(fate, so),
        };
        self.place("usually closed at", &text, at);
        for (at, count) in rest.iter().take(PLACES - 1) {
            let some = some_of(*count, fate.closed).unwrap_or_default();
            self.place("also closed at", &some, at);
        }
        self.more(fate.places.len(), "places");
    }

    /// A stack below what it is.
    fn place(&mut self, what: &str, text: &str, at: &Place) {
        match text {
            "" => self.words(4, what),
            text => self.words(4, &format!("{what:<18}  {text}")),
        }
        let Some(stack) = at else {
            self.words(8, "(a stack that found no room)");
            return;
        };
        for line in frames::lines(stack, self.frames) {
            let line = format!("        {line}");
            let fits = self.terminal.map(|wide| cut(&line, wide).into_owned());
            self.lines.push(fits.unwrap_or(line));
        }
    }

    fn more(&mut self, all: usize, what: &str) {
        if let Some(more) = all.checked_sub(PLACES).filter(|more| *more > 0) {
            self.words(4, &format!("and {more} more {what}: see --json"));
        }
    }

    fn end(&mut self, leaks: &Leaks) {
        match leaks.stacks {
            None => self.words(0, "this trace took no stacks"),
            Some(missing) => self.missing(missing),
        }
        for note in &leaks.completeness.notes {
            self.words(0, &format!("note: {}", escape(note)));
        }
        let from = self.lines.len();
        self.words(0, &summary_text::completeness(&leaks.completeness));
        if self.color && !leaks.completeness.complete() {
            for line in &mut self.lines[from..] {
                *line = format!("\x1b[31m{line}\x1b[0m");
            }
        }
    }

    fn missing(&mut self, stacks: StacksMissing) {
        let lost = [
            (stacks.lost.over_budget, "over the budget (--stack-rate)"),
            (stacks.lost.full, "for a full buffer"),
            (stacks.lost.unreadable, "that could not be read"),
            (stacks.refused, "without room to keep them"),
            (stacks.late, "named too late"),
        ];
        let lost = lost.into_iter().filter(|(n, _)| *n > 0);
        let lost: Vec<String> = lost
            .map(|(n, why)| format!("{} {why}", thousands(n)))
            .collect();
        if !lost.is_empty() {
            self.words(0, &format!("stacks not taken: {}", lost.join(", ")));
        }
    }

    /// Words in lines that fit the terminal, so far indented.
    fn words(&mut self, indent: usize, text: &str) {
        let left = self.terminal.map(|wide| wide.saturating_sub(indent).max(1));
        let pad = " ".repeat(indent.min(self.terminal.unwrap_or(indent)));
        for line in paragraph(text.split(' '), left) {
            let line = format!("{pad}{line}");
            let fits = self.terminal.map(|wide| cut(&line, wide).into_owned());
            self.lines.push(fits.unwrap_or(line));
        }
    }
}

/// `#1  1,204 sockets in CLOSE_WAIT (97 %)  python3[4711]  -> 10.1.2.3:443  growing +38/min  …`.
fn headline(number: usize, group: &Group, leaks: &Leaks) -> String {
    let states = group.states.iter();
    let states: Vec<String> = match group.states.len() {
        1 => states.map(|(state, _)| state.to_string()).collect(),
        _ => states
            .map(|(s, n)| format!("{s} ({})", thousands(*n)))
            .collect(),
    };
    let share = 100.0 * group.size() as f64 / leaks.total.max(1) as f64;
    let mut parts = vec![
        format!("#{number}"),
        format!(
            "{} in {} ({share:.0} %)",
            sockets(group.size()),
            states.join(", ")
        ),
        some_names(group.owners.iter().map(|(who, _)| owner(who)).collect()),
    ];
    let peers = group.peers.iter();
    let peers = peers.map(|(peer, _)| peer.as_deref().map_or("?".to_owned(), escape));
    parts.push(format!("-> {}", some_names(peers.collect())));
    if let Key::Container(container) = &group.key {
        let container = container.as_deref().map_or("?".to_owned(), escape);
        parts.push(format!("container {container}"));
    }
    parts.push(trend(group.counts.trend()));
    parts.push(match group.size() {
        1 => format!("for {}", group.oldest),
        _ => format!("oldest {}, half over {}", group.oldest, group.half),
    });
    parts.join("  ")
}

/// `python3[4711]`, with the first characters of its container's id.
fn owner(owner: &Owner) -> String {
    let pid = owner.pid.map_or("?".to_owned(), |pid| pid.to_string());
    let comm = owner.comm.as_deref().map_or("?".to_owned(), escape);
    match owner.container.as_deref() {
        Some(id) => {
            let id: String = id.chars().take(12).collect();
            format!("{comm}[{pid}] in {}", escape(&id))
        }
        None => format!("{comm}[{pid}]"),
    }
}

fn some_names(names: Vec<String>) -> String {
    let shown = names[..NAMES.min(names.len())].join(", ");
    match names.len().checked_sub(NAMES) {
        None | Some(0) => shown,
        Some(more) => format!("{shown} and {more} more"),
    }
}

fn trend(trend: Trend) -> String {
    let rate = |per_min: f64| match per_min {
        n if n < 10.0 => format!("{n:.1}/min"),
        n => format!("{}/min", thousands(n.round() as u64)),
    };
    match trend {
        Trend::Growing(by) => format!("growing +{}", rate(by)),
        Trend::Steady => "steady".to_owned(),
        Trend::Shrinking(by) => format!("shrinking -{}", rate(by)),
        Trend::Unknown => "trend ?".to_owned(),
    }
}

/// `never closed: the peer closed first, the FIN was never read (1,204 of 1,204)`.
fn evidence(group: &Group) -> String {
    let first = match group.closed_first() {
        Some("peer") => "not closed: the peer closed first",
        Some(_) => "closed here first",
        None => "not closed",
    };
    let verdicts = group.verdicts.iter();
    let told = verdicts.filter_map(|(verdict, count)| {
        let (some, all) = (thousands(*count), thousands(group.count));
        Some(format!("{} ({some} of {all})", in_words((*verdict)?)))
    });
    let unread = match (
        group.recv_q,
        group.verdicts.contains_key(&Some(Verdict::DataUnread)),
    ) {
        (Some((_, most)), true) => format!(", Recv-Q up to {}", thousands(u64::from(most))),
        _ => String::new(),
    };
    let told: Vec<String> = std::iter::once(first.to_owned()).chain(told).collect();
    format!("{}{unread}", told.join("; "))
}

fn in_words(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::FinUnread => "the FIN was never read",
        Verdict::CloseNotifyUnread => "a TLS close_notify and the FIN were never read",
        Verdict::DataUnread => "data and the FIN were never read",
        Verdict::EofRead => "the end was read",
        Verdict::Drained => "all was read, maybe the end, too",
        verdict => verdict.text(),
    }
}

/// `988 of 2,192 (45 %) were closed, after 12.0ms (p50), 80.0ms (p99); 3 ended otherwise: 3 reset by peer`.
fn outcome(fate: &Fate, so: &str) -> String {
    let closed = match fate.closed {
        0 => format!("none of {}", thousands(fate.acquired)),
        closed => some_of(closed, fate.acquired)
            .unwrap_or_else(|| format!("all {}", thousands(fate.acquired))),
    };
    let were = if fate.closed < 2 { "was" } else { "were" };
    let mut text = format!("{closed} acquired {so} {were} closed");
    if let Some([half, most]) = fate.held_ns {
        let [half, most] = [half, most].map(duration_text);
        text.push_str(&format!(", after {half} (p50), {most} (p99)"));
    }
    let otherwise = fate.otherwise.iter();
    let otherwise = otherwise.map(|(cause, count)| {
        let cause = match cause {
            Cause::Exit => "ended with their process",
            cause => cause.text(),
        };
        format!("{} {cause}", thousands(*count))
    });
    let otherwise: Vec<String> = otherwise.collect();
    if !otherwise.is_empty() {
        text.push_str(&format!("; {}", otherwise.join(", ")));
    }
    text
}

/// `300 of 304 (98 %)`; `None`: all of them.
fn some_of(part: u64, all: u64) -> Option<String> {
    let percent = 100.0 * part as f64 / all.max(1) as f64;
    let percent = match percent {
        // What is not all is not said to be.
        p if p > 99.0 => format!("{:.1}", (p * 10.0).floor() / 10.0),
        p => format!("{p:.0}"),
    };
    let (part_text, all_text) = (thousands(part), thousands(all));
    (part != all).then(|| format!("{part_text} of {all_text} ({percent} %)"))
}

fn sockets(n: u64) -> String {
    match n {
        0 => "no socket".to_owned(),
        1 => "1 socket".to_owned(),
        n => format!("{} sockets", thousands(n)),
    }
}

//! A diagnosis for people at a terminal: one screen, or one line where nothing is wrong.

use super::{Diagnosis, Finding, Label, Severity, time_wait};
use crate::report::snapshot::thousands;
use crate::report::summary_text::{completeness, paragraph};
use crate::report::table::cut;
use crate::state::TcpState;
use crate::text::escape;
use crate::time::duration_text;

/// How it is printed.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Columns of the terminal; `None`: a pipe or a file.
    pub terminal: Option<usize>,
    /// With ANSI colors.
    pub color: bool,
    /// Findings that are shown at most.
    pub top: usize,
}

/// Columns before the sentences of a finding.
const INDENT: usize = 10;

/// The diagnosis as lines, each with its newline.
pub fn to_text(diagnosis: &Diagnosis, style: Style) -> String {
    let mut page = Page {
        style,
        lines: Vec::new(),
    };
    if diagnosis.findings.is_empty() {
        page.healthy(diagnosis);
    } else {
        page.ill(diagnosis);
    }
    page.lines.into_iter().map(|line| line + "\n").collect()
}

struct Page {
    style: Style,
    lines: Vec<String>,
}

impl Page {
    fn healthy(&mut self, diagnosis: &Diagnosis) {
        let time_wait = diagnosis.states.get(&TcpState::TimeWait).copied();
        let harmless = time_wait::harmless(time_wait.unwrap_or(0));
        let harmless = harmless.map_or(String::new(), |text| format!("; {text}"));
        let text = format!("nothing found: {}{harmless}", scope(diagnosis));
        self.words("", 2, &text, None);
        self.end(diagnosis);
    }

    fn ill(&mut self, diagnosis: &Diagnosis) {
        let text = format!(
            "{} · kernel {} · {}",
            escape(&diagnosis.host),
            escape(&diagnosis.kernel),
            scope(diagnosis)
        );
        self.words("", 2, &text, None);
        for finding in diagnosis.findings.iter().take(self.style.top) {
            self.finding(finding);
        }
        if let Some(more) = diagnosis.findings.get(self.style.top..)
            && !more.is_empty()
        {
            let text = format!("and {} more findings: see --top", more.len());
            self.words("", 2, &text, None);
        }
        self.end(diagnosis);
        let mut ids: Vec<&str> = diagnosis.findings.iter().map(|f| f.id.name()).collect();
        ids.sort_unstable();
        ids.dedup();
        let text = format!("more about these: tcptrace explain {}", ids.join(" | "));
        self.words("", 2, &text, None);
    }

    fn finding(&mut self, finding: &Finding) {
        let title = finding.severity.name().to_uppercase();
        let headline = format!("{}  [{}]", finding.headline, finding.id);
        let color = match finding.severity {
            Severity::Critical => "\x1b[1;31m",
            Severity::Warning => "\x1b[1;33m",
            Severity::Notice | Severity::Info => "\x1b[1m",
        };
        self.words(&title, INDENT, &headline, Some(color));
        let mut last = None;
        for (label, text) in &finding.lines {
            let title = match last == Some(*label) {
                true => String::new(),
                false => format!("  {}", label.title()),
            };
            last = Some(*label);
            let color = matches!(label, Label::Now | Label::Fix).then_some("\x1b[32m");
            self.words(&title, INDENT, text, color);
        }
    }

    fn end(&mut self, diagnosis: &Diagnosis) {
        for note in &diagnosis.completeness.notes {
            self.words("", 2, &format!("note: {}", escape(note)), None);
        }
        let complete = diagnosis.completeness.complete();
        let color = (!complete).then_some("\x1b[31m");
        self.words("", 2, &completeness(&diagnosis.completeness), color);
    }

    /// A title, and words behind it in lines that fit the terminal; the lines that follow are indented.
    fn words(&mut self, title: &str, indent: usize, text: &str, color: Option<&str>) {
        let behind = match title {
            "" if indent > 2 => " ".repeat(indent),
            "" => String::new(),
            title => format!("{title:<indent$}"),
        };
        let wide = self.style.terminal;
        let left = wide.map(|wide| wide.saturating_sub(indent).max(20));
        for (number, line) in paragraph(text.split(' '), left).into_iter().enumerate() {
            let line = match number {
                0 => format!("{behind}{line}"),
                _ if indent > 2 => format!("{}{}", " ".repeat(indent), line.trim_start()),
                _ => line,
            };
            let line = wide.map_or_else(|| line.clone(), |wide| cut(&line, wide).into_owned());
            self.lines.push(match color.filter(|_| self.style.color) {
                Some(color) => format!("{color}{line}\x1b[0m"),
                None => line,
            });
        }
    }
}

/// `27,418 connections, traced for 10.0s`.
fn scope(diagnosis: &Diagnosis) -> String {
    format!(
        "{} connections, traced for {}",
        thousands(diagnosis.sockets()),
        duration_text(diagnosis.to.since(diagnosis.from))
    )
}

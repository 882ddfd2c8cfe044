//! What doctor and explain write on: lines with a word in front, as wide as the terminal.

use tcptrace_core::text::escape;

/// The word in front of a line.
#[derive(Clone, Copy)]
pub(super) enum Grade {
    Ok,
    Miss,
    Warn,
    Info,
    Plan,
    Sysctl,
    Cost,
}

impl Grade {
    fn word(self) -> &'static str {
        match self {
            Grade::Ok => "OK",
            Grade::Miss => "MISS",
            Grade::Warn => "WARN",
            Grade::Info => "INFO",
            Grade::Plan => "PLAN",
            Grade::Sysctl => "SYSCTL",
            Grade::Cost => "COST",
        }
    }
}

/// Text wrapped at a width, with the grade hanging out.
pub(super) struct Page {
    width: Option<usize>,
    /// What was written so far.
    pub(super) text: String,
}

impl Page {
    /// An empty one; without a width nothing is wrapped.
    pub(super) fn new(width: Option<usize>) -> Page {
        let text = String::new();
        Page { width, text }
    }

    /// Writes a line under its grade.
    pub(super) fn line(&mut self, grade: Grade, text: &str) {
        self.wrap(&format!("{:7}", grade.word()), text, 7);
    }

    /// Writes a line without one.
    pub(super) fn plain(&mut self, text: &str) {
        self.wrap("", text, 0);
    }

    /// Writes a line behind `head`, and what follows of it below its begin.
    pub(super) fn hanging(&mut self, head: &str, text: &str) {
        self.wrap(head, text, head.chars().count());
    }

    fn wrap(&mut self, head: &str, text: &str, indent: usize) {
        self.text += head;
        let mut column = indent;
        for (i, word) in escape(text).split(' ').enumerate() {
            let len = word.chars().count();
            if i > 0 && self.width.is_some_and(|width| column + 1 + len > width) {
                self.text.push('\n');
                self.text.extend(std::iter::repeat_n(' ', indent));
                column = indent;
            } else if i > 0 {
                self.text.push(' ');
                column += 1;
            }
            self.text += word;
            column += len;
        }
        self.text.push('\n');
    }
}

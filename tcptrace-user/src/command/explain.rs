//! `tcptrace explain`: what a state, a setting or an error is, and what is true of it here.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use serde::Serialize;

use super::page::Page;
use super::trace::WRITE;
use crate::error::Usage;
use crate::kernel::value::{self, Value};
use crate::options::Explain;
use crate::topics::{self, Topic};

/// Columns of a text at most: longer lines are hard to read.
const WIDTH: usize = 100;

/// Prints the text of a topic, or lists the topics.
///
/// # Errors
/// If there is no such topic, or the output cannot be written.
pub(crate) fn run(options: &Explain) -> anyhow::Result<ExitCode> {
    let width = options.terminal.width.map_or(WIDTH, |w| w.min(WIDTH));
    let proc = Path::new("/proc");
    let text = match (&options.topic, options.json) {
        (None, false) => list(topics::all(), width),
        (None, true) => {
            let lines = topics::all().iter().map(|topic| line(topic, proc));
            lines.collect::<Result<_, _>>()?
        }
        (Some(asked), json) => {
            let topic = topics::find(asked).ok_or_else(|| unknown(asked))?;
            match json {
                true => line(topic, proc)?,
                false => page(topic, &values(topic, proc), width),
            }
        }
    };
    super::print(text.as_bytes()).context(WRITE)?;
    Ok(ExitCode::SUCCESS)
}

fn unknown(asked: &str) -> Usage {
    let near = topics::nearest(asked);
    let hint = match near.is_empty() {
        true => String::new(),
        false => format!("there is {}; ", near.join(", ")),
    };
    Usage::new(
        format!("nothing is known of '{asked}'"),
        format!("{hint}`tcptrace explain` lists every topic"),
    )
}

fn values(topic: &Topic, proc: &Path) -> Vec<Value> {
    let values = topic.values.iter();
    values.map(|name| value::read(proc, name)).collect()
}

/// Groups, and a line for each of their topics.
fn list(topics: &[Topic], width: usize) -> String {
    let names = topics.iter().map(|t| t.name.len()).max().unwrap_or(0) + 4;
    let mut page = Page::new(Some(width));
    for (i, topic) in topics.iter().enumerate() {
        if i == 0 || topics[i - 1].group != topic.group {
            page.text += if i == 0 { "" } else { "\n" };
            page.plain(topic.group);
        }
        page.hanging(&format!("  {:1$}", topic.name, names - 2), topic.title);
    }
    page.text += "\n";
    page.plain("Any common spelling will do: CLOSE-WAIT, cw, net.ipv4.tcp_tw_reuse, Errno 99.");
    page.text
}

/// The text of a topic, wrapped, with what is true here behind its first section.
fn page(topic: &Topic, values: &[Value], width: usize) -> String {
    let mut page = Page::new(Some(width));
    page.plain(&format!("{}: {}", topic.name, topic.title));
    for (i, section) in sections(topic.text).iter().enumerate() {
        page.text += "\n";
        page.plain(section[0]);
        for block in &section[1..] {
            match block {
                &"" => page.text += "\n",
                line if line.starts_with(' ') => page.text += &format!("{line}\n"),
                paragraph => page.hanging("  ", &paragraph.replace('\n', " ")),
            }
        }
        if i == 0 && !values.is_empty() {
            page.text += "\n";
            for value in values {
                page.hanging("  here: ", &here(value));
            }
        }
    }
    page.text += "\nSEE ALSO\n";
    page.hanging("  ", &topic.see.join(", "));
    page.text
}

/// `60 (tcp_fin_timeout): ends FIN_WAIT_2 of closed sockets only`.
fn here(value: &Value) -> String {
    let text = match (&value.value, &value.why_not) {
        (Some(text), _) => format!("{text} ({})", value.short()),
        (None, Some(why)) => format!("not known ({}): {why}", value.short()),
        (None, None) => format!("not known ({})", value.short()),
    };
    match &value.note {
        Some(note) => format!("{text}: {note}"),
        None => text,
    }
}

/// Each section's title, and its paragraphs and indented lines; an empty one is an empty line.
fn sections(text: &str) -> Vec<Vec<&str>> {
    let mut sections: Vec<Vec<&str>> = Vec::new();
    for section in text.split("\n\n") {
        let (title, rest) = section.split_once('\n').unwrap_or((section, ""));
        let is_title = !title.contains(|c: char| c.is_lowercase());
        match sections.last_mut() {
            Some(open) if !is_title => {
                open.push("");
                open.extend(blocks(section));
            }
            _ => {
                let mut open = vec![title];
                open.extend(blocks(rest));
                sections.push(open);
            }
        }
    }
    sections
}

/// Splits lines into paragraphs, each of several lines, and indented lines, each on its own.
fn blocks(text: &str) -> Vec<&str> {
    let mut blocks = Vec::new();
    let mut begin = 0;
    let mut end = 0;
    for line in text.split_inclusive('\n') {
        let indented = line.starts_with(' ');
        if indented && begin < end {
            blocks.push(&text[begin..end]);
            begin = end;
        }
        end += line.len();
        if indented {
            blocks.push(&text[begin..end]);
            begin = end;
        }
    }
    blocks.push(&text[begin..end]);
    blocks
        .iter()
        .map(|b| b.trim_end())
        .filter(|b| !b.is_empty())
        .collect()
}

/// One line of JSON.
fn line(topic: &Topic, proc: &Path) -> anyhow::Result<String> {
    let object = Object {
        kind: "explain",
        topic: topic.name,
        title: topic.title,
        group: topic.group,
        text: topic.text,
        values: values(topic, proc),
        see_also: &topic.see,
    };
    Ok(serde_json::to_string(&object)? + "\n")
}

#[derive(Serialize)]
struct Object<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    topic: &'a str,
    title: &'a str,
    group: &'a str,
    text: &'a str,
    values: Vec<Value>,
    see_also: &'a [&'a str],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_wider_than_the_page() {
        for width in [80, 100] {
            let mut pages = vec![list(topics::all(), width)];
            for topic in topics::all() {
                pages.push(page(topic, &values(topic, Path::new("/nowhere")), width));
            }
            for line in pages.iter().flat_map(|p| p.lines()) {
                assert!(line.chars().count() <= width, "{line}");
                assert!(!line.ends_with(' '), "'{line}'");
            }
        }
    }

    #[test]
    fn every_value_is_one_that_can_be_read() {
        let proc = tempfile::tempdir().expect("a directory");
        for topic in topics::all() {
            for value in values(topic, proc.path()) {
                let why = value.why_not.expect("there is none here");
                assert!(
                    !why.contains("there is no such value"),
                    "{}: {}",
                    topic.name,
                    value.name
                );
            }
        }
    }

    #[test]
    fn a_page_has_its_text_and_what_is_true_here() {
        let proc = tempfile::tempdir().expect("a directory");
        let dir = proc.path().join("sys/net/ipv4");
        std::fs::create_dir_all(&dir).expect("directories");
        std::fs::write(dir.join("tcp_fin_timeout"), "62\n").expect("a setting");
        let topic = topics::find("tcp_fin_timeout").expect("it is known");
        let page = page(topic, &values(topic, proc.path()), 100);
        assert!(page.starts_with("tcp_fin_timeout: "), "{page}");
        assert!(
            page.contains("\n  here: 62 (tcp_fin_timeout): ends FIN_WAIT_2"),
            "{page}"
        );
        assert!(page.contains("\nSEE ALSO\n  "), "{page}");
    }

    #[test]
    fn texts_are_split_into_sections_paragraphs_and_lines() {
        let text = "ONE\nA word\nand more.\n    a line\n    another\n\nA paragraph.\n\nTWO\nEnd.";
        assert_eq!(
            sections(text),
            [
                vec![
                    "ONE",
                    "A word\nand more.",
                    "    a line",
                    "    another",
                    "",
                    "A paragraph."
                ],
                vec!["TWO", "End."],
            ]
        );
    }
}

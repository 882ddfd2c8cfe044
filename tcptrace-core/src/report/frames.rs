//! Frames of stacks: for people, for programs, and as names in flame graphs.

use std::ops::Range;

use serde_json::{Value, json};

use super::table::width;
use crate::stack::{Frame, FrameKind, Stack};
use crate::text::escape;

/// Frames of a stack that are shown, unless all are wanted.
pub const SHOWN: usize = 12;

/// Places take at most so many columns before the other ones are not moved for them.
const MAX_PLACE: usize = 40;

/// A line per frame, the innermost first, at most so many; what is left out is counted. Safe to print.
pub(super) fn lines(stack: &Stack, most: usize) -> Vec<String> {
    let inner = interpreter(stack, most);
    let frames = stack.frames.iter().enumerate();
    let frames = frames.filter(|(place, _)| !inner.contains(place));
    let cells: Vec<[String; 2]> = frames.map(|(_, f)| cells(f)).take(most).collect();
    let shown = cells.len();
    let places = cells.iter().map(|[place, _]| width(place));
    let wide = places.filter(|w| *w <= MAX_PLACE).max().unwrap_or(0);
    let mut lines: Vec<String> = cells
        .into_iter()
        .map(|[place, rest]| {
            let pad = " ".repeat(wide.saturating_sub(width(&place)));
            format!("{place}{pad}  {rest}").trim_end().to_owned()
        })
        .collect();
    let left_out = match inner.len() {
        0 => None,
        1 => Some("… 1 of the interpreter".to_owned()),
        n => Some(format!("… {n} of the interpreter")),
    };
    if let Some(left_out) = left_out {
        lines.insert(inner.start.min(shown), left_out);
    }
    let more = stack.frames.len() - inner.len() - shown;
    match (more, &stack.cut) {
        (0, Some(why)) => lines.push(format!("… ({})", escape(why))),
        (0, None) => {}
        (more, Some(why)) => lines.push(format!("… {more} more, then cut ({})", escape(why))),
        (more, None) => lines.push(format!("… {more} more")),
    }
    lines
}

/// Where only some frames are shown: those of the interpreter itself, between the function that made
/// the call and the Python that wanted it.
fn interpreter(stack: &Stack, most: usize) -> Range<usize> {
    let python = |frame: &Frame| matches!(frame.kind, FrameKind::Python | FrameKind::PythonLater);
    match stack.frames.iter().position(python) {
        Some(first) if first > 1 && most < usize::MAX => 1..first,
        _ => 0..0,
    }
}

/// Where it is and what it is: `client.py:31`, `fetch_item`; `connect`, `libc.so.6`.
fn cells(frame: &Frame) -> [String; 2] {
    let file = frame.file.as_deref().map(|file| escape(&last_two(file)));
    let source = file.map(|file| match frame.line {
        Some(line) => format!("{file}:{line}"),
        None => file,
    });
    let function = frame.function.as_deref().map(escape);
    match frame.kind {
        FrameKind::Python | FrameKind::PythonLater => {
            let later = match frame.kind {
                FrameKind::PythonLater => "~",
                _ => "",
            };
            let source = source.unwrap_or_else(|| "?".to_owned());
            let function = function.unwrap_or_else(|| "?".to_owned());
            [format!("{later}{source}"), function]
        }
        kind => {
            let [place, rest] = match (function, source) {
                (Some(function), Some(source)) => [function, format!("({source})")],
                (Some(function), None) => [function, module(frame)],
                (None, _) => [unnamed(frame), build_id(frame)],
            };
            let mark = match kind {
                FrameKind::Inlined => "[inlined]",
                FrameKind::FramePointer => "[frame pointer]",
                _ => "",
            };
            let rest = [rest.as_str(), mark];
            let rest: Vec<&str> = rest.into_iter().filter(|text| !text.is_empty()).collect();
            [place, rest.join(" ")]
        }
    }
}

/// `libc.so.6`: the last part of the module's path.
fn module(frame: &Frame) -> String {
    let module = frame.module.as_deref().unwrap_or_default();
    escape(module.rsplit('/').next().unwrap_or(module))
}

/// `app+0x1234`; `0x1234` of memory without a file.
fn unnamed(frame: &Frame) -> String {
    match module(frame).as_str() {
        "" => format!("{:#x}", frame.address),
        module => format!("{module}+{:#x}", frame.address),
    }
}

/// `(build id 0123456789ab…)`.
fn build_id(frame: &Frame) -> String {
    const SHOWN: usize = 12;
    let Some(id) = frame.build_id.as_deref() else {
        return String::new();
    };
    match id.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("(build id {}…)", escape(&id[..end])),
        None => format!("(build id {})", escape(id)),
    }
}

/// The last two parts of a path.
fn last_two(path: &str) -> String {
    let slashes = path.char_indices().rev().filter(|(_, c)| *c == '/');
    let before = slashes.map(|(at, _)| at + 1).nth(1);
    path[before.unwrap_or(0)..].to_owned()
}

/// A frame in a line: `fetch_item (app/client.py:31)`, `connect (libc.so.6)`. As it is: not safe to
/// print.
pub fn name(frame: &Frame) -> String {
    let module = frame.module.as_deref().unwrap_or_default();
    let module = module.rsplit('/').next().unwrap_or(module);
    let place = match (frame.file.as_deref(), frame.line) {
        (Some(file), Some(line)) => format!("{}:{line}", last_two(file)),
        (Some(file), None) => last_two(file),
        (None, _) => module.to_owned(),
    };
    let name = match (frame.function.as_deref(), place.as_str()) {
        (Some(function), "") => function.to_owned(),
        (Some(function), place) => format!("{function} ({place})"),
        (None, "") => format!("{:#x}", frame.address),
        (None, _) => format!("{module}+{:#x}", frame.address),
    };
    match frame.kind {
        FrameKind::PythonLater => format!("~{name}"),
        _ => name,
    }
}

/// The frames as a list of objects, the innermost first.
pub(super) fn objects(stack: &Stack) -> Value {
    stack.frames.iter().map(object).collect()
}

pub(super) fn object(frame: &Frame) -> Value {
    json!({
        "function": frame.function.as_deref(),
        "file": frame.file.as_deref(),
        "line": frame.line,
        "module": frame.module.as_deref(),
        "build_id": frame.build_id.as_deref(),
        "address": match frame.kind {
            FrameKind::Python | FrameKind::PythonLater => None,
            _ => Some(frame.address),
        },
        "kind": match frame.kind {
            FrameKind::Native => "native",
            FrameKind::Inlined => "inlined",
            FrameKind::FramePointer => "frame_pointer",
            FrameKind::Python => "python",
            FrameKind::PythonLater => "python_later",
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::StackId;

    fn frame(kind: FrameKind, function: Option<&str>, file: Option<(&str, u32)>) -> Frame {
        Frame {
            function: function.map(Into::into),
            file: file.map(|(file, _)| file.into()),
            line: file.map(|(_, line)| line),
            module: Some("/usr/lib/libc.so.6".into()),
            build_id: Some("0123456789abcdef".into()),
            address: 0x1234,
            kind,
        }
    }

    fn stack() -> Stack {
        use FrameKind::*;
        let python = |kind, function, file| Frame {
            module: None,
            build_id: None,
            address: 0,
            ..frame(kind, Some(function), Some(file))
        };
        let frames = vec![
            frame(Native, Some("connect"), None),
            frame(Inlined, Some("dial"), Some(("/src/net/sock.c", 12))),
            frame(Native, None, None),
            frame(FramePointer, Some("main"), None),
            python(Python, "fetch\x1b[31m", ("/srv/app/client.py", 31)),
            python(PythonLater, "run", ("run.py", 7)),
        ];
        Stack {
            id: StackId(1),
            frames: frames.into(),
            cut: Some("the copy ends here".into()),
        }
    }

    #[test]
    fn frames_read_as_people_write_them() {
        assert_eq!(
            lines(&stack(), usize::MAX),
            [
                "connect           libc.so.6",
                "dial              (net/sock.c:12) [inlined]",
                "libc.so.6+0x1234  (build id 0123456789ab…)",
                "main              libc.so.6 [frame pointer]",
                "app/client.py:31  fetch\\x1b[31m",
                "~run.py:7         run",
                "… (the copy ends here)",
            ]
        );
        let few = lines(&stack(), 2);
        assert_eq!(few[1], "… 3 of the interpreter");
        assert_eq!(few[2], "app/client.py:31  fetch\\x1b[31m");
        assert_eq!(few[3], "… 1 more, then cut (the copy ends here)");
    }

    #[test]
    fn names_stand_for_themselves() {
        let names: Vec<String> = stack().frames.iter().map(name).collect();
        assert_eq!(names[0], "connect (libc.so.6)");
        assert_eq!(names[1], "dial (net/sock.c:12)");
        assert_eq!(names[2], "libc.so.6+0x1234");
        assert_eq!(names[5], "~run (run.py:7)");
    }

    #[test]
    fn programs_get_whole_paths() {
        let objects = objects(&stack());
        assert_eq!(objects[4]["file"], "/srv/app/client.py");
        assert_eq!(objects[4]["address"], Value::Null);
        assert_eq!(objects[2]["function"], Value::Null);
        assert_eq!(objects[2]["address"], 0x1234);
    }
}

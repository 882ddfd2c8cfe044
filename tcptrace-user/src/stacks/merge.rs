//! Native frames and those of Python put together to one stack.

use std::sync::Arc;

use tcptrace_core::stack::{Frame, FrameKind};
use tcptrace_stacks::{self as native, BuildId, By, End, Trace};

/// What the functions that evaluate Python's byte code are called, from 3.8 on.
const EVALUATION: [&str; 3] = ["_PyEval_EvalFrame", "PyEval_EvalFrame", "_TAIL_CALL_"];

/// The Python frames of a thread.
#[derive(Debug)]
pub(super) struct Python {
    /// The innermost first.
    pub(super) frames: Vec<Frame>,
    /// Why there are no more of them.
    pub(super) cut: Option<Arc<str>>,
}

/// Where the interpreter called itself, among the frames of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// How many frames are in front of it.
    inner: usize,
    /// The first frame behind it.
    outer: usize,
}

/// Where the frames of Python stand in a trace; `None`: no interpreter is in it.
pub(super) fn place(frames: &[native::Frame]) -> Option<Place> {
    let first = frames
        .iter()
        .position(is_evaluation)
        .or_else(|| frames.iter().position(is_of_interpreter))?;
    let module = &frames[first].module;
    // A program that has the interpreter in itself has functions of its own, and those without a name.
    let is_internal = |frame: &native::Frame| {
        let named = frame.function.as_deref();
        frame.module == *module
            && named.is_none_or(|name| name.starts_with("Py") || name.starts_with("_Py"))
    };
    let last = frames.iter().rposition(is_internal).unwrap_or(first);
    // What is inlined in a function stands or goes with it.
    let inlined = frames[..first].iter().rev().take_while(|f| f.inlined);
    Some(Place {
        inner: first - inlined.count(),
        outer: last.max(first) + 1,
    })
}

/// The frames of a trace, with those of Python in the place of the interpreter's, and why there are
/// no more.
pub(super) fn merge(trace: &Trace, python: Option<Python>) -> (Vec<Frame>, Option<Arc<str>>) {
    let cut = (trace.end != End::Root).then(|| Arc::from(trace.end.to_string()));
    let frames = &trace.frames[..];
    let Some(python) = python else {
        return (natives(frames), cut);
    };
    // A copy of the stack may end before the interpreter: then Python's frames come behind what it has.
    let whole = Place {
        inner: frames.len(),
        outer: frames.len(),
    };
    let place = place(frames).unwrap_or(whole);
    let mut merged = natives(&frames[..place.inner]);
    merged.extend(python.frames);
    let cut = python.cut.or(cut);
    // Where frames are missing, those behind may have been called from Python.
    if cut.is_none() {
        merged.extend(natives(&frames[place.outer..]));
    }
    (merged, cut)
}

fn is_evaluation(frame: &native::Frame) -> bool {
    let named = frame.function.as_deref();
    named.is_some_and(|name| EVALUATION.iter().any(|start| name.starts_with(start)))
}

/// Whether a frame is in a file that is called as the interpreter's file is.
fn is_of_interpreter(frame: &native::Frame) -> bool {
    let path = frame.module.as_deref().unwrap_or_default();
    let name = path.rsplit('/').next().unwrap_or_default();
    name.starts_with("libpython") || name.starts_with("python")
}

fn natives(frames: &[native::Frame]) -> Vec<Frame> {
    let mut natives = Vec::with_capacity(frames.len());
    // Neighbours are mostly of the same file.
    let mut last: Option<(&BuildId, Arc<str>)> = None;
    for frame in frames {
        if let Some(id) = &frame.build_id
            && last.as_ref().is_none_or(|(known, _)| *known != id)
        {
            last = Some((id, Arc::from(id.to_string())));
        }
        let text = last.as_ref().map(|(_, text)| Arc::clone(text));
        natives.push(native(frame, frame.build_id.as_ref().and(text)));
    }
    natives
}

fn native(frame: &native::Frame, build_id: Option<Arc<str>>) -> Frame {
    Frame {
        function: frame.function.clone(),
        file: frame.file.clone(),
        line: frame.line,
        module: frame.module.clone(),
        build_id,
        address: frame.address.unwrap_or(frame.offset),
        kind: match frame.by {
            _ if frame.inlined => FrameKind::Inlined,
            By::FramePointer => FrameKind::FramePointer,
            By::Registers | By::Cfi | By::Go => FrameKind::Native,
        },
    }
}

/// A frame of Python; `None`: what it is called could not be read.
pub(super) fn python(frame: Option<tcptrace_python::Frame>, kind: FrameKind) -> Frame {
    let Some(frame) = frame else {
        return Frame {
            kind,
            ..Frame::default()
        };
    };
    Frame {
        function: Some(Arc::from(short(&frame.function))),
        file: Some(Arc::from(short(&frame.file))),
        line: frame.line,
        kind,
        ..Frame::default()
    }
}

/// As much of a name as is kept of native ones.
fn short(name: &str) -> &str {
    const MAX_NAME: usize = 1 << 10;
    &name[..name.floor_char_boundary(MAX_NAME)]
}

#[cfg(test)]
mod tests {
    use tcptrace_stacks::TraceId;

    use super::*;

    const LIBC: &str = "/lib/libc.so.6";
    const PYTHON: &str = "/usr/bin/python3.11";
    const SOCKET: &str = "/usr/lib/python3.11/lib-dynload/_socket.cpython-311-x86_64-linux-gnu.so";

    fn frame(function: &str, module: &str) -> native::Frame {
        native::Frame {
            ip: 0x1234,
            by: By::Cfi,
            module: Some(Arc::from(module)),
            build_id: Some(BuildId(Arc::from([0xab, 0x01]))),
            offset: 0x34,
            address: Some(0x234),
            function: (function != "?").then(|| Arc::from(function)),
            file: None,
            line: None,
            inlined: false,
        }
    }

    fn trace(frames: &[(&str, &str)], end: End) -> Trace {
        Trace {
            id: TraceId(1),
            frames: frames.iter().map(|(f, m)| frame(f, m)).collect(),
            end,
        }
    }

    fn two_of_python(cut: Option<&str>) -> Option<Python> {
        let named = |function: &str| tcptrace_python::Frame {
            file: "client.py".to_owned(),
            function: function.to_owned(),
            line: Some(7),
        };
        let frames = ["Client.open", "<module>"];
        Some(Python {
            frames: frames
                .map(|function| python(Some(named(function)), FrameKind::Python))
                .to_vec(),
            cut: cut.map(Arc::from),
        })
    }

    /// The functions of what becomes of a trace, and why there are no more.
    fn merged(
        frames: &[(&str, &str)],
        end: End,
        python: Option<Python>,
    ) -> (Vec<String>, Option<Arc<str>>) {
        let (frames, cut) = merge(&trace(frames, end), python);
        let name = |f: &Frame| f.function.as_deref().unwrap_or("?").to_owned();
        (frames.iter().map(name).collect(), cut)
    }

    /// With a trampoline of `python -X perf`.
    const STACK: [(&str, &str); 15] = [
        ("connect", LIBC),
        ("internal_connect", SOCKET),
        ("sock_connect", SOCKET),
        ("_PyEval_EvalFrameDefault", PYTHON),
        ("?", PYTHON),
        ("_PyObject_Call", PYTHON),
        ("py::<module>:client.py", "[anon]"),
        ("of_a_library", "/usr/lib/libother.so"),
        ("_PyEval_EvalFrameDefault.cold", PYTHON),
        ("run_mod", PYTHON),
        ("Py_RunMain", PYTHON),
        ("Py_BytesMain", PYTHON),
        ("main", PYTHON),
        ("__libc_start_main", LIBC),
        ("_start", PYTHON),
    ];

    #[test]
    fn frames_of_python_stand_where_the_interpreter_called_itself() {
        let (names, cut) = merged(&STACK, End::Root, two_of_python(None));
        let expected = [
            "connect",
            "internal_connect",
            "sock_connect",
            "Client.open",
            "<module>",
            "main",
            "__libc_start_main",
            "_start",
        ];
        assert_eq!(names, expected);
        assert_eq!(cut, None);
        let (names, _) = merged(&STACK, End::Root, None);
        assert_eq!(names.len(), STACK.len());
    }

    #[test]
    fn an_interpreter_without_names_is_told_by_its_file() {
        let stripped = STACK.map(|(f, m)| if m == PYTHON { ("?", m) } else { (f, m) });
        let (names, _) = merged(&stripped, End::Root, two_of_python(None));
        let expected = [
            "connect",
            "internal_connect",
            "sock_connect",
            "Client.open",
            "<module>",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn a_host_of_the_interpreter_keeps_its_frames() {
        let library = "/usr/lib/libpython3.12.so.1.0";
        let host = [
            ("connect", LIBC),
            ("_PyEval_EvalFrameDefault", library),
            ("PyRun_SimpleStringFlags", library),
            ("run_script", "/opt/host"),
            ("main", "/opt/host"),
        ];
        let (names, _) = merged(&host, End::Root, two_of_python(None));
        let expected = ["connect", "Client.open", "<module>", "run_script", "main"];
        assert_eq!(names, expected);
    }

    #[test]
    fn a_cut_is_told() {
        let short = &STACK[..8];
        let (names, cut) = merged(short, End::CopyTooShort, two_of_python(None));
        assert_eq!(names[3..], ["Client.open", "<module>"]);
        assert_eq!(cut.as_deref(), Some("the copy of the stack ends here"));
        let (names, cut) = merged(&STACK[..2], End::CopyTooShort, two_of_python(None));
        assert_eq!(names[1..], ["internal_connect", "Client.open", "<module>"]);
        assert!(cut.is_some());
        let (names, cut) = merged(&STACK, End::Root, two_of_python(Some("more")));
        assert_eq!(names.last().map(String::as_str), Some("<module>"));
        assert_eq!(cut.as_deref(), Some("more"));
    }

    #[test]
    fn what_is_inlined_in_the_interpreter_goes_with_it() {
        let mut trace = trace(&STACK, End::Root);
        trace.frames[2].inlined = true;
        let place = place(&trace.frames).expect("an interpreter");
        assert_eq!(
            place,
            Place {
                inner: 2,
                outer: 12
            }
        );
        assert_eq!(super::place(&trace.frames[..2]), None);
        assert_eq!(super::place(&[]), None);
    }

    #[test]
    fn native_frames_keep_what_is_known_of_them() {
        let mut trace = trace(&STACK[..3], End::Chain);
        trace.frames[0].inlined = true;
        trace.frames[1].by = By::FramePointer;
        trace.frames[2].address = None;
        let (frames, cut) = merge(&trace, None);
        let kinds: Vec<_> = frames.iter().map(|frame| frame.kind).collect();
        let expected = [
            FrameKind::Inlined,
            FrameKind::FramePointer,
            FrameKind::Native,
        ];
        assert_eq!(kinds, expected);
        assert_eq!(frames[0].build_id.as_deref(), Some("ab01"));
        assert_eq!((frames[1].address, frames[2].address), (0x234, 0x34));
        assert_eq!(
            cut.as_deref(),
            Some("the chain of frame pointers ends here")
        );
    }
}

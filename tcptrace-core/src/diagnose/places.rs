//! Where in the code sockets were acquired, and where others of the same place are closed.

use serde_json::{Value, json};

use super::case::Case;
use super::finding::{Finding, Label};
use super::words::{of, percent};
use crate::report::frames;
use crate::report::leaks::{Acquired, Fate, places_of};
use crate::stack::{Frame, FrameKind, Stack};
use crate::text::escape;
use crate::time::duration_text;
use crate::tracker::Outstanding;

/// Places that are told.
const PLACES: usize = 2;

/// Frames of a place that are told.
const FRAMES: usize = 4;

/// Functions that everything is called by, or their first characters.
const STARTS: [&str; 17] = [
    "_start",
    "__libc_start_main",
    "__libc_start_main_impl",
    "__libc_start_call_main",
    "start_thread",
    "clone",
    "clone3",
    "__clone",
    "__clone3",
    "runtime.goexit",
    "runtime.main",
    "<module>",
    "_bootstrap",
    "std::rt::lang_start",
    "std::sys::backtrace::__rust_",
    "core::ops::function::Fn",
    "std::thread::",
];

/// Tells of the places at which these were acquired.
pub(super) fn tell(case: &Case<'_>, sockets: &[&Outstanding], finding: &mut Finding) {
    let all = sockets.len() as u64;
    let places = places_of(case.tracker, sockets.iter().copied(), PLACES);
    for acquired in &places {
        let Some(stack) = acquired.at.as_deref() else {
            continue;
        };
        let share = percent(acquired.count, all);
        finding.say(
            Label::Where,
            format!("{share} acquired at  {}", path(stack)),
        );
        finding.say(Label::Where, closer(acquired));
    }
    let told: Vec<Value> = places.iter().map(object).collect();
    finding.number("acquired_at", told);
    let known = |s: &&&Outstanding| {
        s.acquired
            .is_some_and(|a| case.tracker.stack(a.stack).is_some())
    };
    let unseen = all - sockets.iter().filter(known).count() as u64;
    if unseen > 0 && unseen < all {
        let text = format!(
            "of {} nobody knows where: no stack was taken",
            of(unseen, all)
        );
        finding.say(Label::Where, text);
    }
    finding.number("acquired_unseen", unseen);
}

/// `fetch_item (app/client.py:31) > request (requests/sessions.py:589) > … > connect (libc.so.6)`:
/// the way to the call, without what every program starts with.
pub(super) fn path(stack: &Stack) -> String {
    let python = |frame: &Frame| matches!(frame.kind, FrameKind::Python | FrameKind::PythonLater);
    let any_python = stack.frames.iter().any(python);
    let tells = |frame: &&Frame| {
        let function = frame.function.as_deref().unwrap_or_default();
        let starts = |start: &str| match start {
            "_bootstrap" => function.starts_with(start),
            start if start.contains("::") => function.starts_with(start),
            start => function == start,
        };
        !STARTS.into_iter().any(starts) && (python(frame) || !any_python)
    };
    let mut frames: Vec<&Frame> = stack.frames.iter().rev().filter(tells).collect();
    if frames.is_empty() {
        frames = stack.frames.iter().rev().collect();
    }
    let name = |frame: &&Frame| escape(&frames::name(frame));
    let mut names: Vec<String> = frames.iter().map(name).collect();
    if names.len() > FRAMES {
        let last = names.split_off(names.len() - 1);
        names.truncate(FRAMES - 1);
        names.push("…".to_owned());
        names.extend(last);
    }
    names.join(" > ")
}

/// Where others are closed, if any are.
fn closer(acquired: &Acquired) -> Option<String> {
    if acquired.fate.closed > 0 {
        return usual(&acquired.fate, "others acquired there are");
    }
    let kin = acquired.kin.as_ref()?;
    let shared = escape(&frames::name(&kin.shared));
    usual(&kin.fate, &format!("what {shared} acquires for others is"))
}

fn usual(fate: &Fate, what: &str) -> Option<String> {
    let (at, _) = fate.places.first()?;
    let held = fate.held_ns.map(|[_, most]| {
        let most = duration_text(most);
        format!(", p99 after {most}")
    });
    Some(format!(
        "{what} closed at  {}  ({}{})",
        path(at.as_deref()?),
        of(fate.closed, fate.acquired),
        held.unwrap_or_default()
    ))
}

fn object(acquired: &Acquired) -> Value {
    let stack = |at: Option<&Stack>| at.map(path);
    let closed = |fate: &Fate| {
        let first = fate.places.first();
        json!({
            "acquired": fate.acquired,
            "closed": fate.closed,
            "at": first.and_then(|(at, _)| stack(at.as_deref())),
            "held_p50_ns": fate.held_ns.map(|[half, _]| half),
            "held_p99_ns": fate.held_ns.map(|[_, most]| most),
        })
    };
    json!({
        "count": acquired.count,
        "stack": stack(acquired.at.as_deref()),
        "fate": closed(&acquired.fate),
        "kin": acquired.kin.as_ref().map(|kin| closed(&kin.fate)),
    })
}

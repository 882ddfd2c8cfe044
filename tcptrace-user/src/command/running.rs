//! A trace on its way, from the first dump to the last input.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Context as _;
use tcptrace_core::input::Input;
use tcptrace_core::time::duration_text;

use super::trace::{WRITE, tell};
use crate::companion::Companion;
use crate::end::End;
use crate::kernel::plan::Mode;
use crate::options::Trace;
use crate::pipeline::{Pipeline, Sink};
use crate::recorder::{Dump, Progress, Recorder};
use crate::source::live::Live;
use crate::status::size_text;
use crate::trigger::Trigger;

/// Everything that takes part in it.
pub(super) struct Running<'a, S> {
    pub(super) trace: &'a Trace,
    pub(super) live: Live,
    pub(super) pipeline: Pipeline<S>,
    pub(super) companion: Option<&'a mut Companion>,
    pub(super) end: End,
    pub(super) trigger: Option<Trigger>,
    /// What was said, each once.
    pub(super) told: BTreeSet<String>,
}

impl<S: Sink> Running<'_, S> {
    /// Takes what comes until the end; false: whoever read the output went away.
    ///
    /// # Errors
    /// If the output cannot be written, or the companion not be started.
    pub(super) async fn follow(&mut self, mode: Mode) -> anyhow::Result<bool> {
        self.live.bootstrap(&mut self.pipeline);
        self.introduced();
        if !self.pipeline.pause().context(WRITE)? {
            return Ok(false);
        }
        let there = self.pipeline.tracker().open();
        self.trace.terminal.notice(&format!(
            "{} (mode {mode}); {there} already there; ^C ends with a summary",
            self.trace.begun
        ));
        if let Some(companion) = &mut self.companion {
            companion.go()?;
        }
        self.end.after(self.trace.duration_ns);
        loop {
            for notice in self.live.take_notices() {
                self.warn(notice);
            }
            let companion = self.companion.as_mut();
            let alone = companion.is_some_and(|c| c.ended().is_some());
            if alone || self.end.reached_within(self.live.pause()).await {
                return Ok(true);
            }
            self.live.step(&mut self.pipeline);
            if !self.pipeline.pause().context(WRITE)? {
                return Ok(false);
            }
            self.dump_if_wanted().await;
            match self.pipeline.recorder() {
                // What was seen is summed up before the failure is told.
                Some(recorder) if recorder.has_failed() => return Ok(true),
                Some(recorder) if recorder.is_due() => {
                    let written = recorder.rotate();
                    self.wrote(written);
                    self.introduce();
                }
                _ => {}
            }
        }
    }

    /// Takes what is left, and the end.
    pub(super) fn finish(&mut self, polled_ns: Option<u64>) {
        let at = self.live.finish(&mut self.pipeline);
        let longest = self.live.longest_gap();
        if let Some(ns) = polled_ns.filter(|ns| longest > ns + ns / 2) {
            let (longest, asked) = (duration_text(longest), duration_text(ns));
            let note = format!("the longest time between two polls was {longest}, not {asked}");
            tell(&mut self.pipeline, &note);
        }
        self.pipeline.feed(&Input::End(at));
        let written = self.pipeline.recorder().and_then(Recorder::end_dump);
        self.wrote(written);
    }

    /// Writes what the recorder holds if somebody wants it.
    async fn dump_if_wanted(&mut self) {
        let dumping = self.pipeline.recorder().is_some_and(|r| r.is_dumping());
        let Some(trigger) = &mut self.trigger else {
            return;
        };
        let Some(why) = trigger.fires(self.pipeline.tracker(), dumping).await else {
            return;
        };
        let Some(dump) = self.pipeline.recorder().and_then(Recorder::dump) else {
            return;
        };
        let at = jiff::Zoned::now().strftime("%H:%M:%S").to_string();
        let what = match &dump {
            Dump::Begun(name, reaches) => {
                let before = duration_text(reaches.as_nanos() as u64);
                format!("writing {name} with the {before} before")
            }
            Dump::Bare(name) => format!("writing {name} with nothing of what was before"),
            Dump::Prolonged(name) => format!("{name} goes on for longer"),
        };
        if matches!(dump, Dump::Bare(_)) {
            self.introduce();
        }
        self.say(&format!("triggered {at}: {why}; {what}"));
    }

    /// Tells a part that begins all that is known.
    fn introduce(&mut self) {
        self.live.introduce(&mut self.pipeline);
        self.introduced();
    }

    fn introduced(&mut self) {
        let recorder = self.pipeline.recorder();
        if recorder.is_some_and(|recorder| !recorder.introduced()) {
            self.warn(
                "--ring has no room for the sockets that there are: for now nothing is held of what \
                 comes before a trigger; give it more"
                    .to_owned(),
            );
        }
    }

    fn wrote(&mut self, written: Option<(Arc<str>, Progress)>) {
        if let Some((name, progress)) = written {
            let Progress { inputs, bytes, .. } = progress;
            let size = size_text(bytes);
            self.say(&format!("wrote {name}: {inputs} records, {size}"));
        }
    }

    /// Says what a reader of the results has to know, too, once.
    fn warn(&mut self, notice: String) {
        if !self.told.contains(&notice) {
            self.say(&notice);
            tell(&mut self.pipeline, &notice);
            self.told.insert(notice);
        }
    }

    fn say(&mut self, notice: &str) {
        self.pipeline.sink().clear();
        self.trace.terminal.notice(notice);
    }
}

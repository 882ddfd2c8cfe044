//! The one door through which inputs reach the tracker, and changes reach the screen.

use std::io;
use std::sync::Arc;

use tcptrace_core::change::Change;
use tcptrace_core::input::Input;
use tcptrace_core::time::Mono;
use tcptrace_core::tracker::Tracker;

use crate::recorder::{Progress, Recorder};

/// Shows changes.
pub(crate) trait Sink {
    /// Hears of an input, before the tracker does.
    fn input(&mut self, _: &Input, _: &Tracker) {}

    /// Takes one change.
    ///
    /// # Errors
    /// If the output cannot be written.
    fn change(&mut self, change: &Change) -> io::Result<()>;

    /// Shows all that it took; false: nobody is there to see it any more.
    ///
    /// # Errors
    /// If the output cannot be written.
    fn pause(&mut self, tracker: &Tracker, recorded: Option<Progress>) -> io::Result<bool>;

    /// Makes room for a notice.
    fn clear(&mut self) {}
}

/// What became of a recording: its name, and how much was written or why no more was.
pub(crate) type Recorded = Result<(Arc<str>, Progress), (Arc<str>, io::Error)>;

/// Inputs go in, changes come out.
pub(crate) struct Pipeline<S> {
    recorder: Option<Recorder>,
    tracker: Tracker,
    sink: S,
    changes: Vec<Change>,
    /// Why changes are not shown any more.
    failure: Option<io::Error>,
}

impl<S: Sink> Pipeline<S> {
    /// A pipeline into `sink`, whose inputs are recorded where there is a recorder.
    pub(crate) fn new(recorder: Option<Recorder>, tracker: Tracker, sink: S) -> Pipeline<S> {
        Pipeline {
            recorder,
            tracker,
            sink,
            changes: Vec::new(),
            failure: None,
        }
    }

    /// Records one input, applies it, and shows what follows from it. Where that fails, the rest is
    /// done all the same, and the next [`Pipeline::pause`] tells.
    pub(crate) fn feed(&mut self, input: &Input) {
        if let Some(recorder) = &mut self.recorder {
            recorder.append(input);
        }
        self.sink.input(input, &self.tracker);
        self.tracker.apply(input, &mut self.changes);
        for change in self.changes.drain(..) {
            if self.failure.is_none() {
                self.failure = self.sink.change(&change).err();
            }
        }
    }

    /// Nothing comes for a while: what was taken is shown, and written. False: nobody is there to
    /// see it any more.
    ///
    /// # Errors
    /// If the output cannot be written, or could not since the last pause.
    pub(crate) fn pause(&mut self) -> io::Result<bool> {
        if let Some(recorder) = &mut self.recorder {
            recorder.pause();
        }
        if let Some(error) = self.failure.take() {
            return Err(error);
        }
        let recorded = self.recorder.as_ref().map(Recorder::progress);
        self.sink.pause(&self.tracker, recorded)
    }

    /// What has been learned so far.
    pub(crate) fn tracker(&self) -> &Tracker {
        &self.tracker
    }

    /// Begins anew at `at`, with what is known of the connections.
    pub(crate) fn restart(&mut self, at: Mono) {
        self.tracker.restart(at);
    }

    /// Where changes go.
    pub(crate) fn sink(&mut self) -> &mut S {
        &mut self.sink
    }

    /// The recorder, if there is one.
    pub(crate) fn recorder(&mut self) -> Option<&mut Recorder> {
        self.recorder.as_mut()
    }

    /// Ends the recording, if there is one, and lets go of what there is.
    pub(crate) fn into_parts(self) -> (Tracker, S, Option<Recorded>) {
        (self.tracker, self.sink, self.recorder.map(Recorder::end))
    }
}

//! The one door through which inputs reach the tracker, and changes reach the screen.

use std::io;

use tcptrace_core::change::Change;
use tcptrace_core::input::Input;
use tcptrace_core::tracker::Tracker;

/// Shows changes.
pub(crate) trait Sink {
    /// Takes one change.
    ///
    /// # Errors
    /// If the output cannot be written.
    fn change(&mut self, change: &Change) -> io::Result<()>;
}

/// Inputs go in, changes come out.
pub(crate) struct Pipeline<S> {
    tracker: Tracker,
    sink: S,
    changes: Vec<Change>,
}

impl<S: Sink> Pipeline<S> {
    /// A pipeline into `sink`.
    pub(crate) fn new(tracker: Tracker, sink: S) -> Pipeline<S> {
        Pipeline {
            tracker,
            sink,
            changes: Vec::new(),
        }
    }

    /// Applies one input and shows what follows from it.
    ///
    /// # Errors
    /// If the output cannot be written; the tracker has taken the input all the same.
    pub(crate) fn feed(&mut self, input: &Input) -> io::Result<()> {
        self.tracker.apply(input, &mut self.changes);
        let changes = std::mem::take(&mut self.changes);
        let shown = changes
            .iter()
            .try_for_each(|change| self.sink.change(change));
        self.changes = changes;
        self.changes.clear();
        shown
    }

    /// What has been learned so far.
    pub(crate) fn tracker(&self) -> &Tracker {
        &self.tracker
    }

    /// Where changes go.
    pub(crate) fn sink(&mut self) -> &mut S {
        &mut self.sink
    }
}

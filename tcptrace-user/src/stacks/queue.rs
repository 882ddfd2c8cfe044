//! Between who empties the ring and who names: both ways bounded in bytes.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tcptrace_core::stack::Frame;

use super::Answer;

/// Bytes of what waits to be named.
const QUEUE_BYTES: usize = 32 << 20;
/// Bytes of answers from which on nothing more is named until they are taken.
const ANSWER_BYTES: usize = 32 << 20;

/// What is to be done.
pub(super) enum Job {
    /// A record is named.
    Record(Box<[u8]>),
    /// A process is looked at.
    Look(u32),
}

impl Job {
    fn bytes(&self) -> usize {
        size_of::<Job>()
            + match self {
                Job::Record(record) => record.len(),
                Job::Look(_) => 0,
            }
    }

    fn is_record(&self) -> bool {
        matches!(self, Job::Record(_))
    }
}

/// Jobs one way, answers the other.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// There is something to do, or no more.
    work: Condvar,
    /// All is done.
    idle: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    job_bytes: usize,
    /// A job is being done; whether it is a record.
    busy: Option<bool>,
    answers: Vec<Answer>,
    answer_bytes: usize,
    malformed: u64,
    stopped: bool,
}

impl Queue {
    /// Adds a job; `false`: there is no room.
    pub(super) fn put(&self, job: Job) -> bool {
        let mut state = self.lock();
        let bytes = state.job_bytes + job.bytes();
        if state.stopped || bytes > QUEUE_BYTES {
            return false;
        }
        state.job_bytes = bytes;
        state.jobs.push_back(job);
        drop(state);
        self.work.notify_one();
        true
    }

    /// The next job, once there is one; `None`: there are no more.
    pub(super) fn next(&self) -> Option<Job> {
        let rests = |state: &mut State| {
            let none = state.jobs.is_empty() || state.answer_bytes > ANSWER_BYTES;
            none && !state.stopped
        };
        let state = self.work.wait_while(self.lock(), rests);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        let job = state.jobs.pop_front()?;
        state.job_bytes -= job.bytes();
        state.busy = Some(job.is_record());
        Some(job)
    }

    /// What became of the job.
    pub(super) fn done(&self, answers: Vec<Answer>, malformed: bool) {
        let mut state = self.lock();
        state.busy = None;
        if !state.stopped {
            state.malformed += u64::from(malformed);
            state.answer_bytes += answers.iter().map(bytes).sum::<usize>();
            state.answers.extend(answers);
        }
        drop(state);
        self.idle.notify_one();
    }

    /// Moves the answers.
    pub(super) fn answers(&self, into: &mut Vec<Answer>) {
        self.lock().give(into);
        self.work.notify_one();
    }

    /// Waits until all is done, but not longer than that, and moves the answers. Whether it is.
    pub(super) fn wait(&self, limit: Duration, into: &mut Vec<Answer>) -> bool {
        let start = Instant::now();
        let mut state = self.lock();
        while !state.jobs.is_empty() || state.busy.is_some() {
            // It may wait for room.
            state.give(into);
            self.work.notify_one();
            let left = limit.saturating_sub(start.elapsed());
            if left.is_zero() {
                return false;
            }
            let waited = self.idle.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.give(into);
        true
    }

    /// Stops, and moves the answers. How many records were not named, and whether nothing is being done any
    /// more.
    pub(super) fn finish(&self, into: &mut Vec<Answer>) -> (u64, bool) {
        let mut state = self.lock();
        state.give(into);
        state.stopped = true;
        let waiting = state.jobs.iter().filter(|job| job.is_record()).count();
        let dropped = waiting + usize::from(state.busy == Some(true));
        state.jobs.clear();
        state.job_bytes = 0;
        let idle = state.busy.is_none();
        drop(state);
        self.work.notify_one();
        (dropped as u64, idle)
    }

    /// Drops all that is left.
    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        state.jobs.clear();
        drop(state);
        self.work.notify_one();
    }

    pub(super) fn malformed(&self) -> u64 {
        self.lock().malformed
    }

    /// A panic elsewhere leaves the state whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn give(&mut self, into: &mut Vec<Answer>) {
        into.append(&mut self.answers);
        self.answer_bytes = 0;
    }
}

/// Bytes of an answer, about; the texts of frames are shared.
fn bytes(answer: &Answer) -> usize {
    let frames = match answer {
        Answer::Define(stack) => stack.frames.len(),
        _ => 0,
    };
    size_of::<Answer>() + frames * size_of::<Frame>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(bytes: usize) -> Job {
        Job::Record(vec![0; bytes].into())
    }

    fn answer() -> Answer {
        Answer::NotPython { tgid: 1 }
    }

    #[test]
    fn jobs_are_bounded_by_their_bytes() {
        let queue = Queue::default();
        let mut taken = 0;
        while queue.put(record(1 << 20)) {
            taken += 1;
        }
        assert_eq!(taken, 31, "a megabyte each, and what holds it");
        assert!(queue.put(record(1000)), "there is room for a small one");
        assert!(matches!(queue.next(), Some(Job::Record(_))));
        queue.done(vec![answer()], false);
        assert!(queue.put(record(1 << 20)), "there is room again");
    }

    #[test]
    fn answers_come_once() {
        let queue = Queue::default();
        queue.put(Job::Look(1));
        queue.next();
        queue.done(vec![answer(), answer()], true);
        let mut answers = Vec::new();
        queue.answers(&mut answers);
        queue.answers(&mut answers);
        assert_eq!((answers.len(), queue.malformed()), (2, 1));
    }

    #[test]
    fn the_end_does_not_wait_for_ever() {
        let queue = Queue::default();
        for _ in 0..3 {
            queue.put(record(10));
        }
        queue.put(Job::Look(1));
        queue.next();
        let start = Instant::now();
        let mut answers = Vec::new();
        assert!(!queue.wait(Duration::from_millis(20), &mut answers));
        assert!(start.elapsed() >= Duration::from_millis(20));
        let (dropped, idle) = queue.finish(&mut answers);
        assert_eq!((dropped, idle), (3, false), "one of them is being named");
        queue.done(vec![answer()], false);
        queue.answers(&mut answers);
        assert!(answers.is_empty(), "it was counted as dropped");
        assert!(queue.next().is_none() && !queue.put(Job::Look(1)));
    }

    #[test]
    fn nothing_is_named_while_answers_are_not_taken() {
        let queue = Queue::default();
        queue.put(Job::Look(1));
        queue.put(Job::Look(2));
        queue.next();
        let many = ANSWER_BYTES / size_of::<Answer>() + 1;
        queue.done((0..many).map(|_| answer()).collect(), false);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| queue.next().is_some());
            std::thread::sleep(Duration::from_millis(20));
            assert!(!waiting.is_finished());
            let mut answers = Vec::new();
            queue.answers(&mut answers);
            assert_eq!(answers.len(), many);
            assert!(waiting.join().expect("no panic"));
        });
    }
}

//! Traces seen before, by their frames.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::FixedState;
use lru::LruCache;

use crate::trace::{By, End, Trace, TraceId};

/// What tells a trace from others: for each step the address, the module or process that it is in,
/// and how it was found.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) steps: Vec<(u64, u32, By)>,
    pub(crate) end: End,
}

/// A trace that is kept.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) trace: Arc<Trace>,
    /// Whether every name that there may be was known.
    pub(crate) settled: bool,
    key: Arc<Key>,
    bytes: usize,
}

/// Traces by number, the least recently used dropped first.
pub(crate) struct Traces {
    by_id: LruCache<TraceId, Kept, FixedState>,
    by_key: HashMap<Arc<Key>, TraceId, FixedState>,
    bytes: usize,
    last: u64,
}

impl Traces {
    pub(crate) fn new() -> Traces {
        Traces {
            by_id: LruCache::unbounded_with_hasher(FixedState::default()),
            by_key: HashMap::default(),
            bytes: 0,
            last: 0,
        }
    }

    pub(crate) fn get(&mut self, id: TraceId) -> Option<&Kept> {
        self.by_id.get(&id)
    }

    pub(crate) fn find(&mut self, key: &Key) -> Option<&Kept> {
        let id = *self.by_key.get(key)?;
        self.by_id.get(&id)
    }

    /// A number for a new trace.
    pub(crate) fn number(&mut self) -> TraceId {
        self.last += 1;
        TraceId(self.last)
    }

    /// Keeps a trace, in place of one with the same number; how many others were dropped for it.
    pub(crate) fn keep(
        &mut self,
        key: Key,
        trace: &Arc<Trace>,
        settled: bool,
        limit: usize,
    ) -> u64 {
        self.drop_one(trace.id);
        let bytes = weight(&key, trace);
        let key = Arc::new(key);
        self.bytes += bytes;
        self.by_key.insert(Arc::clone(&key), trace.id);
        let kept = Kept {
            trace: Arc::clone(trace),
            settled,
            key,
            bytes,
        };
        self.by_id.put(trace.id, kept);
        let mut dropped = 0;
        while self.bytes > limit
            && let Some((&id, _)) = self.by_id.peek_lru()
        {
            self.drop_one(id);
            dropped += 1;
        }
        dropped
    }

    fn drop_one(&mut self, id: TraceId) {
        if let Some(kept) = self.by_id.pop(&id) {
            self.by_key.remove(&kept.key);
            self.bytes -= kept.bytes;
        }
    }

    /// Bytes of memory, about.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Bytes of a trace: the tables that it is in, its key, its frames and their texts.
fn weight(key: &Key, trace: &Trace) -> usize {
    const TABLES: usize = 256;
    let text = |text: &Option<Arc<str>>| text.as_ref().map_or(0, |text| text.len() + 16);
    let frames = trace
        .frames
        .iter()
        .map(|f| size_of_val(f) + text(&f.function) + text(&f.file));
    TABLES + key.steps.capacity() * size_of::<(u64, u32, By)>() + frames.sum::<usize>()
}

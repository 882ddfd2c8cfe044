//! The modules that were read, for all processes that map them.

use std::sync::Arc;

use foldhash::fast::FixedState;
use lru::LruCache;

use crate::limits::{Counters, DebugInfo, Limits};
use crate::mapped::{self, Identity, Opened};
use crate::maps::Mapping;
use crate::module::{Module, ModuleFile};

/// Modules by what tells their files.
pub(crate) struct Modules {
    known: LruCache<Identity, (Arc<Module>, usize), FixedState>,
    bytes: usize,
    read: u32,
    debug: DebugInfo,
}

impl Modules {
    pub(crate) fn new(debug: DebugInfo) -> Modules {
        Modules {
            known: LruCache::unbounded_with_hasher(FixedState::default()),
            bytes: 0,
            read: 0,
            debug,
        }
    }

    /// The module of a mapping of process `pid`; `None` if it cannot be read.
    pub(crate) fn get(
        &mut self,
        pid: u32,
        mapping: &Mapping,
        limits: &Limits,
        counters: &mut Counters,
    ) -> Option<Arc<Module>> {
        let Some(opened) = mapped::open(pid, mapping) else {
            counters.modules_refused += 1;
            return None;
        };
        let path = mapping.path.as_deref().unwrap_or_default();
        self.load(opened, path, limits, counters)
    }

    /// The module of a file that was opened; `None` if it is none.
    pub(crate) fn load(
        &mut self,
        opened: Opened,
        path: &str,
        limits: &Limits,
        counters: &mut Counters,
    ) -> Option<Arc<Module>> {
        let identity = opened.identity;
        if let Some((module, _)) = self.known.get(&identity) {
            return Some(Arc::clone(module));
        }
        let file = ModuleFile {
            source: &opened.source,
            path,
            trusted: opened
                .owner
                .is_some_and(|user| self.debug.users.contains(&user)),
        };
        let module = Module::read(self.read, &file, &self.debug.directories, limits)
            .filter(|_| mapped::unchanged(&identity, &opened.source));
        let Some(module) = module else {
            counters.modules_refused += 1;
            return None;
        };
        self.read = self.read.wrapping_add(1) & NUMBERS;
        counters.modules_read += 1;
        let weight = module.weight();
        let module = Arc::new(module);
        self.bytes += weight;
        self.known.put(identity, (Arc::clone(&module), weight));
        while self.known.len() > 1
            && (self.known.len() > limits.modules || self.bytes > limits.module_bytes)
        {
            if let Some((_, (_, weight))) = self.known.pop_lru() {
                self.bytes -= weight;
                counters.modules_evicted += 1;
            }
        }
        Some(module)
    }

    /// Bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Numbers of modules; others stand for what is no module.
pub(crate) const NUMBERS: u32 = u32::MAX >> 1;

//! The modules that were read, for all processes that map them.

use std::path::PathBuf;
use std::sync::Arc;

use foldhash::fast::FixedState;
use lru::LruCache;

use crate::elf::Source;
use crate::limits::{Counters, Limits};
use crate::mapped::{self, Identity};
use crate::maps::Mapping;
use crate::module::Module;

/// Modules by what tells their files.
pub(crate) struct Modules {
    known: LruCache<Identity, (Arc<Module>, usize), FixedState>,
    bytes: usize,
    read: u32,
    directories: Vec<PathBuf>,
}

impl Modules {
    pub(crate) fn new(directories: Vec<PathBuf>) -> Modules {
        Modules {
            known: LruCache::unbounded_with_hasher(FixedState::default()),
            bytes: 0,
            read: 0,
            directories,
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
        let Some((identity, source)) = mapped::open(pid, mapping) else {
            counters.modules_refused += 1;
            return None;
        };
        let path = mapping.path.as_deref().unwrap_or_default();
        self.load(identity, &source, path, limits, counters)
    }

    /// The module of a file that was opened; `None` if it is none.
    pub(crate) fn load(
        &mut self,
        identity: Identity,
        source: &Source,
        path: &str,
        limits: &Limits,
        counters: &mut Counters,
    ) -> Option<Arc<Module>> {
        if let Some((module, _)) = self.known.get(&identity) {
            return Some(Arc::clone(module));
        }
        let module = Module::read(self.read, source, path, &self.directories, limits)
            .filter(|_| mapped::unchanged(&identity, source));
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

//! What is known of a process: its code, its call paths.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::limits::{Counters, Limits};
use crate::maps::{self, Mapping};
use crate::module::Module;
use crate::modules::Modules;
use crate::paths::Paths;
use crate::perfmap::PerfMap;
use crate::sample::Process;
use crate::trace::End;
use crate::unwind::{Code, Spot};

/// Maps are read again after so many times the time that reading them took.
const REST: u32 = 20;
/// And not before this.
const PAUSE: Duration = Duration::from_millis(50);
/// For a path not seen before maps have to be newer than this.
const OLD: Duration = Duration::from_secs(1);

/// A process.
pub(crate) struct Known {
    process: Process,
    /// Another for each process ever known.
    pub(crate) number: u32,
    maps: Vec<Mapping>,
    /// For each mapping its module, if it was asked for.
    modules: Vec<Slot>,
    read: Instant,
    again: Instant,
    pub(crate) perf_map: PerfMap,
    pub(crate) paths: Paths,
}

enum Slot {
    NotRead,
    Refused,
    /// As long as the cache of modules keeps it.
    Read(Weak<Module>),
}

impl Known {
    /// Reads a process's maps, if it is still the one that was sampled.
    pub(crate) fn learn(process: Process, number: u32, limits: &Limits) -> Result<Known, End> {
        let started = Instant::now();
        let maps = read_maps(process, limits)?;
        Ok(Known {
            process,
            number,
            modules: maps.iter().map(|_| Slot::NotRead).collect(),
            maps,
            read: started,
            again: again(started),
            perf_map: PerfMap::default(),
            paths: Paths::default(),
        })
    }

    /// A process whose only code is `module`, mapped as a whole at `start`.
    pub(crate) fn of(
        process: Process,
        number: u32,
        start: u64,
        bytes: u64,
        module: &Arc<Module>,
    ) -> Known {
        let mapping = Mapping {
            start,
            end: start.saturating_add(bytes),
            offset: 0,
            device: (0, 0),
            inode: 1,
            path: Some(Arc::from("image")),
        };
        Known {
            process,
            number,
            maps: vec![mapping],
            modules: vec![Slot::Read(Arc::downgrade(module))],
            read: Instant::now(),
            again: again(Instant::now()),
            perf_map: PerfMap::default(),
            paths: Paths::default(),
        }
    }

    /// Reads the maps again, unless that was just done. Whether there is other code now.
    pub(crate) fn refresh(&mut self, limits: &Limits, counters: &mut Counters) -> bool {
        let started = Instant::now();
        if started < self.again {
            return false;
        }
        let Ok(maps) = read_maps(self.process, limits) else {
            self.again = again(started);
            return false;
        };
        counters.maps_read += 1;
        self.read = started;
        self.again = again(started);
        if maps == self.maps {
            return false;
        }
        let before = self.maps.len();
        let mut kept = 0;
        // What was there and is there still needs no reading again.
        let mut old = std::mem::take(&mut self.maps).into_iter();
        let mut slots = std::mem::take(&mut self.modules).into_iter();
        let mut next = old.next().zip(slots.next());
        for mapping in &maps {
            while next.as_ref().is_some_and(|(m, _)| m.start < mapping.start) {
                next = old.next().zip(slots.next());
            }
            let slot = next.take_if(|(m, _)| m == mapping).map(|(_, slot)| slot);
            kept += usize::from(slot.is_some());
            self.modules.push(slot.unwrap_or(Slot::NotRead));
            if next.is_none() {
                next = old.next().zip(slots.next());
            }
        }
        self.maps = maps;
        // Paths through code that is still there are as they were.
        if kept < before {
            self.paths.clear();
        }
        true
    }

    /// Whether the maps were read so long ago that other code may be mapped by now.
    pub(crate) fn is_old(&self) -> bool {
        self.read.elapsed() > OLD
    }

    /// The mapping that holds `address`.
    pub(crate) fn mapping(&self, address: u64) -> Option<&Mapping> {
        self.maps.get(maps::find(&self.maps, address)?)
    }

    /// Its id, as long as it lives.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid
    }

    /// Bytes of memory, without the call paths.
    pub(crate) fn bytes(&self) -> usize {
        let paths = self.maps.iter().filter_map(|m| m.path.as_deref());
        self.maps.len() * (size_of::<Mapping>() + size_of::<Slot>())
            + paths.map(str::len).sum::<usize>()
            + self.perf_map.bytes()
    }
}

/// The code of a process, modules read as they are asked for.
pub(crate) struct Space<'a> {
    pub(crate) known: &'a mut Known,
    pub(crate) modules: &'a mut Modules,
    pub(crate) limits: &'a Limits,
    pub(crate) counters: &'a mut Counters,
}

impl Space<'_> {
    fn module(&mut self, at: usize) -> Option<Arc<Module>> {
        match &self.known.modules[at] {
            Slot::Refused => return None,
            Slot::Read(module) => {
                if let Some(module) = module.upgrade() {
                    return Some(module);
                }
            }
            Slot::NotRead => {}
        }
        let (pid, mapping) = (self.known.process.pid, &self.known.maps[at]);
        let module = self.modules.get(pid, mapping, self.limits, self.counters);
        // What is mapped there now may be of another process, or of another program.
        let module = module.filter(|_| same(self.known.process).is_ok());
        self.known.modules[at] = match &module {
            Some(module) => Slot::Read(Arc::downgrade(module)),
            None => Slot::Refused,
        };
        module
    }
}

impl Code for Space<'_> {
    fn spot(&mut self, address: u64) -> Spot {
        let Some(at) = maps::find(&self.known.maps, address) else {
            return Spot::Nothing;
        };
        let mapping = &self.known.maps[at];
        let offset = (address - mapping.start).wrapping_add(mapping.offset);
        let Some(path) = mapping.path.clone() else {
            return Spot::Memory;
        };
        if mapping.inode == 0 && &*path != "[vdso]" {
            return Spot::Memory;
        }
        match self.module(at) {
            None => Spot::Unreadable(path),
            Some(module) => match module.address(offset) {
                Some(address) => Spot::File(path, module, address),
                None => Spot::Unreadable(path),
            },
        }
    }
}

fn again(started: Instant) -> Instant {
    let now = Instant::now();
    now + ((now - started) * REST).max(PAUSE)
}

/// The maps of a process that is the sampled one before and after.
fn read_maps(process: Process, limits: &Limits) -> Result<Vec<Mapping>, End> {
    same(process)?;
    let maps = maps::read(process.pid, limits.maps_bytes).map_err(|e| match e.kind() {
        ErrorKind::PermissionDenied => End::NoPermission,
        _ => End::ProcessGone,
    })?;
    same(process)?;
    Ok(maps)
}

/// Whether the process with that id now is the sampled one, and runs the same program.
fn same(process: Process) -> Result<(), End> {
    const TICK_NS: u64 = 10_000_000;
    let mut bytes = Vec::new();
    let file = File::open(format!("/proc/{}/stat", process.pid)).map_err(|_| End::ProcessGone)?;
    file.take(4096)
        .read_to_end(&mut bytes)
        .map_err(|_| End::ProcessGone)?;
    // The name in field 2 may hold anything, parentheses too: fields are counted from the last one.
    let behind = bytes.iter().rposition(|b| *b == b')').unwrap_or(0);
    let text = String::from_utf8_lossy(&bytes[behind..]);
    let field = |number: usize| {
        let field = text.split_ascii_whitespace().nth(number - 2)?;
        field.parse::<u64>().ok()
    };
    let (Some(ticks), Some(stack)) = (field(22), field(28)) else {
        return Err(End::ProcessGone);
    };
    if process.start_ns != 0 && process.start_ns / TICK_NS != ticks {
        return Err(End::ProcessGone);
    }
    // It is 0 or 1 for who may not know.
    if process.start_stack > 1 && stack > 1 && process.start_stack != stack {
        return Err(End::Executed);
    }
    Ok(())
}

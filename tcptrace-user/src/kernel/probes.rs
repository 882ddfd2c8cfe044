//! Loads and attaches what the plan chose. Programs are loaded one by one: one that the kernel
//! refuses takes no other down. Links close with the process, whatever ends it.

use std::fs;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::time::Duration;

use aya::maps::{HashMap, MapData, PerCpuArray, RingBuf};
use aya::programs::{
    BtfTracePoint, CgroupAttachMode, CgroupSock, FEntry, FExit, Iter, KProbe, ProgramError,
    RawTracePoint, SockOps, TracePoint,
};
use aya::{Btf, Ebpf, EbpfLoader};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tcptrace_common::config::Config;
use tcptrace_common::event::{HeldFile, Overflow};
use tcptrace_common::layout::Layout;
use tcptrace_common::stack::{PathNext, PathSeen, Python};
use tcptrace_common::{ABI_VERSION, counters};
use tcptrace_core::input::{Loss, StackLoss};
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::cgroup;
use super::programs::{Attachment, FILES, On, Skipped};
use super::targets::Targets;
use super::tracefs::Tracefs;

/// What to load, as the plan and the options say.
pub(crate) struct Selection<'a> {
    /// Field offsets.
    pub(crate) layout: Layout,
    /// What they can be attached by.
    pub(crate) targets: &'a Targets,
    /// Filters and switches.
    pub(crate) config: Config,
    /// Size of the ring buffer, bytes: a power of two, at least a page.
    pub(crate) ring_bytes: u32,
    /// Size of the ring buffer of stacks, bytes: a power of two, at least a page.
    pub(crate) stack_ring_bytes: u32,
    /// How many sockets an owner filter may select.
    pub(crate) selected_max: u32,
    /// What to attach, in this order.
    pub(crate) programs: Vec<Attachment>,
    /// For perf tracepoints.
    pub(crate) tracefs: Option<&'a Tracefs>,
}

/// A program that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("program {program}: {why}")]
pub(crate) struct Refusal {
    /// Its name.
    pub(crate) program: &'static str,
    /// The kernel's answer, with the end of the verifier's log.
    pub(crate) why: String,
}

/// A loaded program, as the kernel tells of it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct LoadedProgram {
    /// Its name in the object.
    pub(crate) name: String,
    /// How many instructions the verifier went through, which is what its limit (a million)
    /// counts; `None` before 5.16, where the kernel does not tell.
    pub(crate) verified_instructions: Option<u32>,
    /// Bytes of its instructions, after the verifier's changes.
    pub(crate) bytes: Option<u32>,
}

/// What a program has taken since it was loaded, while the kernel took its time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spent {
    /// Its name in the object.
    pub(crate) name: String,
    /// How often it was run.
    pub(crate) runs: u64,
    /// For how long in all.
    pub(crate) time: Duration,
}

/// Nothing could be loaded at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// aya does not take what programs are attached by.
    #[error("cannot use the kernel's BTF")]
    Btf(#[source] aya::BtfError),
    /// The object or its maps.
    #[error("cannot load the eBPF object")]
    Object(#[from] aya::EbpfError),
    /// A map.
    #[error("cannot use an eBPF map")]
    Map(#[from] aya::maps::MapError),
    /// A program that nothing works without.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// The loaded programs and their maps. Dropping it detaches everything.
pub(crate) struct Probes {
    ebpf: Ebpf,
    ring: RingBuf<MapData>,
    ring_bytes: u32,
    stacks: RingBuf<MapData>,
    pythons: HashMap<MapData, u32, [u8; size_of::<Python>()]>,
    paths: HashMap<MapData, [u8; size_of::<PathSeen>()], [u8; size_of::<PathNext>()]>,
    counters: PerCpuArray<MapData, u64>,
    selected: HashMap<MapData, u64, u8>,
    overflows: HashMap<MapData, u64, [u8; size_of::<Overflow>()]>,
    /// Perf tracepoints: programs are attached to them as long as these are open.
    perf_events: Vec<OwnedFd>,
    /// Programs whose skipped runs are losses.
    counted: Vec<(&'static str, Skipped)>,
}

/// A loader without BTF: only relocations need it, of which there are none, since the layout is what
/// differs. By itself it reads all of the kernel's before that can be said, which is a third of what a
/// start takes; where no file can be opened, it goes without.
fn loader<'a>() -> EbpfLoader<'a> {
    let limit = getrlimit(Resource::Nofile);
    let none = Rlimit {
        current: Some(0),
        ..limit
    };
    let lowered = setrlimit(Resource::Nofile, none);
    let mut loader = EbpfLoader::new();
    if lowered.is_ok() {
        // Back to what it was is always allowed.
        let _ = setrlimit(Resource::Nofile, limit);
    }
    loader.btf(None);
    loader
}

impl Probes {
    /// Loads the object and attaches the selection.
    ///
    /// # Errors
    /// If the object, its maps or a program are refused, at the first one: another way is tried then.
    pub(crate) fn load(object: &[u8], selection: &Selection<'_>) -> Result<Probes, LoadError> {
        let btf = selection.targets.to_aya().map_err(LoadError::Btf)?;
        let [layout, config] = ["LAYOUT", "CONFIG"].map(|name| format!("{name}_V{ABI_VERSION}"));
        let mut ebpf = loader()
            .override_global(&layout, selection.layout.as_bytes(), true)
            .override_global(&config, selection.config.as_bytes(), true)
            .map_max_entries("EVENTS", selection.ring_bytes)
            .map_max_entries("STACKS", selection.stack_ring_bytes)
            .map_max_entries("SELECTED", selection.selected_max)
            .load(object)?;
        let missing = |name: &str| aya::maps::MapError::InvalidName {
            name: name.to_owned(),
        };
        let mut map = |name: &str| ebpf.take_map(name).ok_or_else(|| missing(name));
        let ring = RingBuf::try_from(map("EVENTS")?)?;
        let stacks = RingBuf::try_from(map("STACKS")?)?;
        let pythons = HashMap::try_from(map("PYTHONS")?)?;
        let paths = HashMap::try_from(map("PATHS")?)?;
        let counters = PerCpuArray::try_from(map("COUNTERS")?)?;
        let selected = HashMap::try_from(map("SELECTED")?)?;
        let overflows = HashMap::try_from(map("OVERFLOWS")?)?;
        let mut probes = Probes {
            ebpf,
            ring,
            ring_bytes: selection.ring_bytes,
            stacks,
            pythons,
            paths,
            counters,
            selected,
            overflows,
            perf_events: Vec::new(),
            counted: Vec::new(),
        };
        probes.attach(selection, &btf)?;
        Ok(probes)
    }

    fn attach(&mut self, selection: &Selection<'_>, btf: &Btf) -> Result<(), LoadError> {
        let mut cgroup = None;
        for attachment in &selection.programs {
            self.attach_one(attachment, selection.tracefs, btf, &mut cgroup)?;
            if attachment.skipped != Skipped::Nothing {
                self.counted.push((attachment.program, attachment.skipped));
            }
        }
        Ok(())
    }

    fn attach_one(
        &mut self,
        attachment: &Attachment,
        tracefs: Option<&Tracefs>,
        btf: &Btf,
        cgroup: &mut Option<OwnedFd>,
    ) -> Result<(), Refusal> {
        // A link leaves others' programs there in peace, and takes no flag for it.
        const ON_CGROUP: CgroupAttachMode = CgroupAttachMode::Single;
        let name = attachment.program;
        let attached = match attachment.on {
            On::TpBtf(event) => {
                let program: &mut BtfTracePoint = self.program(name)?;
                let loaded = program.load(event, btf);
                loaded.and_then(|()| program.attach().map(drop))
            }
            On::RawTp(event) => {
                let program: &mut RawTracePoint = self.program(name)?;
                let loaded = program.load();
                loaded.and_then(|()| program.attach(event).map(drop))
            }
            On::Tracepoint(category, events) => {
                return self.tracepoint(name, tracefs, category, events);
            }
            On::Fentry(function) => {
                let program: &mut FEntry = self.program(name)?;
                let loaded = program.load(function, btf);
                loaded.and_then(|()| program.attach().map(drop))
            }
            On::Fexit(function) => {
                let program: &mut FExit = self.program(name)?;
                let loaded = program.load(function, btf);
                loaded.and_then(|()| program.attach().map(drop))
            }
            On::Kprobe(function) => {
                let program: &mut KProbe = self.program(name)?;
                let loaded = program.load();
                loaded.and_then(|()| program.attach(function, 0).map(drop))
            }
            On::SockCreate => {
                let root = open_once(cgroup, name)?;
                let program: &mut CgroupSock = self.program(name)?;
                let loaded = program.load();
                loaded.and_then(|()| program.attach(root, ON_CGROUP).map(drop))
            }
            On::SockOps => {
                let root = open_once(cgroup, name)?;
                let program: &mut SockOps = self.program(name)?;
                let loaded = program.load();
                loaded.and_then(|()| program.attach(root, ON_CGROUP).map(drop))
            }
            On::Iter(target) => {
                let program: &mut Iter = self.program(name)?;
                program.load(target, btf)
            }
        };
        attached.map_err(|e| refusal(name, &e))
    }

    fn tracepoint(
        &mut self,
        name: &'static str,
        tracefs: Option<&Tracefs>,
        category: &str,
        events: &[&str],
    ) -> Result<(), Refusal> {
        let tracefs = tracefs.ok_or_else(|| refusal_because(name, "no tracefs"))?;
        let program: &mut TracePoint = self.program(name)?;
        program.load().map_err(|e| refusal(name, &e))?;
        let fd = program.fd().map_err(|e| refusal(name, &e))?;
        let fd = fd
            .try_clone()
            .map_err(|e| refusal_because(name, &e.to_string()))?;
        for event in events {
            let attached = tracefs.attach(fd.as_fd(), category, event);
            let event = attached.map_err(|e| {
                refusal_because(name, &format!("it cannot be attached to {event}: {e}"))
            })?;
            self.perf_events.push(event);
        }
        Ok(())
    }

    fn program<'a, P>(&'a mut self, name: &'static str) -> Result<&'a mut P, Refusal>
    where
        &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
    {
        let program = self
            .ebpf
            .program_mut(name)
            .ok_or_else(|| refusal_because(name, "it is not in the object"))?;
        program.try_into().map_err(|e| refusal(name, &e))
    }

    /// The programs that are loaded, by name.
    pub(crate) fn programs(&self) -> Vec<LoadedProgram> {
        let loaded = |(name, program): (&str, &aya::programs::Program)| {
            let info = program.info().ok()?;
            Some(LoadedProgram {
                name: name.to_owned(),
                verified_instructions: info.verified_instruction_count(),
                bytes: info.size_translated(),
            })
        };
        let mut programs: Vec<_> = self.ebpf.programs().filter_map(loaded).collect();
        programs.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        programs
    }

    /// What each program has taken so far.
    pub(crate) fn spent(&self) -> Vec<Spent> {
        let spent = |(name, program): (&str, &aya::programs::Program)| {
            let info = program.info().ok()?;
            Some(Spent {
                name: name.to_owned(),
                runs: info.run_count(),
                time: info.run_time(),
            })
        };
        self.ebpf.programs().filter_map(spent).collect()
    }

    /// Gives up to `limit` records to `take`; true if there may be more.
    pub(crate) fn drain(&mut self, limit: usize, mut take: impl FnMut(&[u8])) -> bool {
        for _ in 0..limit {
            let Some(record) = self.ring.next() else {
                return false;
            };
            take(&record);
        }
        true
    }

    /// Gives all stacks that were taken to `take`.
    pub(crate) fn drain_stacks(&mut self, mut take: impl FnMut(&[u8])) {
        while let Some(record) = self.stacks.next() {
            take(&record);
        }
    }

    /// From now on stacks of this process have their Python frames.
    ///
    /// # Errors
    /// If the map is full.
    pub(crate) fn find_python(
        &mut self,
        tgid: u32,
        python: Python,
    ) -> Result<(), aya::maps::MapError> {
        let bytes: [u8; size_of::<Python>()] = zerocopy::transmute!(python);
        self.pythons.insert(tgid, bytes, 0)
    }

    /// Stacks of this process have no Python frames any more.
    pub(crate) fn forget_python(&mut self, tgid: u32) {
        // Gone already is as good.
        let _ = self.pythons.remove(&tgid);
    }

    /// From now on whoever sees this at that node goes on to the next.
    ///
    /// # Errors
    /// If the map is full.
    pub(crate) fn know_path(
        &mut self,
        seen: PathSeen,
        next: PathNext,
    ) -> Result<(), aya::maps::MapError> {
        let seen: [u8; size_of::<PathSeen>()] = zerocopy::transmute!(seen);
        let next: [u8; size_of::<PathNext>()] = zerocopy::transmute!(next);
        self.paths.insert(seen, next, 0)
    }

    /// Nobody goes on from there any more.
    pub(crate) fn forget_path(&mut self, seen: PathSeen) {
        let seen: [u8; size_of::<PathSeen>()] = zerocopy::transmute!(seen);
        // One that found no room is not there.
        let _ = self.paths.remove(&seen);
    }

    /// Size of the ring buffer, bytes.
    pub(crate) fn ring_bytes(&self) -> u32 {
        self.ring_bytes
    }

    /// What was lost since the start, as the kernel counts it.
    ///
    /// # Errors
    /// If the counters cannot be read.
    pub(crate) fn loss(&self) -> Result<Loss, aya::maps::MapError> {
        let count = |index: u32| -> Result<u64, aya::maps::MapError> {
            Ok(self.counters.get(&index, 0)?.iter().sum())
        };
        let mut missed = 0;
        for (name, skipped) in &self.counted {
            let made_up = match skipped {
                Skipped::MadeUp => count(counters::SHADOW_STATE)?,
                _ => 0,
            };
            missed += self.recursion_misses(name).saturating_sub(made_up);
        }
        Ok(Loss {
            ring_full: count(counters::RING_FULL)?,
            recursion_missed: missed,
            map_full: count(counters::SELECTED_FULL)? + count(counters::OVERFLOWS_FULL)?,
            read_faults: count(counters::READ_FAULT)?,
            undecodable: 0,
            mptcp: count(counters::MPTCP)?,
            stacks: StackLoss {
                over_budget: count(counters::STACK_OVER_BUDGET)?,
                full: count(counters::STACK_FULL)?,
                unreadable: count(counters::STACK_UNREADABLE)?,
            },
        })
    }

    /// What full accept queues dropped since the start, by the listener's cookie, or its address
    /// where it has none.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub(crate) fn overflows(&self) -> Result<Vec<(u64, Overflow)>, aya::maps::MapError> {
        let read = |entry: Result<(u64, [u8; size_of::<Overflow>()]), _>| {
            entry.map(|(key, bytes)| (key, zerocopy::transmute!(bytes)))
        };
        self.overflows.iter().map(read).collect()
    }

    /// Runs of a program that the kernel skipped because it was active on that CPU
    /// (`bpf_prog_info.recursion_misses`, in the descriptor's fdinfo; 5.12 and later).
    fn recursion_misses(&self, name: &str) -> u64 {
        let Some(program) = self.ebpf.program(name) else {
            return 0;
        };
        let fd = program.fd().map(|fd| fd.as_fd().as_raw_fd());
        let Ok(fd) = fd else { return 0 };
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix("recursion_misses:"));
        line.and_then(|value| value.trim().parse().ok())
            .unwrap_or(0)
    }

    /// Whether [`Probes::holders`] can be asked.
    pub(crate) fn lists_holders(&self) -> bool {
        let files = self.ebpf.program(FILES);
        files.is_some_and(|program| program.fd().is_ok())
    }

    /// Every TCP socket that any process has open, in every namespace.
    ///
    /// # Errors
    /// If the iterator cannot be made or read.
    pub(crate) fn holders(&mut self, mut take: impl FnMut(HeldFile)) -> io::Result<()> {
        let other = |e: &dyn std::error::Error| io::Error::other(e.to_string());
        let program: &mut Iter = self.program(FILES).map_err(|e| other(&e))?;
        let id = program.attach().map_err(|e| other(&e))?;
        let link = program.take_link(id).map_err(|e| other(&e))?;
        let mut file = link.into_file().map_err(|e| other(&e))?;
        let mut bytes = vec![0; 1 << 16];
        let mut have = 0;
        loop {
            let read = match file.read(&mut bytes[have..]) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                // The kernel asks to come back: many tasks without a socket.
                Err(e) if e.raw_os_error() == Some(libc::EAGAIN) => continue,
                Err(e) => return Err(e),
            };
            have += read;
            let whole = have - have % size_of::<HeldFile>();
            for chunk in bytes[..whole].chunks_exact(size_of::<HeldFile>()) {
                if let Ok(held) = HeldFile::read_from_bytes(chunk) {
                    take(held);
                }
            }
            bytes.copy_within(whole..have, 0);
            have -= whole;
        }
    }

    /// Whether maps can be read and the iterator can be opened with the privileges of now.
    pub(crate) fn usable(&mut self) -> bool {
        self.loss().is_ok()
            && self.selected.keys().all(|key| key.is_ok())
            && self.overflows().is_ok()
            && (!self.lists_holders() || self.holders(|_| ()).is_ok())
    }

    /// Follows a socket that was there before an owner filter could judge its birth.
    ///
    /// # Errors
    /// If the map is full.
    pub(crate) fn select(&mut self, cookie: u64) -> Result<(), aya::maps::MapError> {
        self.selected.insert(cookie, 1, 0)
    }

    /// Cookies of the sockets that the programs follow.
    pub(crate) fn selected(&self) -> Vec<u64> {
        self.selected.keys().flatten().collect()
    }

    /// Follows a socket no longer.
    pub(crate) fn unselect(&mut self, cookie: u64) {
        // Gone already is as good.
        let _ = self.selected.remove(&cookie);
    }
}

/// The root of the cgroups, opened by the first program that hangs on it.
fn open_once<'a>(
    slot: &'a mut Option<OwnedFd>,
    program: &'static str,
) -> Result<&'a OwnedFd, Refusal> {
    match slot {
        Some(root) => Ok(root),
        None => {
            let root = cgroup::root();
            let root =
                root.map_err(|e| refusal_because(program, &format!("no root cgroup: {e}")))?;
            Ok(slot.insert(root))
        }
    }
}

fn refusal_because(program: &'static str, why: &str) -> Refusal {
    let why = why.to_owned();
    Refusal { program, why }
}

fn refusal(program: &'static str, error: &ProgramError) -> Refusal {
    let why = match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            let log = verifier_log.to_string();
            // The reason stands before the verifier's own statistics.
            let statistics = ["verification time", "stack depth", "processed "];
            let reasons = log
                .lines()
                .filter(|line| !line.is_empty() && !statistics.iter().any(|s| line.starts_with(s)));
            let reasons: Vec<&str> = reasons.collect();
            let tail = &reasons[reasons.len().saturating_sub(3)..];
            format!(
                "the kernel refused to load it: {io_error}; {}",
                tail.join(" | ")
            )
        }
        other => other.to_string(),
    };
    Refusal { program, why }
}

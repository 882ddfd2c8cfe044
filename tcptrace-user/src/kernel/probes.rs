//! Loads and attaches what the plan chose. Programs are loaded one by one: one that the kernel
//! refuses takes no other down. Links close with the process, whatever ends it.

use std::fs;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;

use aya::maps::{HashMap, MapData, PerCpuArray, RingBuf};
use aya::programs::{BtfTracePoint, Iter, ProgramError, RawTracePoint, TracePoint};
use aya::{Btf, Ebpf, EbpfLoader, Endianness};
use tcptrace_common::config::Config;
use tcptrace_common::event::HeldFile;
use tcptrace_common::layout::Layout;
use tcptrace_common::{ABI_VERSION, counters};
use tcptrace_core::input::Loss;
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::tracefs::Tracefs;

/// What to load, as the plan and the options say.
pub(crate) struct Selection<'a> {
    /// Field offsets.
    pub(crate) layout: Layout,
    /// BTF to load with where the kernel has none of its own.
    pub(crate) btf_file: Option<&'a Path>,
    /// Filters and switches.
    pub(crate) config: Config,
    /// Size of the ring buffer, bytes: a power of two, at least a page.
    pub(crate) ring_bytes: u32,
    /// How many sockets an owner filter may select.
    pub(crate) selected_max: u32,
    /// State changes.
    pub(crate) state: bool,
    /// Minisockets by their timers.
    pub(crate) mini: bool,
    /// Accept.
    pub(crate) accept: AcceptBy<'a>,
    /// EOF.
    pub(crate) eof: bool,
    /// The iterator over open files.
    pub(crate) files: bool,
}

/// How accept is seen.
pub(crate) enum AcceptBy<'a> {
    /// Tracepoints of the system calls.
    Syscalls(&'a Tracefs),
    /// The exit of every system call.
    RawSysExit,
    /// Not at all.
    Nothing,
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

/// Nothing could be loaded at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// The kernel's BTF could not be used.
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
    counters: PerCpuArray<MapData, u64>,
    selected: HashMap<MapData, u64, u8>,
    files: bool,
    /// perf events of the accept tracepoints: they are attached as long as these are open.
    accept_events: Vec<OwnedFd>,
    /// Programs whose skipped runs are losses, with their names.
    counted: Vec<&'static str>,
    refusals: Vec<Refusal>,
}

/// Programs of the timers and of the segments that minisockets receive.
const MINI: [(&str, &str); 4] = [
    ("mini_start", "timer_start"),
    ("mini_cancel", "timer_cancel"),
    ("mini_expire", "timer_expire_entry"),
    ("mini_segment", "kfree_skb"),
];

impl Probes {
    /// Loads the object and attaches the selection.
    ///
    /// # Errors
    /// If the object, its maps or the state program are refused. Other refusals are kept: see
    /// [`Probes::refusals`].
    pub(crate) fn load(object: &[u8], selection: &Selection<'_>) -> Result<Probes, LoadError> {
        let btf = Btf::from_sys_fs()
            .or_else(|none| match selection.btf_file {
                Some(file) => Btf::parse_file(file, Endianness::default()),
                None => Err(none),
            })
            .map_err(LoadError::Btf)?;
        let [layout, config] = ["LAYOUT", "CONFIG"].map(|name| format!("{name}_V{ABI_VERSION}"));
        let mut ebpf = EbpfLoader::new()
            .btf(Some(&btf))
            .override_global(&layout, selection.layout.as_bytes(), true)
            .override_global(&config, selection.config.as_bytes(), true)
            .map_max_entries("EVENTS", selection.ring_bytes)
            .map_max_entries("SELECTED", selection.selected_max)
            .load(object)?;
        let missing = |name: &str| aya::maps::MapError::InvalidName {
            name: name.to_owned(),
        };
        let mut map = |name: &str| ebpf.take_map(name).ok_or_else(|| missing(name));
        let ring = RingBuf::try_from(map("EVENTS")?)?;
        let counters = PerCpuArray::try_from(map("COUNTERS")?)?;
        let selected = HashMap::try_from(map("SELECTED")?)?;
        let mut probes = Probes {
            ebpf,
            ring,
            ring_bytes: selection.ring_bytes,
            counters,
            selected,
            files: false,
            accept_events: Vec::new(),
            counted: Vec::new(),
            refusals: Vec::new(),
        };
        probes.attach(selection, &btf)?;
        Ok(probes)
    }

    fn attach(&mut self, selection: &Selection<'_>, btf: &Btf) -> Result<(), LoadError> {
        if selection.state {
            // The twin first: it must be there before the main program can be interrupted.
            let twin = self.tp_btf("state_shadow", "inet_sock_set_state", btf);
            self.keep(twin);
            self.tp_btf("state", "inet_sock_set_state", btf)?;
            self.counted.push("state");
        }
        if selection.mini {
            for (program, tracepoint) in MINI {
                let attached = self.tp_btf(program, tracepoint, btf);
                // Nearly all that kfree_skb tells is of other sockets, and so are its misses.
                if self.keep(attached) && program != "mini_segment" {
                    self.counted.push(program);
                }
            }
        }
        if selection.eof {
            let attached = self.tp_btf("eof", "sock_recv_length", btf);
            self.keep(attached);
        }
        match &selection.accept {
            AcceptBy::Syscalls(tracefs) => {
                let attached = self.accept_syscalls(tracefs);
                if self.keep(attached) {
                    self.counted.push("accept_exit");
                }
            }
            AcceptBy::RawSysExit => {
                let attached = self.accept_raw();
                if self.keep(attached) {
                    self.counted.push("accept_raw");
                }
            }
            AcceptBy::Nothing => {}
        }
        if selection.files {
            let loaded = self.load_files(btf);
            self.files = self.keep(loaded);
        }
        Ok(())
    }

    fn keep(&mut self, attached: Result<(), Refusal>) -> bool {
        match attached {
            Ok(()) => true,
            Err(refusal) => {
                self.refusals.push(refusal);
                false
            }
        }
    }

    fn tp_btf(&mut self, name: &'static str, event: &str, btf: &Btf) -> Result<(), Refusal> {
        let program: &mut BtfTracePoint = self.program(name)?;
        program
            .load(event, btf)
            .and_then(|()| program.attach())
            .map_err(|e| refusal(name, &e))?;
        Ok(())
    }

    fn accept_raw(&mut self) -> Result<(), Refusal> {
        const NAME: &str = "accept_raw";
        let program: &mut RawTracePoint = self.program(NAME)?;
        program
            .load()
            .and_then(|()| program.attach("sys_exit"))
            .map_err(|e| refusal(NAME, &e))?;
        Ok(())
    }

    fn accept_syscalls(&mut self, tracefs: &Tracefs) -> Result<(), Refusal> {
        const NAME: &str = "accept_exit";
        let program: &mut TracePoint = self.program(NAME)?;
        program.load().map_err(|e| refusal(NAME, &e))?;
        let fd = program.fd().map_err(|e| refusal(NAME, &e))?;
        let fd = fd.try_clone().map_err(|e| Refusal {
            program: NAME,
            why: e.to_string(),
        })?;
        for call in ["sys_exit_accept", "sys_exit_accept4"] {
            let attached = tracefs.attach(fd.as_fd(), "syscalls", call);
            let event = attached.map_err(|e| Refusal {
                program: NAME,
                why: format!("it cannot be attached to {call}: {e}"),
            })?;
            self.accept_events.push(event);
        }
        Ok(())
    }

    fn load_files(&mut self, btf: &Btf) -> Result<(), Refusal> {
        const NAME: &str = "files";
        let program: &mut Iter = self.program(NAME)?;
        program
            .load("task_file", btf)
            .map_err(|e| refusal(NAME, &e))
    }

    fn program<'a, P>(&'a mut self, name: &'static str) -> Result<&'a mut P, Refusal>
    where
        &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
    {
        let program = self.ebpf.program_mut(name).ok_or_else(|| Refusal {
            program: name,
            why: "it is not in the object".to_owned(),
        })?;
        program.try_into().map_err(|e| refusal(name, &e))
    }

    /// Programs that the kernel refused.
    pub(crate) fn refusals(&self) -> &[Refusal] {
        &self.refusals
    }

    /// Whether the life of minisockets is seen.
    pub(crate) fn sees_minisockets(&self) -> bool {
        MINI.iter()
            .take(3)
            .all(|(program, _)| self.counted.contains(program))
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
        for name in &self.counted {
            let skipped = self.recursion_misses(name);
            let made_up = match *name {
                "state" => count(counters::SHADOW_STATE)?,
                _ => 0,
            };
            missed += skipped.saturating_sub(made_up);
        }
        Ok(Loss {
            ring_full: count(counters::RING_FULL)?,
            recursion_missed: missed,
            map_full: count(counters::SELECTED_FULL)?,
            read_faults: count(counters::READ_FAULT)?,
            undecodable: 0,
            mptcp: count(counters::MPTCP)?,
        })
    }

    /// Runs of a program that the kernel skipped because it was active on that CPU
    /// (`bpf_prog_info.recursion_misses`, in the descriptor's fdinfo; 5.12 and later).
    fn recursion_misses(&self, name: &str) -> u64 {
        let Some(program) = self.ebpf.program(name) else {
            return 0;
        };
        let fd = match program {
            aya::programs::Program::BtfTracePoint(p) => p.fd().map(|fd| fd.as_fd().as_raw_fd()),
            aya::programs::Program::RawTracePoint(p) => p.fd().map(|fd| fd.as_fd().as_raw_fd()),
            aya::programs::Program::TracePoint(p) => p.fd().map(|fd| fd.as_fd().as_raw_fd()),
            _ => return 0,
        };
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
        self.files
    }

    /// Every TCP socket that any process has open, in every namespace.
    ///
    /// # Errors
    /// If the iterator cannot be made or read.
    pub(crate) fn holders(&mut self, mut take: impl FnMut(HeldFile)) -> io::Result<()> {
        let other = |e: &dyn std::error::Error| io::Error::other(e.to_string());
        let program: &mut Iter = self.program("files").map_err(|e| other(&e))?;
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
            && (!self.files || self.holders(|_| ()).is_ok())
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

fn refusal(program: &'static str, error: &ProgramError) -> Refusal {
    let why = match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            let log = verifier_log.to_string();
            let tail: Vec<&str> = log
                .lines()
                .rev()
                .filter(|l| !l.is_empty())
                .take(3)
                .collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            format!(
                "the kernel refused to load it: {io_error}; {}",
                tail.join(" | ")
            )
        }
        other => other.to_string(),
    };
    Refusal { program, why }
}

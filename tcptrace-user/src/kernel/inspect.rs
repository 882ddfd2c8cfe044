//! Collects the facts: the one place of this room that looks at the machine.

use std::fs;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::time::ClockId;
use tcptrace_common::layout::Layout;
use tcptrace_core::state::StateSet;

use super::bpf::{self, Program, ProgramKind, RETURN_0};
use super::btf::{Btf, Kind};
use super::capability::{self, Capability};
use super::cgroup;
use super::facts::{Fact, Facts, Settings};
use super::kallsyms::{KALLSYMS, Kallsyms, SymbolsError};
use super::layout::{self, Absence};
use super::plan::{CannotRun, Event, Plan, PlanOptions, plan};
use super::prototypes::{self, Arguments, NO_BTF};
use super::targets::Targets;
use super::tracefs::Tracefs;
use crate::error::Usage;
use crate::netlink::{Diag, DiagError};

/// Where the running kernel keeps its BTF.
pub(super) const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// The running kernel, looked at once.
pub(crate) struct Kernel {
    /// What it can do.
    pub(crate) facts: Facts,
    /// Where it keeps what the programs read; `None` if `facts.offsets` says why not.
    pub(crate) layout: Option<Layout>,
    /// Optional fields that it does not have.
    pub(crate) absences: Vec<Absence>,
    /// How many types the BTF has that the offsets are from.
    pub(crate) btf_types: usize,
    /// The file that it is, if it is not the kernel's own.
    pub(crate) btf_file: Option<PathBuf>,
    /// Its functions.
    pub(crate) kallsyms: Kallsyms,
    /// How many arguments its functions take.
    pub(crate) arguments: Arguments,
    /// What programs can be attached by; nothing without BTF of its own.
    pub(crate) targets: Targets,
    /// Its tracepoint ids; `None` if `facts.tracefs` says why not.
    pub(crate) tracefs: Option<Tracefs>,
}

impl Kernel {
    /// Asks. What cannot be found out is a fact as well. `btf_file` is where the field offsets are
    /// looked up, instead of in the kernel's own BTF.
    ///
    /// `facts.timer_address` is left for [`Kernel::look_for_timer`]. Nothing is attached, and nothing
    /// that it loads stays.
    ///
    /// # Errors
    /// [`Usage`] if `btf_file` cannot be read, or is no BTF.
    pub(crate) fn inspect(btf_file: Option<&Path>) -> Result<Kernel, Usage> {
        lift_memlock();
        let given = btf_file.map(given_btf).transpose()?;
        let status = read("/proc/self/status").unwrap_or_default();
        let ask = Ask {
            capabilities: capability::effective(&status),
        };
        let (btf, btf_fact) = ask.btf();
        let (resolved, offsets) = match (&given, btf_file) {
            (Some(given), Some(file)) => offsets(given, file),
            _ => match &btf {
                Some(btf) => offsets(btf, Path::new(VMLINUX)),
                None => (None, btf_fact.clone()),
            },
        };
        let (tracefs, tracefs_fact) = match Tracefs::open() {
            Ok(tracefs) => (Some(tracefs), Fact::Yes),
            Err(e) => (None, Fact::No(e.to_string())),
        };
        let described = btf.as_ref().or(given.as_ref());
        let on_state = |instructions: &[u64]| match btf.as_ref() {
            None => Fact::Unknown(NO_BTF.into()),
            Some(btf) => match btf.tracepoint("inet_sock_set_state") {
                None => Fact::Unknown("no inet_sock_set_state to try it on".into()),
                Some((id, _)) => ask.load(ProgramKind::TpBtf(id), instructions),
            },
        };
        let facts = Facts {
            release: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
            hz: hz(),
            settings: settings(),
            cgroup2: cgroup::mount_point(),
            btf: btf_fact,
            offsets,
            tracepoints: prototypes::tracepoints(described),
            tp_btf: on_state(RETURN_0),
            socket_cookie: on_state(&bpf::call_with_first_argument(bpf::GET_SOCKET_COOKIE)),
            skc_to_tcp_sock: on_state(&bpf::call_with_first_argument(bpf::SKC_TO_TCP_SOCK)),
            raw_tp: ask.load(ProgramKind::RawTracepoint, RETURN_0),
            tracepoint: ask.load(ProgramKind::Tracepoint, RETURN_0),
            fentry: ask.function(btf.as_ref(), "tcp_close", |id| {
                ask.load(ProgramKind::Fentry(id), RETURN_0)
            }),
            kprobe: ask.kprobe(),
            drop_socket: prototypes::drop_socket(described),
            functions: prototypes::functions(described),
            memory_by_cgroup: prototypes::memory_by_cgroup(described),
            cgroup_cookie: ask.cgroup_cookie(),
            ring_buffer: ask.answer(bpf::create_ring_buffer().map(drop)),
            iter_task_file: ask.function(btf.as_ref(), "bpf_iter_task_file", |id| {
                let program = Program {
                    kind: ProgramKind::Iter(id),
                    instructions: RETURN_0,
                };
                ask.answer(
                    bpf::load(program)
                        .and_then(|p| bpf::open_iter(p.as_fd()))
                        .map(drop),
                )
            }),
            accept_tracepoints: accept_tracepoints(tracefs.as_ref()),
            tracefs: tracefs_fact,
            timer_address: Fact::Unknown("not looked for: nothing needed it".into()),
            sock_diag: sock_diag().into(),
            capabilities: ask.capabilities,
        };
        let arguments = Arguments::count(described);
        let btf_types = given.as_ref().or(btf.as_ref()).map_or(0, Btf::types);
        let (layout, absences) = resolved.map_or((None, vec![]), |(l, a)| (Some(l), a));
        Ok(Kernel {
            facts,
            layout,
            absences,
            btf_types,
            btf_file: btf_file.map(Path::to_owned),
            kallsyms: Kallsyms::open(),
            arguments,
            targets: btf.as_ref().map(Targets::find).unwrap_or_default(),
            tracefs,
        })
    }

    /// Finds out the fact that takes longest, and that a plan needs only where no function of the
    /// minisockets' can be entered.
    pub(crate) fn look_for_timer(&mut self) {
        self.facts.timer_address = match self.kallsyms.symbols() {
            Ok(symbols) if symbols.tw_timer_handler().is_some() => Fact::Yes,
            Ok(_) => Fact::No(format!("{KALLSYMS} lists no tw_timer_handler")),
            Err(e @ SymbolsError::Hidden) => Fact::No(e.to_string()),
            Err(e) => Fact::No(format!("{KALLSYMS}: {e}")),
        };
    }

    /// [`plan`], with all the facts that it needs.
    ///
    /// # Errors
    /// As it has them.
    pub(crate) fn plan(&mut self, options: &PlanOptions) -> Result<Plan, CannotRun> {
        let unknown = matches!(self.facts.timer_address, Fact::Unknown(_));
        let first = plan(&self.facts, options);
        let without = |plan: &Plan| plan.chosen(Event::Minisocket).is_none();
        if unknown && first.as_ref().is_ok_and(without) {
            self.look_for_timer();
            return plan(&self.facts, options);
        }
        first
    }
}

/// Before 5.11 maps and programs count as locked memory, and refusals for want of it are EPERM.
/// Where we may not lift the limit, the kernel either needs no lifting or says so by refusing.
fn lift_memlock() {
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    let _ = setrlimit(Resource::Memlock, unlimited);
}

/// Asks with the privileges of this process in mind, so that a refusal is explained.
struct Ask {
    capabilities: Vec<Capability>,
}

impl Ask {
    fn btf(&self) -> (Option<Btf>, Fact) {
        let path = Path::new(VMLINUX);
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let why = format!(
                    "no {}: kernel without CONFIG_DEBUG_INFO_BTF",
                    path.display()
                );
                return (None, Fact::No(why));
            }
            Err(e) => return (None, Fact::No(format!("{}: {e}", path.display()))),
        };
        match Btf::parse(bytes) {
            Ok(btf) => (Some(btf), Fact::Yes),
            Err(e) => (None, Fact::No(format!("{}: {e}", path.display()))),
        }
    }

    fn load(&self, kind: ProgramKind, instructions: &[u64]) -> Fact {
        self.answer(bpf::load(Program { kind, instructions }).map(drop))
    }

    fn kprobe(&self) -> Fact {
        match fs::exists("/sys/bus/event_source/devices/kprobe/type") {
            Ok(true) => self.load(ProgramKind::Kprobe, RETURN_0),
            Ok(false) => Fact::No("kernel without kprobes".into()),
            Err(e) => Fact::Unknown(format!("/sys/bus/event_source: {e}")),
        }
    }

    fn may_attach_to_cgroups(&self) -> bool {
        [Capability::CapNetAdmin, Capability::CapSysAdmin]
            .iter()
            .any(|cap| self.capabilities.contains(cap))
    }

    fn cgroup_cookie(&self) -> Fact {
        let program = bpf::call_with_context(bpf::GET_SOCKET_COOKIE);
        for kind in [ProgramKind::CgroupSockCreate, ProgramKind::SockOps] {
            match self.load(kind, &program) {
                Fact::Yes => {}
                Fact::No(_) if !self.may_attach_to_cgroups() => {
                    return Fact::No("not permitted without CAP_NET_ADMIN".into());
                }
                no => return no,
            }
        }
        cgroup::root()
            .map(drop)
            .map_err(|e| format!("no root cgroup to attach to: {e}"))
            .into()
    }

    /// Tries something on a function, if the kernel has it.
    fn function(&self, btf: Option<&Btf>, name: &str, attempt: impl Fn(u32) -> Fact) -> Fact {
        match btf {
            None => Fact::Unknown(NO_BTF.into()),
            Some(btf) => match btf.find(Kind::Func, name) {
                None => Fact::No(format!("this kernel has no {name}")),
                Some(id) => attempt(id),
            },
        }
    }

    /// The answer that an attempt with bpf(2) gave.
    fn answer(&self, result: io::Result<()>) -> Fact {
        /// `ENOTSUPP`, which the kernel keeps to itself otherwise.
        const ENOTSUPP: i32 = 524;
        let Err(error) = result else { return Fact::Yes };
        let has = |cap| self.capabilities.contains(&cap);
        match error.raw_os_error() {
            Some(libc::EPERM) if has(Capability::CapSysAdmin) => {
                Fact::No("refused (EPERM), although we have the privileges".into())
            }
            Some(libc::EPERM) => {
                let missing: Vec<_> = [Capability::CapBpf, Capability::CapPerfmon]
                    .into_iter()
                    .filter(|cap| !has(*cap))
                    .map(Capability::name)
                    .collect();
                match missing[..] {
                    [] => Fact::No("refused (EPERM), although we have the privileges".into()),
                    _ => Fact::No(format!("not permitted without {}", missing.join(" and "))),
                }
            }
            Some(libc::EINVAL) => Fact::No("this kernel does not know it (EINVAL)".into()),
            Some(libc::ENOSYS) => Fact::No("kernel without bpf(2) (ENOSYS)".into()),
            Some(ENOTSUPP) => Fact::No("not for this architecture (ENOTSUPP)".into()),
            _ => Fact::Unknown(format!("trying it failed: {error}")),
        }
    }
}

fn offsets(btf: &Btf, file: &Path) -> (Option<(Layout, Vec<Absence>)>, Fact) {
    match layout::resolve(btf) {
        Ok(resolved) => (Some(resolved), Fact::Yes),
        Err(e) => (None, Fact::No(format!("{}: {e}", file.display()))),
    }
}

/// The BTF that the user gave.
fn given_btf(file: &Path) -> Result<Btf, Usage> {
    const FIX: &str = "--btf takes raw BTF of the running kernel, as /sys/kernel/btf/vmlinux is: \
                       `pahole --btf_encode_detached FILE vmlinux` makes it from a kernel image with \
                       debug information";
    let name = file.display();
    // Bounded, since it may be a device that never ends.
    let mut bytes = Vec::new();
    fs::File::open(file)
        .and_then(|f| f.take(MAX_BTF + 1).read_to_end(&mut bytes))
        .map_err(|e| Usage::new(format!("cannot read the BTF file {name}: {e}"), FIX))?;
    if bytes.len() as u64 > MAX_BTF {
        let what = format!("{name} is larger than any BTF ({} MiB)", MAX_BTF >> 20);
        return Err(Usage::new(what, FIX));
    }
    Btf::parse(bytes).map_err(|e| Usage::new(format!("{name} is no usable BTF: {e}"), FIX))
}

/// More than ten times what the largest kernels have.
const MAX_BTF: u64 = 128 << 20;

fn accept_tracepoints(tracefs: Option<&Tracefs>) -> Fact {
    let Some(tracefs) = tracefs else {
        return Fact::Unknown("not looked for, without tracefs".into());
    };
    for name in ["sys_exit_accept", "sys_exit_accept4"] {
        if let Err(e) = tracefs.event_id("syscalls", name) {
            return match e.kind() {
                io::ErrorKind::NotFound => Fact::No(format!(
                    "no syscalls:{name}: kernel without CONFIG_FTRACE_SYSCALLS"
                )),
                io::ErrorKind::PermissionDenied => {
                    Fact::No("tracefs is closed to us: that takes CAP_DAC_READ_SEARCH".into())
                }
                _ => Fact::Unknown(format!("syscalls:{name}: {e}")),
            };
        }
    }
    Fact::Yes
}

fn settings() -> Settings {
    let number = |path| read(path).and_then(|text| text.trim().parse().ok());
    Settings {
        unprivileged_bpf_disabled: number("/proc/sys/kernel/unprivileged_bpf_disabled"),
        perf_event_paranoid: number("/proc/sys/kernel/perf_event_paranoid"),
        kptr_restrict: number("/proc/sys/kernel/kptr_restrict"),
        lockdown: read("/sys/kernel/security/lockdown").and_then(|text| chosen(&text)),
    }
}

/// The value in brackets of `none [integrity] confidentiality`.
fn chosen(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

/// The coarse clock ticks with the timer interrupt.
fn hz() -> Option<u64> {
    let tick = rustix::time::clock_getres(ClockId::MonotonicCoarse);
    let nanos = u64::try_from(tick.tv_nsec)
        .ok()
        .filter(|n| *n > 0 && tick.tv_sec == 0)?;
    Some(1_000_000_000 / nanos)
}

/// Asks for the TCP sockets in no state at all: none, if the kernel can answer.
fn sock_diag() -> Result<(), DiagError> {
    // The number of the namespace is for the sockets that are found.
    let mut diag = Diag::open(0)?;
    diag.dump(StateSet::EMPTY, &mut |_| ()).map(drop)
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chosen_value_is_the_one_in_brackets() {
        assert_eq!(
            chosen("none [integrity] confidentiality\n").as_deref(),
            Some("integrity")
        );
        assert_eq!(chosen("none"), None);
    }

    #[test]
    fn a_refusal_names_what_is_missing() {
        let refused = || Err(io::Error::from_raw_os_error(libc::EPERM));
        let answer = |capabilities: &[Capability]| {
            Ask {
                capabilities: capabilities.to_vec(),
            }
            .answer(refused())
        };
        let no = |why: &str| Fact::No(why.into());
        assert_eq!(
            answer(&[]),
            no("not permitted without CAP_BPF and CAP_PERFMON")
        );
        assert_eq!(
            answer(&[Capability::CapBpf]),
            no("not permitted without CAP_PERFMON")
        );
        let capable = no("refused (EPERM), although we have the privileges");
        assert_eq!(answer(&[Capability::CapSysAdmin]), capable);
        assert_eq!(
            answer(&[Capability::CapBpf, Capability::CapPerfmon]),
            capable
        );
    }
}

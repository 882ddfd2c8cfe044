//! From a plan to a running source.

use tcptrace_common::config::{Config, FLAG_NOTE_FIN_WAIT2};
use tcptrace_common::layout::Layout;
use tcptrace_core::cause::Cause;
use tcptrace_core::decode::Decoder;
use tcptrace_core::state::{StateSet, TcpState};

use crate::embed::OBJECT;
use crate::error::CannotRun;
use crate::kernel::facts::Fact;
use crate::kernel::inspect::Kernel;
use crate::kernel::kallsyms::Kallsyms;
use crate::kernel::plan::{Event, Plan, PlanOptions};
use crate::kernel::probes::{LoadError, Probes, Selection};
use crate::kernel::programs;

/// Ring buffer, unless told otherwise: 0.2 s without a drain at 500,000 events/s.
pub(crate) const RING_BYTES: u32 = 16 << 20;

/// Ring buffer of stacks: over 300 of them between two drains.
const STACK_RING_BYTES: u32 = 8 << 20;
/// One of which nothing is wanted: a page.
const LEAST_RING_BYTES: u32 = 4 << 10;

/// What is to be seen.
pub(crate) struct Scope {
    /// States whose entry, exit and dwell time are wanted.
    pub(crate) states: StateSet,
    /// The close of dead sockets is wanted, too.
    pub(crate) closes: bool,
    /// The filters of the programs.
    pub(crate) config: Config,
    /// Bytes of the ring buffer.
    pub(crate) ring_bytes: u32,
    /// How many sockets an owner filter may select.
    pub(crate) selected_max: u32,
}

/// Loads and attaches what the plan chose and the scope needs. Where the kernel refuses a program
/// the next way to its event is taken: the plan that comes back is the one that runs.
///
/// # Errors
/// [`CannotRun`] if nothing is left that could be tried.
pub(crate) fn start(
    kernel: &mut Kernel,
    mut plan: Plan,
    asked: &PlanOptions,
    scope: &Scope,
) -> anyhow::Result<(Plan, Probes)> {
    let mut asked = asked.clone();
    loop {
        let loaded = load(kernel, &plan, scope);
        let next = match &loaded {
            Err(LoadError::Refused(refusal)) => {
                let known = asked.refused.insert(refusal.program, refusal.why.clone());
                known.is_none().then(|| kernel.plan(&asked).ok()).flatten()
            }
            _ => None,
        };
        match (next, loaded) {
            (Some(next), _) => plan = next,
            (None, Ok(probes)) => return Ok((plan, probes)),
            (None, Err(error)) => return Err(cannot_load(error)),
        }
    }
}

fn load(kernel: &Kernel, plan: &Plan, scope: &Scope) -> Result<Probes, LoadError> {
    // Without offsets every way to the state changes is out.
    let layout = kernel.layout.unwrap_or(Layout::UNRESOLVED);
    let handler = match kernel.facts.timer_address {
        Fact::Yes => kernel.kallsyms.symbols().ok(),
        _ => None,
    };
    let handler = handler.and_then(|symbols| symbols.tw_timer_handler());
    // What some kernels refuse comes first: then little was loaded in vain.
    let events = [
        (Event::Overflow, true),
        (Event::State, true),
        (Event::Minisocket, watches_minisockets(scope.states)),
        (Event::Accept, true),
        (Event::Close, scope.closes),
        (Event::Eof, scope.states.contains(TcpState::CloseWait)),
        (Event::Owners, true),
    ];
    let wanted = events.into_iter().filter(|(_, wanted)| *wanted);
    let programs: Vec<_> = wanted
        .flat_map(|(event, _)| plan.programs(event))
        .map(|program| program.for_arguments(|function| kernel.arguments.of(function)))
        .collect();
    let note_fin_wait2 = match programs::notes_fin_wait2(&programs) {
        true => FLAG_NOTE_FIN_WAIT2,
        false => 0,
    };
    let selection = Selection {
        layout,
        targets: &kernel.targets,
        config: Config {
            flags: scope.config.flags | note_fin_wait2,
            states: event_states(scope.states).bits(),
            tw_timer_handler: handler.unwrap_or(0),
            ..scope.config
        },
        ring_bytes: scope.ring_bytes,
        stack_ring_bytes: match scope.config.stacks {
            0 => LEAST_RING_BYTES,
            _ => STACK_RING_BYTES,
        },
        selected_max: scope.selected_max,
        programs,
        tracefs: kernel.tracefs.as_ref(),
    };
    Probes::load(OBJECT, &selection)
}

/// How the records of the programs are read. Without symbols nothing is said of why minisockets
/// died early.
pub(crate) fn decoder(hz: Option<u64>, kallsyms: Option<Kallsyms>) -> Decoder {
    Decoder {
        hz: hz.unwrap_or(250),
        observer: None,
        mini_death: Box::new(move |stack, substate| {
            let symbols = kallsyms.as_ref().and_then(|list| list.symbols().ok());
            symbols.map_or(Cause::Unknown, |s| s.mini_death(stack, substate))
        }),
    }
}

/// Whether sockets in these states live on as minisockets.
pub(crate) fn watches_minisockets(states: StateSet) -> bool {
    states.contains(TcpState::FinWait2) || states.contains(TcpState::TimeWait)
}

/// States whose changes the programs report: those wanted, birth and death, and for minisockets
/// the close that leads to them, since it says whose they were.
fn event_states(wanted: StateSet) -> StateSet {
    let states = wanted.with(TcpState::Close);
    match watches_minisockets(wanted) {
        true => states
            .with(TcpState::FinWait1)
            .with(TcpState::FinWait2)
            .with(TcpState::Closing),
        false => states,
    }
}

fn cannot_load(error: LoadError) -> anyhow::Error {
    CannotRun {
        what: "cannot load the eBPF programs".to_owned(),
        why: format!("{:#}", anyhow::Error::from(error)),
        fix: "run `tcptrace doctor` to see what this kernel offers; `tcptrace watch \
              --hooks netlink` and `tcptrace snapshot` work without BPF"
            .to_owned(),
    }
    .into()
}

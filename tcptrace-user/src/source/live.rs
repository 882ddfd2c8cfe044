//! The live source: ring buffer, sock_diag, /proc and the clock, made into inputs.
//!
//! The order of inputs is the order in which they are fed here. Before any row of a dump is fed,
//! the ring is drained, so that every event that happened before the row was made comes first.

use std::collections::BTreeMap;
use std::time::Duration;

use tcptrace_core::decode::Decoder;
use tcptrace_core::input::{Definition, Input, Loss, SocketSnapshot, StackLoss, Sweep};
use tcptrace_core::state::TcpState;
use tcptrace_core::time::Mono;
use tcptrace_core::tracker::Minisockets;

use super::dumps::Dumps;
use super::facts::{self, HolderScan};
use super::newcomers::Newcomers;
use super::overflows::Overflows;
use super::stacks::Stacks;
use super::survey::Survey;
use crate::clock;
use crate::kernel::probes::Probes;
use crate::netns;
use crate::pipeline::{Pipeline, Sink};
use crate::privileges;
use crate::proc;

/// Records taken from the ring before anything else gets its turn.
const BATCH: usize = 4_096;

/// How long the ring is left alone: the longest and the shortest pause between two drains.
const PAUSE_MAX: Duration = Duration::from_millis(50);
const PAUSE_MIN: Duration = Duration::from_millis(5);

/// How often the loss counters are read, ns.
const LOSS_EVERY: u64 = 1_000_000_000;

/// The least time between two reconciling dumps, ns, and how many times its own cost a dump
/// waits: it takes at most 2 % of one CPU.
const SWEEP_EVERY: u64 = 10_000_000_000;
const SWEEP_COST: u64 = 50;

/// How many times its own cost a look at what is to be shown waits before the next: it takes at
/// most 5 % of one CPU.
const FACTS_COST: u64 = 20;

/// How many times its own cost a poll waits before the next, where nothing but polls tells: it takes
/// at most a fifth of one CPU.
const POLL_COST: u64 = 4;

/// Where minisockets are not seen by events they are sampled this often, ns.
const SAMPLE_EVERY: u64 = 1_000_000_000;

/// How long the end waits for stacks that are not named yet, ns.
const NAMES_WITHIN: u64 = 5_000_000_000;

/// Says of a socket that was there before us whether it is one of those that the programs follow.
pub(crate) type OwnerFilter = Box<dyn Fn(&SocketSnapshot, &HolderScan) -> bool>;

/// Everything that is read while `watch` runs.
pub(crate) struct Live {
    /// `None`: nothing is attached, and dumps are all there is.
    probes: Option<Probes>,
    decoder: Decoder,
    scan: HolderScan,
    dumps: Dumps,
    /// The files of the listeners of the last dump, for scans of /proc.
    listener_inodes: BTreeMap<u64, u32>,
    /// Only sockets of selected owners are followed.
    owner_filter: Option<OwnerFilter>,
    undecodable: u64,
    /// Sockets of a dump that found no room in the map of selected ones.
    map_full: u64,
    last_loss: Loss,
    overflows: Overflows,
    loss_at: Mono,
    sweep_at: Mono,
    /// When the last dump began, and the longest time between two of them, ns.
    swept_at: Option<Mono>,
    longest_gap: u64,
    /// Not before this, even if something was lost: dumping takes time from draining.
    sweep_after_loss: Mono,
    facts_at: Mono,
    newcomers: Newcomers,
    /// `None`: none are taken.
    stacks: Option<Stacks>,
    /// `None`: nobody asks for what it tells.
    survey: Option<Survey>,
    pause: Duration,
    notices: Vec<String>,
}

impl Live {
    /// A source over loaded programs, or over dumps alone. Without `owner_filter` they follow every
    /// socket.
    pub(crate) fn new(
        probes: Option<Probes>,
        decoder: Decoder,
        owner_filter: Option<OwnerFilter>,
        dumps: Dumps,
        stacks: Option<Stacks>,
        survey: Option<Survey>,
    ) -> Live {
        Live {
            probes,
            decoder,
            scan: HolderScan::default(),
            dumps,
            listener_inodes: BTreeMap::new(),
            owner_filter,
            undecodable: 0,
            map_full: 0,
            last_loss: Loss::default(),
            overflows: Overflows::default(),
            loss_at: Mono(0),
            sweep_at: Mono(0),
            swept_at: None,
            longest_gap: 0,
            sweep_after_loss: Mono(0),
            facts_at: Mono(0),
            newcomers: Newcomers::default(),
            stacks,
            survey,
            pause: PAUSE_MIN,
            notices: Vec::new(),
        }
    }

    /// How long to sleep before the next [`Live::step`].
    pub(crate) fn pause(&self) -> Duration {
        self.pause
    }

    /// The longest time between two dumps, ns.
    pub(crate) fn longest_gap(&self) -> u64 {
        self.longest_gap
    }

    /// What went wrong without ending the watch, once.
    pub(crate) fn take_notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }

    /// Lists every socket that is already there.
    pub(crate) fn bootstrap<S: Sink>(&mut self, pipeline: &mut Pipeline<S>) {
        if let Some(stacks) = &mut self.stacks {
            proc::pids().for_each(|pid| stacks.look(pid));
        }
        self.sweep(pipeline);
        let now = clock::mono();
        self.facts(pipeline, now, true);
        self.survey(pipeline);
        pipeline.feed(&Input::Tick(now))
    }

    /// Takes what has come since the last step.
    pub(crate) fn step<S: Sink>(&mut self, pipeline: &mut Pipeline<S>) {
        let taken = self.drain_all(pipeline);
        self.processes(pipeline);
        let now = clock::mono();
        if now.since(self.loss_at) >= LOSS_EVERY {
            self.loss_at = now;
            self.loss(pipeline);
            self.overflows(pipeline);
        }
        if now >= self.sweep_at {
            self.sweep(pipeline);
            // Those whose birth is still in the ring are known after it is drained.
            let selected = self.probes.as_ref().map(Probes::selected);
            self.drain(pipeline);
            let gone = |c: &u64| !pipeline.tracker().knows(*c);
            for cookie in selected.unwrap_or_default().into_iter().filter(gone) {
                if let Some(probes) = &mut self.probes {
                    probes.unselect(cookie);
                }
            }
        }
        let owed = pipeline
            .tracker()
            .next_deadline()
            .is_some_and(|at| at <= now);
        if owed && self.facts(pipeline, now, false) {
            pipeline.feed(&Input::Tick(now));
        }
        if self
            .survey
            .as_ref()
            .is_some_and(|survey| survey.is_due(now))
        {
            self.survey(pipeline);
        }
        self.adapt(taken);
    }

    /// Tells anew all that is known, to one who has heard of nothing: a file that begins.
    pub(crate) fn introduce<S: Sink>(&mut self, pipeline: &mut Pipeline<S>) {
        // What leads nowhere at the end of a dump is forgotten: so the sockets come first.
        self.sweep(pipeline);
        for definition in pipeline.tracker().definitions() {
            pipeline.feed(&Input::Define(definition));
        }
        pipeline.feed(&Input::Lost(self.last_loss));
        for total in self.overflows.told() {
            pipeline.feed(&Input::Overflow(total));
        }
        for holders in pipeline.tracker().holders() {
            pipeline.feed(&Input::Define(holders));
        }
        if let Some(stacks) = &mut self.stacks {
            stacks.introduce(pipeline);
        }
    }

    /// Takes what is left. When that is done, nothing follows.
    pub(crate) fn finish<S: Sink>(&mut self, pipeline: &mut Pipeline<S>) -> Mono {
        self.drain_all(pipeline);
        self.processes(pipeline);
        self.loss(pipeline);
        self.overflows(pipeline);
        // Whatever kept a program from running, what it missed shows in the sockets themselves.
        self.sweep(pipeline);
        if pipeline.tracker().doubts() {
            self.sweep(pipeline);
        }
        if self.stacks.is_some() {
            self.finish_stacks(pipeline);
        }
        let now = clock::mono();
        self.facts(pipeline, now, true);
        self.survey(pipeline);
        now
    }

    /// Waits for the names of what was taken. Events come all the while.
    fn finish_stacks<S: Sink>(&mut self, pipeline: &mut Pipeline<S>) {
        let until = clock::mono().plus(NAMES_WITHIN);
        while let Some(stacks) = &mut self.stacks
            && !stacks.wait(PAUSE_MIN)
            && clock::mono() < until
        {
            self.drain(pipeline);
        }
        if let Some(stacks) = &mut self.stacks {
            stacks.finish();
        }
        self.drain_all(pipeline);
        self.loss(pipeline);
    }

    /// Empties both rings; gives the bytes taken of events. A stack is told after the event that it
    /// belongs to: that one was in its ring before the stack was in the other, and so before it
    /// was named.
    fn drain_all<S: Sink>(&mut self, pipeline: &mut Pipeline<S>) -> usize {
        if let Some(stacks) = &mut self.stacks {
            stacks.collect();
        }
        let taken = self.drain(pipeline);
        if let (Some(stacks), Some(probes)) = (&mut self.stacks, &mut self.probes) {
            stacks.tell(probes, pipeline);
            stacks.take(probes);
        }
        taken
    }

    /// Empties the ring; gives the bytes taken.
    fn drain<S: Sink>(&mut self, pipeline: &mut Pipeline<S>) -> usize {
        let mut taken = 0;
        loop {
            let Live {
                probes: Some(probes),
                decoder,
                undecodable,
                newcomers,
                ..
            } = self
            else {
                return 0;
            };
            let more = probes.drain(BATCH, |record| {
                taken += record.len() + 8;
                match decoder.decode(record) {
                    Ok(event) => {
                        newcomers.note(&event.body);
                        pipeline.feed(&Input::Kernel(event));
                    }
                    Err(_) => *undecodable += 1,
                }
            });
            // What comes in while we drain can keep us here only so long: the rest of a full
            // ring, then the others get their turn.
            if !more || taken > probes.ring_bytes() as usize * 2 {
                return taken;
            }
        }
    }

    /// Reads /proc of processes that act on sockets, while they live.
    fn processes<S: Sink>(&mut self, pipeline: &mut Pipeline<S>) {
        for pid in self.newcomers.take() {
            if let Some(stacks) = &mut self.stacks {
                stacks.look(pid);
            }
            if let Some(process) = proc::process(pid) {
                pipeline.feed(&Input::Define(Definition::Process(process)));
            }
        }
    }

    fn loss<S: Sink>(&mut self, pipeline: &mut Pipeline<S>) {
        let Some(probes) = &self.probes else {
            return;
        };
        let loss = match probes.loss() {
            Ok(loss) => Loss {
                undecodable: self.undecodable,
                map_full: loss.map_full + self.map_full,
                stacks: StackLoss {
                    full: loss.stacks.full + self.stacks.as_ref().map_or(0, Stacks::dropped),
                    ..loss.stacks
                },
                ..loss
            },
            Err(error) => {
                self.notices
                    .push(format!("the loss counters cannot be read: {error}"));
                return;
            }
        };
        if loss == self.last_loss {
            return;
        }
        let lost = |l: Loss| l.ring_full + l.recursion_missed;
        if lost(loss) > lost(self.last_loss) {
            let soon = clock::mono().plus(LOSS_EVERY).max(self.sweep_after_loss);
            self.sweep_at = self.sweep_at.min(soon);
        }
        self.last_loss = loss;
        pipeline.feed(&Input::Lost(loss));
    }

    /// Takes what full accept queues have dropped by now.
    fn overflows<S: Sink>(&mut self, pipeline: &mut Pipeline<S>) {
        let Some(probes) = &self.probes else {
            return;
        };
        match self.overflows.grown(probes) {
            Ok((grown, undecodable)) => {
                self.undecodable += undecodable;
                for total in grown {
                    pipeline.feed(&Input::Overflow(total));
                }
            }
            Err(error) => {
                let notice = format!("what full accept queues dropped cannot be read: {error}");
                self.notices.push(notice);
            }
        }
    }

    /// Dumps all sockets of all namespaces.
    fn sweep<S: Sink>(&mut self, pipeline: &mut Pipeline<S>) {
        let began = clock::mono();
        let gap = self.swept_at.replace(began).map_or(0, |at| began.since(at));
        self.longest_gap = self.longest_gap.max(gap);
        if self.owner_filter.is_some() {
            self.scan.run(self.probes.as_mut());
        }
        self.listener_inodes.clear();
        pipeline.feed(&Input::Sweep(Sweep::Begin { at: began }));
        let (mut whole, mut partly, mut hidden) = (Vec::new(), Vec::new(), 0);
        let found = match netns::wanted(&self.dumps.netns) {
            Ok(found) => {
                hidden = match privileges::sees_all_processes() {
                    // What is hidden even so is the kernel's own, or shares our namespace.
                    true => 0,
                    false => found.hidden_processes as u32,
                };
                found.namespaces
            }
            Err(error) => {
                self.notices.push(error.to_string());
                Vec::new()
            }
        };
        for namespace in found {
            match self.dump(&namespace, pipeline) {
                Ok(()) => whole.push(namespace.inode),
                Err(why) => {
                    partly.push(namespace.inode);
                    self.notices.push(why);
                }
            }
        }
        self.drain(pipeline);
        let at = clock::mono();
        pipeline.feed(&Input::Sweep(Sweep::End {
            at,
            netns: whole,
            partly,
            hidden,
        }));
        let (every, share) = match (self.dumps.polled_ns, self.dumps.minisockets) {
            (Some(ns), _) => (ns, POLL_COST),
            (None, Minisockets::Sampled) => (SAMPLE_EVERY, SWEEP_COST),
            (None, Minisockets::Seen | Minisockets::Ignored) => (SWEEP_EVERY, SWEEP_COST),
        };
        self.newcomers.forget();
        let rest = at.since(began) * share;
        // From begin to begin, as far as that leaves the rest.
        self.sweep_at = began.plus(every).max(at.plus(rest));
        self.sweep_after_loss = at.plus(rest / 4);
    }

    /// Looks beyond the sockets, where somebody asks for that.
    fn survey<S: Sink>(&mut self, pipeline: &mut Pipeline<S>) {
        let Some(survey) = &mut self.survey else {
            return;
        };
        let found = netns::wanted(&self.dumps.netns).map(|found| found.namespaces);
        for definition in survey.take(&found.unwrap_or_default(), pipeline.tracker()) {
            pipeline.feed(&Input::Define(definition));
        }
    }

    /// Dumps one namespace.
    fn dump<S: Sink>(
        &mut self,
        namespace: &netns::Netns,
        pipeline: &mut Pipeline<S>,
    ) -> Result<(), String> {
        let mut inside = match namespace.look_inside() {
            Ok(inside) => inside,
            Err(error) => return Err(error.to_string()),
        };
        if let Some(ns) = inside.fin_timeout_ns {
            let netns = namespace.inode;
            pipeline.feed(&Input::Define(Definition::FinTimeout { netns, ns }));
        }
        let mut last = Mono(0);
        let dumped = inside.diag.dump(self.dumps.states(), &mut |socket| {
            if socket.at != last {
                last = socket.at;
                self.drain(pipeline);
            }
            if socket.state == TcpState::Listen {
                self.listener_inodes.insert(socket.cookie, socket.inode);
            }
            let known = pipeline.tracker().knows(socket.cookie);
            if self.follows(&socket, known) {
                pipeline.feed(&Input::Socket(socket));
            }
        });
        match dumped {
            Ok(dumped) if dumped.interrupted || dumped.undecodable > 0 => Err(format!(
                "the dump of network namespace {} was cut short",
                namespace.inode
            )),
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Whether the programs follow this socket; one that was there before us is made known to
    /// them. Of a minisocket that is not `known` yet nobody can say whose it was.
    fn follows(&mut self, socket: &SocketSnapshot, known: bool) -> bool {
        let Some(filter) = &self.owner_filter else {
            return true;
        };
        if socket.state == TcpState::Listen || (socket.mini && known) {
            return true;
        }
        let followed = filter(socket, &self.scan);
        if followed
            && let Some(probes) = &mut self.probes
            && let Err(error) = probes.select(socket.cookie)
        {
            self.map_full += 1;
            if self.map_full == 1 {
                let notice = format!("not every socket can be followed: {error}");
                self.notices.push(notice);
            }
        }
        followed
    }

    /// Looks up what is to be shown with the connections that are due; false if it is too early
    /// to look again, which `at_once` does not care for.
    fn facts<S: Sink>(&mut self, pipeline: &mut Pipeline<S>, now: Mono, at_once: bool) -> bool {
        let mut wanted = pipeline.tracker().wanted(now);
        if at_once && self.survey.is_some() {
            wanted.extend(pipeline.tracker().besieged());
        }
        if wanted.iter().all(|w| w.mini) {
            return true;
        }
        if !at_once && now < self.facts_at {
            return false;
        }
        let began = clock::mono();
        let sockets = facts::look_up(&wanted);
        self.drain(pipeline);
        for socket in &sockets {
            pipeline.feed(&Input::Socket(*socket));
        }
        self.scan.run(self.probes.as_mut());
        let (scan, inodes) = (&self.scan, &self.listener_inodes);
        for definition in facts::definitions(&wanted, &sockets, scan, pipeline.tracker(), inodes) {
            pipeline.feed(&Input::Define(definition));
        }
        let ended = clock::mono();
        self.facts_at = ended.plus(ended.since(began) * FACTS_COST);
        true
    }

    /// Sleeps less the fuller the ring was found.
    fn adapt(&mut self, taken: usize) {
        let Some(probes) = &self.probes else {
            let left = self.sweep_at.since(clock::mono());
            self.pause = Duration::from_nanos(left).clamp(Duration::from_millis(1), PAUSE_MAX);
            return;
        };
        let full = probes.ring_bytes() as usize;
        self.pause = if taken > full / 8 {
            PAUSE_MIN
        } else if taken > full / 64 {
            PAUSE_MAX / 4
        } else {
            PAUSE_MAX
        };
    }
}

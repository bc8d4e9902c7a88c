//! All processes of a run, and what happens to them.

use std::collections::BTreeMap;
use std::time::Duration;

use strath_core::{Step, Timestamp};
use strath_protocol::Outcome;

use crate::coordinator::{self, Folder};
use crate::env::{Env, Input, Mending, Occurrence};
use crate::fault::Fault;
use crate::invariant::{Fact, Invariants, Run};
use crate::network::{Arrival, Closing, Host, Packet, Plane, ProcessId, Side, StreamId};
use crate::scenario::Scenario;
use crate::worker::{self, End};

/// Once no faults happen, a run ends within this time.
const PATIENCE: Duration = Duration::from_secs(90);
/// Once a run is complete its workers end within this time: training hangs for 16 s at most, and then they try to reach a coordinator for 30 s.
const FAREWELL: Duration = Duration::from_secs(50);
/// Whoever looks after a process that has failed, or a run that has ended before its time, starts it again after this time.
const RESTART: Duration = Duration::from_secs(1);

/// A run in which more than so much happens goes round in circles.
const MOST_OCCURRENCES: u64 = 200_000;

/// The world of a run.
pub struct World {
    pub(crate) env: Env,
    workers: BTreeMap<ProcessId, worker::Process>,
    coordinator: Option<coordinator::Process>,
    folder: Folder,
    /// Processes that do nothing, and what waits for them.
    stalled: BTreeMap<ProcessId, Vec<Input>>,
    is_calm: bool,
    complete_at: Option<Timestamp>,
    /// Faults that fell into the run.
    pub(crate) faults: usize,
    /// Occurrences so far.
    pub(crate) occurrences: u64,
}

impl World {
    pub(crate) fn new(
        scenario: Scenario,
        draws: crate::draws::Draws,
        bug: Option<crate::bug::Bug>,
        is_logged: bool,
    ) -> Self {
        let run = Run {
            trajectory: crate::quadratic::trajectory(scenario.micro_batches, Step(scenario.steps)),
            micro_batches: scenario.micro_batches,
            steps: Step(scenario.steps),
            evaluate_every: scenario.evaluate_every,
            patience: PATIENCE,
        };
        let mut env = Env::new(scenario, draws, Invariants::new(run), bug, is_logged);
        for (at, fault) in env.scenario.faults.clone() {
            env.queue.at(at, Occurrence::Faults(fault));
        }
        env.queue.at(env.scenario.calm, Occurrence::Calms);
        env.queue.at(Timestamp::default(), Occurrence::StartsCoordinator);
        for host in 1..=env.scenario.workers {
            let soon = env.draws.millis(0, 60);
            env.queue.after(soon, Occurrence::Starts(Host(host)));
        }
        Self {
            env,
            workers: BTreeMap::new(),
            coordinator: None,
            folder: Folder::default(),
            stalled: BTreeMap::new(),
            is_calm: false,
            complete_at: None,
            faults: 0,
            occurrences: 0,
        }
    }

    /// Runs until an invariant does not hold, all is over, or the time is.
    pub(crate) fn run(&mut self) {
        while let Some(occurrence) = self.env.queue.advance() {
            self.occurrences += 1;
            let is_end = matches!(occurrence, Occurrence::Ends);
            self.happen(occurrence);
            let is_over = self.complete_at.is_some() && self.living() == 0;
            // What was planned as the end of a run that would not end is none of one that has.
            let is_end = is_end && self.complete_at.is_none_or(|at| self.env.now().since(at) >= FAREWELL);
            let goes_round = self.occurrences >= MOST_OCCURRENCES;
            if is_over || is_end || goes_round || self.env.invariants.violation().is_some() {
                break;
            }
        }
        let living = self.living();
        self.env.note(&Fact::Over { living });
    }

    fn living(&self) -> usize {
        self.workers.values().filter(|process| process.end().is_none()).count()
    }

    /// The living worker of a host.
    fn of_host(&self, host: Host) -> Option<ProcessId> {
        let lives = |(_, process): &(&ProcessId, &worker::Process)| process.host() == host && process.end().is_none();
        self.workers.iter().find(lives).map(|(id, _)| *id)
    }

    fn happen(&mut self, occurrence: Occurrence) {
        match occurrence {
            Occurrence::Arrives(stream, to, packet) => self.arrive(stream, to, packet),
            Occurrence::Releases(stream, to) => {
                for packet in self.env.network.release(stream, to) {
                    self.arrive(stream, to, packet);
                }
            }
            Occurrence::Within(process, input) => self.within(process, input),
            Occurrence::Faults(fault) => self.fail(fault),
            Occurrence::Mends(mending) => self.mend(mending),
            Occurrence::FallsSilent(from, to, block) => {
                if self.env.network.is_blocked(from, to) == Some(block) {
                    self.env.fall_silent(from, to);
                }
            }
            Occurrence::Starts(host) => self.start(host),
            Occurrence::StartsCoordinator => {
                if self.coordinator.is_none() && self.complete_at.is_none() {
                    self.env.log(|| "the coordinator begins".into());
                    self.coordinator = Some(coordinator::Process::start(&mut self.folder, &mut self.env));
                }
            }
            Occurrence::Calms => self.calm(),
            Occurrence::Ends => {}
        }
    }

    fn arrive(&mut self, stream: StreamId, to: Side, packet: Packet) {
        match self.env.network.arrive(stream, to, packet) {
            Arrival::To(process, packet) => self.within(process, Input::Packet(stream, packet)),
            Arrival::Knocks(address, packet) => match self.env.listeners.get(&address) {
                Some(process) if !self.env.network.is_dead(Host::of(address)) => {
                    let process = *process;
                    self.env.network.accept(stream, process);
                    self.within(process, Input::Packet(stream, packet));
                }
                _ => self.env.close(stream, Side::Listener, Closing::Refused),
            },
            Arrival::Nowhere => {}
        }
    }

    fn within(&mut self, id: ProcessId, input: Input) {
        if let Some(waiting) = self.stalled.get_mut(&id) {
            return waiting.push(input);
        }
        if let Some(process) = self.workers.get_mut(&id) {
            let lived = process.end().is_none();
            process.take(input, &mut self.env);
            if let (true, Some(end)) = (lived, process.end()) {
                let host = process.host();
                self.env.log(|| format!("process {} on host {} has ended: {end:?}", id.0, host.0));
                self.env.listeners.retain(|_, listener| *listener != id);
                // One that was asked to leave stays away, unless somebody is needed.
                let is_wanted = end == End::WithError || self.is_calm;
                if is_wanted && self.complete_at.is_none() {
                    self.env.queue.after(RESTART, Occurrence::Starts(host));
                }
            }
            return;
        }
        let Some(process) = self.coordinator.as_mut().filter(|process| process.id == id) else { return };
        process.take(input, &mut self.folder, &mut self.env);
        match process.outcome.clone() {
            None => {}
            Some(Outcome::Done { .. }) => {
                self.complete_at = Some(self.env.now());
                self.coordinator = None;
                self.env.queue.after(FAREWELL, Occurrence::Ends);
            }
            Some(_) => {
                // The owner goes on with it: with another coordinator, and workers on the same hosts.
                self.coordinator = None;
                self.env.queue.after(RESTART, Occurrence::StartsCoordinator);
                for host in 1..=self.env.scenario.workers {
                    self.env.queue.after(RESTART, Occurrence::Starts(Host(host)));
                }
            }
        }
    }

    fn start(&mut self, host: Host) {
        if self.of_host(host).is_some() || self.complete_at.is_some() {
            return;
        }
        self.env.network.set_dead(host, false);
        let id = ProcessId(self.env.number());
        self.env.log(|| format!("process {} begins on host {}", id.0, host.0));
        self.workers.insert(id, worker::Process::start(id, host, &mut self.env));
    }

    /// A process is gone, and its streams with it.
    fn kill(&mut self, id: ProcessId, silently: bool) {
        self.stalled.remove(&id);
        self.env.listeners.retain(|_, listener| *listener != id);
        for (stream, side, plane) in self.env.network.of(id) {
            if !silently {
                self.env.close(stream, side, Closing::Reset);
            } else if plane == Plane::Data {
                let other = if side == Side::Dialler { Side::Listener } else { Side::Dialler };
                let closed = Packet::Closed(Closing::Silent);
                self.env.queue.after(self.env.silence(), Occurrence::Arrives(stream, other, closed));
            }
            self.env.network.close(stream, side);
        }
    }

    fn fail(&mut self, fault: Fault) {
        if self.complete_at.is_some() {
            return;
        }
        self.faults += 1;
        self.env.log(|| format!("FAULT {fault:?}"));
        match fault {
            Fault::Crashes { host, silently, back_after } => {
                if let Some(id) = self.of_host(host) {
                    self.kill(id, silently);
                    self.workers.remove(&id);
                    self.env.network.set_dead(host, silently);
                }
                if let Some(back_after) = back_after {
                    self.env.queue.after(back_after, Occurrence::Starts(host));
                }
            }
            Fault::Stalls { host, lasting } => {
                let id = if host == Host(0) { self.env.coordinator } else { self.of_host(host) };
                if let Some(id) = id.filter(|id| !self.stalled.contains_key(id)) {
                    self.stalled.insert(id, Vec::new());
                    self.env.queue.after(lasting, Occurrence::Mends(Mending::Wakes(id)));
                }
            }
            Fault::Hangs { host, lasting } => {
                let until = self.env.now().after(lasting);
                self.env.note(&Fact::Hangs);
                self.env.hanging.extend(self.of_host(host).map(|id| (id, until)));
            }
            Fault::Parts { one, other, both, lasting } => {
                self.env.block(one, other, lasting);
                if both {
                    self.env.block(other, one, lasting);
                }
            }
            Fault::Resets { plane, one, other } => {
                for stream in self.env.network.between(plane, one, other) {
                    self.env.reset(stream, Closing::Reset);
                }
            }
            Fault::Slows { one, other, by, lasting } => {
                self.env.network.set_slowness(one, other, by);
                self.env.queue.after(lasting, Occurrence::Mends(Mending::Hastens(one, other)));
            }
            Fault::Leaves(host) => {
                if let Some(id) = self.of_host(host) {
                    self.within(id, Input::Signal);
                }
            }
            Fault::Drains { host, shortage } => {
                if let (Some(process), Some(id)) = (self.of_host(host), self.env.coordinator) {
                    self.within(id, Input::Drains { process, shortage });
                }
            }
            Fault::Joins(host) => self.start(host),
            Fault::Strays(host) => self.env.lurking.extend(self.of_host(host)),
            Fault::CoordinatorCrashes { silently, back_after } => {
                if let Some(process) = self.coordinator.take() {
                    self.env.coordinator = None;
                    self.kill(process.id, silently);
                }
                self.env.queue.after(back_after, Occurrence::StartsCoordinator);
            }
            Fault::OwnerStops => {
                if let Some(id) = self.env.coordinator {
                    self.within(id, Input::Signal);
                }
            }
        }
    }

    fn mend(&mut self, mending: Mending) {
        match mending {
            Mending::Wakes(id) => {
                let mut waiting = self.stalled.remove(&id).unwrap_or_default();
                // Which of what has come meanwhile it looks at first, and whether it looks at the clock before, is not in its hand.
                if self.env.draws.percent(50) {
                    waiting.insert(0, Input::Timer);
                }
                for input in waiting {
                    self.within(id, input);
                }
            }
            Mending::Opens(from, to, block) => {
                if self.env.network.is_blocked(from, to) == Some(block) {
                    self.env.open(from, to);
                }
            }
            Mending::Hastens(from, to) => self.env.network.set_slowness(from, to, Duration::ZERO),
        }
    }

    /// From now on nothing goes wrong: what is under way ends, and those who are needed come.
    fn calm(&mut self) {
        if self.complete_at.is_some() {
            return;
        }
        self.is_calm = true;
        for id in self.stalled.keys().copied().collect::<Vec<_>>() {
            self.mend(Mending::Wakes(id));
        }
        for (from, to) in self.env.network.heal() {
            self.env.open(from, to);
        }
        let living = self.living();
        let is_reinforced = self.env.scenario.is_reinforced || living < self.env.scenario.min_workers;
        for host in (1..=self.env.scenario.workers).filter(|_| is_reinforced) {
            self.start(Host(host));
        }
        if self.coordinator.is_none() {
            self.env.queue.after(RESTART, Occurrence::StartsCoordinator);
        }
        self.env.note(&Fact::Calm);
        self.env.queue.after(PATIENCE, Occurrence::Ends);
    }
}

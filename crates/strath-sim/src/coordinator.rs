//! The coordinator's process: its machine, its sessions, and the run's folder, which outlives it.
//!
//! A coordinator that dies leaves its journal, by which the one that the owner starts next waits for the workers that went on; where none
//! comes back it resumes from the newest checkpoint (`Folder::resume`).

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use strath_core::{Digest, Generation, RingKey, RunId, Step, Timestamp};
use strath_protocol::message::{
    DrainAnswer, DrainRequest, FileBytes, Job, Member, Purpose, Shortage, Split, State as Sent,
};
use strath_protocol::{
    Connection, Coordinator, CoordinatorCommand as Command, CoordinatorEvent as Event, Former, Gather, Outcome, Record,
    Settings, Start,
};

use crate::env::{Env, Input};
use crate::invariant::Fact;
use crate::network::{Closing, Host, Packet, ProcessId, Side, StreamId};
use crate::worker::connection;

/// What is on the disk of a run.
#[derive(Debug, Default)]
pub struct Folder {
    /// The last generation that was written down.
    generation: Generation,
    /// Everyone of it, while it is at work, and the id of the worker that comes next.
    members: Vec<Member>,
    bounds: Vec<usize>,
    next_worker: u64,
    /// The newest step on record.
    recorded: Step,
    /// The steps whose evaluations are on record.
    evaluated: BTreeSet<Step>,
    /// The newest checkpoint.
    checkpoint: Option<(Step, FileBytes)>,
}

impl Folder {
    /// What a coordinator that goes on with the run is told: the newest checkpoint, and who was at work. The record is cut to the
    /// checkpoint where nobody was.
    fn resume(&mut self) -> (Generation, Option<Start>, Former) {
        if self.members.is_empty() {
            self.rewind(self.checkpoint.as_ref().map_or(Step(0), |(step, _)| *step));
        }
        let (recorded, evaluated) = (self.recorded, self.evaluated.last().copied());
        let is_at_work = !self.members.is_empty();
        let former = Former {
            members: self.members.clone(),
            bounds: self.bounds.clone(),
            next_worker: self.next_worker,
            recorded: if is_at_work { recorded } else { Step(0) },
            evaluated: evaluated.filter(|_| is_at_work).map(|step| (step, Split::Test)),
            step_s: Vec::new(),
        };
        let start = self.checkpoint.clone().map(|(step, model)| Start {
            step,
            source: format!("step-{step}"),
            model,
            optimizer: Some([0].into()),
            data: None,
            numerics: None,
        });
        (self.generation, start, former)
    }

    /// Drops what is on record after `step`.
    fn rewind(&mut self, step: Step) {
        self.recorded = step;
        self.evaluated.retain(|evaluated| *evaluated <= step);
    }
}

/// A process that coordinates.
pub struct Process {
    /// Which one.
    pub id: ProcessId,
    /// How long it has run already when the simulation begins.
    age: Duration,
    machine: Coordinator,
    /// States on their way to the disk.
    saving: Vec<Sent>,
    /// When the newest of them is there.
    saved: Timestamp,
    timer: Option<Timestamp>,
    /// How its run has ended.
    pub outcome: Option<Outcome>,
}

/// How long a coordinator has run before the simulation begins: what it does may not depend on that.
const AGES: [Duration; 3] = [Duration::ZERO, Duration::from_secs(120), Duration::from_secs(3600)];

/// The run of all simulations.
pub const RUN: RunId = RunId(7);

impl Process {
    /// A coordinator that begins, or goes on with what the folder holds.
    pub fn start(folder: &mut Folder, env: &mut Env) -> Self {
        let (generation, start, former) = folder.resume();
        env.note(&Fact::CoordinatorBegan { recorded: folder.recorded });
        let scenario = &env.scenario;
        let settings = Settings {
            version: "1".into(),
            token: None,
            ring_key: RingKey([9; 16]),
            run: RUN,
            config: scenario.config.clone(),
            configuration: String::new(),
            job: Job::Train,
            gather: Gather::AtLeast { workers: scenario.min_workers, quiet: Duration::from_millis(100) },
            most_workers: strath_core::config::MOST_WORKERS as usize,
            generation,
            start,
            former,
        };
        let id = ProcessId(env.number());
        env.coordinator = Some(id);
        let age = env.draws.pick(&AGES);
        let mut process = Self {
            id,
            age,
            machine: Coordinator::new(settings, env.now().after(age)),
            saving: Vec::new(),
            saved: env.now(),
            timer: None,
            outcome: None,
        };
        process.set_timer(env);
        process
    }

    /// The time that its machine is told.
    fn now(&self, env: &Env) -> Timestamp {
        env.now().after(self.age)
    }

    /// Takes in what has happened.
    pub fn take(&mut self, input: Input, folder: &mut Folder, env: &mut Env) {
        if self.outcome.is_some() {
            return;
        }
        let event = match input {
            Input::Packet(stream, Packet::Opened) => {
                let address: SocketAddr = Host(1).address(1000 + (stream.0 % 60_000) as u16);
                Event::Connected { connection: connection(stream), address }
            }
            Input::Packet(stream, Packet::ToCoordinator(message)) => {
                Event::Message { connection: connection(stream), message }
            }
            Input::Packet(stream, Packet::Closed(closing)) => {
                env.network.close(stream, Side::Listener);
                Event::Disconnected { connection: connection(stream), cause: format!("{closing:?}") }
            }
            Input::Timer => {
                let due = self.timer.take().is_some_and(|timer| timer <= self.now(env));
                let is_over = self.machine.next_deadline().is_some_and(|deadline| deadline <= self.now(env));
                if !(due && is_over) {
                    return self.set_timer(env);
                }
                Event::Tick
            }
            Input::Saved(step, purpose) => {
                self.write(step, purpose, folder, env);
                Event::Saved { step, purpose }
            }
            Input::Signal => Event::StopRequested,
            Input::Drains { process, shortage } => match self.drained(process, shortage, env) {
                Some(request) => Event::DrainRequested(request),
                None => return,
            },
            _ => return,
        };
        let event = match env.bug {
            Some(bug) => bug.to_coordinator(event),
            None => event,
        };
        env.log(|| format!("coordinator hears {event:?}"));
        if let Err(rejected) = self.machine.handle(event, self.now(env)) {
            env.log(|| format!("coordinator passes over: {rejected}"));
        }
        let now = self.now(env);
        env.log(|| {
            let status = self.machine.status(now);
            let decided = status.decisions.iter().filter(|decision| decision.ago_ms == 0);
            let decided: Vec<String> = decided.map(|d| format!("{}, because {}", d.what, d.why)).collect();
            format!("coordinator is {}; {}", status.stage, decided.join("; "))
        });
        self.carry_out(folder, env);
        self.set_timer(env);
    }

    /// What is asked to have a worker leave, where the coordinator grants it.
    fn drained(&self, process: ProcessId, shortage: Shortage, env: &mut Env) -> Option<DrainRequest> {
        let status = self.machine.status(self.now(env));
        let worker = status.workers.into_iter().find(|worker| u64::from(worker.pid) == process.0)?.worker;
        let request = DrainRequest { worker, shortage, token: None };
        let answer = self.machine.answer(&request);
        env.log(|| format!("coordinator says {answer:?} to {request:?}"));
        (answer == DrainAnswer::Leaves).then_some(request)
    }

    fn carry_out(&mut self, folder: &mut Folder, env: &mut Env) {
        while let Some(command) = self.machine.poll_command() {
            let command = match env.bug {
                Some(bug) => bug.of_coordinator(command),
                None => command,
            };
            match command {
                Command::Send { connection, message } => {
                    env.send(stream(connection), Side::Listener, Packet::ToWorker(message));
                }
                Command::Close(connection) => {
                    env.close(stream(connection), Side::Listener, Closing::Ended);
                }
                Command::Rewind(step) => {
                    folder.rewind(step);
                    env.note(&Fact::CoordinatorBegan { recorded: step });
                }
                Command::PersistGeneration { generation, members, bounds, next_worker } => {
                    (folder.generation, folder.members, folder.bounds) = (generation, members, bounds);
                    folder.next_worker = next_worker;
                    env.note(&Fact::Announced(generation));
                }
                Command::Record(Record::Step(report)) => {
                    folder.recorded = report.step;
                    env.note(&Fact::Recorded(report.step));
                }
                Command::Record(Record::Eval(report)) => {
                    // One that is there already is passed over.
                    if folder.evaluated.insert(report.step) {
                        env.note(&Fact::Evaluated(report.step));
                    }
                }
                Command::Record(Record::Warning(why)) if why.contains(" hangs at step ") => {
                    env.log(|| format!("coordinator warns: {why}"));
                    env.note(&Fact::GivenUp(why));
                }
                Command::Record(record) => env.log(|| format!("coordinator records {record:?}")),
                Command::Save(state) => {
                    // The disk takes one after the other.
                    self.saved = env.now().after(env.draws.micros(200, 30_000)).max(self.saved);
                    env.within(self.saved.since(env.now()), self.id, Input::Saved(state.step, state.purpose));
                    self.saving.push(state);
                }
                Command::Finish(outcome) => {
                    folder.members.clear();
                    env.note(&Fact::Ended(outcome.clone()));
                    self.end(env);
                    self.outcome = Some(outcome);
                    return;
                }
            }
        }
    }

    fn write(&mut self, step: Step, purpose: Purpose, folder: &mut Folder, env: &mut Env) {
        let Some(at) = self.saving.iter().position(|state| (state.step, state.purpose) == (step, purpose)) else {
            return;
        };
        let state = self.saving.remove(at);
        env.note(&Fact::Saved { step, digest: Digest::of(&state.model) });
        let is_newest = folder.checkpoint.as_ref().is_none_or(|(newest, _)| *newest < step);
        if purpose != Purpose::Final && is_newest {
            folder.checkpoint = Some((step, state.model));
        }
    }

    /// Takes no more sessions, and closes those that are open.
    fn end(&mut self, env: &mut Env) {
        env.coordinator = None;
        for (session, side, _) in env.network.of(self.id) {
            env.close(session, side, Closing::Ended);
        }
    }

    fn set_timer(&mut self, env: &mut Env) {
        let Some(deadline) = self.machine.next_deadline() else { return };
        if self.timer.is_none_or(|timer| deadline < timer) {
            self.timer = Some(deadline);
            env.within(deadline.since(self.now(env)), self.id, Input::Timer);
        }
    }
}

fn stream(connection: Connection) -> StreamId {
    StreamId(connection.0)
}

//! Workers that come back to a coordinator that they lost: to one that was started again, or to one that stood still.
//!
//! ```text
//! started again, journal says generation g of N members
//!     Returning ── all N are back and at work ──────────────> Running: nobody has noticed
//!        │ one lease, or all are back and some have left g
//!        ├─ somebody is back ──> Halt to those at work ──────> Regrouping: from the furthest state
//!        └─ nobody is ─────────────────────────────────────> Gathering: from the newest checkpoint
//! ```
//!
//! A worker that is at work in another generation than the current one is never taken back: it joins again as a newcomer.

use strath_core::{Assignment, Rank, Step, Timestamp, WorkerId};

use super::hanging::Stay;
use super::{Coordinator, Session, Stage, Standing};
use crate::command::{CoordinatorCommand as Command, Outcome, Record};
use crate::decision::Decision;
use crate::event::Connection;
use crate::message::{CoordinatorMessage, Ending, Halted, Member, Phase, Register, Returning, Split, Whence};

/// Workers that may have been admitted since the last generation was written down.
const MOST_SINCE: u64 = 1 << 32;

/// What the coordinator before this one has left of a run that was at work.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Former {
    /// Everyone of its last generation, in order of rank.
    pub members: Vec<Member>,
    /// Which micro-batches they held: rank r those from `bounds[r]` to `bounds[r + 1]`.
    pub bounds: Vec<usize>,
    /// The id of the worker that comes next.
    pub next_worker: u64,
    /// The newest step on record.
    pub recorded: Step,
    /// The newest evaluation on record: its step, and the last split of that.
    pub evaluated: Option<(Step, Split)>,
    /// Seconds of the newest steps on record: what tells a step that takes its time from one that hangs, until others are measured.
    pub step_s: Vec<f64>,
}

/// What comes of the workers of a generation that the coordinator before this one has left, and why.
#[derive(Debug, PartialEq)]
enum Return {
    /// More may come.
    Wait,
    /// They go on, as they have.
    TakeOver,
    /// The run ends as it was asked to: nobody is there.
    Stop,
    /// They go on in another generation.
    Regroup(String),
    /// Nobody is there who holds a state: workers are gathered as in the beginning.
    Gather(String),
}

impl Coordinator {
    /// Takes a worker back that has lost its coordinator, or has it join again.
    pub(super) fn take_back(
        &mut self,
        connection: Connection,
        register: Register,
        returning: Returning,
        now: Timestamp,
    ) {
        let Returning { run, worker, prepared, whence } = returning;
        if run != self.settings.run {
            return self.refuse(
                connection,
                format!("it was at work in another run, {run}; this one is {}", self.settings.run),
            );
        }
        if worker.0 >= self.next_worker.saturating_add(MOST_SINCE) {
            return self.refuse(connection, format!("no worker of this run has the id {worker}"));
        }
        let name = format!("worker {worker} ({})", register.host);
        if let Some(reason) = self.difference(&name, &prepared) {
            return self.refuse(connection, reason);
        }
        let place = self.members.iter().position(|member| member.worker == worker).map(|at| Rank(at as u32));
        let is_there = self.session_of(worker).is_some();
        let may_be_waited_for = matches!(self.stage, Stage::Returning(_) | Stage::Regrouping(_) | Stage::Gathering);
        let is_outdated = match &whence {
            Whence::Working(generation) => {
                let hangs = self.hung.contains(&worker);
                *generation != self.generation || place.is_none() || !may_be_waited_for || hangs
            }
            Whence::Halted(halted) => halted.generation > self.generation || self.is_of_another_course(halted),
        };
        // Without a generation that was at work there is none to come back to.
        if is_there || is_outdated || self.members.is_empty() {
            let reason = format!("generation {} has begun without it", self.generation);
            self.decide(Decision::Refuses { who: name }, &reason);
            return self.part_with(connection, Ending::Outdated(reason));
        }
        let gpu = prepared.gpu.clone();
        self.note_arrival(name, prepared, now);
        let (generation, recorded) = (self.generation, self.recorded());
        self.next_worker = self.next_worker.max(worker.0 + 1);
        self.update(connection, |session| {
            session.identity = Some((worker, register));
            session.gpu = gpu;
        });
        self.send(connection, CoordinatorMessage::TakenBack { generation, recorded });
        self.decide(Decision::TakesBack(worker), &why_taken_back(&whence));
        // The coordinator was out of its sight, and may have been out of the others' too: they are about to come as well.
        if !matches!(self.stage, Stage::Returning(_)) && now >= self.returns_until {
            self.returns_until = now.after(self.settings.lease());
        }
        match whence {
            Whence::Working(_) => {
                let is_over = !matches!(self.stage, Stage::Returning(_));
                self.update(connection, |session| {
                    session.rank = place;
                    session.standing = if is_over { Standing::Halting } else { Standing::Running };
                    session.progress.generation = generation;
                    session.progress.phase = Phase::Ascent;
                    session.stay = Stay::at(now);
                });
                if is_over {
                    self.send(connection, CoordinatorMessage::Halt { generation, recorded });
                }
            }
            Whence::Halted(halted) => {
                self.update(connection, |session| session.progress.phase = Phase::Waiting);
                self.note_halted(connection, halted);
            }
        }
        // Gathering began as nobody was back in time: what this one holds may be further than the newest checkpoint.
        if self.stage == Stage::Gathering {
            self.regroup(format!("worker {worker} came back"));
        }
    }

    /// The session of a worker.
    pub(super) fn session_of(&self, worker: WorkerId) -> Option<&Session> {
        self.sessions.values().find(|session| session.identity.as_ref().is_some_and(|(id, _)| *id == worker))
    }

    /// Why the next generation is not formed yet although all who are there are ready: members of the one before may be about to come back.
    /// Where none was out of sight nobody is waited for.
    pub(super) fn why_await_members(&self, now: Timestamp) -> Option<String> {
        if now >= self.returns_until {
            return None;
        }
        let is_missing = |member: &&Member| self.session_of(member.worker).is_none();
        let (missing, all) = (self.members.iter().filter(is_missing).count(), self.members.len());
        (missing > 0).then(|| {
            format!(
                "the coordinator was out of sight, and {missing} of the {all} workers of generation {} may come back",
                self.generation
            )
        })
    }

    /// Whether the run has gone on without a worker from an older state than it holds, and makes again what lies between: the record would
    /// have a gap if it went on from there.
    fn is_of_another_course(&self, halted: &Halted) -> bool {
        let told = halted.unrecorded.iter().map(|report| report.step);
        let reach = told.fold(self.recorded(), |reach, step| if step.0 == reach.0 + 1 { step } else { reach });
        halted.generation < self.generation && halted.held.is_some_and(|(step, _)| step > reach)
    }

    /// What comes of those who are back: the run goes on where the coordinator before this one stopped once everyone is, or without those
    /// who are not after a lease.
    fn after_return(&self, until: Timestamp, now: Timestamp) -> Return {
        let standing = |member: &Member| self.session_of(member.worker).map(|session| session.standing);
        let back: Vec<Standing> = self.members.iter().filter_map(standing).collect();
        let all = self.members.len();
        let at_work = back.iter().filter(|standing| matches!(standing, Standing::Running | Standing::Finished)).count();
        if at_work == all {
            return Return::TakeOver;
        }
        if back.len() < all && now < until {
            return Return::Wait;
        }
        if self.stop_requested && back.is_empty() {
            return Return::Stop;
        }
        let cause = format!("the coordinator was started again, and {at_work} of {all} workers came back at work");
        let holds_something = |session: &Session| session.rank.is_some() || session.held.is_some();
        if self.sessions.values().any(holds_something) { Return::Regroup(cause) } else { Return::Gather(cause) }
    }

    /// Goes on where the coordinator before this one stopped, as far as it can now.
    pub(super) fn settle_returning(&mut self, now: Timestamp) {
        let Stage::Returning(until) = self.stage else { return };
        match self.after_return(until, now) {
            Return::Wait => {}
            Return::TakeOver => self.take_over(),
            Return::Stop => {
                let step = self.kept_step().filter(|step| *step > Step(0));
                self.finish(Ending::Stopped, Outcome::Stopped { step });
            }
            Return::Regroup(cause) => self.regroup(cause),
            Return::Gather(cause) => {
                self.commands.push_back(Command::Record(Record::Warning(format!(
                    "none of the {} workers of generation {} has come back within cluster.lease_ms; if none does, the run goes on from \
                     step {}",
                    self.members.len(),
                    self.generation,
                    self.kept_step().unwrap_or_default()
                ))));
                self.decide(Decision::Waits, &cause);
                self.stage = Stage::Gathering;
                self.gathers_until = self.settings.gathers_until(now);
            }
        }
    }

    /// The run goes on from an older state than is on record: what comes after it is made again.
    pub(super) fn rewind(&mut self) {
        let start = self.kept_step().unwrap_or_default();
        if self.recorded() > start {
            (self.settings.former.recorded, self.settings.former.evaluated) = (Step(0), None);
            (self.last_step, self.results.evaluated) = (None, None);
            self.settled = self.settled.filter(|settled| *settled <= start);
            self.commands.push_back(Command::Rewind(start));
        }
    }

    /// Every member went on meanwhile.
    fn take_over(&mut self) {
        let examples = self.reference.as_ref().map_or(0, |(_, reference)| reference.data.train_examples);
        self.steps = Step(self.settings.config.steps(examples as usize));
        self.stage = Stage::Running;
        let micro_batches = self.settings.config.plan().map_or(0, |plan| plan.micro_batches().len());
        let assignment = Assignment::from_bounds(self.settings.former.bounds.clone(), micro_batches).ok();
        let assignment = assignment.filter(|assignment| assignment.world_size() == self.members.len());
        let cause = "the coordinator was started again, and every worker had gone on";
        self.commands.push_back(Command::Record(Record::Generation {
            generation: self.generation,
            members: assignment.as_ref().map(|assignment| self.places(assignment)).unwrap_or_default(),
            step: self.recorded(),
            steps: self.steps,
            cause: cause.into(),
        }));
        self.commands.push_back(Command::Record(Record::Started(self.generation)));
        self.assignment = assignment;
        self.decide(Decision::TakesOver { generation: self.generation, world_size: self.members.len() }, cause);
        if self.stop_requested {
            self.broadcast(&CoordinatorMessage::Stop { generation: self.generation });
        }
    }
}

/// Why a worker that was out of sight is taken back.
fn why_taken_back(whence: &Whence) -> String {
    match whence {
        Whence::Working(generation) => format!("it is at work in generation {generation}"),
        Whence::Halted(Halted { held: Some((step, _)), .. }) => format!("it waits with the state of step {step}"),
        Whence::Halted(Halted { generation, .. }) => format!("it was a member of generation {generation}"),
    }
}

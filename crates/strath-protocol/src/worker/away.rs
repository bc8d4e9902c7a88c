//! While the coordinator is out of sight: the generation goes on without it, what there is to tell is kept, and told when it is back.
//!
//! ```text
//! session lost ──> Reconnect ──> Reconnected ──> Register (returning) ──> TakenBack ──> what is on no record yet
//!     at work: goes on                              │
//!     connecting: leaves its generation             └──> End (Outdated): joins again as a newcomer
//!     waiting, with a state: keeps it
//! ```

use strath_core::{Generation, Rank, RunId, Step, Timestamp, WorkerId};

use super::{Stage, Worker};
use crate::Rejected;
use crate::command::{WorkerCommand as Command, WorkerOutcome};
use crate::message::{
    FailureReport, Finished, Halted, Phase, Prepared, Purpose, Register, Report, Returning, State, Whence,
    WorkerMessage, in_order,
};

/// How a worker is known to its coordinator, once it is.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Known {
    pub(super) run: RunId,
    pub(super) worker: WorkerId,
    /// Whether the run trains: an evaluation is not worth waiting for.
    pub(super) trains: bool,
    pub(super) prepared: Option<Prepared>,
}

/// A coordinator that is out of sight.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Away {
    /// How it was lost.
    how: String,
    /// Since when the worker has had nothing to do but wait for it.
    idle_since: Option<Timestamp>,
    session: Attempt,
}

/// How far another session has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    /// It is sought.
    Sought,
    /// It has begun, and waits for the threads of the generation to rest: what they leave behind is what is to be said.
    Begun,
    /// The worker has said that it is back, and at work.
    AskedAtWork,
    /// The worker has said that it is back, and has left its generation.
    AskedHalted,
}

/// What is told late, or again: a coordinator may be gone before it has read or kept it.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Backlog {
    /// The newest checkpoint, until the next step is complete; of one that nobody was there to take, until the next checkpoint.
    checkpoint: Option<State>,
    last: Option<State>,
    finished: Option<Finished>,
    /// What a coordinator that was away has not heard.
    failure: Option<FailureReport>,
}

impl Backlog {
    /// Remembers a state.
    pub(super) fn keep(&mut self, state: &State) {
        match state.purpose {
            Purpose::Final => self.last = Some(state.clone()),
            Purpose::Checkpoint => self.checkpoint = Some(state.clone()),
            Purpose::Start | Purpose::Handover => {}
        }
    }

    /// A step is complete, and the coordinator there.
    pub(super) fn go_on(&mut self) {
        self.checkpoint = None;
    }

    pub(super) fn finish(&mut self, finished: Finished) {
        self.finished = Some(finished);
    }

    pub(super) fn fail(&mut self, failure: &FailureReport) {
        self.failure = Some(failure.clone());
    }
}

impl Worker {
    /// Whether the coordinator is out of sight.
    pub(super) fn is_away(&self) -> bool {
        self.away.is_some()
    }

    /// Whether somebody may be heard: a coordinator that is sought is waited for otherwise.
    pub(super) fn may_hear(&self) -> bool {
        !self.is_away() || self.is_asking()
    }

    /// Whether an answer to a registration is waited for, the first or a later one.
    pub(super) fn is_asking(&self) -> bool {
        match &self.away {
            Some(away) => matches!(away.session, Attempt::AskedAtWork | Attempt::AskedHalted),
            None => self.lease.is_none(),
        }
    }

    /// Whether the worker has something that the run may need: work under way, or a state.
    fn can_stay(&self) -> bool {
        let is_known = self.known.as_ref().is_some_and(|known| known.prepared.is_some() && known.trains);
        let has_a_part = match &self.stage {
            Stage::Connecting(_)
            | Stage::Connected(_)
            | Stage::Running(_)
            | Stage::Finished(_)
            | Stage::Halting(..) => true,
            // What was fed may be ahead of what is on record, and others have that to tell.
            Stage::Waiting => self.held.is_some() && !self.was_fed,
            Stage::Registered | Stage::Preparing | Stage::Receiving(_) | Stage::Failed(_) | Stage::Ended => false,
        };
        is_known && has_a_part && !self.is_retiring
    }

    /// The session is lost, as `how` says.
    pub(super) fn lose_coordinator(&mut self, how: &str) {
        // Nobody is left to say when that is of use.
        self.stop_following();
        let progress = self.progress;
        let lost = format!(
            "the coordinator at {} {how}, at step {} in phase {}",
            self.coordinator, progress.step, progress.phase
        );
        if let Some(away) = &mut self.away {
            away.session = Attempt::Sought;
            return self.commands.push_back(Command::Reconnect { lost: None });
        }
        if self.can_stay() {
            self.away = Some(Away { how: lost.clone(), idle_since: None, session: Attempt::Sought });
            if let Stage::Connecting(generation) | Stage::Connected(generation) = self.stage {
                // Nobody is left to say that everyone is connected.
                self.stage = Stage::Halting(generation, None);
                self.commands.push_back(Command::Halt);
            }
            return self.commands.push_back(Command::Reconnect { lost: Some(lost) });
        }
        // Nobody else may be left to tell of the failure.
        let outcome = match &self.stage {
            Stage::Failed(message) => WorkerOutcome::Failed { message: format!("{message}; then {lost}") },
            // It has said that it wants to leave, and has left.
            _ if self.is_retiring => WorkerOutcome::Released,
            _ => WorkerOutcome::Lost { message: lost },
        };
        self.exit(outcome);
    }

    /// A new session has begun.
    pub(super) fn reconnected(&mut self) -> Result<(), Rejected> {
        match &mut self.away {
            Some(away) if away.session == Attempt::Sought => away.session = Attempt::Begun,
            _ => return Err(Rejected::OutOfOrder { what: "Reconnected", state: self.stage.name() }),
        }
        self.ask();
        Ok(())
    }

    /// Says that it is back, once it can say with what.
    pub(super) fn ask(&mut self) {
        let is_at_work = matches!(self.stage, Stage::Running(_) | Stage::Finished(_));
        let (Some(away), Some(known)) = (&mut self.away, &self.known) else { return };
        let Some(prepared) = known.prepared.clone() else { return };
        if away.session != Attempt::Begun || !(self.rests || is_at_work) {
            return;
        }
        away.session = if is_at_work { Attempt::AskedAtWork } else { Attempt::AskedHalted };
        let whence = match self.stage {
            Stage::Running(generation) | Stage::Finished(generation) => Whence::Working(generation),
            _ => {
                // What it waits for is all that there is to tell.
                self.backlog.failure = None;
                Whence::Halted(self.halted(Step(0)))
            }
        };
        let returning = Returning { run: known.run, worker: known.worker, prepared, whence };
        let register =
            Register { ring_address: self.ring_address, returning: Some(Box::new(returning)), ..self.register.clone() };
        self.commands.push_back(Command::Send(WorkerMessage::Register(register)));
    }

    /// The coordinator knows the worker again.
    pub(super) fn taken_back(&mut self, generation: Generation, recorded: Step) -> Result<(), Rejected> {
        let said_halted = match &self.away {
            Some(Away { session: Attempt::AskedHalted, .. }) => true,
            Some(Away { session: Attempt::AskedAtWork, .. }) => false,
            _ => return Err(Rejected::OutOfOrder { what: "TakenBack", state: self.stage.name() }),
        };
        self.away = None;
        let Backlog { checkpoint, last, finished, failure } = std::mem::take(&mut self.backlog);
        if said_halted {
            self.recent.clear();
            self.halted_after = None;
            self.evaluations.clear();
            self.progress.generation = generation;
            self.progress.step = self.held.map_or(Step(0), |(step, _)| step);
            self.enter(Stage::Waiting, Phase::Waiting);
            return Ok(());
        }
        if self.rank == Rank(0) {
            let Halted { unrecorded, evaluations, .. } = self.halted(recorded);
            for report in in_order(unrecorded, evaluations) {
                self.send(match report {
                    Report::Step(report) => WorkerMessage::Step(report),
                    Report::Evaluation(report) => WorkerMessage::Eval(report),
                });
            }
            for state in [checkpoint.clone(), last.clone()].into_iter().flatten() {
                self.send(WorkerMessage::State(state));
            }
        }
        if let Some(finished) = finished {
            self.send(WorkerMessage::Finished(finished));
        }
        if let Some(failure) = failure {
            self.send(WorkerMessage::Failed(failure));
        }
        self.backlog = Backlog { checkpoint, last, finished, failure: None };
        if let Stage::Halting(_, None) = self.stage {
            // Since it said that it was at work, all ranks have come to rest after a step.
            self.halted_after.get_or_insert(recorded);
            self.say_halted();
        }
        Ok(())
    }

    /// A worker that has nothing left to do does not wait for ever.
    pub(super) fn check_away(&mut self, now: Timestamp) {
        let is_at_work = matches!(self.stage, Stage::Running(_));
        let Some(away) = &mut self.away else { return };
        if is_at_work {
            away.idle_since = None;
            return;
        }
        let since = *away.idle_since.get_or_insert(now);
        if now.since(since) >= self.rejoin_timeout {
            let message = format!(
                "{} and did not come back for {} s (cluster.rejoin_timeout_s)",
                away.how,
                self.rejoin_timeout.as_secs()
            );
            self.exit(WorkerOutcome::Failed { message });
        }
    }
}

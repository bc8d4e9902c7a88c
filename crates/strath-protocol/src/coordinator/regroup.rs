//! A generation that is over while the run goes on: everyone leaves it and says what state it holds, and of those who are there a new
//! one is formed.
//!
//! ```text
//! a worker is lost or deviates, or every rank rests (`pause.rs`) ──► Halt to every rank ──► Halted (step, digest) from each, or a lease of silence
//!   ──► the furthest state; SendState to one who holds it, if somebody lacks it ──► State ──► Assign, State ──► as in the beginning
//! ```
//!
//! No commit protocol: with `reduce = "exact"` a state is a function of its step, so an interrupted step is computed again to the same
//! bits, and a worker is at most one step ahead of another.

use std::time::Duration;

use strath_core::{Digest, Step, Timestamp};

use super::joining::Supply;
use super::verdict::{Origin, Verdict};
use super::{Coordinator, Gather, Stage, Standing, Start};
use crate::Rejected;
use crate::command::{CoordinatorCommand as Command, Outcome, Record};
use crate::decision::Decision;
use crate::event::Connection;
use crate::message::{CoordinatorMessage, Ending, Halted, Job, Purpose, Report, State, in_order};

/// A worker that was told to halt and lives, but does not, is given up after this time: its training hangs.
/// An evaluation and a step of a large model take their time, and are not interrupted.
pub(super) const PATIENCE: Duration = Duration::from_secs(600);
/// So many times as long where nobody else holds the state that it leaves.
pub(super) const LAST_HOLDERS: u32 = 4;
/// A state that was asked for, or is being written, is waited for so long.
pub(super) const HANDOVER_PATIENCE: Duration = Duration::from_secs(600);
/// Ranks that have halted wait so long for those who are a step behind.
const LAST_STEP_PATIENCE: Duration = Duration::from_secs(1);
/// Generations that end without a step: a run whose ring never holds comes to an end.
const MOST_FRUITLESS: u32 = 10;

/// A generation that is over.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Regroup {
    /// Why it is over.
    cause: String,
    /// Since when. `None` until the event that ended it has been taken in.
    since: Option<Timestamp>,
    /// Who was asked to hand over the state of which step.
    asked: Option<(Connection, Step, Digest)>,
    /// When what it waits for next began.
    waits_since: Option<Timestamp>,
    /// Since when every rank has halted and one that follows is waited for.
    pub(super) halted_since: Option<Timestamp>,
}

impl Regroup {
    /// Since when it is over, once that is known.
    pub(super) fn since(&self) -> Option<Timestamp> {
        self.since
    }

    /// Why it is over.
    pub(super) fn cause(&self) -> &str {
        &self.cause
    }

    /// How long it has waited for what it waits for.
    pub(super) fn waited(&self, now: Timestamp) -> Duration {
        self.waits_since.map_or(Duration::ZERO, |since| now.since(since))
    }

    /// Who was asked to hand over the state of which step.
    pub(super) fn asked(&self) -> Option<(Connection, Step)> {
        self.asked.map(|(connection, step, _)| (connection, step))
    }
}

/// Whether something follows at once from what was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carried {
    Done,
    ThereIsMore,
}

impl Coordinator {
    /// Whether the run goes on when a worker is lost.
    pub(super) fn survives(&self) -> bool {
        let has_begun =
            matches!(self.stage, Stage::Returning(_) | Stage::Connecting | Stage::Running | Stage::Regrouping(_));
        has_begun && self.settings.job == Job::Train
    }

    /// Ends the generation, because of what is said; of several causes the last counts, which knows more.
    pub(super) fn regroup(&mut self, cause: String) {
        self.suspicion = None;
        if let Stage::Regrouping(regroup) = &mut self.stage {
            regroup.cause = cause;
            // Whoever was asked for its state may be the one that is gone.
            (regroup.asked, regroup.waits_since) = (None, None);
            return;
        }
        self.end_generation(cause);
        let message = CoordinatorMessage::Halt { generation: self.generation, recorded: self.recorded() };
        if !matches!(self.stage, Stage::Regrouping(_)) {
            // It has failed.
            return;
        }
        for connection in self.connections(|session| session.rank.is_some()) {
            self.update(connection, |session| session.standing = Standing::Halting);
            self.send(connection, message.clone());
        }
    }

    /// The generation is over: its ranks leave it, or have left it.
    pub(super) fn end_generation(&mut self, cause: String) {
        self.pausing = None;
        let recorded = self.recorded();
        self.fruitless = if self.ended_at == Some(recorded) { self.fruitless + 1 } else { 0 };
        self.ended_at = Some(recorded);
        if self.fruitless >= MOST_FRUITLESS {
            return self.fail(format!("{cause}; {MOST_FRUITLESS} generations have ended without a step"));
        }
        self.decide(Decision::Regroups { generation: self.generation }, &cause);
        self.stage =
            Stage::Regrouping(Regroup { cause, since: None, asked: None, waits_since: None, halted_since: None });
    }

    /// The step of the newest state that the coordinator has; `None`: only the seed's.
    pub(super) fn kept_step(&self) -> Option<Step> {
        self.settings.start.as_ref().map(|start| start.step)
    }

    /// A worker has left its generation.
    pub(super) fn halted(&mut self, connection: Connection, halted: Halted) -> Result<(), Rejected> {
        let session = self.session(connection)?;
        // Others may be on their way back to a coordinator that was started again: it goes on once they are here.
        let may_rest = matches!(self.stage, Stage::Running | Stage::Returning(_));
        let is_at_work = session.standing == Standing::Running && may_rest;
        if !is_at_work {
            Self::expect(session, Standing::Halting, "Halted")?;
        }
        self.check_generation(halted.generation, "Halted")?;
        if is_at_work && self.stage == Stage::Running {
            self.rests(connection);
        }
        self.note_halted(connection, halted);
        Ok(())
    }

    /// What a worker says that waits for the next generation.
    pub(super) fn note_halted(&mut self, connection: Connection, halted: Halted) {
        for report in in_order(halted.unrecorded, halted.evaluations) {
            match report {
                Report::Step(report) => self.record_step(report),
                Report::Evaluation(report) => self.record_evaluation(report),
            }
        }
        self.update(connection, |session| {
            session.standing = Standing::Ready;
            session.rank = None;
            session.finished = None;
            session.held = halted.held.filter(|_| !session.deviates);
            (session.was_fed, session.supply) = (false, Supply::Untried);
            session.deviates = false;
            if let Some((_, register)) = &mut session.identity {
                register.ring_address = halted.ring_address;
            }
        });
    }

    /// A state that a worker was asked for.
    pub(super) fn handed_over(&mut self, connection: Connection, state: State) -> Result<(), Rejected> {
        let out_of_order = Rejected::OutOfOrder { what: "State", state: "nobody was asked for it" };
        let Stage::Regrouping(Regroup { asked: Some((from, step, _)), .. }) = &self.stage else {
            return Err(out_of_order);
        };
        if *from != connection || *step != state.step || state.generation != self.generation {
            return Err(out_of_order);
        }
        let source = format!("{} at step {step}", self.session(connection)?.name());
        self.keep(&state, source);
        if let Stage::Regrouping(regroup) = &mut self.stage {
            (regroup.asked, regroup.waits_since) = (None, None);
        }
        // What the run may have to go on from is on the disk.
        self.save(State { purpose: Purpose::Checkpoint, ..state });
        Ok(())
    }

    /// Remembers a state, so that the run can go on from it when nobody is left that holds one.
    pub(super) fn keep(&mut self, state: &State, source: String) {
        let (data, numerics) = self.settings.start.as_ref().map_or((None, None), |start| (start.data, start.numerics));
        self.settings.start = Some(Start {
            step: state.step,
            source,
            model: state.model.clone(),
            optimizer: (!state.optimizer.is_empty()).then(|| state.optimizer.clone()),
            data,
            numerics,
        });
    }

    /// How long none must have come before a generation is formed.
    pub(super) fn quiet(&self) -> Duration {
        match self.settings.gather {
            Gather::Exactly(_) => Duration::ZERO,
            Gather::AtLeast { quiet, .. } => quiet,
        }
    }

    /// Goes on once every worker that lives has left the old generation, as far as it can now.
    pub(super) fn settle_regroup(&mut self, now: Timestamp) {
        let Stage::Regrouping(regroup) = &mut self.stage else { return };
        let since = *regroup.since.get_or_insert(now);
        for (connection, what) in self.those_who_hang(now.since(since), now) {
            self.leave(connection, what);
        }
        if self.sessions.values().any(|session| session.standing == Standing::Halting) {
            return;
        }
        if let Some(why) = self.why_await_members(now) {
            return self.decide(Decision::Waits, &why);
        }
        if self.awaits_followers() {
            let Stage::Regrouping(regroup) = &mut self.stage else { return };
            if now.since(*regroup.halted_since.get_or_insert(now)) < LAST_STEP_PATIENCE {
                return;
            }
        }
        while matches!(self.stage, Stage::Regrouping(_)) {
            if !self.stop_requested {
                self.set_apart(now);
            }
            if self.carry_out(self.verdict(now), now) == Carried::Done {
                return;
            }
        }
    }

    /// Does what was found to come next.
    fn carry_out(&mut self, verdict: Verdict, now: Timestamp) -> Carried {
        let Stage::Regrouping(regroup) = &mut self.stage else { return Carried::Done };
        match verdict {
            Verdict::Wait => _ = regroup.waits_since.get_or_insert(now),
            Verdict::WaitForWorkers(why) => {
                regroup.waits_since.get_or_insert(now);
                self.decide(Decision::Waits, &why);
            }
            Verdict::GiveUp(worker, why) => self.leave(worker, why),
            Verdict::Ask(holder, step, digest) => {
                (regroup.asked, regroup.waits_since) = (Some((holder, step, digest)), None);
                self.send(holder, CoordinatorMessage::SendState { generation: self.generation });
            }
            Verdict::Stop => {
                let step = self.results.checkpoint.max(self.kept_step());
                self.finish(Ending::Stopped, Outcome::Stopped { step: step.filter(|step| *step > Step(0)) });
            }
            Verdict::Fail(why) => self.fail(why),
            Verdict::Form(origin) => {
                let cause = regroup.cause.clone();
                match origin {
                    Origin::Held(step, digest) => {
                        self.form(Some((step, &cause)), now, |session| session.held == Some((step, digest)));
                    }
                    Origin::Kept => self.form(Some((self.kept_step().unwrap_or_default(), &cause)), now, |_| false),
                }
                self.note_formed(&cause);
            }
            Verdict::CallInFollowers => {
                self.call_in_followers();
                return Carried::ThereIsMore;
            }
            Verdict::Distrust(why) => {
                for session in self.sessions.values_mut() {
                    session.held = None;
                }
                self.commands.push_back(Command::Record(Record::Warning(why)));
                return Carried::ThereIsMore;
            }
            Verdict::Release => {
                self.release_the_retiring();
                return Carried::ThereIsMore;
            }
        }
        Carried::Done
    }
}

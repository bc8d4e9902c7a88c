//! How a run ends: every rank through with the same weights, stopped, or failed with one line that says whose fault it was.

use strath_core::{Digest, Step, Timestamp};

use super::regroup::HANDOVER_PATIENCE;
use super::{Coordinator, Drain, Gather, Session, Stage, Standing};
use crate::Rejected;
use crate::command::{CoordinatorCommand as Command, Outcome, Record};
use crate::decision::Decision;
use crate::event::Connection;
use crate::message::{CoordinatorMessage, Ending, EvalReport, Finished, Job, Purpose, State};

/// What a run has brought so far.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Results {
    /// States on their way to the disk. They need not get there in order, and the run does not end before they have.
    pub(super) saving: Vec<(Step, Purpose)>,
    /// The newest checkpoint on the disk.
    pub(super) checkpoint: Option<Step>,
    /// The final state on the disk.
    last: Option<Step>,
    /// The newest evaluation.
    pub(super) evaluated: Option<EvalReport>,
    /// What was measured.
    pub(super) measured: Option<String>,
}

impl Results {
    /// Those of a run that goes on from a checkpoint.
    pub(super) fn after(checkpoint: Option<Step>) -> Self {
        Self { checkpoint, ..Self::default() }
    }
}

impl Coordinator {
    /// A session has ended by itself.
    pub(super) fn disconnected(&mut self, connection: Connection, cause: &str) -> Result<(), Rejected> {
        let session = self.session(connection)?;
        if session.identity.is_none() || (self.is_witness(session) && !self.survives()) {
            self.sessions.remove(&connection);
            return Ok(());
        }
        let what = format!("{} was lost {}: {cause}", session.name(), self.place(session));
        self.leave(connection, what);
        Ok(())
    }

    /// A worker is gone, as `what` says: the end of a generation, but not of a run that can do without it.
    pub(super) fn leave(&mut self, connection: Connection, what: String) {
        let gone = self.sessions.remove(&connection);
        let had_a_part = gone.as_ref().is_some_and(|session| session.rank.is_some());
        if self.agreed.is_some() {
            // It had done its part.
            return self.commands.push_back(Command::Close(connection));
        }
        if let Some((worker, _)) = gone.and_then(|session| session.identity) {
            self.decide(Decision::Drops(worker), &what);
        }
        if self.survives() {
            self.commands.push_back(Command::Close(connection));
            let warning = format!("{what}; the run goes on without it");
            self.commands.push_back(Command::Record(Record::Warning(warning)));
            if had_a_part || matches!(self.stage, Stage::Regrouping(_)) {
                self.regroup(what);
            }
            return;
        }
        if !self.can_do_without() {
            return self.fail(what);
        }
        self.commands.push_back(Command::Close(connection));
        let warning = format!("{what}; gathering goes on without it");
        self.commands.push_back(Command::Record(Record::Warning(warning)));
        self.forget_reference_if_alone();
    }

    /// While it gathers, a coordinator of many machines does without a worker that leaves; `train` cannot.
    pub(super) fn can_do_without(&self) -> bool {
        self.stage == Stage::Gathering && matches!(self.settings.gather, Gather::AtLeast { .. })
    }

    /// With the last prepared worker goes what others are compared with: it may have been the one with the wrong data.
    fn forget_reference_if_alone(&mut self) {
        if self.sessions.values().all(|session| session.standing != Standing::Ready) {
            self.reference = None;
        }
    }

    /// A worker process that this machine started has ended.
    pub(super) fn process_ended(&mut self, pid: u32, cause: &str) {
        self.processes_ended += 1;
        let known = self.sessions.iter().find(|(_, s)| s.identity.as_ref().is_some_and(|(_, r)| r.pid == pid));
        let message = match known {
            Some((connection, session)) if self.survives() => {
                let what = format!("{} ended {}: {cause}", session.name(), self.place(session));
                return self.leave(*connection, what);
            }
            Some((_, session)) if session.standing == Standing::Finished || self.is_witness(session) => return,
            Some((_, session)) => format!("{} ended {}: {cause}", session.name(), self.place(session)),
            // Its session has ended before, as was said then.
            None if self.survives() => return,
            None => format!("worker process {pid} ended before it joined: {cause}"),
        };
        self.fail(message);
    }

    /// The run's owner wants it to end.
    pub(super) fn stop(&mut self) {
        self.decide(Decision::Stops, "its owner asked for it");
        match self.stage {
            Stage::Running if self.settings.job == Job::Train => {
                if !self.stop_requested {
                    self.broadcast(&CoordinatorMessage::Stop { generation: self.generation });
                }
                self.stop_requested = true;
            }
            // What was trained is kept first.
            Stage::Returning(_) | Stage::Regrouping(_) => self.stop_requested = true,
            Stage::Connecting if self.last_step.is_some() => self.stop_requested = true,
            // Whoever asks for the end now does not want to wait for it.
            Stage::Draining(_) => self.end_drain(None),
            _ => self.finish(Ending::Stopped, Outcome::Stopped { step: None }),
        }
    }

    /// A state has reached the disk.
    pub(super) fn saved(&mut self, step: Step, purpose: Purpose) -> Result<(), Rejected> {
        let results = &mut self.results;
        let Some(at) = results.saving.iter().position(|saving| *saving == (step, purpose)) else {
            return Err(Rejected::OutOfOrder { what: "Saved", state: "no such state is on its way to the disk" });
        };
        results.saving.swap_remove(at);
        match purpose {
            Purpose::Final => results.last = results.last.max(Some(step)),
            Purpose::Checkpoint | Purpose::Start | Purpose::Handover => {
                results.checkpoint = results.checkpoint.max(Some(step));
            }
        }
        self.complete_if_all_agree();
        Ok(())
    }

    /// Has a state of rank 0 written down, unless it is or is about to be: a generation that began after this step has made it again.
    pub(super) fn save(&mut self, state: State) {
        let Results { saving, checkpoint, last, .. } = &self.results;
        let kept = if state.purpose == Purpose::Final { last } else { checkpoint };
        let what = (state.step, state.purpose);
        if *kept == Some(state.step) || saving.contains(&what) {
            return;
        }
        let is_kept = self.kept_step() == Some(state.step);
        if state.purpose == Purpose::Checkpoint && self.settings.job == Job::Train && !is_kept {
            self.keep(&state, format!("the checkpoint of step {}", state.step));
        }
        self.results.saving.push(what);
        self.commands.push_back(Command::Save(state));
    }

    /// Something could not be written. What has not been carried out yet may rest on it, and is dropped but for last words.
    pub(super) fn write_failed(&mut self, message: String) {
        self.commands.retain(|command| {
            matches!(command, Command::Close(_) | Command::Send { message: CoordinatorMessage::End(_), .. })
        });
        // More will not be written either.
        self.end_drain(Some(&message));
        self.finish(Ending::Failed(message.clone()), Outcome::Failed { message });
    }

    /// Ends the run once every rank is through with the same weights and every state is on the disk.
    pub(super) fn complete_if_all_agree(&mut self) {
        if self.stage != Stage::Running {
            return;
        }
        if let Some(agreed) = self.agreed {
            return self.complete(agreed);
        }
        let mut ranked: Vec<&Session> = self.sessions.values().filter(|s| s.rank.is_some()).collect();
        ranked.sort_by_key(|s| s.rank);
        let Some(all) = ranked.iter().map(|s| s.finished).collect::<Option<Vec<_>>>() else { return };
        let Some(agreed) = majority(&all) else { return };
        let deviant = ranked.iter().zip(&all).find(|(_, finished)| !same(finished, &agreed));
        if let Some((session, found)) = deviant {
            let message = format!(
                "{} finished at step {} with weights {}, most ranks at step {} with {}: ranks must agree to the bit; check \
                 that machine's memory and processor",
                session.name(),
                found.step,
                found.weights,
                agreed.step,
                agreed.weights
            );
            return self.fail(message);
        }
        self.agreed = Some(agreed);
        self.complete(agreed);
    }

    /// Ends the run to which every rank has come alike, once every state is on the disk.
    fn complete(&mut self, agreed: Finished) {
        let results = &self.results;
        if !results.saving.is_empty() {
            return;
        }
        let Finished { step, weights, stopped, .. } = agreed;
        match &self.settings.job {
            Job::Train if stopped => {
                if results.checkpoint == Some(step) {
                    self.finish(Ending::Stopped, Outcome::Stopped { step: Some(step) });
                } else {
                    self.fail_without("a checkpoint");
                }
            }
            Job::Train => {
                if results.last == Some(step) {
                    self.finish(Ending::Done, Outcome::Done { steps: step, weights });
                } else {
                    self.fail_without("its final state");
                }
            }
            Job::Evaluate(_) => match results.evaluated.clone() {
                Some(report) => self.finish(Ending::Done, Outcome::Evaluated(report)),
                None => self.fail_without("an evaluation"),
            },
            Job::Measure(_) => match results.measured.clone() {
                Some(result) => self.finish(Ending::Done, Outcome::Measured(result)),
                None => self.fail_without("the result of its measurement"),
            },
        }
    }

    /// A disk that takes for ever ends a run that every rank is through with.
    pub(super) fn settle_end(&mut self, now: Timestamp) {
        if self.agreed.is_some() && self.stage == Stage::Running {
            let since = *self.agreed_since.get_or_insert(now);
            if now.since(since) >= HANDOVER_PATIENCE {
                self.fail("every rank is through, but the last states are not written; check the disk".into());
            }
        }
    }

    /// Rank 0's words come in order, and its end is the last of them: what it owes by then does not come.
    fn fail_without(&mut self, what: &str) {
        self.fail(format!("rank 0 ended without {what}; this is a fault of the program, please report it"));
    }

    /// Tells everyone that the run has failed, with one line, and ends it once what it still owes is on the disk. Of several
    /// failures the first counts.
    pub(super) fn fail(&mut self, message: String) {
        self.decide(Decision::Fails, &message);
        let ending = Ending::Failed(message.clone());
        if self.stage == Stage::Running || (self.survives() && !self.results.saving.is_empty()) {
            self.broadcast(&CoordinatorMessage::End(ending));
            self.stage = Stage::Draining(Drain::new(message));
        } else {
            self.finish(ending, Outcome::Failed { message });
        }
    }

    /// Ends a run that cannot begin, with one line.
    pub(super) fn misconfigured(&mut self, message: String) {
        self.finish(Ending::Failed(message.clone()), Outcome::Misconfigured { message });
    }

    pub(super) fn finish(&mut self, ending: Ending, outcome: Outcome) {
        if matches!(self.stage, Stage::Draining(_) | Stage::Ended) {
            return;
        }
        match &ending {
            Ending::Failed(message) => self.decide(Decision::Fails, message),
            Ending::Stopped => self.decide(Decision::Ends, "its owner asked for it, and what was trained is kept"),
            _ => self.decide(Decision::Ends, "every rank is through with the same result, and all is kept"),
        }
        self.broadcast(&CoordinatorMessage::End(ending));
        let sessions: Vec<Connection> = self.sessions.keys().copied().collect();
        self.commands.extend(sessions.into_iter().map(Command::Close));
        self.commands.push_back(Command::Finish(outcome));
        self.stage = Stage::Ended;
    }
}

/// Whether two ranks came to the same end.
fn same(a: &Finished, b: &Finished) -> bool {
    let key = |finished: &Finished| -> (Step, Digest, bool) { (finished.step, finished.weights, finished.stopped) };
    key(a) == key(b)
}

/// The end that most ranks came to; of two that are as frequent, that of the lower rank.
fn majority(all: &[Finished]) -> Option<Finished> {
    let votes = |finished: &Finished| all.iter().filter(|other| same(other, finished)).count();
    // `max_by_key` takes the last of equals, so the ranks are counted from the highest.
    all.iter().rev().max_by_key(|finished| votes(finished)).copied()
}

#[cfg(test)]
mod tests {
    use strath_core::Generation;

    use super::*;

    #[test]
    fn the_majority_decides_and_of_equals_the_lower_rank() {
        let end = |weights: u8| Finished {
            generation: Generation(1),
            step: Step(1),
            weights: Digest([weights; 32]),
            stopped: false,
        };
        let decided = |all: &[u8]| {
            majority(&all.iter().map(|w| end(*w)).collect::<Vec<_>>()).map(|finished| finished.weights.0[0])
        };
        assert_eq!(decided(&[]), None);
        assert_eq!(decided(&[7]), Some(7));
        assert_eq!(decided(&[8, 9]), Some(8));
        assert_eq!(decided(&[8, 9, 9]), Some(9));
        assert_eq!(decided(&[9, 8, 9, 8]), Some(9));
    }
}

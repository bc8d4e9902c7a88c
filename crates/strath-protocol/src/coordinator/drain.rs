//! What a run that has failed still owes: states that rank 0 has handed over reach the disk, if they do so in time.

use std::time::Duration;

use strath_core::{Rank, Timestamp};

use super::{Coordinator, Session, Stage, Standing};
use crate::command::{CoordinatorCommand as Command, Outcome};
use crate::event::Connection;
use crate::message::Job;

/// A run that has failed ends after this time at the latest, whatever is still under way.
const PATIENCE: Duration = Duration::from_secs(5);

/// A run that has failed, as every worker was told, and whose last states are under way.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Drain {
    /// Why it failed.
    message: String,
    /// When it ends at the latest; `None` until the event that made it fail has been taken in.
    pub(super) until: Option<Timestamp>,
}

impl Drain {
    pub(super) fn new(message: String) -> Self {
        Self { message, until: None }
    }
}

impl Coordinator {
    /// The rank whose states the run waits for: it was told of the end, sends what it had queued, and closes its session. Silence
    /// of a lease means that it is dead.
    pub(super) fn debtor(&self, now: Timestamp) -> Option<&Session> {
        let alive = |session: &Session| now.since(session.heard) < self.settings.lease();
        let owes = |session: &&Session| session.rank == Some(Rank(0)) && session.standing == Standing::Running;
        self.sessions.values().find(owes).filter(|session| self.settings.job == Job::Train && alive(session))
    }

    /// Ends a run that has failed once nothing is under way any more, or its time is over.
    pub(super) fn settle_drain(&mut self, now: Timestamp) {
        let Stage::Draining(drain) = &mut self.stage else { return };
        let until = *drain.until.get_or_insert(now.after(PATIENCE));
        let drained = self.results.saving.is_empty();
        if now >= until || (drained && self.debtor(now).is_none()) {
            self.end_drain(None);
        }
    }

    /// Ends a run that has failed, whatever is under way. `then`: what came on top.
    pub(super) fn end_drain(&mut self, then: Option<&str>) {
        let Stage::Draining(Drain { message, .. }) = &self.stage else { return };
        let message = then.map_or_else(|| message.clone(), |then| format!("{message}; then {then}"));
        let sessions: Vec<Connection> = self.sessions.keys().copied().collect();
        self.commands.extend(sessions.into_iter().map(Command::Close));
        self.commands.push_back(Command::Finish(Outcome::Failed { message }));
        self.stage = Stage::Ended;
    }
}

//! A planned pause: the generation ends after a step that all ranks agree on, so that nothing is computed twice and nobody has failed.
//!
//! ```text
//! a worker has come, or leaves ──► Pause to every rank ──► they rest after the same step, with what follows it (an evaluation, a
//!   checkpoint) done ──► Halted (step, digest) from each ──► the next generation is formed
//! ```
//!
//! Whatever ends the generation at once meanwhile (a worker is lost, a ring breaks) wins: [`Coordinator::regroup`]. So does a stop.

use strath_core::Timestamp;

use super::regroup::PATIENCE;
use super::{Coordinator, Session, Stage};
use crate::decision::Decision;
use crate::event::Connection;
use crate::message::CoordinatorMessage;

/// A pause that is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pause {
    /// Why.
    cause: String,
    /// Since when ranks rest: `None` before the first.
    since: Option<Timestamp>,
}

/// What a pause has come to, and why the generation ends.
#[derive(Debug, PartialEq, Eq)]
enum Rest {
    /// No pause is under way, no rank rests, or others are still waited for.
    Awaited,
    /// Every rank rests, the first of them since then.
    Complete { since: Timestamp, cause: String },
    /// Some do not.
    Overdue { cause: String },
}

impl Coordinator {
    /// Ends the generation after a step, because of what is said; while it is about to stop, or to pause already, nothing changes but
    /// what is said.
    pub(super) fn pause(&mut self, cause: String) {
        if self.stage != Stage::Running || self.stop_requested || self.agreed.is_some() {
            return;
        }
        if let Some(pause) = &mut self.pausing {
            pause.cause = format!("{}; {cause}", pause.cause);
            return;
        }
        self.ask_to_rest(cause);
    }

    fn ask_to_rest(&mut self, cause: String) {
        self.decide(Decision::Pauses { generation: self.generation }, &cause);
        self.pausing = Some(Pause { cause, since: None });
        let message = CoordinatorMessage::Pause { generation: self.generation, recorded: self.recorded() };
        for connection in self.connections(|session| session.rank.is_some()) {
            self.send(connection, message.clone());
        }
    }

    /// A rank of a generation that is at work rests: as it was asked to, or as the coordinator before this one had asked another.
    pub(super) fn rests(&mut self, connection: Connection) {
        if self.pausing.is_none() {
            let name = self.sessions.get(&connection).map(Session::name).unwrap_or_default();
            self.ask_to_rest(format!("{name} rests, as it was asked to before the coordinator was lost"));
        }
    }

    /// Goes on to the next generation once every rank rests.
    pub(super) fn settle_pause(&mut self, now: Timestamp) {
        // Once all have come to the same end there is no next generation, also where some have gone already.
        if self.stage != Stage::Running || self.agreed.is_some() {
            self.pausing = None;
        }
        if self.pausing.is_none() {
            return;
        }
        let somebody_rests = self.at_work() < self.members.len();
        if let Some(pause) = self.pausing.as_mut().filter(|_| somebody_rests) {
            pause.since.get_or_insert(now);
        }
        match self.rest(now) {
            Rest::Awaited => {}
            Rest::Complete { since, cause } => {
                self.balance.rested = Some(since);
                // What follows the step that they came to is done; of what others hold nothing is known.
                let rested = self.members.iter().filter_map(|member| self.session_of(member.worker)?.held);
                self.settled = rested.map(|(step, _)| step).max();
                self.end_generation(cause);
            }
            Rest::Overdue { cause } => self.regroup(cause),
        }
    }

    /// What the pause under way has come to: once one rank rests the others do so too, and who does not is told to halt after [`PATIENCE`].
    fn rest(&self, now: Timestamp) -> Rest {
        let Some(Pause { cause, since: Some(since) }) = &self.pausing else { return Rest::Awaited };
        let since = *since;
        if self.at_work() == 0 {
            return Rest::Complete { since, cause: cause.clone() };
        }
        if now.since(since) < PATIENCE {
            return Rest::Awaited;
        }
        let cause = format!("{cause}; then some ranks did not come to rest for {} s", PATIENCE.as_secs());
        Rest::Overdue { cause }
    }

    /// Ranks of the generation that do not rest.
    fn at_work(&self) -> usize {
        self.sessions.values().filter(|session| session.rank.is_some()).count()
    }
}

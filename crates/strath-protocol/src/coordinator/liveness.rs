//! Deadlines: who has been silent for too long, and what a coordinator that was itself stalled may conclude.

use std::time::Duration;

use strath_core::Timestamp;

use super::{Coordinator, Drain, Gather, Settings, Stage};
use crate::command::CoordinatorCommand as Command;
use crate::event::Connection;

impl Settings {
    /// Silence of this length means death.
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.config.cluster.lease_ms)
    }

    /// Until when whoever begins to gather workers at `now` waits for them.
    pub(super) fn gathers_until(&self, now: Timestamp) -> Timestamp {
        now.after(Duration::from_secs(self.config.cluster.gather_timeout_s))
    }
}

impl Coordinator {
    /// How often the machine wants to hear of the time, so that it notices its own stalls.
    fn tick(&self) -> Duration {
        self.settings.lease() / 4
    }

    pub(super) fn earliest_deadline(&self) -> Timestamp {
        let lease = self.settings.lease();
        let mut earliest = self.last_handled.after(self.tick());
        if let Stage::Draining(drain) = &self.stage {
            let given_up = self.debtor(self.last_handled).map(|session| session.heard.after(lease));
            return [given_up, drain.until].into_iter().flatten().fold(earliest, Timestamp::min);
        }
        if !self.sessions.is_empty() {
            earliest = earliest.min(self.none_silent_before);
        }
        if let Some(suspicion) = &self.suspicion {
            earliest = earliest.min(suspicion.until);
        }
        if matches!(self.stage, Stage::Regrouping(_)) && self.returns_until > self.last_handled {
            earliest = earliest.min(self.returns_until);
        }
        if let (Stage::Gathering, Gather::AtLeast { quiet, .. }) = (&self.stage, self.settings.gather) {
            let formed = self.last_arrival.after(quiet);
            if formed > self.last_handled {
                earliest = earliest.min(formed);
            }
        }
        earliest
    }

    /// Where this machine has heard nothing at all, not even of the time, for half a lease, it was itself stalled (its host
    /// was paused or overloaded): what workers sent meanwhile waits unread, so the silence is not held against them.
    pub(super) fn forgive_own_stall(&mut self, now: Timestamp) {
        let gap = now.since(self.last_handled);
        if gap > self.settings.lease() / 2 {
            // Whoever has lost it meanwhile is about to come back.
            self.returns_until = now.after(self.settings.lease());
            self.gathers_until = self.gathers_until.after(gap);
            for session in self.sessions.values_mut() {
                session.heard = session.heard.after(gap).min(now);
                session.stay.forgive(gap, now);
            }
            // The sessions of those who are suspected may have broken meanwhile, which waits unread as well.
            if let Some(suspicion) = &mut self.suspicion {
                suspicion.until = suspicion.until.after(gap);
            }
            if let Stage::Draining(Drain { until: Some(until), .. }) = &mut self.stage {
                *until = until.after(gap);
            }
        }
    }

    /// Ends what has been silent for a lease.
    pub(super) fn check_deadlines(&mut self, now: Timestamp) {
        if matches!(self.stage, Stage::Draining(_) | Stage::Ended) {
            return;
        }
        self.end_the_silent(now);
        self.end_the_hanging(now);
        self.settle_suspicion(now);
    }

    fn end_the_silent(&mut self, now: Timestamp) {
        // Whoever is heard is silent later, and whoever comes has just been heard: what was found before holds at least.
        if now < self.none_silent_before {
            return;
        }
        let lease = self.settings.lease();
        let silent: Vec<(Connection, String)> = self
            .sessions
            .iter()
            .filter(|(_, session)| now.since(session.heard) >= lease)
            .map(|(connection, session)| {
                let message = format!(
                    "{} was silent for {} ms {} (cluster.lease_ms = {})",
                    session.name(),
                    now.since(session.heard).as_millis(),
                    self.place(session),
                    lease.as_millis()
                );
                (*connection, message)
            })
            .collect();
        for (connection, message) in silent {
            let registered = self.sessions.get(&connection).is_some_and(|session| session.identity.is_some());
            if !registered {
                self.commands.push_back(Command::Close(connection));
                self.sessions.remove(&connection);
            } else if self.can_do_without() || self.survives() {
                self.leave(connection, message);
            } else {
                // Its session stays open for the last word: it may yet wake up and read it.
                return self.fail(message);
            }
        }
        let longest = self.sessions.values().map(|session| session.heard).min().unwrap_or(now);
        self.none_silent_before = longest.after(lease);
    }
}

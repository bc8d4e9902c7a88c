//! Workers that leave in order: because whoever runs one wants it to end, or whoever looks after the run wants it to do without one.
//!
//! Either way the worker's part ends with its generation, its state is handed over where nobody else holds it, and then it is let go. Who may
//! be sent away is decided as for a pod under a disruption budget: not where fewer would be left than the run needs, unless that is accepted.

use super::{Coordinator, Gather, Session, Stage, Standing};
use crate::Rejected;
use crate::decision::Decision;
use crate::event::Connection;
use crate::message::{DrainAnswer, DrainRequest, Ending, Job, Shortage};

/// As many names as a line takes.
const MOST_NAMES: usize = 8;

impl Session {
    fn may_leave(&self) -> bool {
        self.is_retiring && self.rank.is_none()
    }
}

impl Coordinator {
    /// What is said to somebody who wants a worker to leave. It changes nothing: where the worker leaves,
    /// [`DrainRequested`](crate::CoordinatorEvent::DrainRequested) has it do so.
    pub fn answer(&self, request: &DrainRequest) -> DrainAnswer {
        let worker = request.worker;
        if let Some(reason) = self.wrong_token(request.token.as_deref()) {
            return DrainAnswer::Refused(reason);
        }
        let leaves = self.session_of(worker).is_some_and(|session| session.is_retiring);
        if leaves {
            return DrainAnswer::Leaves;
        }
        if self.decisions.has_released(worker) {
            return DrainAnswer::HasLeft;
        }
        match self.reason_to_keep(request) {
            Some(reason) => DrainAnswer::Refused(reason),
            None => DrainAnswer::Leaves,
        }
    }

    fn reason_to_keep(&self, request: &DrainRequest) -> Option<String> {
        let worker = request.worker;
        if self.settings.job != Job::Train {
            return Some(
                "this is an evaluation, which ends with the first worker that leaves; wait for its end".into(),
            );
        }
        match self.stage {
            Stage::Returning(_) => {
                return Some(
                    "the coordinator was started again and waits for its workers; ask again in a moment".into(),
                );
            }
            Stage::Gathering => {
                return Some(
                    "the run is not training yet; end the worker's process, and gathering goes on without it".into(),
                );
            }
            Stage::Draining(_) | Stage::Ended => return Some("the run has failed and is about to end".into()),
            _ if self.agreed.is_some() => return Some("the run is complete, and every worker is about to end".into()),
            _ if self.stop_requested => return Some("the run is being stopped, and every worker ends with it".into()),
            Stage::Connecting | Stage::Running | Stage::Regrouping(_) => {}
        }
        let Some(session) = self.session_of(worker) else {
            return Some(format!("no worker {worker} takes part; there are {}", self.names()));
        };
        let stays = |s: &&Session| {
            let has_a_part = s.rank.is_some() || matches!(s.standing, Standing::Ready | Standing::Following);
            has_a_part && !s.is_retiring && s.identity.as_ref().is_some_and(|(id, _)| *id != worker)
        };
        let (left, least) = (self.sessions.values().filter(stays).count(), self.least_workers());
        (left < least && request.shortage == Shortage::Refuse).then(|| {
            format!(
                "without {} there would be {left} of the {least} workers that the run needs (cluster.min_workers); start \
                 another first, or add --force to have the run wait for others",
                session.name()
            )
        })
    }

    /// Everyone who has been admitted, for messages.
    fn names(&self) -> String {
        let mut named: Vec<_> =
            self.sessions.values().filter_map(|s| Some((s.identity.as_ref()?.0, s.name()))).collect();
        named.sort_unstable();
        let more = named.len().saturating_sub(MOST_NAMES);
        let mut names: Vec<String> = named.into_iter().take(MOST_NAMES).map(|(_, name)| name).collect();
        if more > 0 {
            names.push(format!("{more} more"));
        }
        if names.is_empty() { "none".into() } else { names.join(", ") }
    }

    /// With fewer workers than these the run waits for others.
    pub(super) fn least_workers(&self) -> usize {
        let least = self.settings.config.cluster.min_workers.max(1);
        match self.settings.gather {
            Gather::Exactly(workers) => least.min(workers),
            Gather::AtLeast { .. } => least,
        }
    }

    /// Sends a worker away.
    pub(super) fn drain(&mut self, request: &DrainRequest) -> Result<(), Rejected> {
        if self.answer(request) != DrainAnswer::Leaves {
            return Err(Rejected::OutOfOrder { what: "DrainRequested", state: "the worker stays" });
        }
        let is_it = |(_, session): &(&Connection, &Session)| {
            session.identity.as_ref().is_some_and(|(id, _)| *id == request.worker) && !session.is_retiring
        };
        let Some((connection, session)) = self.sessions.iter().find(is_it) else { return Ok(()) };
        let (connection, is_at_work) = (*connection, session.rank.is_some());
        let cause = format!("{} was drained {}", session.name(), self.place(session));
        self.update(connection, |session| session.is_retiring = true);
        self.decide(Decision::Drains(request.worker), "strath drain asked for it");
        if is_at_work {
            self.have_rest(cause);
        } else if !matches!(self.stage, Stage::Regrouping(_)) {
            self.release_the_retiring();
        }
        Ok(())
    }

    /// A worker wants to leave.
    pub(super) fn retire(&mut self, connection: Connection) -> Result<(), Rejected> {
        let session = self.session(connection)?;
        if session.standing == Standing::Preparing || !self.survives() {
            return Err(Rejected::OutOfOrder { what: "Retiring", state: session.standing.name() });
        }
        if self.agreed.is_some() {
            // It has done its part.
            return Ok(());
        }
        let cause = format!("{} leaves {}", session.name(), self.place(session));
        let is_at_work = session.rank.is_some();
        self.update(connection, |session| session.is_retiring = true);
        if is_at_work {
            self.have_rest(cause);
        }
        Ok(())
    }

    /// Ends the generation of a worker that leaves, which finishes the step under way.
    fn have_rest(&mut self, cause: String) {
        if self.stage == Stage::Running { self.pause(cause) } else { self.regroup(cause) }
    }

    /// Whether somebody is to leave and has no part in a generation.
    pub(super) fn somebody_may_leave(&self) -> bool {
        self.sessions.values().any(Session::may_leave)
    }

    /// Lets those go who are to leave.
    pub(super) fn release_the_retiring(&mut self) {
        for connection in self.connections(Session::may_leave) {
            let worker = self.sessions.get(&connection).and_then(|session| session.identity.as_ref());
            if let Some((worker, _)) = worker {
                self.decide(Decision::Releases(*worker), "it was to leave, and others can do without it");
            }
            self.part_with(connection, Ending::Released);
        }
    }
}

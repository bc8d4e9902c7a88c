//! Both ends of joining: a worker that feeds a newcomer, and one that follows.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use strath_collective::RingTls;
use strath_core::Generation;
use strath_protocol::WorkerEvent;
use strath_protocol::message::{Feed, Follow, Holds, Phase};

use super::{Report, Runtime, facts};
use crate::feed::{self, Donor, Followed, Following};
use crate::generation::{Held, held, ring_tls};

impl Runtime {
    /// What this worker shows to others, where it has certificates.
    fn ring_tls(&self) -> Result<Option<RingTls>, String> {
        self.settings.tls.as_ref().map(|tls| ring_tls(tls.credentials())).transpose()
    }

    /// Feeds a newcomer, on a thread beside the training. Where that fails the newcomer misses it, and says so.
    pub(super) fn feed(&mut self, feed: Feed) {
        let (Some(admissions), Some(admitted), Some((_, prepared))) =
            (self.admissions.clone(), &self.admitted, &self.prepared)
        else {
            return;
        };
        let (run, cancelled) = (admitted.run, self.cancelled.clone());
        let values = prepared.model.parameters().len() + prepared.model.statistics().len();
        let tls = self.ring_tls();
        std::thread::spawn(move || {
            let done = tls.and_then(|tls| feed::feed(Donor { run, feed, tls, admissions, values }, &cancelled));
            if let Err(error) = done {
                tracing::warn!("{error}");
            }
        });
    }

    /// Follows the generation that this worker joins.
    pub(super) fn follow(&mut self, follow: Follow) {
        let (Some(listener), Some(admitted), Some((_, prepared))) =
            (&self.listener, &self.admitted, self.prepared.clone())
        else {
            return;
        };
        let (run, generation) = (admitted.run, follow.generation);
        self.unfollowed = Arc::default();
        let unfollowed = self.unfollowed.clone();
        let begins = listener.try_clone().map_err(|error| error.to_string()).and_then(|listener| {
            let tls = self.ring_tls()?;
            Ok(Following { run, follow, prepared, listener, tls })
        });
        self.spawn(Generation(0), Phase::Waiting, move |events| {
            let Followed { state, broken } = match begins {
                Ok(following) => feed::follow(&following, &unfollowed, |step| {
                    let _ = events.blocking_send(Report::CaughtUp(generation, step));
                }),
                Err(error) => Followed { state: None, broken: Some(error) },
            };
            if !unfollowed.load(Ordering::Relaxed) {
                let _ = events.blocking_send(Report::Followed(generation, unfollowed, state.map(held), broken));
            }
        });
    }

    /// The feed of a generation has ended with this state, or why it broke.
    pub(super) fn followed(
        &mut self,
        generation: Generation,
        state: Option<Held>,
        broken: Option<String>,
    ) -> WorkerEvent {
        let held = state.as_ref().map(facts);
        if state.is_some() {
            self.held = state;
        }
        WorkerEvent::Followed(Holds { generation, held, broken })
    }

    /// Says that a state of an earlier session is at hand, if one is.
    pub(super) fn offer_held(&mut self) {
        if let Some(held) = &self.held {
            let holds = Holds { generation: Generation(0), held: Some(facts(held)), broken: None };
            self.later.push_back(WorkerEvent::Followed(holds));
        }
    }
}

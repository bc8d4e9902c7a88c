//! Workers that join are fed: both ends of it, the sim's counterpart of `strath_node::feed`.

use std::time::Duration;

use strath_core::{Generation, Step, Ticket, Timestamp};
use strath_protocol::WorkerEvent;
use strath_protocol::message::{Feed, Follow, Holds};

use super::runtime::{Report, Runtime};
use super::thread::{Thread, ThreadId};
use crate::env::{Env, Input};
use crate::invariant::Fact;
use crate::network::{Closing, Host, Packet, Plane, ProcessId, Side, StreamId};
use crate::quadratic::State;

/// A feed that says nothing for so long is given up.
const SILENCE: Duration = Duration::from_secs(10);

/// What is fed, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Fed {
    /// The state before a step, to whoever knows the ticket.
    State(Ticket, State),
    /// What a step has reduced.
    Step(Vec<i64>),
    /// The generation is over for the donor.
    End,
    /// The newcomer does not keep up.
    LeftBehind,
}

/// A newcomer that follows a generation.
pub(crate) struct Follower {
    id: ThreadId,
    generation: Generation,
    ticket: Ticket,
    stream: Option<StreamId>,
    state: Option<State>,
    heard: Timestamp,
    /// Whether it has said that it is close behind.
    is_close: bool,
    has_ended: bool,
}

impl Thread {
    /// Begins to feed a newcomer with the state after the last step.
    pub(crate) fn feed(&mut self, feed: &Feed, from: (ProcessId, Host), env: &mut Env) {
        let stream = env.network.open(Plane::Data, from, feed.to.ring_address, None);
        let state = Fed::State(feed.ticket, self.trainer.state.clone());
        env.send(stream, Side::Dialler, Packet::Fed(state));
        self.feeds.push(stream);
        if self.has_ended() {
            self.end_feeds(env);
        }
    }

    /// Passes on what a step has reduced; one newcomer or another does not keep up.
    pub(crate) fn pass_on(&mut self, sum: &[i64], env: &mut Env) {
        let slow = |env: &mut Env| env.draws.percent(2);
        let (left_behind, others) = std::mem::take(&mut self.feeds).into_iter().partition(|_| slow(env));
        self.feeds = others;
        for stream in &self.feeds {
            env.send(*stream, Side::Dialler, Packet::Fed(Fed::Step(sum.to_vec())));
        }
        let left_behind: Vec<StreamId> = left_behind;
        for stream in left_behind {
            env.send(stream, Side::Dialler, Packet::Fed(Fed::LeftBehind));
            env.close(stream, Side::Dialler, Closing::Finished);
        }
    }

    /// The generation is over here.
    pub(crate) fn end_feeds(&mut self, env: &mut Env) {
        for stream in std::mem::take(&mut self.feeds) {
            env.send(stream, Side::Dialler, Packet::Fed(Fed::End));
            env.close(stream, Side::Dialler, Closing::Finished);
        }
    }
}

impl Runtime {
    /// Begins to follow a generation, with what has come of it already.
    pub(crate) fn follow(&mut self, follow: &Follow, env: &mut Env) {
        let id = ThreadId(env.number());
        let Follow { generation, ticket, .. } = *follow;
        let heard = env.now();
        let (stream, state) = (None, None);
        self.follower =
            Some(Follower { id, generation, ticket, stream, state, heard, is_close: false, has_ended: false });
        env.within(SILENCE, self.process.0, Input::FeedDeadline(id));
        for (stream, packet) in std::mem::take(&mut self.early) {
            self.hear_feed(stream, packet, env);
        }
    }

    /// Something has come on the stream of a feed, or on none that is known.
    pub(crate) fn hear_feed(&mut self, stream: StreamId, packet: Packet, env: &mut Env) {
        let process = self.process.0;
        let Some(follower) = self.follower.as_mut().filter(|follower| !follower.has_ended) else {
            // The coordinator's word may be late.
            return self.early.push((stream, packet));
        };
        match packet {
            Packet::Fed(Fed::State(ticket, state)) if follower.stream.is_none() => {
                if ticket != follower.ticket {
                    return;
                }
                (follower.stream, follower.state) = (Some(stream), Some(state));
            }
            _ if follower.stream != Some(stream) => return,
            Packet::Fed(Fed::Step(sum)) => {
                if let Some(state) = &mut follower.state {
                    state.advance(&sum);
                    let (step, digest) = (state.step, state.digest());
                    env.note(&Fact::Holds { step, digest });
                }
            }
            Packet::Fed(Fed::End) => return follower.end(process, None, env),
            Packet::Fed(Fed::LeftBehind) => return follower.end(process, Some("it does not keep up"), env),
            Packet::Closed(_) => return follower.end(process, Some("the feed broke"), env),
            _ => return,
        }
        follower.heard = env.now();
        if let (false, Some(state)) = (follower.is_close, &follower.state) {
            follower.is_close = true;
            let (soon, step) = (env.draws.micros(5, 20_000), state.step);
            env.within(soon, process, Input::Reports(follower.id, Report::CaughtUp(step)));
        }
    }

    /// A feed may have been silent for too long.
    pub(crate) fn check_feed(&mut self, id: ThreadId, env: &mut Env) {
        let process = self.process.0;
        let Some(follower) = self.follower.as_mut().filter(|follower| follower.id == id && !follower.has_ended) else {
            return;
        };
        let silent = env.now().since(follower.heard);
        if silent >= SILENCE {
            follower.end(process, Some("it was silent"), env);
        } else {
            env.within(SILENCE.saturating_sub(silent), process, Input::FeedDeadline(id));
        }
    }

    /// What a report of a newcomer means to the machine; `None`: it is not of the one that follows.
    pub(crate) fn take_of_follower(&mut self, id: ThreadId, report: Report) -> Option<WorkerEvent> {
        let generation = self.follower.as_ref().filter(|follower| follower.id == id)?.generation;
        match report {
            Report::CaughtUp(step) => Some(WorkerEvent::CaughtUp { generation, step }),
            Report::Followed(state, broken) => {
                let held = state.as_ref().map(|state| (state.step, state.digest()));
                self.follower = None;
                if state.is_some() {
                    (self.held, self.was_fed) = (state, true);
                }
                Some(WorkerEvent::Followed(Holds { generation, held, broken }))
            }
            _ => None,
        }
    }

    /// Says that a state of an earlier session is at hand, if one is.
    pub(crate) fn offer_held(&mut self) {
        if let Some(state) = &self.held {
            self.was_fed = true;
            let holds = Holds { generation: Generation(0), held: Some((state.step, state.digest())), broken: None };
            self.later.push_back(WorkerEvent::Followed(holds));
        }
    }

    /// The step of the state that it holds, where it has taken that step itself.
    pub(crate) fn completed(&self) -> Option<Step> {
        self.held.as_ref().filter(|_| !self.was_fed).map(|held| held.step)
    }
}

impl Follower {
    /// The feed has ended, before the generation for a reason.
    fn end(&mut self, process: ProcessId, broken: Option<&str>, env: &mut Env) {
        self.has_ended = true;
        let report = Report::Followed(self.state.take(), broken.map(Into::into));
        let soon = env.draws.micros(5, 20_000);
        env.within(soon, process, Input::Reports(self.id, report));
    }
}

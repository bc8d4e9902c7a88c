//! How a worker that joins comes by the state: it follows the generation at work, fed by one of its workers.

use strath_core::{Generation, Step};

use super::{Stage, Worker};
use crate::Rejected;
use crate::command::WorkerCommand as Command;
use crate::message::{Feed, Follow, Holds, WorkerMessage};

impl Worker {
    /// It is at work, and is to feed a newcomer.
    pub(super) fn feed(&mut self, feed: Feed) -> Result<(), Rejected> {
        self.expect(&Stage::Running(feed.generation), "Feed")?;
        self.commands.push_back(Command::Feed(feed));
        Ok(())
    }

    /// It waits, and is to be fed.
    pub(super) fn follow(&mut self, follow: Follow) -> Result<(), Rejected> {
        self.expect(&Stage::Waiting, "Follow")?;
        if self.following.is_some() {
            return Err(Rejected::OutOfOrder { what: "Follow", state: "following a generation" });
        }
        self.following = Some(follow.generation);
        self.commands.push_back(Command::Follow(follow));
        Ok(())
    }

    /// Training has gone on, and it is close behind.
    pub(super) fn caught_up(&mut self, generation: Generation, step: Step) -> Result<(), Rejected> {
        if self.following != Some(generation) {
            return Err(Rejected::OutOfOrder { what: "CaughtUp", state: self.stage.name() });
        }
        self.progress.step = step;
        self.send(WorkerMessage::CaughtUp { generation, step });
        Ok(())
    }

    /// The feed has ended, or a state of an earlier session is at hand.
    pub(super) fn followed(&mut self, holds: Holds) -> Result<(), Rejected> {
        let is_of_earlier_session = holds.generation == Generation(0) && self.held.is_none();
        let is_due = self.following == Some(holds.generation)
            || (self.following.is_none() && self.stage == Stage::Waiting && is_of_earlier_session);
        if !is_due {
            return Err(Rejected::OutOfOrder { what: "Followed", state: self.stage.name() });
        }
        self.following = None;
        // Of a feed that brought nothing it keeps what it held before.
        if let Some((step, _)) = holds.held {
            (self.held, self.was_fed, self.progress.step) = (holds.held, true, step);
        }
        self.send(WorkerMessage::Holds(holds));
        Ok(())
    }

    /// Nobody wants it to follow any more.
    pub(super) fn stop_following(&mut self) {
        if self.following.take().is_some() {
            self.commands.push_back(Command::StopFollowing);
        }
    }
}

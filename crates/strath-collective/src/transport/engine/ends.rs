//! Ends: of an operation, of a peer, of everything.

use std::time::Instant;

use strath_core::{Fault, Step};

use super::{BREAK_TIMEOUT, Driver, Ending, FAREWELL_TIMEOUT, Operation};
use crate::bucket::Bucket;
use crate::error::CollectiveError;
use crate::frame::{Header, Phase};
use crate::packing::Encoding;
use crate::transport::farewell::Farewell;
use crate::transport::link::{Key, Presence};

impl Driver {
    pub(super) fn finish_if_complete(&mut self, key: Key) {
        let complete = |operation: &Operation| operation.unread == 0 && operation.machine.is_complete();
        if self.operations.get(&key).is_some_and(complete)
            && let Some(operation) = self.operations.remove(&key)
        {
            // Whoever has dropped the receiver does not want the sum.
            let _ = operation.reply.send(Ok(operation.machine.into_result()));
        }
    }

    pub(super) fn lose_the_broken(&mut self) {
        for at in 0..self.links.len() {
            let link = &self.links[at];
            let broken = link.broken_since.is_some_and(|since| since.elapsed() >= BREAK_TIMEOUT);
            if broken && link.presence == Presence::Here {
                self.lose(at, "the connection to it broke");
            }
        }
    }

    /// Peers that have not taken this rank's last frames in time do without them.
    pub(super) fn cut_late_farewells(&mut self) {
        if self.closing_since.is_some_and(|since| since.elapsed() >= FAREWELL_TIMEOUT) {
            self.links.iter_mut().for_each(|link| link.outbound.close());
        }
    }

    pub(super) fn lose(&mut self, at: usize, cause: &str) {
        self.links[at].presence = Presence::Lost(cause.to_owned());
        self.check_presence(at);
    }

    /// Ends everything if an operation under way needs a peer that is gone.
    pub(super) fn check_presence(&mut self, at: usize) {
        let rank = self.links[at].member.rank;
        let cause = match &self.links[at].presence {
            Presence::Left if self.operations.values().any(|o| o.machine.awaits(rank)) => "it has left",
            Presence::Here | Presence::Left => return,
            Presence::Lost(cause) => {
                let needs = |o: &Operation| o.machine.reduction().tag().group.contains(&rank.0);
                if !self.operations.values().any(needs) {
                    return;
                }
                cause
            }
        };
        self.end(Ending::lost(at, cause));
    }

    pub(super) fn end(&mut self, ending: Ending) {
        if self.ending.is_some() {
            return;
        }
        let ending = self.heard.take().unwrap_or(ending);
        self.detach_lying();
        let operations = std::mem::take(&mut self.operations);
        for (key, operation) in operations {
            // Whoever has dropped the receiver does not want to know.
            let _ = operation.reply.send(Err(self.error(&ending, key, operation.machine.phase())));
        }
        let farewell = match &ending {
            Ending::Lost { link, .. } => Farewell::BecauseOf(self.links[*link].member.rank),
            Ending::Failed(CollectiveError::PeerSilent { rank, .. } | CollectiveError::Protocol { rank, .. }) => {
                Farewell::BecauseOf(*rank)
            }
            // Were the blamed to blame in turn, the others would take the word that comes first.
            Ending::Failed(_) | Ending::Aborted | Ending::Blamed { .. } => Farewell::Aborted,
        };
        self.ending = Some(ending);
        for link in &mut self.links {
            link.outbound.queue.clear();
        }
        self.say_farewell(farewell);
    }

    pub(super) fn error(&self, ending: &Ending, (step, bucket): Key, phase: Phase) -> CollectiveError {
        match ending {
            Ending::Lost { link, cause } => {
                let member = self.links[*link].member;
                let cause = cause.clone();
                CollectiveError::PeerLost { rank: member.rank, address: member.address, step, phase, cause }
            }
            Ending::Blamed { by } => {
                let member = self.links[*by].member;
                let cause = "it ended the exchange, for it had no valid answer from this rank".to_owned();
                CollectiveError::PeerLost { rank: member.rank, address: member.address, step, phase, cause }
            }
            Ending::Failed(error) => error.clone(),
            Ending::Aborted => CollectiveError::Aborted { step, bucket },
        }
    }

    pub(super) fn say_farewell(&mut self, farewell: Farewell) {
        let header = Header {
            phase: Phase::Farewell,
            encoding: Encoding::Integers,
            run: self.identity.run,
            generation: self.identity.generation,
            step: Step(0),
            bucket: Bucket::CONTROL,
            chunk: farewell.to_wire(),
            group_start: 0,
            group_end: self.identity.world_size,
            entries: 0,
            offset: 0,
            length: 0,
            width: 0,
            fault: Fault::NONE,
        };
        for link in &mut self.links {
            if link.outbound.stream.is_some() {
                link.outbound.queue.push_back(header);
            }
        }
        self.closing_since.get_or_insert_with(Instant::now);
    }
}

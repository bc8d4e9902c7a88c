//! Frames from peers: read, checked, and handed to the operation that they belong to.

use std::io;

use strath_core::Step;

use super::{Driver, Ending, Operation, READ_BUDGET, key};
use crate::bucket::Bucket;
use crate::error::{CollectiveError, Mismatch};
use crate::frame::{Header, Phase};
use crate::transport::farewell::Farewell;
use crate::transport::inbound::Filled;
use crate::transport::link::{Key, Presence};

impl Driver {
    pub(super) fn read(&mut self, at: usize) {
        let mut budget = READ_BUDGET;
        while self.ending.is_none() && self.links[at].is_read() {
            let filled = if self.links[at].inbound.placing().is_some() {
                self.fill_room(at)
            } else {
                self.links[at].inbound.fill()
            };
            match filled {
                Ok(Filled::Nothing) => return,
                Ok(Filled::End) => return self.lose(at, "it closed the connection"),
                Err(error) => return self.lose(at, &error.to_string()),
                Ok(Filled::Some(_)) => {
                    self.moved = true;
                    return self.take_frames(at);
                }
                Ok(Filled::All(read)) => {
                    self.moved = true;
                    self.take_frames(at);
                    budget = budget.saturating_sub(read);
                    if budget == 0 {
                        return;
                    }
                }
            }
        }
    }

    /// Takes what woke this process off a connection beside shared memory. Its end is the peer's, once all that it has written is
    /// taken.
    pub(super) fn hear_ringing(&mut self, at: usize) {
        let link = &self.links[at];
        if link.inbound.shared.is_none() || link.presence != Presence::Here {
            return;
        }
        let cause = match self.links[at].inbound.hear_ringing() {
            Ok(Filled::End) => "it closed the connection".to_owned(),
            Ok(_) => return,
            Err(error) => error.to_string(),
        };
        if self.ending.is_some() || !self.links[at].is_read() {
            return self.break_outbound(at);
        }
        self.read(at);
        if self.ending.is_none() && self.links[at].is_read() {
            self.lose(at, &cause);
        }
    }

    /// Reads values to where they belong, and once all are there has the operation take them.
    fn fill_room(&mut self, at: usize) -> io::Result<Filled> {
        let link = &mut self.links[at];
        let from = link.member.rank;
        let Some(header) = link.inbound.placing() else { return Ok(Filled::Nothing) };
        let operation = self.operations.get_mut(&key(&header)).expect("an operation is under way until all has come");
        let room = operation.machine.room(from, &header).expect("what has a room keeps it until it is placed");
        let filled = link.inbound.fill_room(room)?;
        if let Some(placed) = link.inbound.placed(room) {
            match placed.and_then(|()| operation.machine.handle_placed(from, &header)) {
                Ok(()) => {
                    self.queue_commands(key(&header));
                    self.finish_if_complete(key(&header));
                }
                Err(mismatch) => self.refuse(at, key(&header), mismatch),
            }
        }
        Ok(filled)
    }

    /// Takes every whole frame that was read from a peer.
    pub(super) fn take_frames(&mut self, at: usize) {
        while self.ending.is_none() && self.links[at].is_read() && self.links[at].inbound.placing().is_none() {
            let header = match self.links[at].inbound.header() {
                Ok(Some(header)) => header,
                Ok(None) => return self.links[at].inbound.make_room(None),
                Err(mismatch) => return self.refuse(at, self.oldest(at), mismatch),
            };
            if let Err(mismatch) = self.admit(at, &header) {
                return self.refuse(at, key(&header), mismatch);
            }
            if self.let_lie(at, &header) {
                continue;
            }
            let from = self.links[at].member.rank;
            let Some(body) = self.links[at].inbound.body(&header) else {
                let operation = self.operations.get_mut(&key(&header));
                return match operation.and_then(|operation| operation.machine.room(from, &header)) {
                    Some(room) => self.links[at].inbound.place(&header, room),
                    None => self.links[at].inbound.make_room(Some(&header)),
                };
            };
            if let Err(mismatch) = self.links[at].inbound.check(body) {
                return self.refuse(at, key(&header), mismatch);
            }
            if header.phase == Phase::Farewell {
                return self.take_farewell(at, Farewell::from_wire(header.chunk));
            }
            match self.operations.get_mut(&key(&header)) {
                None => self.links[at].inbound.keep(key(&header), &header),
                Some(operation) => {
                    if let Err(mismatch) = operation.machine.handle(from, &header, body) {
                        return self.refuse(at, key(&header), mismatch);
                    }
                    self.links[at].inbound.consume(&header);
                    self.queue_commands(key(&header));
                    self.finish_if_complete(key(&header));
                }
            }
        }
    }

    /// Whether the next frame of a peer is due, or may become due once its operation is started here.
    pub(super) fn admit(&self, at: usize, header: &Header) -> Result<(), Mismatch> {
        Mismatch::check("run", self.identity.run.0, header.run.0)?;
        Mismatch::check("generation", self.identity.generation.0, header.generation.0)?;
        match self.operations.get(&key(header)) {
            Some(operation) if header.phase != Phase::Farewell => {
                operation.machine.admit(self.links[at].member.rank, header)
            }
            _ => Ok(()),
        }
    }

    /// Hands a frame that was kept to its operation.
    pub(super) fn hand_over(&mut self, at: usize, header: &Header, body: &[u8]) {
        let from = self.links[at].member.rank;
        let Some(operation) = self.operations.get_mut(&key(header)) else { return };
        match operation.machine.handle(from, header, body) {
            Ok(()) => self.queue_commands(key(header)),
            Err(mismatch) => self.refuse(at, key(header), mismatch),
        }
    }

    /// What a peer was working on, as far as this rank knows.
    pub(super) fn oldest(&self, at: usize) -> Key {
        let rank = self.links[at].member.rank.0;
        let with_it = |o: &&Operation| o.machine.reduction().tag().group.contains(&rank);
        let tag = self.operations.values().find(with_it).map(|o| o.machine.reduction().tag());
        tag.map_or((Step(0), Bucket::CONTROL), |tag| (tag.step, tag.bucket))
    }

    pub(super) fn refuse(&mut self, at: usize, (step, bucket): Key, mismatch: Mismatch) {
        let (rank, address) = (self.links[at].member.rank, self.links[at].member.address);
        self.end(Ending::Failed(CollectiveError::Protocol { rank, address, step, bucket, mismatch }));
    }

    pub(super) fn take_farewell(&mut self, at: usize, farewell: Farewell) {
        let said_by = self.links[at].member.rank;
        match farewell {
            Farewell::Finished => {
                self.links[at].presence = Presence::Left;
                self.drop_outbound(at);
                self.check_presence(at);
            }
            Farewell::Aborted => self.heed(at, Ending::lost(at, "it ended the exchange")),
            Farewell::BecauseOf(rank) => match self.links.iter().position(|l| l.member.rank == rank) {
                Some(culprit) => self.heed(at, Ending::lost(culprit, &format!("rank {said_by} reports it"))),
                None => self.heed(at, Ending::Blamed { by: at }),
            },
        }
    }

    /// Ends everything as a peer's last word says, once what the others have sent is taken: that may complete an operation
    /// that the peer had completed when it spoke. Of several last words the first counts.
    fn heed(&mut self, said_by: usize, ending: Ending) {
        self.links[said_by].presence = Presence::Left;
        if self.heard.is_none() {
            self.heard = Some(ending.clone());
            for at in 0..self.links.len() {
                self.read(at);
            }
            self.end(ending);
        }
    }
}

//! One rank's part of a generation's data plane: the handshake with every peer, then the real machines that sum.
//!
//! The handshake is that of the transport in a few lines: both sides compare run, generation, world size and ranks; a peer of an older
//! generation may be about to follow and is dialled again, whoever differs otherwise ends the attempt.

use std::collections::BTreeMap;

use strath_collective::direct::Direct;
use strath_collective::error::Mismatch;
use strath_collective::exchange::Exchange;
use strath_collective::frame::Header;
use strath_collective::machine::Machine;
use strath_collective::reduction::Tag;
use strath_collective::ring::Ring;
use strath_collective::{Bucket, Payload};
use strath_core::{Fault, Generation, Rank, RunId, Step};

use crate::bug::Bug;
use crate::network::{ProcessId, StreamId};

/// Which rank of which generation this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The run.
    pub run: RunId,
    /// The membership.
    pub generation: Generation,
    /// This rank.
    pub rank: Rank,
    /// Ranks of the world.
    pub world_size: u32,
}

/// The first words of whoever connects, and the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// Who speaks.
    pub from: Identity,
    /// Who is spoken to.
    pub to: Rank,
}

/// A segment on its way.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// What stands above it.
    pub header: Header,
    /// Its values.
    pub body: Vec<u8>,
    /// What is true of it, whatever its header says: for the invariants alone.
    pub truth: Truth,
}

/// Whose a segment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truth {
    /// The process that sent it.
    pub process: ProcessId,
    /// In which generation.
    pub generation: Generation,
    /// For which step.
    pub step: Step,
    /// For which operation of the step.
    pub bucket: Bucket,
}

/// Which all-reduce a run uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// [`strath_collective::ring`]
    Ring,
    /// [`strath_collective::direct`]
    Direct,
    /// [`strath_collective::exchange`]
    Exchange,
}

impl Algorithm {
    fn start(self, tag: Tag, payload: Payload) -> Box<dyn Machine> {
        match self {
            Self::Ring => Box::new(Ring::new(tag, payload, Fault::NONE)),
            Self::Direct => Box::new(Direct::new(tag, payload, Fault::NONE)),
            Self::Exchange => Box::new(Exchange::new(tag, payload, Fault::NONE)),
        }
    }
}

/// What is known of a peer.
#[derive(Debug, Default)]
struct Peer {
    /// The stream that this rank has dialled, and whether it was answered.
    outbound: Option<(StreamId, bool)>,
    /// The stream that the peer has dialled.
    inbound: Option<StreamId>,
    /// Whether it has finished all that it owed, and left.
    has_left: bool,
    /// Frames of operations that are not started here.
    early: Vec<Frame>,
}

/// The connections of one rank of a generation.
pub struct Peers {
    identity: Identity,
    algorithm: Algorithm,
    others: BTreeMap<Rank, Peer>,
    machine: Option<Box<dyn Machine>>,
    lost: Option<Rank>,
    bug: Option<Bug>,
}

/// Which of the two streams between two ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The one that the peer has dialled, and sends on.
    Inbound,
    /// The one that this rank has dialled, and sends on.
    Outbound,
    /// The same, not answered yet.
    Unanswered,
}

/// What came of a hello or an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Greeted {
    /// The peer is the one expected.
    Peer,
    /// It is of an older generation, and may follow.
    MayFollow,
    /// It is another one for good.
    Wrong(Rank),
}

impl Peers {
    /// A rank that is connected to nobody yet.
    pub fn new(identity: Identity, algorithm: Algorithm, bug: Option<Bug>) -> Self {
        let ranks = (0..identity.world_size).map(Rank).filter(|rank| *rank != identity.rank);
        let others = ranks.map(|rank| (rank, Peer::default())).collect();
        Self { identity, algorithm, others, machine: None, lost: None, bug }
    }

    /// Who this rank is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// All others.
    pub fn ranks(&self) -> Vec<Rank> {
        self.others.keys().copied().collect()
    }

    /// What this rank says to a peer.
    pub fn hello(&self, to: Rank) -> Hello {
        Hello { from: self.identity, to }
    }

    /// Notes the stream on which a peer was dialled.
    pub fn dialled(&mut self, peer: Rank, stream: StreamId) {
        if let Some(peer) = self.others.get_mut(&peer) {
            peer.outbound = Some((stream, false));
        }
    }

    fn greeted(&self, hello: &Hello) -> Greeted {
        let Identity { run, generation, rank, world_size } = self.identity;
        let found = hello.from;
        let is_let_in = self.bug == Some(Bug::AcceptsOldGenerations) && self.others.contains_key(&found.rank);
        if is_let_in {
            return Greeted::Peer;
        }
        if found.run == run && found.generation < generation {
            return Greeted::MayFollow;
        }
        let same = (found.run, found.generation, found.world_size, hello.to) == (run, generation, world_size, rank);
        if same && self.others.contains_key(&found.rank) { Greeted::Peer } else { Greeted::Wrong(found.rank) }
    }

    /// Whoever has connected on a stream says this.
    pub fn hear_hello(&mut self, stream: StreamId, hello: &Hello) -> Greeted {
        let greeted = self.greeted(hello);
        if let (Greeted::Peer, Some(peer)) = (greeted, self.others.get_mut(&hello.from.rank)) {
            peer.inbound = Some(stream);
        }
        greeted
    }

    /// Whoever was connected to answers this.
    pub fn hear_answer(&mut self, stream: StreamId, answer: &Hello) -> Greeted {
        let greeted = self.greeted(answer);
        let peer = self.others.values_mut().find(|peer| peer.outbound == Some((stream, false)));
        if let (Greeted::Peer, Some(peer)) = (greeted, peer) {
            peer.outbound = Some((stream, true));
        }
        greeted
    }

    /// Whether every peer is connected both ways.
    pub fn is_connected(&self) -> bool {
        self.missing().is_none()
    }

    /// A peer that is not connected both ways.
    pub fn missing(&self) -> Option<Rank> {
        let is_here = |peer: &Peer| peer.inbound.is_some() && peer.outbound.is_some_and(|(_, answered)| answered);
        self.others.iter().find(|(_, peer)| !is_here(peer)).map(|(rank, _)| *rank)
    }

    /// Whose stream this is, and which of its two.
    pub fn of(&self, stream: StreamId) -> Option<(Rank, Way)> {
        let way = |peer: &Peer| match peer.outbound {
            _ if peer.inbound == Some(stream) => Some(Way::Inbound),
            Some((dialled, true)) if dialled == stream => Some(Way::Outbound),
            Some((dialled, false)) if dialled == stream => Some(Way::Unanswered),
            _ => None,
        };
        self.others.iter().find_map(|(rank, peer)| Some((*rank, way(peer)?)))
    }

    /// The stream on which a peer is sent to.
    pub fn stream_to(&self, rank: Rank) -> Option<StreamId> {
        self.others.get(&rank)?.outbound.map(|(stream, _)| stream)
    }

    /// A stream that was set up is over. One that ends in order matters only where something of the peer is missing.
    pub fn lose(&mut self, rank: Rank, in_order: bool) {
        if in_order {
            if let Some(peer) = self.others.get_mut(&rank) {
                peer.has_left = true;
            }
            if self.machine.as_ref().is_none_or(|machine| !machine.awaits(rank)) {
                return;
            }
        }
        self.lost.get_or_insert(rank);
    }

    /// The peer without which no sum comes about.
    pub fn lost(&self) -> Option<Rank> {
        self.lost
    }

    /// Starts a sum over all ranks.
    pub fn start(&mut self, step: Step, bucket: Bucket, values: Vec<i64>, accepted: &mut Vec<Truth>) {
        let Identity { run, generation, rank, world_size } = self.identity;
        let tag = Tag { run, generation, step, bucket, group: 0..world_size, rank };
        self.machine = Some(self.algorithm.start(tag, Payload::Integers(values)));
        for rank in self.ranks() {
            let kept = self.others.get_mut(&rank).map(|peer| std::mem::take(&mut peer.early)).unwrap_or_default();
            for frame in kept {
                self.take(rank, frame, accepted);
            }
        }
        let awaits = |rank: Rank| self.machine.as_ref().is_some_and(|machine| machine.awaits(rank));
        let left = self.others.iter().find(|(rank, peer)| peer.has_left && awaits(**rank));
        if let Some(rank) = left.map(|(rank, _)| *rank) {
            self.lost.get_or_insert(rank);
        }
    }

    /// The peer from whom a frame of an old generation would be due now, were it of this one.
    pub fn would_take(&self, frame: &Frame) -> Option<Rank> {
        let header = Header { generation: self.identity.generation, ..frame.header };
        let machine = self.machine.as_ref()?;
        self.others.keys().copied().find(|rank| machine.admit(*rank, &header).is_ok())
    }

    /// Takes a frame of a peer; one that does not fit breaks the connection. Notes those that a machine has `accepted`.
    pub fn take(&mut self, from: Rank, mut frame: Frame, accepted: &mut Vec<Truth>) {
        let Identity { run, generation, .. } = self.identity;
        if self.bug == Some(Bug::AcceptsOldGenerations) {
            frame.header.generation = generation;
        }
        let is_of_here = (frame.header.run, frame.header.generation) == (run, generation);
        let Some(machine) = &mut self.machine else { return self.keep(from, frame, is_of_here) };
        let tag = machine.reduction().tag();
        if (tag.step, tag.bucket) != (frame.header.step, frame.header.bucket) {
            return self.keep(from, frame, is_of_here);
        }
        let admitted = machine.admit(from, &frame.header);
        let handled = machine.handle(from, &frame.header, &frame.body);
        debug_assert_eq!(admitted, handled, "a machine takes what it admits");
        match handled {
            Ok(()) => accepted.push(frame.truth),
            Err(Mismatch { .. }) => _ = self.lost.get_or_insert(from),
        }
    }

    /// Keeps what may become due, as the transport does; what is of another generation breaks the connection.
    fn keep(&mut self, from: Rank, frame: Frame, is_of_here: bool) {
        match self.others.get_mut(&from) {
            Some(peer) if is_of_here => peer.early.push(frame),
            _ => _ = self.lost.get_or_insert(from),
        }
    }

    /// What is to be sent now, and to whom.
    pub fn outgoing(&mut self, process: ProcessId) -> Vec<(Rank, Frame)> {
        let generation = self.identity.generation;
        let Some(machine) = &mut self.machine else { return Vec::new() };
        let mut frames = Vec::new();
        while let Some(command) = machine.poll_command() {
            let header = machine.seal(command.header);
            let mut body = vec![0; header.body_bytes()];
            machine.encode(&header, &mut body);
            let truth = Truth { process, generation, step: header.step, bucket: header.bucket };
            frames.push((command.to, Frame { header, body, truth }));
        }
        frames
    }

    /// The sum, once it is there.
    pub fn result(&mut self) -> Option<Vec<i64>> {
        let machine = self.machine.take_if(|machine| machine.is_complete())?;
        machine.into_result().0.into_integers()
    }

    /// Whether a sum is under way.
    pub fn is_summing(&self) -> bool {
        self.machine.is_some()
    }
}

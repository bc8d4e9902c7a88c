//! Recursive doubling: pairs at distance 1, 2, 4 and so on exchange whole partial sums. For short vectors of four ranks and more.
//!
//! ```text
//! W = 4     round 0: 0 ◄─► 1   2 ◄─► 3          each has its pair's sum
//!           round 1: 0 ◄─► 2   1 ◄─► 3          each has everybody's
//! ```
//!
//! Cost for L values of a bytes: lg W · L · a bytes and lg W messages a rank in lg W hops, where the direct exchange needs 2 (W - 1)
//! messages: where messages cost more than bytes this is the fewest. Thakur, Rabenseifner and Gropp (2005, "Optimization of collective
//! communication operations in MPICH", section 4).
//!
//! Bits: both of a pair add the same two partial sums, and addition commutes, so all ranks round the same sum of pairs of pairs. Where a
//! term changes on its way (`bf16`) a pair would differ, so those go another way.

use std::collections::VecDeque;

use strath_core::{Fault, Rank};

use crate::error::Mismatch;
use crate::frame::{Header, Phase};
use crate::machine::{Machine, Outgoing, check_body};
use crate::payload::{Payload, Reduced};
use crate::reduction::{Reduction, Tag};
use crate::spares::Spares;

/// One rank's part of recursive doubling. A header's chunk is the round.
#[derive(Debug, Clone, PartialEq)]
pub struct Doubling {
    reduction: Reduction,
    rounds: u32,
    /// What this rank sends in each round that has begun, as it travels: the partial sum itself goes on growing.
    sent: Vec<Sent>,
    /// What came before its round, by round.
    early: Vec<Option<Vec<u8>>>,
    /// Rounds whose two sums were added.
    added: u32,
    /// Commands to be taken.
    outgoing: VecDeque<Outgoing>,
}

#[derive(Debug, Clone, PartialEq)]
struct Sent {
    header: Header,
    values: Vec<u8>,
}

impl Doubling {
    /// Whether so many ranks can sum in pairs of pairs.
    pub fn serves(group_size: u32) -> bool {
        group_size > 1 && group_size.is_power_of_two()
    }

    /// Starts this rank's part, with its term of the sum and its status word.
    ///
    /// # Panics
    /// Where the group's size is not a power of two above one or this rank not of it, or the payload is more than one segment.
    pub fn new(tag: Tag, payload: Payload, fault: Fault) -> Self {
        let reduction = Reduction::new(tag, payload, fault);
        assert!(Self::serves(reduction.size()), "{} ranks cannot form pairs of pairs", reduction.size());
        let rounds = reduction.size().ilog2();
        let (sent, outgoing) = (Vec::with_capacity(rounds as usize), VecDeque::with_capacity(rounds as usize));
        let mut doubling = Self { reduction, rounds, sent, early: vec![None; rounds as usize], added: 0, outgoing };
        doubling.begin_round();
        doubling
    }

    fn partner(&self, round: u32) -> Rank {
        self.reduction.rank_at(self.reduction.place() ^ (1 << round))
    }

    /// The round in which a rank of the group sends to this one.
    fn round_of(&self, from: Rank) -> Result<u32, Mismatch> {
        let place = self.reduction.place_of(from)?;
        let distance = place ^ self.reduction.place();
        if distance.is_power_of_two() {
            return Ok(distance.ilog2());
        }
        let expected = u64::from(self.partner(self.added.min(self.rounds - 1)).0);
        Err(Mismatch { field: "sender", expected, found: u64::from(from.0) })
    }

    fn has(&self, round: u32) -> bool {
        round < self.added || self.early[round as usize].is_some()
    }

    fn begin_round(&mut self) {
        let round = self.added;
        let most = self.reduction.whole_header();
        let mut values = vec![0; most.body_bytes()];
        let header = Header { chunk: round, ..self.reduction.pack(most, &mut values) };
        values.truncate(header.body_bytes());
        self.sent.push(Sent { header, values });
        self.outgoing.push_back(Outgoing { to: self.partner(round), header });
    }

    fn add(&mut self, body: &[u8]) {
        self.reduction.accumulate(&self.reduction.whole_header(), body);
        self.added += 1;
        if self.added < self.rounds {
            self.begin_round();
        }
    }
}

impl Machine for Doubling {
    fn admit(&self, from: Rank, header: &Header) -> Result<(), Mismatch> {
        let round = self.round_of(from)?;
        Mismatch::check("chunk", u64::from(round), u64::from(header.chunk))?;
        self.reduction.check_whole(&Header { chunk: 0, ..*header })?;
        Mismatch::check("segments", u64::from(!self.has(round)), 1)
    }

    fn handle(&mut self, from: Rank, header: &Header, body: &[u8]) -> Result<(), Mismatch> {
        self.admit(from, header)?;
        check_body(header, body)?;
        self.reduction.note_fault(header.fault);
        if header.chunk > self.added {
            self.early[header.chunk as usize] = Some(body.to_vec());
            return Ok(());
        }
        self.add(body);
        while let Some(body) = self.early.get_mut(self.added as usize).and_then(Option::take) {
            self.add(&body);
        }
        Ok(())
    }

    fn use_spares(&mut self, spares: &Spares) {
        self.reduction.use_spares(spares);
    }

    fn poll_command(&mut self) -> Option<Outgoing> {
        self.outgoing.pop_front()
    }

    fn reduction(&self) -> &Reduction {
        &self.reduction
    }

    fn is_complete(&self) -> bool {
        self.outgoing.is_empty() && self.added == self.rounds
    }

    fn awaits(&self, rank: Rank) -> bool {
        self.round_of(rank).is_ok_and(|round| !self.has(round))
    }

    fn slowest(&self) -> Option<Rank> {
        (0..self.rounds).find(|round| !self.has(*round)).map(|round| self.partner(round))
    }

    fn phase(&self) -> Phase {
        Phase::Reduce
    }

    fn into_result(mut self: Box<Self>) -> (Reduced, Fault) {
        self.reduction.round(&self.reduction.whole_header());
        self.reduction.into_result()
    }

    fn seal(&self, header: Header) -> Header {
        self.sent[header.chunk as usize].header
    }

    fn encode(&self, header: &Header, out: &mut [u8]) {
        out.copy_from_slice(&self.sent[header.chunk as usize].values);
    }

    fn pack(&self, header: Header, out: &mut [u8]) -> Header {
        let Sent { header, values } = &self.sent[header.chunk as usize];
        out[..values.len()].copy_from_slice(values);
        *header
    }

    fn lying(&self, header: &Header) -> Option<&[u8]> {
        Some(&self.sent[header.chunk as usize].values)
    }
}

//! Whole exchange: every rank sends its whole term to every other and sums for itself. For small messages.
//!
//! ```text
//! W = 3     place 0 ─► 1, 2     place 1 ─► 2, 0     place 2 ─► 0, 1      one hop, and all have all terms
//! ```
//!
//! Cost for L values of a bytes: (W - 1) · L · a bytes a rank, W/2 times those of ring and direct exchange and more, but one
//! hop in place of two: below some ten KiB it is the hops that cost.
//!
//! Bits: terms are added in ascending order of place, as the direct exchange does, and each rank rounds for itself. Where a
//! term changes on its way (`bf16`) ranks would differ in their own, so those go another way.

use std::collections::VecDeque;

use strath_core::{Fault, Rank};

use crate::error::Mismatch;
use crate::frame::{Header, Phase};
use crate::machine::{Machine, Outgoing, check_body};
use crate::payload::{Payload, Reduced};
use crate::reduction::{Reduction, Tag};
use crate::spares::Spares;

/// One rank's part of a whole exchange.
#[derive(Debug, Clone, PartialEq)]
pub struct Exchange {
    reduction: Reduction,
    /// The terms of the other places as they travelled; the own place's stays empty. They are added at the end, as the own
    /// term may be read until then.
    terms: Vec<Option<(Header, Vec<u8>)>>,
    /// Commands to be taken.
    outgoing: VecDeque<Outgoing>,
}

impl Exchange {
    /// Starts this rank's part, with its term of the sum and its status word.
    ///
    /// # Panics
    /// Where the group has fewer than two ranks or not this one, or the payload is more than one segment.
    pub fn new(tag: Tag, payload: Payload, fault: Fault) -> Self {
        let reduction = Reduction::new(tag, payload, fault);
        assert!(reduction.size() > 1, "an exchange has at least two ranks");
        let header = reduction.whole_header();
        let (place, size) = (reduction.place(), reduction.size());
        let outgoing = (1..size).map(|d| Outgoing { to: reduction.rank_at((place + d) % size), header }).collect();
        Self { terms: vec![None; size as usize], reduction, outgoing }
    }
}

impl Machine for Exchange {
    fn admit(&self, from: Rank, header: &Header) -> Result<(), Mismatch> {
        let place = self.reduction.place_of(from)?;
        self.reduction.check_operation(header)?;
        self.reduction.check_whole(header)?;
        Mismatch::check("segments", u64::from(self.terms[place as usize].is_none()), 1)
    }

    fn handle(&mut self, from: Rank, header: &Header, body: &[u8]) -> Result<(), Mismatch> {
        self.admit(from, header)?;
        check_body(header, body)?;
        let place = self.reduction.place_of(from)?;
        self.reduction.note_fault(header);
        self.terms[place as usize] = Some((*header, body.to_vec()));
        Ok(())
    }

    fn use_spares(&mut self, spares: Spares) {
        self.reduction.use_spares(spares);
    }

    fn poll_command(&mut self) -> Option<Outgoing> {
        self.outgoing.pop_front()
    }

    fn reduction(&self) -> &Reduction {
        &self.reduction
    }

    fn is_complete(&self) -> bool {
        self.outgoing.is_empty() && self.slowest().is_none()
    }

    fn awaits(&self, rank: Rank) -> bool {
        self.reduction.place_of(rank).is_ok_and(|place| self.terms[place as usize].is_none())
    }

    fn slowest(&self) -> Option<Rank> {
        self.reduction.tag().group.clone().map(Rank).find(|rank| self.awaits(*rank))
    }

    fn phase(&self) -> Phase {
        Phase::Reduce
    }

    fn into_result(self: Box<Self>) -> (Reduced, Fault) {
        let Self { mut reduction, terms, .. } = *self;
        let header = reduction.whole_header();
        let mut bodies: Vec<Vec<u8>> = terms.into_iter().flatten().map(|(_, body)| body).collect();
        let after = bodies.split_off(reduction.place() as usize);
        reduction.complete(&header, &bodies, &after);
        reduction.into_result()
    }
}

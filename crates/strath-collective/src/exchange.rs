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
    /// Of every term, but for its status word and, where the values take fewer bytes, its width.
    header: Header,
    /// The terms of the other places as they travelled; the own place's stays empty, and between two ranks all of it is, for as long as
    /// nothing has come. They are added at the end, as the own term may be read until then.
    terms: Vec<Option<Vec<u8>>>,
    /// Terms that have not come.
    missing: u32,
    /// Commands that were taken: term `sent` + 1 goes to the place so many further.
    sent: u32,
    /// Whether the terms are added already.
    is_summed: bool,
}

impl Exchange {
    /// Starts this rank's part, with its term of the sum and its status word.
    ///
    /// # Panics
    /// Where the group has fewer than two ranks or not this one, or the payload is more than one segment.
    pub fn new(tag: Tag, payload: Payload, fault: Fault) -> Self {
        let reduction = Reduction::new(tag, payload, fault);
        assert!(reduction.size() > 1, "an exchange has at least two ranks");
        let (missing, header) = (reduction.size() - 1, reduction.whole_header());
        Self { reduction, header, terms: Vec::new(), missing, sent: 0, is_summed: false }
    }

    fn lacks(&self, place: u32) -> bool {
        self.missing > 0 && self.terms.get(place as usize).is_none_or(Option::is_none)
    }

    /// Takes a term from where it lies, the last one straight into the sum: for a transport that has read this rank's own term for everybody.
    /// Refused as [`handle`](Machine::handle) refuses.
    pub(crate) fn handle_in_place(&mut self, from: Rank, header: &Header, body: &[u8]) -> Result<(), Mismatch> {
        self.admit(from, header)?;
        check_body(header, body)?;
        self.handle_due(from, header.fault, body);
        Ok(())
    }

    /// The same with a term that came under its [`header`](Self::header), which needs no further look.
    ///
    /// # Panics
    /// Where it is not [missing](Machine::awaits) or of another length.
    pub(crate) fn handle_due(&mut self, from: Rank, fault: Fault, body: &[u8]) {
        let place = self.reduction.place_of(from).ok().filter(|place| self.lacks(*place));
        let place = place.expect("a term that is missing");
        if self.missing == 1 { self.finish(place, fault, body) } else { self.keep(place, fault, body) }
    }

    /// Makes the sum, with the last term.
    fn finish(&mut self, last: u32, fault: Fault, body: &[u8]) {
        self.reduction.note_fault(fault);
        let place = self.reduction.place();
        if self.terms.is_empty() {
            // Of two.
            let (before, after) = std::slice::from_ref(&body).split_at(place as usize);
            self.reduction.complete(&self.header, before, after);
        } else {
            let term = |at: u32| if at == last { Some(body) } else { self.terms.get(at as usize)?.as_deref() };
            let bodies: Vec<&[u8]> = (0..self.reduction.size()).filter(|at| *at != place).filter_map(term).collect();
            let (before, after) = bodies.split_at(place as usize);
            self.reduction.complete(&self.header, before, after);
        }
        self.missing = 0;
        self.is_summed = true;
    }

    fn keep(&mut self, place: u32, fault: Fault, body: &[u8]) {
        self.reduction.note_fault(fault);
        self.terms.resize(self.reduction.size() as usize, None);
        self.terms[place as usize] = Some(body.to_vec());
        self.missing -= 1;
    }

    /// The header of every term whose values take the most bytes, but for its status word.
    pub(crate) fn header(&self) -> &Header {
        &self.header
    }
}

impl Machine for Exchange {
    fn admit(&self, from: Rank, header: &Header) -> Result<(), Mismatch> {
        let place = self.reduction.place_of(from)?;
        self.reduction.check_operation(header)?;
        self.reduction.check_whole(header)?;
        Mismatch::check("segments", u64::from(self.lacks(place)), 1)
    }

    fn handle(&mut self, from: Rank, header: &Header, body: &[u8]) -> Result<(), Mismatch> {
        self.admit(from, header)?;
        check_body(header, body)?;
        self.keep(self.reduction.place_of(from)?, header.fault, body);
        Ok(())
    }

    fn use_spares(&mut self, spares: &Spares) {
        // Nothing is kept on the way.
        self.reduction.use_spares_for_the_result(spares);
    }

    fn poll_command(&mut self) -> Option<Outgoing> {
        let (place, size) = (self.reduction.place(), self.reduction.size());
        (self.sent + 1 < size).then(|| {
            self.sent += 1;
            Outgoing { to: self.reduction.rank_at((place + self.sent) % size), header: self.header }
        })
    }

    fn reduction(&self) -> &Reduction {
        &self.reduction
    }

    fn is_complete(&self) -> bool {
        self.sent + 1 == self.reduction.size() && self.missing == 0
    }

    fn awaits(&self, rank: Rank) -> bool {
        self.reduction.place_of(rank).is_ok_and(|place| self.lacks(place))
    }

    fn slowest(&self) -> Option<Rank> {
        self.reduction.tag().group.clone().map(Rank).find(|rank| self.awaits(*rank))
    }

    fn phase(&self) -> Phase {
        Phase::Reduce
    }

    fn into_result(self: Box<Self>) -> (Reduced, Fault) {
        let Self { mut reduction, header, terms, is_summed, .. } = *self;
        if !is_summed {
            let mut bodies: Vec<Vec<u8>> = terms.into_iter().flatten().collect();
            let after = bodies.split_off(reduction.place() as usize);
            reduction.complete(&header, &bodies, &after);
        }
        reduction.into_result()
    }
}

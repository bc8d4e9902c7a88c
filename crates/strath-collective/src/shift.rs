//! A shift along a ring of chosen ranks: each sends its block to the next and takes that of the one before. What links are
//! measured with; it sums nothing.
//!
//! ```text
//! along = 0, 2, 5       0 ── block ──► 2 ── block ──► 5 ── block ──► 0        one hop; the ranks between take no part
//! ```

use std::collections::VecDeque;

use strath_core::{Fault, Rank};

use crate::error::Mismatch;
use crate::frame::{Header, Phase};
use crate::machine::{EARLY_SEGMENTS, Machine, Outgoing, check_body};
use crate::payload::{Payload, Reduced};
use crate::reduction::{Reduction, Tag};

/// One rank's part of a shift.
#[derive(Debug, Clone, PartialEq)]
pub struct Shift {
    reduction: Reduction,
    /// The place whose block comes.
    before: u32,
    /// Segments of it that have come.
    taken: usize,
    /// Commands to be taken.
    outgoing: VecDeque<Outgoing>,
}

impl Shift {
    /// The most integers of a block: what a peer that has not started keeps.
    pub const MOST_ENTRIES: usize = EARLY_SEGMENTS * crate::chunk::SEGMENT_BYTES / 8;

    /// Starts this rank's part; `along` are the ranks of the ring, of which this is one. `blocks` holds one for each place of the group,
    /// of which every rank sends its own, and comes back as the result: memory that was used before needs no new pages.
    ///
    /// # Panics
    /// Where there are fewer than two ranks or not this one, one is outside the group, or the blocks are of two lengths or too long.
    pub fn new(tag: Tag, along: &[Rank], blocks: Vec<i64>) -> Self {
        let places = (tag.group.end - tag.group.start) as usize;
        assert!(along.len() > 1, "a ring of {} ranks", along.len());
        assert!(blocks.len().is_multiple_of(places), "{} integers for {places} places", blocks.len());
        assert!(blocks.len() / places <= Self::MOST_ENTRIES, "{} integers for {places} places", blocks.len());
        let own = along.iter().position(|rank| *rank == tag.rank).expect("whoever shifts is on the ring");
        let neighbour = |at: usize| along[at % along.len()];
        let (before, after) = (neighbour(own + along.len() - 1), neighbour(own + 1));
        let reduction = Reduction::new(tag, Payload::Integers(blocks), Fault::NONE);
        let place = reduction.place();
        let outgoing = (0..reduction.segments(place))
            .map(|index| Outgoing { to: after, header: reduction.header(Phase::Gather, place, index) })
            .collect();
        let before = reduction.place_of(before).expect("the ring lies within the group");
        Self { reduction, before, taken: 0, outgoing }
    }
}

impl Machine for Shift {
    fn admit(&self, from: Rank, header: &Header) -> Result<(), Mismatch> {
        let expected = self.reduction.rank_at(self.before);
        Mismatch::check("sender", u64::from(expected.0), u64::from(from.0))?;
        self.reduction.check_operation(header)?;
        Mismatch::check("phase", Phase::Gather as u64, header.phase as u64)?;
        Mismatch::check("chunk", u64::from(self.before), u64::from(header.chunk))?;
        self.reduction.check_segment(header, self.taken)
    }

    fn handle(&mut self, from: Rank, header: &Header, body: &[u8]) -> Result<(), Mismatch> {
        self.admit(from, header)?;
        check_body(header, body)?;
        self.reduction.note_fault(header.fault);
        self.reduction.store(header, body);
        self.taken += 1;
        Ok(())
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
        rank == self.reduction.rank_at(self.before) && self.taken < self.reduction.segments(self.before)
    }

    fn slowest(&self) -> Option<Rank> {
        Some(self.reduction.rank_at(self.before)).filter(|rank| self.awaits(*rank))
    }

    fn phase(&self) -> Phase {
        Phase::Gather
    }

    fn into_result(self: Box<Self>) -> (Reduced, Fault) {
        self.reduction.into_result()
    }
}

//! Ring all-reduce: every rank talks to its two neighbours only.
//!
//! The vector is cut into W chunks, chunk c owned by the rank at place c. A chunk's sum starts at place c + 1 and is handed
//! to the right; every rank adds its term and hands it on; place c adds the last term, rounds, and sends the result round
//! once more.
//!
//! ```text
//!        ┌──────────────────────────────────────────┐
//!        ▼                                          │
//!     place 0 ───► place 1 ───► place 2 ───► ... place W-1
//!
//! chunk 1, W = 4:   starts at 2 ─► 3 adds ─► 0 adds ─► 1 adds and rounds     reduce-scatter, W - 1 hops
//!                   1 ─► 2 stores ─► 3 stores ─► 0 stores                    all-gather,     W - 1 hops
//! ```
//!
//! Seen from place r (all indices mod W), in round t = 0 .. W-2:
//!
//! ```text
//! reduce-scatter   sends chunk r - 1 - t, receives and adds to chunk r - 2 - t; the last is chunk r, its own
//! all-gather       sends chunk r - t,     receives and stores chunk r - 1 - t
//! ```
//!
//! W = 3, what each place sends (`0:` the chunk, the places whose terms are in it):
//!
//! ```text
//!            place 0        place 1        place 2
//! round 0    2: {0}         0: {1}         1: {2}           partial sums
//! round 1    1: {2,0}       2: {0,1}       0: {1,2}         partial sums
//!            0 complete     1 complete     2 complete       each owner rounds once
//! round 2    0              1              2                results
//! round 3    2              0              1                results
//! ```
//!
//! The rounds are a way to count, not a lockstep: chunks travel as segments, and a segment goes on as soon as it has been
//! added to, so a rank sends, receives and adds at the same time.
//!
//! Cost for L values of a bytes in and b bytes out: a rank sends (W - 1)/W · L · (a + b) bytes, the least there is; the
//! latency is 2 (W - 1) hops, which is why small messages take [`direct`](crate::direct).
//!
//! Bits: the order of chunk c's sum is ((x\[c+1\] + x\[c+2\]) + ...) + x\[c\], fixed by place; only the owner rounds. So all
//! ranks agree bitwise; integers do not depend on the order at all.
//!
//! A rank whose right neighbour may have to keep more than [`EARLY_SEGMENTS`] of its segments waits for that neighbour's
//! ready frame before it sends more.

use std::collections::VecDeque;

use strath_core::{Fault, Rank};

use crate::error::Mismatch;
use crate::frame::{Header, Phase};
use crate::machine::{EARLY_SEGMENTS, Machine, Outgoing, check_body};
use crate::payload::{Payload, Reduced};
use crate::reduction::{Reduction, Tag};
use crate::spares::Spares;

/// One rank's part of a ring all-reduce.
#[derive(Debug, Clone, PartialEq)]
pub struct Ring {
    reduction: Reduction,
    /// Segments of each chunk received with partial sums, in order.
    reduced: Vec<usize>,
    /// Segments of each chunk received as results, in order.
    gathered: Vec<usize>,
    /// Commands to be taken.
    outgoing: VecDeque<Outgoing>,
    /// Segments that wait for the right neighbour to be ready.
    held: VecDeque<Header>,
    right: RightNeighbour,
}

/// What this rank knows of the one that it sends to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RightNeighbour {
    /// Nothing yet; so many more segments may be sent.
    MayNotHaveStarted { credit: usize },
    /// It takes any number, because it has started or because all of them are few enough to be kept.
    TakesAll,
}

impl Ring {
    /// Starts this rank's part, with its term of the sum and its status word.
    ///
    /// # Panics
    /// Where the group has fewer than two ranks or not this one.
    pub fn new(tag: Tag, payload: Payload, fault: Fault) -> Self {
        let reduction = Reduction::new(tag, payload, fault);
        let (size, place) = (reduction.size(), reduction.place());
        assert!(size > 1, "a ring has at least two ranks");
        let mut ring = Self {
            reduced: vec![0; size as usize],
            gathered: vec![0; size as usize],
            outgoing: VecDeque::new(),
            held: VecDeque::new(),
            right: if sends_more_than_is_kept(&reduction, place) {
                RightNeighbour::MayNotHaveStarted { credit: EARLY_SEGMENTS }
            } else {
                RightNeighbour::TakesAll
            },
            reduction,
        };
        if sends_more_than_is_kept(&ring.reduction, ring.left()) {
            let header = ring.reduction.bare_header(Phase::Ready);
            ring.outgoing.push_back(Outgoing { to: ring.reduction.rank_at(ring.left()), header });
        }
        let first = ring.first_chunk();
        for index in 0..ring.reduction.segments(first) {
            ring.send(ring.reduction.header(Phase::Reduce, first, index));
        }
        ring
    }

    fn left(&self) -> u32 {
        (self.reduction.place() + self.reduction.size() - 1) % self.reduction.size()
    }

    fn right(&self) -> u32 {
        (self.reduction.place() + 1) % self.reduction.size()
    }

    /// The chunk whose sum starts here: r - 1, owned by the left neighbour.
    fn first_chunk(&self) -> u32 {
        self.left()
    }

    fn send(&mut self, header: Header) {
        match &mut self.right {
            RightNeighbour::MayNotHaveStarted { credit: 0 } => return self.held.push_back(header),
            RightNeighbour::MayNotHaveStarted { credit } => *credit -= 1,
            RightNeighbour::TakesAll => {}
        }
        let to = self.reduction.rank_at(self.right());
        self.outgoing.push_back(Outgoing { to, header });
    }

    /// Segments of a chunk whose partial sums have left this rank, so that results for them can be on their way.
    fn handed_on(&self, chunk: u32) -> usize {
        if chunk == self.first_chunk() {
            let still_held = self.held.iter().filter(|h| h.phase == Phase::Reduce && h.chunk == chunk).count();
            self.reduction.segments(chunk) - still_held
        } else {
            self.reduced[chunk as usize]
        }
    }

    /// A chunk that the left neighbour never sends in this phase; the first that it sends is named as what is due.
    fn not_due(&self, header: &Header) -> Mismatch {
        let due = match header.phase {
            Phase::Gather => self.left(),
            _ => (self.left() + self.reduction.size() - 1) % self.reduction.size(),
        };
        Mismatch { field: "chunk", expected: u64::from(due), found: u64::from(header.chunk) }
    }

    fn take_partial_sums(&mut self, header: &Header, body: &[u8]) {
        let index = self.reduced[header.chunk as usize];
        self.reduction.accumulate(header, body);
        self.reduced[header.chunk as usize] += 1;
        if header.chunk == self.reduction.place() {
            self.reduction.round(header);
            self.send(self.reduction.header(Phase::Gather, header.chunk, index));
        } else {
            self.send(self.reduction.header(Phase::Reduce, header.chunk, index));
        }
    }

    fn pass_results_on(&mut self, header: &Header) {
        let index = self.gathered[header.chunk as usize];
        self.gathered[header.chunk as usize] += 1;
        if header.chunk != self.right() {
            self.send(self.reduction.header(Phase::Gather, header.chunk, index));
        }
    }

    fn right_has_started(&mut self) {
        self.right = RightNeighbour::TakesAll;
        for header in std::mem::take(&mut self.held) {
            self.send(header);
        }
    }

    fn has_all_from_left(&self) -> bool {
        let place = self.reduction.place();
        (0..self.reduction.size()).all(|chunk| {
            let segments = self.reduction.segments(chunk);
            let reduced = chunk == self.first_chunk() || self.reduced[chunk as usize] == segments;
            let gathered = chunk == place || self.gathered[chunk as usize] == segments;
            reduced && gathered
        })
    }
}

/// Whether the rank at `place` sends more segments to its right neighbour than that one would keep before it has started:
/// both of them compute this, so one knows to wait for a ready frame and the other to send it.
fn sends_more_than_is_kept(reduction: &Reduction, place: u32) -> bool {
    let partial_sums = (0..reduction.size()).filter(|c| *c != place).map(|c| reduction.segments(c));
    partial_sums.sum::<usize>() > EARLY_SEGMENTS
}

impl Machine for Ring {
    fn admit(&self, from: Rank, header: &Header) -> Result<(), Mismatch> {
        let neighbour = if header.phase == Phase::Ready { self.right() } else { self.left() };
        let expected = self.reduction.rank_at(neighbour);
        Mismatch::check("sender", u64::from(expected.0), u64::from(from.0))?;
        self.reduction.check_operation(header)?;
        let chunk = header.chunk as usize;
        match header.phase {
            Phase::Reduce => {
                // The chunk that starts here never comes back as a partial sum.
                if header.chunk == self.first_chunk() {
                    return Err(self.not_due(header));
                }
                self.reduction.check_segment(header, self.reduced[chunk])
            }
            Phase::Gather => {
                // Nor does the chunk that is owned here as a result.
                if header.chunk == self.reduction.place() {
                    return Err(self.not_due(header));
                }
                let due = self.gathered[chunk];
                self.reduction.check_segment(header, due)?;
                // A result contains this rank's term, so it cannot be there before that term has left.
                let handed_on = self.handed_on(header.chunk);
                if due >= handed_on {
                    return Err(Mismatch { field: "results", expected: handed_on as u64, found: due as u64 + 1 });
                }
                Ok(())
            }
            Phase::Ready => {
                header.check_against(&self.reduction.bare_header(Phase::Ready))?;
                let due = u64::from(matches!(self.right, RightNeighbour::MayNotHaveStarted { .. }));
                Mismatch::check("ready frames", due, 1)
            }
            Phase::Farewell => Err(Mismatch { field: "phase", expected: Phase::Gather as u64, found: 4 }),
        }
    }

    fn handle(&mut self, from: Rank, header: &Header, body: &[u8]) -> Result<(), Mismatch> {
        self.admit(from, header)?;
        check_body(header, body)?;
        self.reduction.note_fault(header.fault);
        match header.phase {
            Phase::Reduce => self.take_partial_sums(header, body),
            Phase::Gather => {
                self.reduction.store(header, body);
                self.pass_results_on(header);
            }
            Phase::Ready | Phase::Farewell => self.right_has_started(),
        }
        Ok(())
    }

    fn room(&mut self, _from: Rank, header: &Header) -> Option<&mut [u8]> {
        if header.phase == Phase::Gather { self.reduction.room(header) } else { None }
    }

    fn handle_placed(&mut self, from: Rank, header: &Header) -> Result<(), Mismatch> {
        self.admit(from, header)?;
        Mismatch::check("phase", Phase::Gather as u64, header.phase as u64)?;
        self.reduction.note_fault(header.fault);
        self.reduction.placed(header);
        self.pass_results_on(header);
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
        self.outgoing.is_empty() && self.held.is_empty() && self.has_all_from_left()
    }

    fn awaits(&self, rank: Rank) -> bool {
        let from_left = rank == self.reduction.rank_at(self.left()) && !self.has_all_from_left();
        let from_right = rank == self.reduction.rank_at(self.right()) && !self.held.is_empty();
        from_left || from_right
    }

    fn slowest(&self) -> Option<Rank> {
        // A right neighbour that is not ready has not started, while the left one may only be waiting itself.
        let [left, right] = [self.left(), self.right()].map(|place| self.reduction.rank_at(place));
        [right, left].into_iter().find(|rank| self.awaits(*rank))
    }

    fn phase(&self) -> Phase {
        let own = self.reduction.place();
        if self.reduced[own as usize] < self.reduction.segments(own) { Phase::Reduce } else { Phase::Gather }
    }

    fn into_result(self: Box<Self>) -> (Reduced, Fault) {
        self.reduction.into_result()
    }
}

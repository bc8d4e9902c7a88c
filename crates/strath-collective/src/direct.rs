//! Direct exchange: slice j goes straight to its owner j, who adds everything, rounds once and sends the result to all.
//!
//! ```text
//! W = 3          place 0        place 1        place 2
//! reduce-scatter 1: ─► 1        0: ─► 0        0: ─► 0        every rank sends chunk j to place j
//!                2: ─► 2        2: ─► 2        1: ─► 1
//!                0 complete     1 complete     2 complete     each owner rounds once
//! all-gather     0: ─► 1, 2     1: ─► 0, 2     2: ─► 0, 1     every owner sends its result to all
//! ```
//!
//! Cost for L values of a bytes in and b bytes out: (W - 1)/W · L · (a + b) bytes a rank, like the ring, but two hops in
//! place of 2 (W - 1). In return W - 1 senders meet at every rank, and every pair of ranks talks.
//!
//! Bits: the owner adds the terms in ascending order of place. Integers are added as they come, as their order does not
//! matter; floats are kept until the terms of all ranks are there (two terms need no order, and are not kept).
//!
//! A rank sends segment k + [`WINDOW_SEGMENTS`] of a chunk once it has the result of segment k: so an owner keeps few
//! segments, the bytes in flight stay in the caches, and a peer that has not started holds no more than the window.

use std::collections::VecDeque;

use strath_core::{Fault, Rank};

use crate::error::Mismatch;
use crate::frame::{Header, Phase};
use crate::machine::{EARLY_SEGMENTS, Machine, Outgoing, check_body};
use crate::payload::{Payload, Reduced};
use crate::reduction::{Reduction, Tag};

/// Segments of a chunk that a rank sends ahead of the results it has. Over loopback one is faster than two: what is on its way
/// then stays in the second-level cache.
pub const WINDOW_SEGMENTS: usize = 1;
const _: () = assert!(WINDOW_SEGMENTS <= EARLY_SEGMENTS, "a peer that has not started must be able to keep the window");

/// One rank's part of a direct exchange.
#[derive(Debug, Clone, PartialEq)]
pub struct Direct {
    reduction: Reduction,
    /// What was exchanged with each place; this rank's own entry stays at its start.
    peers: Vec<Progress>,
    /// Segments of this rank's chunk that are complete.
    completed: usize,
    /// Commands to be taken.
    outgoing: VecDeque<Outgoing>,
}

/// What was exchanged with one peer.
#[derive(Debug, Clone, PartialEq, Default)]
struct Progress {
    /// Segments of the peer's chunk that were sent to it.
    sent: usize,
    /// Segments of the peer's chunk that came back as results.
    gathered: usize,
    /// Segments of this rank's chunk that the peer has sent.
    contributed: usize,
    /// Those of them that wait for other peers' terms, where the order matters.
    kept: VecDeque<Vec<u8>>,
}

impl Direct {
    /// Starts this rank's part, with its term of the sum and its status word.
    ///
    /// # Panics
    /// Where the group has fewer than two ranks or not this one.
    pub fn new(tag: Tag, payload: Payload, fault: Fault) -> Self {
        let reduction = Reduction::new(tag, payload, fault);
        assert!(reduction.size() > 1, "an exchange has at least two ranks");
        let peers = vec![Progress::default(); reduction.size() as usize];
        let mut direct = Self { reduction, peers, completed: 0, outgoing: VecDeque::new() };
        for place in direct.places_after_this() {
            direct.send_up_to_window(place);
        }
        direct
    }

    /// All other places, the right neighbour first, so that not all ranks begin with the same owner.
    fn places_after_this(&self) -> impl Iterator<Item = u32> + use<> {
        let (place, size) = (self.reduction.place(), self.reduction.size());
        (1..size).map(move |d| (place + d) % size)
    }

    fn send_up_to_window(&mut self, place: u32) {
        let progress = &mut self.peers[place as usize];
        let end = self.reduction.segments(place).min(progress.gathered + WINDOW_SEGMENTS);
        for index in progress.sent..end {
            let header = self.reduction.header(Phase::Reduce, place, index);
            self.outgoing.push_back(Outgoing { to: self.reduction.rank_at(place), header });
        }
        progress.sent = progress.sent.max(end);
    }

    fn take_terms(&mut self, place: u32, header: &Header, body: &[u8]) {
        self.peers[place as usize].contributed += 1;
        if self.keeps_terms() {
            self.peers[place as usize].kept.push_back(body.to_vec());
        } else {
            self.reduction.accumulate(header, body);
        }
        while self.next_is_complete() {
            self.complete_next();
        }
    }

    fn keeps_terms(&self) -> bool {
        self.reduction.vector().encoding().order_matters() && self.reduction.size() > 2
    }

    fn next_is_complete(&self) -> bool {
        self.completed < self.reduction.segments(self.reduction.place())
            && self.places_after_this().all(|p| self.peers[p as usize].contributed > self.completed)
    }

    fn complete_next(&mut self) {
        let place = self.reduction.place();
        let header = self.reduction.header(Phase::Gather, place, self.completed);
        if self.keeps_terms() {
            let (before, rest) = self.peers.split_at_mut(place as usize);
            let bodies = |peers: &mut [Progress]| -> Vec<Vec<u8>> {
                peers.iter_mut().map(|p| p.kept.pop_front().expect("every peer has contributed this segment")).collect()
            };
            let (before, after) = (bodies(before), bodies(&mut rest[1..]));
            self.reduction.accumulate_in_order(&header, &before, &after);
        }
        self.reduction.round(&header);
        self.completed += 1;
        for place in self.places_after_this() {
            self.outgoing.push_back(Outgoing { to: self.reduction.rank_at(place), header });
        }
    }
}

impl Machine for Direct {
    fn admit(&self, from: Rank, header: &Header) -> Result<(), Mismatch> {
        let place = self.reduction.place_of(from)?;
        self.reduction.check_operation(header)?;
        let progress = &self.peers[place as usize];
        match header.phase {
            Phase::Reduce => {
                Mismatch::check("chunk", u64::from(self.reduction.place()), u64::from(header.chunk))?;
                self.reduction.check_segment(header, progress.contributed)?;
                let most = self.completed + WINDOW_SEGMENTS;
                if progress.contributed >= most {
                    let found = progress.contributed as u64 + 1;
                    return Err(Mismatch { field: "segments in flight", expected: most as u64, found });
                }
                Ok(())
            }
            Phase::Gather => {
                Mismatch::check("chunk", u64::from(place), u64::from(header.chunk))?;
                self.reduction.check_segment(header, progress.gathered)?;
                // A result contains this rank's term, so it cannot be there before that term has left.
                if progress.gathered >= progress.sent {
                    let (expected, found) = (progress.sent as u64, progress.gathered as u64 + 1);
                    return Err(Mismatch { field: "results", expected, found });
                }
                Ok(())
            }
            Phase::Ready | Phase::Farewell => {
                Err(Mismatch { field: "phase", expected: Phase::Reduce as u64, found: header.phase as u64 })
            }
        }
    }

    fn handle(&mut self, from: Rank, header: &Header, body: &[u8]) -> Result<(), Mismatch> {
        self.admit(from, header)?;
        check_body(header, body)?;
        let place = self.reduction.place_of(from)?;
        self.reduction.note_fault(header);
        if header.phase == Phase::Reduce {
            self.take_terms(place, header, body);
        } else {
            self.reduction.store(header, body);
            self.peers[place as usize].gathered += 1;
            self.send_up_to_window(place);
        }
        Ok(())
    }

    fn poll_command(&mut self) -> Option<Outgoing> {
        self.outgoing.pop_front()
    }

    fn reduction(&self) -> &Reduction {
        &self.reduction
    }

    fn is_complete(&self) -> bool {
        self.outgoing.is_empty() && !self.reduction.tag().group.clone().any(|rank| self.awaits(Rank(rank)))
    }

    fn awaits(&self, rank: Rank) -> bool {
        self.reduction.place_of(rank).is_ok_and(|place| {
            let progress = &self.peers[place as usize];
            progress.contributed < self.reduction.segments(self.reduction.place())
                || progress.gathered < self.reduction.segments(place)
        })
    }

    fn slowest(&self) -> Option<Rank> {
        // Whoever has contributed may owe its results only because it waits for another.
        let sent = |place: &u32| self.peers[*place as usize].contributed + self.peers[*place as usize].gathered;
        let missing = self.places_after_this().filter(|place| self.awaits(self.reduction.rank_at(*place)));
        missing.min_by_key(sent).map(|place| self.reduction.rank_at(place))
    }

    fn phase(&self) -> Phase {
        let own = self.reduction.segments(self.reduction.place());
        if self.completed < own { Phase::Reduce } else { Phase::Gather }
    }

    fn into_result(self: Box<Self>) -> (Reduced, Fault) {
        self.reduction.into_result()
    }
}

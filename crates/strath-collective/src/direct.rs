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
//! Bits: the owner adds the terms in ascending order of place, once those of all ranks are there, and rounds in the same pass.
//!
//! The ranks go in step, as nobody completes segment k without everybody's terms of it:
//!
//! ```text
//! place r     terms 0 ─► all │ has all terms k, completes k: result k ─► all, terms k + 1 ─► all │ ...
//! ```
//!
//! Result and next terms leave together, so each side waits for the other once a segment, and the bytes in flight stay in the
//! caches. An owner keeps at most [`SEGMENTS_AHEAD`] segments of each peer, and a peer that has not started keeps one.

use std::borrow::Cow;
use std::collections::VecDeque;

use strath_core::{Fault, Rank};

use crate::error::Mismatch;
use crate::frame::{Header, Phase};
use crate::machine::{Machine, Outgoing, Taking, check_body};
use crate::payload::{Payload, Reduced};
use crate::reduction::{Reduction, Tag};
use crate::spares::Spares;

/// Terms of so many segments more than it has completed can reach an owner: a peer that has its result k, with which come terms
/// k + 1, may complete its own segment k + 1 before this rank does.
pub const SEGMENTS_AHEAD: usize = 2;

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
    /// Those of them that wait for other peers' terms: how many bytes each has, and memory that begins with them.
    kept: VecDeque<(usize, Vec<u8>)>,
    /// Memory for the next, while it arrives.
    arriving: Vec<u8>,
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
        direct.send_next_terms();
        direct
    }

    /// All other places, the right neighbour first, so that not all ranks begin with the same owner.
    fn places_after_this(&self) -> impl Iterator<Item = u32> + use<> {
        let (place, size) = (self.reduction.place(), self.reduction.size());
        (1..size).map(move |d| (place + d) % size)
    }

    /// Chunks differ by at most one segment, so with its own last segment a rank sends its last terms.
    fn send_next_terms(&mut self) {
        for place in self.places_after_this() {
            let progress = &mut self.peers[place as usize];
            if progress.sent == self.completed && progress.sent < self.reduction.segments(place) {
                let header = self.reduction.header(Phase::Reduce, place, progress.sent);
                self.outgoing.push_back(Outgoing { to: self.reduction.rank_at(place), header });
                progress.sent += 1;
            }
        }
    }

    fn next_is_complete(&self) -> bool {
        self.completed < self.reduction.segments(self.reduction.place())
            && self.places_after_this().all(|p| !self.peers[p as usize].kept.is_empty())
    }

    /// Whether the term of this place is the only one that the next segment still needs beside those of `lying`, and is its next.
    fn is_last_term(&self, place: u32, lying: &[Rank]) -> bool {
        let is_kept = |p: u32| !self.peers[p as usize].kept.is_empty();
        let mut others = self.places_after_this().filter(|other| *other != place);
        !is_kept(place) && others.all(|p| is_kept(p) || lying.contains(&self.reduction.rank_at(p)))
    }

    /// Completes the next segment, with terms from where they lie (of which places, and the terms) and the others' kept ones.
    fn complete_next(&mut self, lying: &[(u32, &[u8])]) {
        let place = self.reduction.place();
        let header = self.reduction.header(Phase::Gather, place, self.completed);
        let others = (0..).zip(&mut self.peers).filter(|(p, _)| *p != place);
        let term = |(p, peer): (u32, &mut Progress)| {
            if let Some((_, body)) = lying.iter().find(|(from, _)| *from == p) {
                return (body.len(), Cow::Borrowed(*body));
            }
            let (bytes, memory) = peer.kept.pop_front().expect("every other peer has contributed this segment");
            (bytes, Cow::Owned(memory))
        };
        let terms: Vec<(usize, Cow<'_, [u8]>)> = others.map(term).collect();
        let bodies: Vec<&[u8]> = terms.iter().map(|(bytes, memory)| &memory[..*bytes]).collect();
        let (before, after) = bodies.split_at(place as usize);
        self.reduction.complete(&header, before, after);
        for (_, memory) in terms {
            if let Cow::Owned(memory) = memory {
                self.reduction.spares().give_bytes(memory);
            }
        }
        self.completed += 1;
        for place in self.places_after_this() {
            self.outgoing.push_back(Outgoing { to: self.reduction.rank_at(place), header });
        }
        self.send_next_terms();
    }

    /// The same with the last terms that it needs, whose places and headers these are.
    fn complete_lying(&mut self, segments: &[(u32, Header, &[u8])]) {
        for (place, header, _) in segments {
            self.peers[*place as usize].contributed += 1;
            self.reduction.note_fault(header.fault);
        }
        let lying: Vec<(u32, &[u8])> = segments.iter().map(|(place, _, body)| (*place, *body)).collect();
        self.complete_next(&lying);
        self.complete_kept();
    }

    fn complete_kept(&mut self) {
        while self.next_is_complete() {
            self.complete_next(&[]);
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
                let most = self.completed + SEGMENTS_AHEAD;
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
        if header.phase == Phase::Reduce && self.is_last_term(place, &[]) {
            self.complete_lying(&[(place, *header, body)]);
            return Ok(());
        }
        match self.room(from, header) {
            Some(room) => room.copy_from_slice(body),
            None => self.reduction.store(header, body),
        }
        self.handle_placed(from, header)
    }

    fn taking(&self, from: Rank, header: &Header, lying: &[Rank]) -> Taking {
        match self.reduction.place_of(from) {
            Ok(place) if header.phase == Phase::Reduce && self.peers[place as usize].kept.is_empty() => {
                if self.is_last_term(place, lying) { Taking::Together } else { Taking::Later }
            }
            _ => Taking::Now,
        }
    }

    fn handle_together(&mut self, segments: &[(Rank, Header, &[u8])]) -> Result<(), (Rank, Mismatch)> {
        let ranks: Vec<Rank> = segments.iter().map(|(from, ..)| *from).collect();
        let mut lying = Vec::with_capacity(segments.len());
        for (from, header, body) in segments {
            let checked = self.admit(*from, header).and_then(|()| check_body(header, body));
            let place = checked.and_then(|()| self.reduction.place_of(*from)).map_err(|mismatch| (*from, mismatch))?;
            if header.phase != Phase::Reduce || !self.is_last_term(place, &ranks) {
                let (expected, found) = (self.peers.len() as u64 - 1, segments.len() as u64);
                return Err((*from, Mismatch { field: "terms of a segment", expected, found }));
            }
            lying.push((place, *header, *body));
        }
        self.complete_lying(&lying);
        Ok(())
    }

    fn room(&mut self, from: Rank, header: &Header) -> Option<&mut [u8]> {
        if header.phase == Phase::Gather {
            return self.reduction.room(header);
        }
        let arriving = &mut self.peers[self.reduction.place_of(from).ok()? as usize].arriving;
        if arriving.len() < header.body_bytes() {
            *arriving = self.reduction.spares().take_bytes(header.body_bytes());
        }
        Some(&mut arriving[..header.body_bytes()])
    }

    fn handle_placed(&mut self, from: Rank, header: &Header) -> Result<(), Mismatch> {
        self.admit(from, header)?;
        let progress = &mut self.peers[self.reduction.place_of(from)? as usize];
        if header.phase == Phase::Reduce {
            progress.contributed += 1;
            progress.kept.push_back((header.body_bytes(), std::mem::take(&mut progress.arriving)));
        } else {
            progress.gathered += 1;
            self.reduction.placed(header);
        }
        self.reduction.note_fault(header.fault);
        self.complete_kept();
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

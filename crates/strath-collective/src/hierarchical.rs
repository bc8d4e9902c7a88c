//! Hierarchical all-reduce: the ranks of a host sum among themselves first, the hosts form a ring, results go back.
//!
//! ```text
//!  host 0: places 0, 1          host 1: places 2, 3, 4         host 2: place 5
//!  ┌───────────────┐            ┌───────────────────┐          ┌─────────┐
//!  │ 0 ◄─────► 1   │            │ 2 ◄───► 3 ◄───► 4 │          │    5    │      terms to a chunk's handler, results from it
//!  └─┬─────────┬───┘            └─┬───────┬─────────┘          └──┬──┬───┘
//!    └─────────┼── chunks (g,0) ──┴───────┼───────────────────────┘  │          partial sums of hosts, then results,
//!              └── chunks (g,1) ──────────┴──────────────────────────┘          from host to host and round again
//! ```
//!
//! M hosts, W ranks, h = W / M rounded up. The vector is cut into M h chunks; chunk (g, i), number g h + i, is *handled* on every
//! host by that host's member i mod (its members), so hosts may have unequal numbers of ranks. Seen from host x (hosts mod M):
//!
//! ```text
//! 1  every member sends its term of chunk (g, i) to the chunk's handler on its host, who adds all of them
//! 2  the handlers of (g, i) form a ring over hosts: the sum starts at host g + 1, each adds its host's, host g is the last and rounds
//! 3  the result goes round the same ring, from host g on
//! 4  every handler sends the result to its host's other members
//! ```
//!
//! Segments go on as soon as they are complete, so all four run at the same time, and handlers of different i use the link
//! between hosts side by side. A host without a second rank skips 1 and 4; where no host has one this is the ring.
//!
//! Cost for L values of a bytes in and b bytes out: (M - 1)/M · L · (a + b) bytes leave a host, against (W - 1)/W · L · (a + b) for a ring of
//! ranks and H (W - H)/W · L · (a + b) for the direct exchange with H ranks a host; within a host (H - 1) · L · (a + b). Latency: two hops
//! within hosts and 2 (M - 1) between them.
//!
//! Bits: terms are added as they come, so this is for sums that do not depend on the order; those have the bits that every other
//! algorithm gives them.
//!
//! A rank that may have to keep more than [`EARLY_SEGMENTS`] segments of another's says when it has started, as in the
//! [`ring`](crate::ring).

use std::collections::VecDeque;

use strath_core::{Fault, Rank};

use crate::error::Mismatch;
use crate::frame::{Header, Phase};
use crate::hosts::Hosts;
use crate::machine::{EARLY_SEGMENTS, Machine, Outgoing, check_body};
use crate::payload::{Payload, Reduced};
use crate::reduction::{Reduction, Tag};
use crate::spares::Spares;

/// One rank's part of a hierarchical all-reduce.
#[derive(Debug, Clone, PartialEq)]
pub struct Hierarchical {
    reduction: Reduction,
    routes: Routes,
    chunks: Vec<Progress>,
    peers: Vec<Peer>,
    /// Commands to be taken.
    outgoing: VecDeque<Outgoing>,
}

/// Segments of one chunk that have come and gone, in order.
#[derive(Debug, Clone, PartialEq)]
struct Progress {
    /// Terms that each member of this host has sent, where the chunk is handled here.
    terms: Vec<usize>,
    /// Partial sums that came from the host before, where it is handled here.
    partial_sums: usize,
    /// Segments that go to the next host or the handler, held back or not: where it is handled here, those that are complete.
    left: usize,
    /// Results that came.
    results: usize,
}

/// What this rank owes one place, and is owed.
#[derive(Debug, Clone, PartialEq)]
struct Peer {
    /// Segments with partial sums or terms that it still has to send.
    due_sums: usize,
    /// Segments with results that it still has to send.
    due_results: usize,
    /// Whether it takes any number of segments.
    start: Start,
    /// Segments that wait until it does.
    held: VecDeque<Header>,
}

/// What this rank knows of a peer's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// Nothing yet; so many more segments may be sent.
    Unknown { credit: usize },
    /// It takes any number, because it has started or because all of them are few enough to be kept.
    TakesAll,
}

/// Who handles which chunk.
#[derive(Debug, Clone, PartialEq)]
struct Routes {
    /// The places of each host.
    members: Vec<Vec<u32>>,
    /// The host of each place.
    host_of: Vec<u32>,
    /// Handlers of a host, h.
    handlers: u32,
}

impl Routes {
    fn new(hosts: &Hosts) -> Self {
        let host_of = (0..hosts.world_size()).map(|place| hosts.of(place)).collect();
        Self { members: hosts.members(), host_of, handlers: hosts.world_size().div_ceil(hosts.count()) }
    }

    fn hosts(&self) -> u32 {
        self.members.len() as u32
    }

    fn chunks(&self) -> u32 {
        self.hosts() * self.handlers
    }

    /// The host that adds the last term of a chunk and rounds.
    fn owner(&self, chunk: u32) -> u32 {
        chunk / self.handlers
    }

    fn host(&self, place: u32) -> u32 {
        self.host_of[place as usize]
    }

    fn handler(&self, host: u32, chunk: u32) -> u32 {
        let members = &self.members[host as usize];
        members[(chunk % self.handlers) as usize % members.len()]
    }

    fn handles(&self, place: u32, chunk: u32) -> bool {
        self.handler(self.host(place), chunk) == place
    }

    fn before(&self, host: u32) -> u32 {
        (host + self.hosts() - 1) % self.hosts()
    }

    fn after(&self, host: u32) -> u32 {
        (host + 1) % self.hosts()
    }

    /// Whether `from` sends `to` segments of a chunk: with sums, with results.
    fn sends(&self, from: u32, to: u32, chunk: u32) -> (bool, bool) {
        let (host, other) = (self.host(from), self.host(to));
        if host == other {
            return (self.handles(to, chunk), self.handles(from, chunk));
        }
        let neighbours = self.after(host) == other && self.handles(from, chunk) && self.handles(to, chunk);
        let owner = self.owner(chunk);
        (neighbours && owner != host, neighbours && owner != other)
    }
}

impl Hierarchical {
    /// Starts this rank's part, with its term of the sum and its status word; `hosts` are those of the group's places.
    ///
    /// # Panics
    /// Where the group is not that of `hosts`, has not this rank or is on one host, or the sum depends on the order of its terms.
    pub fn new(tag: Tag, payload: Payload, fault: Fault, hosts: &Hosts) -> Self {
        let routes = Routes::new(hosts);
        let reduction = Reduction::with_chunks(tag, payload, fault, routes.chunks());
        assert_eq!(reduction.size(), hosts.world_size(), "every place of the group has a host");
        assert!(hosts.count() > 1, "a hierarchy has at least two hosts");
        assert!(!reduction.vector().encoding().order_matters(), "terms are added as they come");
        let place = reduction.place();
        let terms = routes.members[routes.host(place) as usize].len();
        let progress = Progress { terms: vec![0; terms], partial_sums: 0, left: 0, results: 0 };
        let mut machine = Self {
            chunks: vec![progress; routes.chunks() as usize],
            peers: Vec::new(),
            outgoing: VecDeque::new(),
            reduction,
            routes,
        };
        machine.peers = (0..machine.reduction.size()).map(|peer| machine.peer(peer)).collect();
        for peer in machine.others() {
            if machine.peers[peer as usize].due_sums > EARLY_SEGMENTS {
                let header = machine.reduction.bare_header(Phase::Ready);
                machine.outgoing.push_back(Outgoing { to: machine.reduction.rank_at(peer), header });
            }
        }
        // The sums that start on this host first.
        let (chunks, first) = (machine.routes.chunks(), machine.routes.host(place) * machine.routes.handlers);
        for chunk in (1..=chunks).map(|back| (first + chunks - back) % chunks) {
            if machine.routes.handles(place, chunk) {
                machine.pass_on(chunk);
            } else {
                let handler = machine.routes.handler(machine.routes.host(place), chunk);
                machine.chunks[chunk as usize].left = machine.reduction.segments(chunk);
                for index in 0..machine.reduction.segments(chunk) {
                    machine.send(handler, machine.reduction.header(Phase::Reduce, chunk, index));
                }
            }
        }
        machine
    }

    fn place(&self) -> u32 {
        self.reduction.place()
    }

    fn host(&self) -> u32 {
        self.routes.host(self.place())
    }

    fn others(&self) -> impl Iterator<Item = u32> + use<> {
        let own = self.place();
        (0..self.reduction.size()).filter(move |place| *place != own)
    }

    /// What is exchanged with a place, before anything was.
    fn peer(&self, peer: u32) -> Peer {
        let own = self.place();
        let (mut due_sums, mut due_results, mut sums_for_it) = (0, 0, 0);
        for chunk in (0..self.routes.chunks()).filter(|_| peer != own) {
            let segments = self.reduction.segments(chunk);
            let (sums, results) = self.routes.sends(peer, own, chunk);
            due_sums += if sums { segments } else { 0 };
            due_results += if results { segments } else { 0 };
            sums_for_it += if self.routes.sends(own, peer, chunk).0 { segments } else { 0 };
        }
        // Both of a pair compute this, so one knows to wait for a ready frame and the other to send it.
        let start =
            if sums_for_it > EARLY_SEGMENTS { Start::Unknown { credit: EARLY_SEGMENTS } } else { Start::TakesAll };
        Peer { due_sums, due_results, start, held: VecDeque::new() }
    }

    fn send(&mut self, place: u32, header: Header) {
        let peer = &mut self.peers[place as usize];
        match &mut peer.start {
            Start::Unknown { credit: 0 } => return peer.held.push_back(header),
            Start::Unknown { credit } => *credit -= 1,
            Start::TakesAll => {}
        }
        self.outgoing.push_back(Outgoing { to: self.reduction.rank_at(place), header });
    }

    /// Sends on the segments of a chunk that is handled here which are complete on this host.
    fn pass_on(&mut self, chunk: u32) {
        let (host, owner) = (self.host(), self.routes.owner(chunk));
        let next = self.routes.handler(self.routes.after(host), chunk);
        while self.next_is_complete(chunk) {
            let index = self.chunks[chunk as usize].left;
            self.chunks[chunk as usize].left += 1;
            if owner == host {
                let header = self.reduction.header(Phase::Gather, chunk, index);
                self.reduction.round(&header);
                self.send(next, header);
                self.tell_members(header);
            } else {
                self.send(next, self.reduction.header(Phase::Reduce, chunk, index));
            }
        }
    }

    fn next_is_complete(&self, chunk: u32) -> bool {
        let progress = &self.chunks[chunk as usize];
        let own = self.place();
        let members = self.routes.members[self.host() as usize].iter().zip(&progress.terms);
        let starts_here = self.routes.owner(chunk) == self.routes.before(self.host());
        progress.left < self.reduction.segments(chunk)
            && members.filter(|(member, _)| **member != own).all(|(_, terms)| *terms > progress.left)
            && (starts_here || progress.partial_sums > progress.left)
    }

    /// Segments of a chunk whose terms or partial sums have left this rank, so that results for them can be on their way.
    fn sent(&self, chunk: u32) -> usize {
        let held = self.peers.iter().flat_map(|peer| &peer.held);
        let waiting = held.filter(|header| header.phase == Phase::Reduce && header.chunk == chunk).count();
        self.chunks[chunk as usize].left - waiting
    }

    fn tell_members(&mut self, header: Header) {
        for member in self.routes.members[self.host() as usize].clone() {
            if member != self.place() {
                self.send(member, header);
            }
        }
    }

    fn take_sums(&mut self, place: u32, header: &Header, body: &[u8]) {
        self.reduction.accumulate(header, body);
        let members = &self.routes.members[self.host() as usize];
        let progress = &mut self.chunks[header.chunk as usize];
        match members.iter().position(|member| *member == place) {
            Some(member) => progress.terms[member] += 1,
            None => progress.partial_sums += 1,
        }
        self.peers[place as usize].due_sums -= 1;
        self.pass_on(header.chunk);
    }

    fn take_results(&mut self, place: u32, header: &Header, body: &[u8]) {
        self.reduction.store(header, body);
        self.chunks[header.chunk as usize].results += 1;
        self.peers[place as usize].due_results -= 1;
        if self.routes.handles(self.place(), header.chunk) {
            let next = self.routes.after(self.host());
            let index = self.chunks[header.chunk as usize].results - 1;
            let onward = self.reduction.header(Phase::Gather, header.chunk, index);
            if next != self.routes.owner(header.chunk) {
                self.send(self.routes.handler(next, header.chunk), onward);
            }
            self.tell_members(onward);
        }
    }

    /// A chunk that a place sends this rank in a phase, to be named as what is due where another came.
    fn not_due(&self, place: u32, header: &Header) -> Mismatch {
        let sends = |chunk: &u32| {
            let (sums, results) = self.routes.sends(place, self.place(), *chunk);
            if header.phase == Phase::Reduce { sums } else { results }
        };
        match (0..self.routes.chunks()).find(sends) {
            Some(due) => Mismatch { field: "chunk", expected: u64::from(due), found: u64::from(header.chunk) },
            None => Mismatch { field: "segments", expected: 0, found: 1 },
        }
    }
}

impl Machine for Hierarchical {
    fn admit(&self, from: Rank, header: &Header) -> Result<(), Mismatch> {
        let place = self.reduction.place_of(from)?;
        self.reduction.check_operation(header)?;
        let (sums, results) = self.routes.sends(place, self.place(), header.chunk);
        let progress = &self.chunks[header.chunk as usize];
        match header.phase {
            Phase::Reduce if sums => {
                let member = self.routes.members[self.host() as usize].iter().position(|member| *member == place);
                self.reduction.check_segment(header, member.map_or(progress.partial_sums, |m| progress.terms[m]))
            }
            Phase::Gather if results => {
                self.reduction.check_segment(header, progress.results)?;
                // A result contains this rank's term, so it cannot be there before that term has left.
                let left = self.sent(header.chunk);
                if progress.results >= left {
                    let (expected, found) = (left as u64, progress.results as u64 + 1);
                    return Err(Mismatch { field: "results", expected, found });
                }
                Ok(())
            }
            Phase::Reduce | Phase::Gather => Err(self.not_due(place, header)),
            Phase::Ready => {
                header.check_against(&self.reduction.bare_header(Phase::Ready))?;
                let due = u64::from(matches!(self.peers[place as usize].start, Start::Unknown { .. }));
                Mismatch::check("ready frames", due, 1)
            }
            Phase::Farewell => Err(Mismatch { field: "phase", expected: Phase::Gather as u64, found: 4 }),
        }
    }

    fn handle(&mut self, from: Rank, header: &Header, body: &[u8]) -> Result<(), Mismatch> {
        self.admit(from, header)?;
        check_body(header, body)?;
        let place = self.reduction.place_of(from)?;
        self.reduction.note_fault(header.fault);
        match header.phase {
            Phase::Reduce => self.take_sums(place, header, body),
            Phase::Gather => self.take_results(place, header, body),
            Phase::Ready | Phase::Farewell => {
                self.peers[place as usize].start = Start::TakesAll;
                for header in std::mem::take(&mut self.peers[place as usize].held) {
                    self.send(place, header);
                }
            }
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
        self.outgoing.is_empty() && self.slowest().is_none()
    }

    fn awaits(&self, rank: Rank) -> bool {
        self.reduction.place_of(rank).is_ok_and(|place| {
            let peer = &self.peers[place as usize];
            peer.due_sums + peer.due_results + peer.held.len() > 0
        })
    }

    fn slowest(&self) -> Option<Rank> {
        // One that is not ready has not started; one that owes sums may only be waiting itself, one that owes results surely is.
        let owes = |place: &u32| {
            let peer = &self.peers[*place as usize];
            (peer.held.len(), peer.due_sums, peer.due_results)
        };
        let missing = self.others().filter(|place| self.awaits(self.reduction.rank_at(*place)));
        missing.max_by_key(owes).map(|place| self.reduction.rank_at(place))
    }

    fn phase(&self) -> Phase {
        if self.peers.iter().any(|peer| peer.due_sums > 0) { Phase::Reduce } else { Phase::Gather }
    }

    fn into_result(self: Box<Self>) -> (Reduced, Fault) {
        self.reduction.into_result()
    }
}

//! What the algorithms share: the vector, whose it is, its segments and its status word.

use std::ops::Range;

use strath_core::{Fault, Generation, Rank, RunId, Step};

use crate::bucket::Bucket;
use crate::chunk::{self, Cut};
use crate::error::Mismatch;
use crate::frame::{Header, Phase};
use crate::packing::Vector;
use crate::payload::{Payload, Reduced};
use crate::spares::Spares;

/// Which operation of which membership this is, and who takes part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// The run.
    pub run: RunId,
    /// The membership.
    pub generation: Generation,
    /// The step.
    pub step: Step,
    /// The operation of the step.
    pub bucket: Bucket,
    /// The consecutive ranks that sum.
    pub group: Range<u32>,
    /// This rank, one of them.
    pub rank: Rank,
}

/// A vector being summed over a group. *Place* is a rank's index in the group. There are as many chunks as places, chunk `c`
/// owned by place `c`, unless an algorithm asks for [another number](Self::with_chunks).
#[derive(Debug, Clone, PartialEq)]
pub struct Reduction {
    tag: Tag,
    vector: Vector,
    fault: Fault,
    cut: Cut,
    chunks: u32,
    /// Memory for what is kept on the way.
    spares: Spares,
}

impl Reduction {
    /// Starts from this rank's term and status word.
    ///
    /// # Panics
    /// Where the rank is not in the group, or the halves of a wide payload differ in length.
    pub fn new(tag: Tag, payload: Payload, fault: Fault) -> Self {
        let places = tag.group.end - tag.group.start;
        Self::with_chunks(tag, payload, fault, places)
    }

    /// The same, cut into `chunks` chunks.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    pub fn with_chunks(tag: Tag, payload: Payload, fault: Fault, chunks: u32) -> Self {
        assert!(tag.group.contains(&tag.rank.0), "rank {} is not in the group {:?}", tag.rank, tag.group);
        let vector = Vector::new(payload);
        let encoding = vector.encoding();
        let cut = Cut::new(encoding.cut_width(), tag.group.end - tag.group.start);
        Self { tag, vector, fault, cut, chunks, spares: Spares::default() }
    }

    /// Which operation this is.
    pub fn tag(&self) -> &Tag {
        &self.tag
    }

    /// The vector.
    pub fn vector(&self) -> &Vector {
        &self.vector
    }

    /// Ranks in the group.
    pub fn size(&self) -> u32 {
        self.tag.group.end - self.tag.group.start
    }

    /// This rank's place.
    pub fn place(&self) -> u32 {
        self.tag.rank.0 - self.tag.group.start
    }

    /// The rank at a place.
    pub fn rank_at(&self, place: u32) -> Rank {
        Rank(self.tag.group.start + place)
    }

    /// The place of a rank that may send to this one: any other of the group.
    ///
    /// # Errors
    /// [`Mismatch`] where it is this rank itself or outside the group.
    pub fn place_of(&self, from: Rank) -> Result<u32, Mismatch> {
        let Tag { group, rank, .. } = &self.tag;
        if !group.contains(&from.0) || from == *rank {
            let expected = u64::from(self.rank_at((self.place() + 1) % self.size()).0);
            return Err(Mismatch { field: "sender", expected, found: u64::from(from.0) });
        }
        Ok(from.0 - group.start)
    }

    /// Number of segments of a chunk.
    pub fn segments(&self, chunk: u32) -> usize {
        self.cut.segments(self.chunk(chunk).len())
    }

    fn chunk(&self, chunk: u32) -> Range<usize> {
        chunk::bounds(self.vector.len(), self.chunks, chunk)
    }

    /// The header of a segment, with the status word as it stands now.
    pub fn header(&self, phase: Phase, chunk: u32, index: usize) -> Header {
        let segment = self.cut.segment(self.chunk(chunk).len(), index);
        Header {
            chunk,
            offset: segment.start as u64,
            length: segment.len() as u32,
            width: self.vector.encoding().width(phase) as u32,
            ..self.bare_header(phase)
        }
    }

    /// The header of a frame without values.
    pub fn bare_header(&self, phase: Phase) -> Header {
        Header {
            phase,
            encoding: self.vector.encoding(),
            run: self.tag.run,
            generation: self.tag.generation,
            step: self.tag.step,
            bucket: self.tag.bucket,
            chunk: 0,
            group_start: self.tag.group.start,
            group_end: self.tag.group.end,
            entries: self.vector.len() as u64,
            offset: 0,
            length: 0,
            width: 0,
            fault: self.fault,
        }
    }

    /// Checks all that a header says about the operation as a whole, and that its chunk exists.
    ///
    /// # Errors
    /// [`Mismatch`] naming the first field that differs.
    pub fn check_operation(&self, header: &Header) -> Result<(), Mismatch> {
        let Header { chunk, offset, length, width, .. } = *header;
        header.check_against(&Header { chunk, offset, length, width, ..self.bare_header(header.phase) })?;
        let most = self.chunks - 1;
        if chunk > most {
            return Err(Mismatch { field: "chunk", expected: u64::from(most), found: u64::from(chunk) });
        }
        Ok(())
    }

    /// Checks that a header is that of segment `index` of its chunk, and that the chunk has so many.
    ///
    /// # Errors
    /// [`Mismatch`] naming the first field that differs.
    pub fn check_segment(&self, header: &Header, index: usize) -> Result<(), Mismatch> {
        let segments = self.segments(header.chunk);
        if index >= segments {
            return Err(Mismatch { field: "segments", expected: segments as u64, found: index as u64 + 1 });
        }
        Self::check_due(header, self.header(header.phase, header.chunk, index))
    }

    /// Checks that a header is the one that is due; exact sums may have any width that their encoding knows.
    fn check_due(header: &Header, mut due: Header) -> Result<(), Mismatch> {
        if due.encoding.allows(due.phase, header.width as usize) {
            due.width = header.width;
        }
        header.check_against(&due)
    }

    /// The header of the whole vector as one segment of partial sums.
    pub fn whole_header(&self) -> Header {
        let width = self.vector.encoding().width(Phase::Reduce) as u32;
        Header { length: self.vector.len() as u32, width, ..self.bare_header(Phase::Reduce) }
    }

    /// Checks that a header is that of a whole vector.
    ///
    /// # Errors
    /// [`Mismatch`] naming the first field that differs.
    pub fn check_whole(&self, header: &Header) -> Result<(), Mismatch> {
        Self::check_due(header, self.whole_header())
    }

    /// The header of a command as it travels: with the width that the segment's values need now.
    pub fn seal(&self, header: Header) -> Header {
        match header.phase {
            Phase::Reduce | Phase::Gather => {
                Header { width: self.vector.width(header.phase, self.range(&header)) as u32, ..header }
            }
            Phase::Ready | Phase::Farewell => header,
        }
    }

    /// The values of a segment whose header was checked or made here.
    pub fn range(&self, header: &Header) -> Range<usize> {
        let start = self.chunk(header.chunk).start + header.offset as usize;
        start..start + header.length as usize
    }

    /// Keeps the lesser of the status words.
    pub fn note_fault(&mut self, fault: Fault) {
        self.fault = self.fault.min(fault);
    }

    /// Adds a checked segment of partial sums.
    pub fn accumulate(&mut self, header: &Header, body: &[u8]) {
        self.vector.accumulate(self.range(header), body);
    }

    /// Makes results of a segment, as its owner: adds every peer's terms in ascending order of place, those of the places
    /// below, then this rank's own, then those of the places above, and rounds.
    pub fn complete(&mut self, header: &Header, before: &[impl AsRef<[u8]>], after: &[impl AsRef<[u8]>]) {
        self.vector.complete(self.range(header), before, after);
    }

    /// Makes results of a segment's complete sums, as its owner.
    pub fn round(&mut self, header: &Header) {
        self.vector.round(self.range(header));
    }

    /// Takes over a checked segment of results.
    pub fn store(&mut self, header: &Header, body: &[u8]) {
        self.vector.store(self.range(header), body);
    }

    /// Where a checked segment of results is to lie.
    pub fn room(&mut self, header: &Header) -> Option<&mut [u8]> {
        self.vector.room(self.range(header))
    }

    /// Takes over a checked segment of results that lies in its room.
    pub fn placed(&mut self, header: &Header) {
        self.vector.placed(&self.range(header));
    }

    /// The values of a command's segment where they lie as they travel.
    pub fn lying(&self, header: &Header) -> Option<&[u8]> {
        match header.phase {
            Phase::Reduce | Phase::Gather => self.vector.lying(header.phase, self.range(header)),
            Phase::Ready | Phase::Farewell => None,
        }
    }

    /// Seals a command's header and writes the values to the front of `out`, which has the header's `body_bytes`.
    pub fn pack(&self, header: Header, out: &mut [u8]) -> Header {
        match header.phase {
            Phase::Reduce | Phase::Gather => {
                Header { width: self.vector.pack(header.phase, self.range(&header), out) as u32, ..header }
            }
            Phase::Ready | Phase::Farewell => header,
        }
    }

    /// Memory that earlier operations are done with.
    pub fn spares(&self) -> &Spares {
        &self.spares
    }

    /// Has memory come from a store: the result's, and what is kept on the way.
    pub fn use_spares(&mut self, spares: &Spares) {
        self.vector.use_spares(spares);
        self.spares = spares.clone();
    }

    /// Has the result's memory come from a store, where it needs some.
    pub fn use_spares_for_the_result(&mut self, spares: &Spares) {
        self.vector.use_spares(spares);
    }

    /// Writes a segment's values as they travel; `out` has the header's `body_bytes`.
    pub fn encode(&self, header: &Header, out: &mut [u8]) {
        if !out.is_empty() {
            self.vector.encode(header.phase, self.range(header), out);
        }
    }

    /// The sum and the least status word. For a group of one, which needs no machine, this rounds the whole vector first.
    pub fn into_result(mut self) -> (Reduced, Fault) {
        if self.size() == 1 {
            self.vector.round(0..self.vector.len());
        }
        (self.vector.into_reduced(), self.fault)
    }
}

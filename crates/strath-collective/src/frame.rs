//! The header of every frame between two ranks.

use std::fmt;

use strath_core::{Fault, Generation, RunId, Step};

use crate::bucket::Bucket;
use crate::checksum::checksum;
use crate::chunk::SEGMENT_BYTES;
use crate::error::Mismatch;
use crate::packing::Encoding;

/// Bytes of a header on the wire.
pub const HEADER_BYTES: usize = 88;
/// Where the status word is.
const FAULT_AT: usize = 72;
/// Where the checksum of the values is, and after it that of the header.
const CHECKSUMS_AT: usize = 80;
/// Version of the wire format, checked in the handshake and in every header. Raised whenever the same bytes would mean something
/// else: 2 cut longer segments and packed exact sums to the fewest bytes; since 3 ranks of one host agree on shared memory; since 4
/// frames carry checksums; since 5 ranks prove a ticket to each other.
pub const VERSION: u16 = 5;
/// The first four bytes of every header, "STRS" in ASCII.
const MAGIC: u32 = u32::from_le_bytes(*b"STRS");

/// What a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Partial sums on their way to the owner of a chunk (reduce-scatter).
    Reduce = 1,
    /// Results on their way from the owner (all-gather).
    Gather = 2,
    /// The sender has started this operation and takes any number of segments. Carries no values.
    Ready = 3,
    /// The sender's last frame; `chunk` says why it leaves (`transport`). Carries no values.
    Farewell = 4,
}

impl Phase {
    fn from_wire(byte: u8) -> Option<Self> {
        [Self::Reduce, Self::Gather, Self::Ready, Self::Farewell].into_iter().find(|p| *p as u8 == byte)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reduce => "reduce-scatter",
            Self::Gather => "all-gather",
            Self::Ready => "start",
            Self::Farewell => "farewell",
        })
    }
}

/// What stands above the values of a segment: 88 bytes, little-endian, in the order of the fields, then the checksums of the values and
/// of the header's first 84 bytes. Between ranks that share memory, which the machine checks like any other,
/// and within records of TLS, which have their own, both are 0.
///
/// ```text
///  0 magic u32 | 4 version u16 | 6 phase u8 | 7 encoding u8 | 8 run u64 | 16 generation u64 | 24 step u64
/// 32 bucket u32 | 36 chunk u32 | 40 group start u32 | 44 group end u32 | 48 entries u64 | 56 offset u64
/// 64 length u32 | 68 width u32 | 72 fault u64 | 80 checksum of the values u32 | 84 checksum of the header u32
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the frame is for.
    pub phase: Phase,
    /// The kind of the payload.
    pub encoding: Encoding,
    /// The run.
    pub run: RunId,
    /// The membership in which the frame was sent.
    pub generation: Generation,
    /// The step it belongs to.
    pub step: Step,
    /// The operation of the step it belongs to.
    pub bucket: Bucket,
    /// The chunk it is a segment of, which is the place in the group of the chunk's owner.
    pub chunk: u32,
    /// First rank of the group that sums.
    pub group_start: u32,
    /// One past the last rank of the group that sums.
    pub group_end: u32,
    /// Values of the whole vector.
    pub entries: u64,
    /// The segment's first value, counted from the chunk's first.
    pub offset: u64,
    /// Values of the segment.
    pub length: u32,
    /// Bytes a value. In a command, the most that its values may need; [`seal`](crate::machine::Machine::seal) says how many
    /// they do.
    pub width: u32,
    /// The least status word of the ranks whose terms are in the segment.
    pub fault: Fault,
}

impl Header {
    /// Bytes of the values that follow the header.
    pub fn body_bytes(&self) -> usize {
        self.length as usize * self.width as usize
    }

    /// The header as it travels over a network, above these values.
    pub fn to_bytes_above(&self, values: &[u8]) -> [u8; HEADER_BYTES] {
        let mut bytes = self.to_bytes();
        bytes[CHECKSUMS_AT..CHECKSUMS_AT + 4].copy_from_slice(&checksum(values).to_le_bytes());
        let own = checksum(&bytes[..CHECKSUMS_AT + 4]);
        bytes[CHECKSUMS_AT + 4..].copy_from_slice(&own.to_le_bytes());
        bytes
    }

    /// A header as it arrived over a network. One that was damaged on its way is found before anything in it is believed.
    ///
    /// # Errors
    /// [`Mismatch`] as [`parse`](Self::parse), or naming the header's checksum.
    pub fn parse_checked(bytes: &[u8; HEADER_BYTES]) -> Result<Self, Mismatch> {
        Self::check_language(bytes)?;
        let own = Fields(&bytes[CHECKSUMS_AT + 4..]).u32();
        Mismatch::check("header checksum", u64::from(checksum(&bytes[..CHECKSUMS_AT + 4])), u64::from(own))?;
        Self::parse(bytes)
    }

    /// The checksum of the values, as a header that was [checked](Self::parse_checked) has it.
    pub fn checksum_of_values(bytes: &[u8; HEADER_BYTES]) -> u32 {
        Fields(&bytes[CHECKSUMS_AT..]).u32()
    }

    fn check_language(bytes: &[u8; HEADER_BYTES]) -> Result<(), Mismatch> {
        let mut fields = Fields(bytes);
        Mismatch::check("magic", u64::from(MAGIC), u64::from(fields.u32()))?;
        Mismatch::check("version", u64::from(VERSION), u64::from(fields.u16()))
    }

    /// The header as it lies in shared memory.
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let kind = u32::from(VERSION) | (self.phase as u32) << 16 | (self.encoding as u32) << 24;
        let words = [
            pair(MAGIC, kind),
            self.run.0,
            self.generation.0,
            self.step.0,
            pair(self.bucket.0, self.chunk),
            pair(self.group_start, self.group_end),
            self.entries,
            self.offset,
            pair(self.length, self.width),
            self.fault.to_bits(),
        ];
        let mut out = [0; HEADER_BYTES];
        // Zeros stay where the checksums belong.
        for (out, word) in out.as_chunks_mut().0.iter_mut().zip(words) {
            *out = word.to_le_bytes();
        }
        out
    }

    /// A header as it was found in shared memory.
    ///
    /// # Errors
    /// [`Mismatch`] where magic or version are not ours, phase, encoding or status word are unknown, the width is none of the encoding's, or
    /// the segment has more values than are cut for one: so a parsed header never asks for more memory than twice
    /// [`SEGMENT_BYTES`].
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Self, Mismatch> {
        Self::check_language(bytes)?;
        let mut fields = Fields(&bytes[6..]);
        let (phase, encoding) = (fields.u8(), fields.u8());
        let known = |field, found: u8, last: u8| Mismatch { field, expected: u64::from(last), found: u64::from(found) };
        let phase = Phase::from_wire(phase).ok_or_else(|| known("phase", phase, Phase::Farewell as u8))?;
        let encoding =
            Encoding::from_wire(encoding).ok_or_else(|| known("encoding", encoding, Encoding::Halves as u8))?;
        let header = Self {
            phase,
            encoding,
            run: RunId(fields.u64()),
            generation: Generation(fields.u64()),
            step: Step(fields.u64()),
            bucket: Bucket(fields.u32()),
            chunk: fields.u32(),
            group_start: fields.u32(),
            group_end: fields.u32(),
            entries: fields.u64(),
            offset: fields.u64(),
            length: fields.u32(),
            width: fields.u32(),
            fault: Fault::from_bits(fields.u64()),
        };
        if !header.fault.is_known() {
            return Err(Mismatch {
                field: "status word",
                expected: Fault::NONE.to_bits(),
                found: header.fault.to_bits(),
            });
        }
        let width = encoding.width(phase);
        if !encoding.allows(phase, header.width as usize) {
            return Err(Mismatch { field: "width", expected: width as u64, found: u64::from(header.width) });
        }
        let most = if width == 0 { 0 } else { SEGMENT_BYTES / encoding.cut_width() };
        if header.length as usize > most {
            return Err(Mismatch { field: "length", expected: most as u64, found: u64::from(header.length) });
        }
        Ok(header)
    }

    /// The status word in a header that was found in shared memory, where it differs from this one in nothing else: in less time than
    /// [`parse`](Self::parse) and [`check_against`](Self::check_against), which say what is wrong.
    pub fn fault_of_same(&self, bytes: &[u8; HEADER_BYTES]) -> Option<Fault> {
        let fault = Fault::from_bits(Fields(&bytes[FAULT_AT..]).u64());
        (fault.is_known() && Self { fault, ..*self }.to_bytes() == *bytes).then_some(fault)
    }

    /// Checks that this header, as it arrived, is the `expected` one in every field but the status word.
    ///
    /// # Errors
    /// [`Mismatch`] naming the first field that differs.
    pub fn check_against(&self, expected: &Self) -> Result<(), Mismatch> {
        if (Self { fault: expected.fault, ..*self }) == *expected {
            return Ok(());
        }
        let fields = |h: &Self| {
            [
                ("run", h.run.0),
                ("generation", h.generation.0),
                ("step", h.step.0),
                ("bucket", u64::from(h.bucket.0)),
                ("group start", u64::from(h.group_start)),
                ("group end", u64::from(h.group_end)),
                ("encoding", h.encoding as u64),
                ("entries", h.entries),
                ("phase", h.phase as u64),
                ("chunk", u64::from(h.chunk)),
                ("offset", h.offset),
                ("length", u64::from(h.length)),
                ("width", u64::from(h.width)),
            ]
        };
        let mut pairs = fields(expected).into_iter().zip(fields(self));
        pairs.try_for_each(|((field, expected), (_, found))| Mismatch::check(field, expected, found))
    }
}

/// Reads fields off the front of a header; its callers together read no more than it holds.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_first_chunk().expect("the fields of a header fit its 88 bytes");
        self.0 = rest;
        *field
    }

    fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.take())
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            phase: Phase::Reduce,
            encoding: Encoding::Exact,
            run: RunId(0x0102_0304_0506_0708),
            generation: Generation(2),
            step: Step(3),
            bucket: Bucket(4),
            chunk: 5,
            group_start: 6,
            group_end: 7,
            entries: 8,
            offset: 9,
            length: 10,
            width: 8,
            fault: Fault::from_bits(11),
        }
    }

    #[test]
    fn a_header_survives_the_wire_in_its_documented_places() {
        let bytes = header().to_bytes();
        assert_eq!(Header::parse(&bytes), Ok(header()));
        assert_eq!(&bytes[..8], b"STRS\x05\x00\x01\x01");
        assert_eq!(&bytes[8..16], &[8, 7, 6, 5, 4, 3, 2, 1]);
        let low_bytes = [16, 24, 32, 36, 40, 44, 48, 56, 64, 68, 72].map(|at| bytes[at]);
        assert_eq!(low_bytes, [2, 3, 4, 5, 6, 7, 8, 9, 10, 8, 11]);
    }

    #[test]
    fn a_header_is_told_from_every_other_but_for_a_known_status_word() {
        let expected = header();
        for bit in 0..8 * HEADER_BYTES {
            let mut bytes = expected.to_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let parsed = Header::parse(&bytes).and_then(|found| found.check_against(&expected).map(|()| found.fault));
            // The checksums' place is not read there, and nothing of ours is written to it.
            let due = if bit < 8 * CHECKSUMS_AT { parsed.ok() } else { None };
            assert_eq!(expected.fault_of_same(&bytes), due, "bit {bit}");
        }
        assert_eq!(expected.fault_of_same(&expected.to_bytes()), Some(expected.fault));
    }

    #[test]
    fn every_malformed_field_is_refused_by_name() {
        let cases = [
            (0, "magic"),
            (3, "magic"),
            (4, "version"),
            (5, "version"),
            (6, "phase"),
            (7, "encoding"),
            (67, "length"),
            (68, "width"),
            (71, "width"),
        ];
        for (at, field) in cases {
            let mut bytes = header().to_bytes();
            bytes[at] ^= 0xff;
            assert_eq!(Header::parse(&bytes).map_err(|m| m.field), Err(field), "byte {at}");
        }
    }

    #[test]
    fn a_bit_that_was_flipped_on_the_way_is_found_wherever_it_is() {
        let (values, sent) = ([1, 2, 3, 250], header().to_bytes_above(&[1, 2, 3, 250]));
        assert_eq!(Header::parse_checked(&sent), Ok(header()));
        assert_eq!(Header::checksum_of_values(&sent), checksum(&values));
        for bit in 0..8 * HEADER_BYTES {
            let mut bytes = sent;
            bytes[bit / 8] ^= 1 << (bit % 8);
            let refused = Header::parse_checked(&bytes).map_err(|m| m.field);
            let field = match bit / 8 {
                0..4 => "magic",
                4..6 => "version",
                _ => "header checksum",
            };
            assert_eq!(refused, Err(field), "bit {bit}");
        }
    }

    #[test]
    fn a_header_of_the_version_before_is_refused_with_both() {
        let mut bytes = header().to_bytes();
        bytes[4] = 4;
        assert_eq!(Header::parse(&bytes), Err(Mismatch { field: "version", expected: 5, found: 4 }));
    }

    #[test]
    fn a_segment_longer_than_the_limit_is_refused_whatever_its_width() {
        for (encoding, most) in [(Encoding::Wide, 16_384), (Encoding::Exact, 65_536), (Encoding::Halves, 131_072)] {
            let width = encoding.width(Phase::Reduce) as u32;
            let fits = Header { encoding, width, length: most, ..header() };
            assert_eq!(Header::parse(&fits.to_bytes()), Ok(fits));
            let longer = Header { length: most + 1, ..fits };
            assert_eq!(Header::parse(&longer.to_bytes()).map_err(|m| m.field), Err("length"));
        }
        let ready = Header { phase: Phase::Ready, width: 0, length: 1, ..header() };
        assert_eq!(Header::parse(&ready.to_bytes()).map_err(|m| m.field), Err("length"));
    }

    #[test]
    fn a_header_differs_in_the_first_field_that_does() {
        let expected = header();
        assert_eq!(Header { fault: Fault::NONE, ..expected }.check_against(&expected), Ok(()));
        let found = Header { generation: Generation(9), step: Step(9), ..expected };
        let mismatch = Mismatch { field: "generation", expected: 2, found: 9 };
        assert_eq!(found.check_against(&expected), Err(mismatch));
    }
}

//! What travels from a donor to a newcomer: words, each with a header of 80 bytes, its values, and their checksum.
//!
//! ```text
//!  0 magic u32 | 4 kind u32 | 8 step u64 | 16 newest u64 | 24 values u64 | 32 SHA-256 | 64 loss f64 | 72 zero u32 | 76 checksum of these u32
//! 80 values, f32 each | their checksum u32                                                                           little-endian
//! ```
//!
//! How many values each kind has both ends know from their model: another number is refused before memory is taken. Checksums are CRC-32C;
//! the digest is that of a whole state, which its values are compared with.

use std::io;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use strath_collective::{Checksum, FeedReceiver, FeedSender, checksum};
use strath_core::Digest;

const MAGIC: u32 = u32::from_le_bytes(*b"STRF");
pub(crate) const HEADER_BYTES: usize = 80;
const CHECKED_BYTES: usize = HEADER_BYTES - 4;
/// Bytes that are converted at once.
const CHUNK_BYTES: usize = 256 * 1024;
/// Whoever neither sends nor takes anything for so long is given up.
pub(super) const SILENCE: Duration = Duration::from_secs(10);

/// What a word is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A state: weights, statistics, then the optimizer's slots.
    State = 1,
    /// What a step reduced: gradient, then statistics.
    Step = 2,
    /// The donor lives, and has nothing to say.
    Beat = 3,
    /// The generation is over for the donor.
    End = 4,
    /// The newcomer is too slow.
    LeftBehind = 5,
}

impl Kind {
    fn of(number: u32) -> Option<Self> {
        [Self::State, Self::Step, Self::Beat, Self::End, Self::LeftBehind]
            .into_iter()
            .find(|kind| *kind as u32 == number)
    }
}

/// What stands above a word's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(super) kind: Kind,
    /// Completed steps with it.
    pub(super) step: u64,
    /// Completed steps of the donor as it was sent.
    pub(super) newest: u64,
    pub(super) values: u64,
    /// The bits of an f64: of a step its mean clean loss, of a state what it carries of the epoch's; else zero.
    pub(super) loss: u64,
    /// Of a state; else zero.
    pub(super) digest: Digest,
}

impl Header {
    pub(crate) fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4..8].copy_from_slice(&(self.kind as u32).to_le_bytes());
        bytes[8..16].copy_from_slice(&self.step.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.newest.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.values.to_le_bytes());
        bytes[32..64].copy_from_slice(&self.digest.0);
        bytes[64..72].copy_from_slice(&self.loss.to_le_bytes());
        let checksum = checksum(&bytes[..CHECKED_BYTES]);
        bytes[CHECKED_BYTES..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    pub(crate) fn parse(bytes: &[u8; HEADER_BYTES]) -> io::Result<Self> {
        let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]));
        let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]));
        if u32_at(0) != MAGIC || u32_at(CHECKED_BYTES) != checksum(&bytes[..CHECKED_BYTES]) {
            return Err(invalid("what came is no word of a feed, or was changed on the way".into()));
        }
        let kind = Kind::of(u32_at(4))
            .ok_or_else(|| invalid(format!("found a word of kind {}, expected 1 to 5", u32_at(4))))?;
        let digest = Digest(std::array::from_fn(|byte| bytes[32 + byte]));
        Ok(Self { kind, step: u64_at(8), newest: u64_at(16), values: u64_at(24), loss: u64_at(64), digest })
    }
}

pub(super) fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Sends a word whose values lie in these pieces.
pub(super) fn send(line: &mut FeedSender, header: Header, pieces: &[&[f32]]) -> io::Result<()> {
    line.send(&header.to_bytes(), SILENCE)?;
    if header.values == 0 {
        return Ok(());
    }
    let (mut bytes, mut sent) = (vec![0; CHUNK_BYTES], Checksum::default());
    for values in pieces.iter().flat_map(|piece| piece.chunks(CHUNK_BYTES / 4)) {
        let bytes = &mut bytes[..4 * values.len()];
        for (to, value) in bytes.chunks_exact_mut(4).zip(values) {
            to.copy_from_slice(&value.to_le_bytes());
        }
        sent.update(bytes);
        line.send(bytes, SILENCE)?;
    }
    line.send(&sent.value().to_le_bytes(), SILENCE)
}

/// The next word's header.
pub(super) fn hear(line: &mut FeedReceiver, cancelled: &AtomicBool) -> io::Result<Header> {
    let mut bytes = [0; HEADER_BYTES];
    line.receive(&mut bytes, SILENCE, cancelled)?;
    Header::parse(&bytes)
}

/// The values of a word, to where they belong: as many as these pieces have room for.
pub(super) fn take(
    line: &mut FeedReceiver,
    header: Header,
    pieces: &mut [&mut [f32]],
    cancelled: &AtomicBool,
) -> io::Result<()> {
    let expected: usize = pieces.iter().map(|piece| piece.len()).sum();
    if header.values != expected as u64 {
        let Header { kind, values, .. } = header;
        return Err(invalid(format!("found a word ({kind:?}) of {values} values, expected {expected}: models differ")));
    }
    let (mut bytes, mut found) = (vec![0; CHUNK_BYTES], Checksum::default());
    for values in pieces.iter_mut().flat_map(|piece| piece.chunks_mut(CHUNK_BYTES / 4)) {
        let bytes = &mut bytes[..4 * values.len()];
        line.receive(bytes, SILENCE, cancelled)?;
        found.update(bytes);
        for (value, from) in values.iter_mut().zip(bytes.as_chunks().0) {
            *value = f32::from_le_bytes(*from);
        }
    }
    let mut told = [0; 4];
    line.receive(&mut told, SILENCE, cancelled)?;
    let is_whole = u32::from_le_bytes(told) == found.value();
    if is_whole { Ok(()) } else { Err(invalid(format!("a word ({:?}) was changed on the way", header.kind))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_its_bytes_and_not_a_bit_less() {
        let header = Header {
            kind: Kind::Step,
            step: 7,
            newest: 9,
            values: 1 << 40,
            loss: 0.1f64.to_bits(),
            digest: Digest([3; 32]),
        };
        let bytes = header.to_bytes();
        assert_eq!(Header::parse(&bytes).unwrap(), header);
        for bit in 0..8 * HEADER_BYTES {
            let mut changed = bytes;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::parse(&changed).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_kind_that_is_none_is_refused_by_number() {
        let mut bytes =
            Header { kind: Kind::End, step: 0, newest: 0, values: 0, loss: 0, digest: Digest::default() }.to_bytes();
        bytes[4] = 9;
        let checksum = checksum(&bytes[..CHECKED_BYTES]);
        bytes[CHECKED_BYTES..].copy_from_slice(&checksum.to_le_bytes());
        assert!(Header::parse(&bytes).unwrap_err().to_string().contains("kind 9"));
    }
}

//! Who owns which part of a vector, and how a part is cut into segments.

use std::ops::Range;

/// Payload bytes of the largest segment; of exact sums that need more than four bytes a value, up to twice as many.
///
/// Small enough that a segment is still in the second-level cache when it is added to and sent on, large enough that what a
/// segment costs beside its bytes shows little: system calls, and the wait of either side for the other. Two ranks over
/// loopback took 1.2 times as long with half of it.
pub const SEGMENT_BYTES: usize = 256 * 1024;
/// The same among more than two ranks, each of which has segments of all others on their way at once.
const SEGMENT_BYTES_OF_MANY: usize = 128 * 1024;

/// The values of chunk `chunk` of `len` values cut into `parts` chunks.
///
/// The first `len mod parts` chunks hold one value more than the others, so chunks tile the vector in order and differ by
/// at most one value; where `len < parts` the last are empty.
///
/// # Panics
/// Where `parts` is 0.
pub fn bounds(len: usize, parts: u32, chunk: u32) -> Range<usize> {
    let (parts, chunk) = (parts as usize, chunk as usize);
    let (base, longer) = (len / parts, len % parts);
    let start = |c: usize| c * base + c.min(longer);
    start(chunk)..start(chunk + 1)
}

/// How a chunk is cut into segments of at most `entries` values; the same cut in both phases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    entries: usize,
}

impl Cut {
    /// Segments which, at `width` bytes a value, are as large as they may be among `ranks`.
    ///
    /// # Panics
    /// Where `width` is 0.
    pub fn new(width: usize, ranks: u32) -> Self {
        let bytes = if ranks > 2 { SEGMENT_BYTES_OF_MANY } else { SEGMENT_BYTES };
        Self { entries: bytes / width }
    }

    /// Number of segments of a chunk of `len` values. An empty chunk has one, empty too: it carries the status word.
    pub fn segments(self, len: usize) -> usize {
        len.div_ceil(self.entries).max(1)
    }

    /// The values of segment `index` of a chunk of `len` values, counted from the chunk's first.
    pub fn segment(self, len: usize, index: usize) -> Range<usize> {
        let start = (index * self.entries).min(len);
        start..(start + self.entries).min(len)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tiles(len: usize, parts: u32) -> bool {
        let chunks: Vec<_> = (0..parts).map(|c| bounds(len, parts, c)).collect();
        let joined = chunks.windows(2).all(|pair| pair[0].end == pair[1].start);
        let sizes = chunks.iter().map(ExactSizeIterator::len);
        let even = sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1;
        joined && even && chunks[0].start == 0 && chunks[parts as usize - 1].end == len
    }

    #[test]
    fn chunks_tile_every_short_vector_for_every_world() {
        for parts in 1..=16 {
            for len in 0..400 {
                assert!(tiles(len, parts), "{len} values over {parts} ranks");
            }
        }
    }

    #[test]
    fn the_first_chunks_are_the_longer_ones() {
        let chunks: Vec<_> = (0..4).map(|c| bounds(10, 4, c)).collect();
        assert_eq!(chunks, [0..3, 3..6, 6..8, 8..10]);
        let short: Vec<_> = (0..4).map(|c| bounds(2, 4, c)).collect();
        assert_eq!(short, [0..1, 1..2, 2..2, 2..2]);
    }

    proptest! {
        #[test]
        fn chunks_tile_long_vectors(len in 0usize..1 << 40, parts in 1u32..=64) {
            prop_assert!(tiles(len, parts));
        }

        #[test]
        fn segments_tile_a_chunk_and_an_empty_chunk_has_one(
            len in 0usize..2_000_000, width in 1usize..=16, ranks in 2u32..5
        ) {
            let cut = Cut::new(width, ranks);
            let segments: Vec<_> = (0..cut.segments(len)).map(|k| cut.segment(len, k)).collect();
            prop_assert_eq!(segments[0].start, 0);
            prop_assert_eq!(segments.last().map(|s| s.end), Some(len));
            prop_assert!(segments.windows(2).all(|pair| pair[0].end == pair[1].start));
            prop_assert!(segments.iter().all(|s| s.len() * width <= SEGMENT_BYTES && (len == 0 || !s.is_empty())));
        }
    }
}

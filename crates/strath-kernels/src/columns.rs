//! Rows of few columns as rows of whole vectors, and sums over the rows.
//!
//! A matrix [rows, width] of 10 or 16 columns fills no vector, or leaves one of a loop's passes with a single vector. Taken a few
//! rows at a time, as rows of [`lanes`] values that hold every column several times, it does, for any width.

use crate::threads::for_chunks;

/// Least values that are taken as one row.
const LEAST_LANES: usize = 256;
/// Such rows that one thread computes in one go, and whose sums are taken in f32 before they are folded into f64.
pub(crate) const PIECE: usize = 64;

/// Values that are taken as one row: whole rows that fill whole vectors of 16, at least [`LEAST_LANES`]; or one row that is
/// longer.
pub(crate) fn lanes(channels: usize) -> usize {
    if channels >= LEAST_LANES {
        return channels;
    }
    // 16 has no factor but 2: the least common multiple is the channels with their missing twos.
    let vectors = channels << (4 - channels.trailing_zeros().min(4));
    vectors * LEAST_LANES.div_ceil(vectors)
}

/// The channels' values over and over, up to [`lanes`].
pub(crate) fn repeated(channels: &[f32]) -> Vec<f32> {
    channels.repeat(lanes(channels.len()) / channels.len())
}

/// Calls `work(at, piece)` for each piece of `size` values of `out`, which starts at value `at`, the last first.
pub(crate) fn from_the_last(out: &mut [f32], size: usize, work: impl Fn(usize, &mut [f32]) + Send + Sync) {
    let mut pieces: Vec<_> = out.chunks_mut(size).enumerate().rev().collect();
    for_chunks(&mut pieces, 1, |_, pieces| pieces.iter_mut().for_each(|(k, piece)| work(*k * size, piece)));
}

/// `SUMS` sums a column, [SUMS, width], over pieces of [`PIECE`] rows of [`lanes`] values (the last may be shorter):
/// `add(piece, sums)` adds those of a piece on to [`lanes`] sums in f32, which are then folded into f64.
pub(crate) fn totals<const SUMS: usize, P: Send>(
    width: usize,
    pieces: impl Iterator<Item = P>,
    add: impl Fn(&mut P, &mut [Vec<f32>; SUMS]) + Send + Sync,
) -> Vec<f64> {
    let lanes = lanes(width);
    let mut partial: Vec<_> = pieces.map(|piece| (piece, vec![0.0f64; SUMS * width])).collect();
    for_chunks(&mut partial, 1, |_, partial| {
        for (piece, folded) in partial {
            let mut sums: [Vec<f32>; SUMS] = std::array::from_fn(|_| vec![0.0; lanes]);
            add(piece, &mut sums);
            for (folded, sums) in folded.chunks_exact_mut(width).zip(sums) {
                for sums in sums.chunks_exact(width) {
                    folded.iter_mut().zip(sums).for_each(|(folded, sum)| *folded += f64::from(*sum));
                }
            }
        }
    });
    let mut totals = vec![0.0; SUMS * width];
    for (_, folded) in &partial {
        totals.iter_mut().zip(folded).for_each(|(total, folded)| *total += folded);
    }
    totals
}

/// `sums += rows`, four rows at a time.
#[allow(clippy::inline_always, reason = "it is compiled anew for each instruction set")]
#[inline(always)]
pub(crate) fn add_rows(dy: &[f32], sums: &mut [f32]) {
    let lanes = sums.len();
    let mut fours = dy.chunks_exact(4 * lanes);
    for four in &mut fours {
        let [a, b, c, d] = [0, 1, 2, 3].map(|k| &four[k * lanes..][..lanes]);
        for lane in 0..lanes {
            sums[lane] += (a[lane] + b[lane]) + (c[lane] + d[lane]);
        }
    }
    for dy in fours.remainder().chunks(lanes) {
        sums.iter_mut().zip(dy).for_each(|(sum, dy)| *sum += dy);
    }
}

/// Rounded to f32.
pub(crate) fn narrow(wide: Vec<f64>) -> Vec<f32> {
    wide.into_iter().map(|v| v as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_taken_as_whole_vectors_of_every_channel() {
        for channels in (1..300).chain([640, 1000]) {
            let lanes = lanes(channels);
            assert!(lanes.is_multiple_of(channels) && lanes >= 256);
            assert!(lanes.is_multiple_of(16) || channels >= 256);
        }
        assert_eq!([16, 32, 64, 3, 10].map(lanes), [256, 256, 256, 288, 320]);
    }
}

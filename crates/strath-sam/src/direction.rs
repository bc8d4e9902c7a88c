//! A random direction in the place of a lane's ascent gradient: the control that tells what the gradient is good for.
//!
//! Foret et al. compare with it in appendix C. The ball and everything else stay as they are, and so does the ascent pass: the two kinds
//! of run do the same work, and batch norm's running statistics move alike.

use std::ops::Range;

use strath_core::random::{Purpose, Stream};
use strath_core::{Layout, Step};
use strath_kernels::vector;

/// Random words that are turned into draws in one go: 16 KiB, which stay in the L1 cache.
const WORDS: usize = 4096;

/// Writes xi ~ N(0, 1) in the place of the ascent gradient of the lane whose first example is the `first` of the batch.
///
/// The draw of entry i of a tensor is a pure function of (seed, step, first, tensor, i): Philox4x32-10 under
/// [`Purpose::Direction`], then Box and Muller's in f64 ([`vector::normals`]), rounded to f32. So every rank that holds a part of the lane
/// draws the same, and neither m nor the number of workers moves another lane's draw.
///
/// # Panics
/// Where `xi` has not the length of the layout.
pub fn draw_direction(seed: u64, step: Step, first: usize, layout: &Layout, xi: &mut [f32]) {
    assert_eq!(xi.len(), layout.len(), "there is a draw for every parameter");
    let mut words = [0; WORDS];
    for (range, mut stream) in direction_streams(seed, step, first, layout) {
        for draws in xi[range].chunks_mut(WORDS) {
            let words = &mut words[..draws.len().next_multiple_of(2)];
            stream.fill(words);
            vector::normals(words, draws);
        }
    }
}

/// Where each tensor lies, and the stream that its draws are of.
pub fn direction_streams(
    seed: u64,
    step: Step,
    first: usize,
    layout: &Layout,
) -> impl Iterator<Item = (Range<usize>, Stream)> {
    layout.entries().iter().enumerate().map(move |(tensor, entry)| {
        let purpose = Purpose::Direction { step: step.0, first: first as u32, tensor: tensor as u32 };
        (entry.range(), Stream::new(seed, purpose))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(seed: u64, step: u64, first: usize, lengths: &[usize]) -> Vec<Vec<f32>> {
        let layout = Layout::new(lengths.iter().enumerate().map(|(k, len)| (format!("t{k}"), vec![*len]))).unwrap();
        let mut xi = vec![f32::NAN; layout.len()];
        draw_direction(seed, Step(step), first, &layout, &mut xi);
        layout.entries().iter().map(|entry| xi[entry.range()].to_vec()).collect()
    }

    #[test]
    fn a_draw_depends_on_its_key_and_on_nothing_else() {
        let all = draws(1, 2, 3, &[10, 5000, 7]);
        let alone = draws(1, 2, 3, &[4, 10_001]);
        assert_eq!(
            (&all[0][..4], &all[1][..]),
            (&alone[0][..], &alone[1][..5000]),
            "its place in the vector does not matter"
        );
        for other in [draws(2, 2, 3, &[10]), draws(1, 3, 3, &[10]), draws(1, 2, 4, &[10])] {
            assert!(other[0].iter().zip(&all[0]).all(|(a, b)| a != b));
        }
    }

    #[test]
    fn the_draws_are_those_of_the_reference_program() {
        // python -c "import draws; print(draws.normal(7, 3, 16, 2, 5))" in tests/reference
        let got = draws(7, 3, 16, &[1, 1, 5])[2].clone();
        assert_eq!(got, REFERENCE.map(|draw| draw as f32));
    }

    const REFERENCE: [f64; 5] = [
        -1.257_292_636_145_861_2,
        0.382_661_219_508_099_8,
        0.824_604_396_086_831_7,
        0.709_715_889_590_638_2,
        -0.542_485_438_743_448_9,
    ];
}

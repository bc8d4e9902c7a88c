//! Operands copied into the order in which the tiles read them.
//!
//! ```text
//! panels of B   [panel][term][column]   a panel is as wide as a tile
//! blocks of A   [block][term][row]      of an A that lies transposed; a block is as high as a tile
//! ```
//!
//! What a last panel or block has beyond the matrix is 0.

#![allow(unsafe_code, reason = "SIMD intrinsics")]

use std::arch::x86_64::{
    _mm256_loadu_ps, _mm256_permute2f128_ps, _mm256_shuffle_ps, _mm256_storeu_ps, _mm256_unpackhi_ps,
    _mm256_unpacklo_ps,
};

/// Terms that are copied at a time: so many runs of memory are read in turns, each in its order.
const TERMS: usize = 8;

/// Where the panels of a packed operand lie.
#[derive(Debug, Clone, Copy)]
pub(super) struct Panels {
    /// Columns of a panel.
    pub width: usize,
    /// From one panel's start to the next.
    pub distance: usize,
}

impl Panels {
    /// Packs an operand of `columns` columns and `terms` terms, that lie `stride` apart, each a run of columns.
    pub fn pack_runs(self, from: &[f32], stride: usize, (columns, terms): (usize, usize), to: &mut [f32]) {
        match self.width {
            6 => self.runs::<6>(from, stride, (columns, terms), to),
            12 => self.runs::<12>(from, stride, (columns, terms), to),
            16 => self.runs::<16>(from, stride, (columns, terms), to),
            32 => self.runs::<32>(from, stride, (columns, terms), to),
            width => unreachable!("no tile is {width} wide"),
        }
    }

    fn runs<const WIDTH: usize>(self, from: &[f32], stride: usize, (columns, terms): (usize, usize), to: &mut [f32]) {
        for first in (0..terms).step_by(TERMS) {
            let count = TERMS.min(terms - first);
            for (at, to) in (0..columns).step_by(WIDTH).zip(to.chunks_mut(self.distance)) {
                let own = WIDTH.min(columns - at);
                for (term, to) in to[first * WIDTH..].as_chunks_mut::<WIDTH>().0[..count].iter_mut().enumerate() {
                    let run = &from[(first + term) * stride + at..][..own];
                    if let Ok(run) = <&[f32; WIDTH]>::try_from(run) {
                        *to = *run;
                    } else {
                        to[..own].copy_from_slice(run);
                        to[own..].fill(0.0);
                    }
                }
            }
        }
    }

    /// Packs an operand whose columns lie `stride` apart, each a run of terms.
    pub fn pack_turned(self, from: &[f32], stride: usize, (columns, terms): (usize, usize), to: &mut [f32]) {
        for (at, to) in (0..columns).step_by(self.width).zip(to.chunks_mut(self.distance)) {
            let (from, own) = (&from[at * stride..], self.width.min(columns - at));
            let (whole_columns, whole_terms) = (own / 8 * 8, terms / 8 * 8);
            for column in (0..whole_columns).step_by(8) {
                for term in (0..whole_terms).step_by(8) {
                    turn_eight(
                        &from[column * stride + term..],
                        stride,
                        &mut to[term * self.width + column..],
                        self.width,
                    );
                }
            }
            for column in 0..self.width {
                let first = if column < whole_columns { whole_terms } else { 0 };
                let to = to[first * self.width..].chunks_exact_mut(self.width).map(|to| &mut to[column]);
                if column < own {
                    to.zip(&from[column * stride + first..][..terms - first]).for_each(|(to, from)| *to = *from);
                } else {
                    to.take(terms - first).for_each(|to| *to = 0.0);
                }
            }
        }
    }
}

/// Transposes 8 x 8 values whose rows lie `stride` apart, to rows that lie `to_stride` apart.
fn turn_eight(from: &[f32], stride: usize, to: &mut [f32], to_stride: usize) {
    assert!(7 * stride + 8 <= from.len() && 7 * to_stride + 8 <= to.len(), "eight rows of eight values");
    // SAFETY: the bounds were checked; every set that has tiles has AVX.
    unsafe { turn_eight_unchecked(from.as_ptr(), stride, to.as_mut_ptr(), to_stride) };
}

/// # Safety
/// Eight rows of eight values can be read and written, on a processor with AVX.
#[target_feature(enable = "avx")]
unsafe fn turn_eight_unchecked(from: *const f32, stride: usize, to: *mut f32, to_stride: usize) {
    // SAFETY: the caller's promise.
    let row = |k: usize| unsafe { _mm256_loadu_ps(from.add(k * stride)) };
    let pair = |k: usize| (_mm256_unpacklo_ps(row(k), row(k + 1)), _mm256_unpackhi_ps(row(k), row(k + 1)));
    // Columns 0 and 4, 1 and 5, 2 and 6, 3 and 7 of four rows, by halves.
    let four = |k: usize| {
        let ((a, b), (c, d)) = (pair(k), pair(k + 2));
        [
            _mm256_shuffle_ps::<0b0100_0100>(a, c),
            _mm256_shuffle_ps::<0b1110_1110>(a, c),
            _mm256_shuffle_ps::<0b0100_0100>(b, d),
            _mm256_shuffle_ps::<0b1110_1110>(b, d),
        ]
    };
    let (upper, lower) = (four(0), four(4));
    for k in 0..4 {
        let (first, second) =
            (_mm256_permute2f128_ps::<0x20>(upper[k], lower[k]), _mm256_permute2f128_ps::<0x31>(upper[k], lower[k]));
        // SAFETY: the caller's promise.
        unsafe {
            _mm256_storeu_ps(to.add(k * to_stride), first);
            _mm256_storeu_ps(to.add((k + 4) * to_stride), second);
        }
    }
}

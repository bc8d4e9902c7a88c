//! Softmax over the rows of x [rows, width] and the gradient through it.
//!
//! ```text
//! y = exp(x - max x) / sum exp(x - max x),    dx = y (g - <g, y>)
//! ```
//!
//! One pass over memory each; what a row needs several times lies in L1. `exp` is `elementary`'s, within 1e-7; a row's
//! sums are taken in 32 lanes of f32, folded into f64. Bits depend neither on the number of threads nor on the instruction set.
//! Cross-entropy lies in [`crate::cross_entropy`], in f64.

#![allow(
    clippy::inline_always,
    reason = "helpers are compiled anew for each instruction set, inside of vectorised bodies"
)]

use crate::elementary::exp;
use crate::isa::Isa;
use crate::lanes::{dot, lane_sum, largest};
use crate::threads::for_chunks;
use crate::vectorised::vectorised;

/// Rows that one thread computes in one go.
const ROWS: usize = 64;
/// Floats of a vector; rows are padded to whole ones.
pub(crate) const VECTOR: usize = 16;

/// y = softmax of each row of x [rows, width]. NaN, or an infinity of +, makes its row NaN.
///
/// # Panics
/// Where the lengths differ or are no multiple of the width.
pub fn softmax(width: usize, x: &[f32], y: &mut [f32]) {
    softmax_by(Isa::active(), width, x, y);
}

fn softmax_by(isa: Isa, width: usize, x: &[f32], y: &mut [f32]) {
    assert!(width > 0 && x.len().is_multiple_of(width) && x.len() == y.len(), "x and y are rows x width");
    for_chunks(y, ROWS * width, |k, y| softmax_rows(isa, width, &x[k * ROWS * width..][..y.len()], y));
}

/// dx from g for the result y of a [`softmax`].
///
/// # Panics
/// Where the lengths differ or are no multiple of the width.
pub fn softmax_backward(width: usize, y: &[f32], g: &[f32], dx: &mut [f32]) {
    softmax_backward_by(Isa::active(), width, y, g, dx);
}

fn softmax_backward_by(isa: Isa, width: usize, y: &[f32], g: &[f32], dx: &mut [f32]) {
    assert!(width > 0 && y.len().is_multiple_of(width), "y is rows x width");
    assert!(y.len() == g.len() && y.len() == dx.len(), "y, g and dx have one shape");
    for_chunks(dx, ROWS * width, |k, dx| {
        let start = k * ROWS * width;
        dx.copy_from_slice(&g[start..][..dx.len()]);
        softmax_backward_rows(isa, width, &y[start..][..dx.len()], dx);
    });
}

/// The softmax of `scale row`, over the row; a row that ends in minus infinities has zeros there.
#[inline(always)]
pub(crate) fn normalise(scale: f32, row: &mut [f32]) {
    for v in row.iter_mut() {
        *v *= scale;
    }
    let most = largest(row);
    for v in row.iter_mut() {
        *v = exp(*v - most);
    }
    let over = (1.0 / lane_sum(row, |v| v)) as f32;
    for v in row.iter_mut() {
        *v *= over;
    }
}

/// `g = scale y (g - <g, y>)`, over g.
#[inline(always)]
pub(crate) fn centre(scale: f32, y: &[f32], g: &mut [f32]) {
    let inner = dot(y, g) as f32;
    g.iter_mut().zip(y).for_each(|(g, y)| *g = scale * (y * (*g - inner)));
}

vectorised! {
    fn softmax_rows(width: usize, x: &[f32], y: &mut [f32]) {
        // In whole vectors: the values of the last one would be computed one by one.
        let mut row = vec![f32::NEG_INFINITY; width.next_multiple_of(VECTOR)];
        for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            row[..width].copy_from_slice(x);
            row[width..].fill(f32::NEG_INFINITY);
            normalise(1.0, &mut row);
            y.copy_from_slice(&row[..width]);
        }
    }

    fn softmax_backward_rows(width: usize, y: &[f32], g: &mut [f32]) {
        for (g, y) in g.chunks_exact_mut(width).zip(y.chunks_exact(width)) {
            centre(1.0, y, g);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::product::tests::{error, values};
    use crate::threads::tests::same_bits;
    use crate::vectorised::tests::same_bits_by_every_isa;

    fn in_float64(width: usize, x: &[f32]) -> Vec<f64> {
        let row = |x: &[f32]| {
            let most = x.iter().fold(f64::NEG_INFINITY, |m, v| m.max(f64::from(*v)));
            let raised: Vec<f64> = x.iter().map(|v| libm::exp(f64::from(*v) - most)).collect();
            let sum: f64 = raised.iter().sum();
            raised.into_iter().map(move |v| v / sum).collect::<Vec<_>>()
        };
        x.chunks_exact(width).flat_map(row).collect()
    }

    #[test]
    fn softmax_and_its_gradient_are_those_in_float64_by_every_instruction_set() {
        for (width, rows) in [(10, 64), (50, 100), (65, 70), (64, 3), (1, 5), (1000, 7)] {
            for size in [1.0, 30.0] {
                let x: Vec<f32> = values(rows * width, 1).iter().map(|v| v * size).collect();
                let g = values(rows * width, 2);
                let y = same_bits_by_every_isa(|isa| {
                    let mut y = vec![f32::NAN; x.len()];
                    softmax_by(isa, width, &x, &mut y);
                    y
                });
                let want = in_float64(width, &x);
                // x - max x is rounded before it is raised.
                let within = 3e-7 + 1.2e-7 * f64::from(size);
                assert!(y.iter().zip(&want).all(|(y, want)| (f64::from(*y) - want).abs() < within * want + 1e-37));
                let dx = same_bits_by_every_isa(|isa| {
                    let mut dx = vec![f32::NAN; x.len()];
                    softmax_backward_by(isa, width, &y, &g, &mut dx);
                    dx
                });
                let inner =
                    |row: usize| (0..width).map(|k| want[row * width + k] * f64::from(g[row * width + k])).sum();
                let inner: Vec<f64> = (0..rows).map(inner).collect();
                let want: Vec<f64> = (0..x.len()).map(|at| want[at] * (f64::from(g[at]) - inner[at / width])).collect();
                assert!(error(&dx, &want) < 3e-7 + within || width == 1, "{width}: {}", error(&dx, &want));
            }
        }
    }

    #[test]
    fn what_is_not_a_number_stays_in_its_row() {
        let mut y = [0.0; 6];
        softmax(2, &[f32::NAN, 0.0, 1.0, 1.0, f32::NEG_INFINITY, 3.0], &mut y);
        assert!(y[0].is_nan() && y[1].is_nan());
        assert_eq!(y[2..], [0.5, 0.5, 0.0, 1.0]);
    }

    #[test]
    fn rows_do_not_depend_on_threads() {
        let x = values(300 * 17, 4);
        same_bits(|| {
            let (mut y, mut dx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
            softmax(17, &x, &mut y);
            softmax_backward(17, &y, &x, &mut dx);
            [y, dx].concat()
        });
    }
}

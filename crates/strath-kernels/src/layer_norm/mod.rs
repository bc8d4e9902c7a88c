//! Layer norm over the rows of x [rows, width], forward and backward.
//!
//! ```text
//! x^ = (x - mean) p,   p = 1 / sqrt(variance + floor),   y = x^ weight + bias
//! dx = p (g - mean(g) - x^ mean(g x^)),   g = dy weight;   dweight = sum dy x^,   dbias = sum dy  over the rows
//! ```
//!
//! A row's sums are taken in 32 lanes of f32, folded into f64; the variance of `x - m`, m the mean rounded to f32, so that a large
//! mean costs no digits. The sums over rows are folded into f64 every 16 rows, those of 64 rows are added in order. One pass over
//! memory each way: the forward reads x and writes y, the backward reads x and dy and writes dx; what a row needs several times
//! lies in L1. Bits depend neither on the number of threads nor on the instruction set.

mod tangent;

pub use tangent::Tangent;

pub use crate::batch_norm::Gradient;
use crate::isa::Isa;
use crate::lanes::{dot, lane_sum};
use crate::threads::for_chunks;
use crate::vectorised::vectorised;

/// Rows that one thread computes in one go.
const ROWS: usize = 64;
/// Rows whose share in the weight's gradient is summed in f32.
const FOLD: usize = 16;

/// y from x; weight and bias have a value a column.
///
/// # Panics
/// Where the lengths differ or x is no multiple of the width.
pub fn forward(x: &[f32], weight: &[f32], bias: &[f32], floor: f64, y: &mut [f32]) {
    forward_by(Isa::active(), x, (weight, bias), floor, y);
}

fn forward_by(isa: Isa, x: &[f32], (weight, bias): (&[f32], &[f32]), floor: f64, y: &mut [f32]) {
    let width = weight.len();
    assert!(width > 0 && bias.len() == width && x.len().is_multiple_of(width), "x is rows x width");
    assert_eq!(x.len(), y.len(), "y has the shape of x");
    for_chunks(y, ROWS * width, |k, y| {
        forward_rows(isa, &x[k * ROWS * width..][..y.len()], (weight, bias), floor, y);
    });
}

/// dx from dy, and the weight's and the bias's gradient.
///
/// # Panics
/// Where the lengths differ or x is no multiple of the width.
pub fn backward(x: &[f32], weight: &[f32], floor: f64, dy: &[f32], dx: &mut [f32]) -> Gradient {
    dx.copy_from_slice(dy);
    backward_over_dy(x, weight, floor, dx)
}

/// [`backward`] with dx written over dy.
///
/// # Panics
/// Where the lengths differ or x is no multiple of the width.
pub fn backward_over_dy(x: &[f32], weight: &[f32], floor: f64, dy: &mut [f32]) -> Gradient {
    backward_over_dy_by(Isa::active(), x, weight, floor, dy)
}

fn backward_over_dy_by(isa: Isa, x: &[f32], weight: &[f32], floor: f64, dy: &mut [f32]) -> Gradient {
    let width = weight.len();
    assert!(width > 0 && x.len().is_multiple_of(width), "x is rows x width");
    assert_eq!(x.len(), dy.len(), "dy has the shape of x");
    let pieces = x.chunks(ROWS * width).zip(dy.chunks_mut(ROWS * width));
    Gradient::summed(width, pieces, |(x, dy)| backward_rows(isa, x, weight, floor, dy))
}

/// A row's statistics: `x^ = (x - mean) precision + shift`, with the mean rounded to f32 and what that lost in the shift.
struct RowNorm {
    mean: f32,
    precision: f32,
    shift: f32,
}

impl RowNorm {
    #[allow(clippy::inline_always, reason = "it is compiled anew for each instruction set")]
    #[inline(always)]
    fn of(x: &[f32], floor: f64) -> Self {
        let count = x.len() as f64;
        let mean = (lane_sum(x, |x| x) / count) as f32;
        let rest = lane_sum(x, |x| x - mean) / count;
        let square = lane_sum(x, |x| (x - mean) * (x - mean)) / count;
        let variance = square - rest * rest;
        let precision = 1.0 / (variance + floor).sqrt();
        Self { mean, precision: precision as f32, shift: (-rest * precision) as f32 }
    }

    #[allow(clippy::inline_always, reason = "it is compiled anew for each instruction set")]
    #[inline(always)]
    fn hat(&self, x: f32) -> f32 {
        (x - self.mean) * self.precision + self.shift
    }
}

vectorised! {
    fn forward_rows(x: &[f32], affine: (&[f32], &[f32]), floor: f64, y: &mut [f32]) {
        let (weight, bias) = affine;
        let width = weight.len();
        for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            let norm = RowNorm::of(x, floor);
            y.iter_mut().zip(x).zip(weight.iter().zip(bias)).for_each(|((y, x), (w, b))| *y = norm.hat(*x) * w + b);
        }
    }

    /// dx over dy, and the rows' part of dweight and dbias, [2, width].
    fn backward_rows(x: &[f32], weight: &[f32], floor: f64, dy: &mut [f32]) -> Vec<f64> {
        let width = weight.len();
        let mut sums = vec![0.0; 2 * width];
        let (mut hats, mut dweight, mut dbias) = (vec![0.0f32; width], vec![0.0f32; width], vec![0.0f32; width]);
        let (dweights, dbiases) = sums.split_at_mut(width);
        for (x, dy) in x.chunks(FOLD * width).zip(dy.chunks_mut(FOLD * width)) {
            dweight.fill(0.0);
            dbias.fill(0.0);
            for (x, dy) in x.chunks_exact(width).zip(dy.chunks_exact_mut(width)) {
                let norm = RowNorm::of(x, floor);
                hats.iter_mut().zip(x).for_each(|(hat, x)| *hat = norm.hat(*x));
                dweight.iter_mut().zip(dy.iter().zip(&hats)).for_each(|(sum, (dy, hat))| *sum += dy * hat);
                dbias.iter_mut().zip(&*dy).for_each(|(sum, dy)| *sum += dy);
                dy.iter_mut().zip(weight).for_each(|(g, weight)| *g *= weight);
                let mean_g = (lane_sum(dy, |g| g) / width as f64) as f32;
                let mean_gx = (dot(dy, &hats) / width as f64) as f32;
                dy.iter_mut().zip(&hats).for_each(|(g, hat)| *g = norm.precision * (*g - mean_g - hat * mean_gx));
            }
            dweights.iter_mut().zip(&dweight).for_each(|(total, sum)| *total += f64::from(*sum));
            dbiases.iter_mut().zip(&dbias).for_each(|(total, sum)| *total += f64::from(*sum));
        }
        sums
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::product::tests::{assert_slope, error, values};
    use crate::threads::tests::same_bits;
    use crate::vectorised::tests::same_bits_by_every_isa;

    /// Widths and rows: whole vectors and not.
    const SIZES: [(usize, usize); 5] = [(64, 300), (192, 77), (9, 40), (100, 17), (768, 5)];

    /// y, and the gradients of x, weight and bias, by the formulas in `f64`.
    pub(crate) fn in_float64(x: &[f64], weight: &[f64], bias: &[f64], dy: &[f64]) -> (Vec<f64>, [Vec<f64>; 3]) {
        let width = weight.len();
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let (mut y, mut dx) = (Vec::new(), Vec::new());
        let (mut dweight, mut dbias) = (vec![0.0; width], vec![0.0; width]);
        for (x, dy) in x.chunks_exact(width).zip(dy.chunks_exact(width)) {
            let centre = mean(x);
            let squares: Vec<f64> = x.iter().map(|x| (x - centre) * (x - centre)).collect();
            let scale = 1.0 / (mean(&squares) + 1e-6).sqrt();
            let hat: Vec<f64> = x.iter().map(|x| (x - centre) * scale).collect();
            let g: Vec<f64> = dy.iter().zip(weight).map(|(dy, weight)| dy * weight).collect();
            let along = mean(&g.iter().zip(&hat).map(|(g, hat)| g * hat).collect::<Vec<f64>>());
            for at in 0..width {
                y.push(hat[at] * weight[at] + bias[at]);
                dx.push(scale * (g[at] - mean(&g) - hat[at] * along));
                dweight[at] += dy[at] * hat[at];
                dbias[at] += dy[at];
            }
        }
        (y, [dx, dweight, dbias])
    }

    #[test]
    fn values_and_gradients_are_those_in_float64_by_every_instruction_set() {
        for (width, rows) in SIZES {
            for offset in [0.0, 300.0] {
                let x: Vec<f32> = values(rows * width, 1).iter().map(|v| v * 2.0 + offset).collect();
                let (weight, bias, dy) = (values(width, 2), values(width, 3), values(rows * width, 4));
                let wide = |values: &[f32]| values.iter().map(|v| f64::from(*v)).collect::<Vec<f64>>();
                let (want, want_gradient) = in_float64(&wide(&x), &wide(&weight), &wide(&bias), &wide(&dy));
                let y = same_bits_by_every_isa(|isa| {
                    let mut y = vec![f32::NAN; x.len()];
                    forward_by(isa, &x, (&weight, &bias), 1e-6, &mut y);
                    y
                });
                assert!(error(&y, &want) < 5e-7, "{}", error(&y, &want));
                let got = same_bits_by_every_isa(|isa| {
                    let mut dx = dy.clone();
                    let gradient = backward_over_dy_by(isa, &x, &weight, 1e-6, &mut dx);
                    [dx, gradient.weight, gradient.bias].concat()
                });
                let [dx, dweight, dbias] = &want_gradient;
                for (start, want) in [(0, dx), (x.len(), dweight), (x.len() + width, dbias)] {
                    let error = error(&got[start..][..want.len()], want);
                    assert!(error < 1e-6, "{width} x {rows}: {error}");
                }
            }
        }
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        let (x, dy, weight, bias) = (values(6 * 9, 4), values(6 * 9, 5), values(9, 6), values(9, 7));
        let objective = |x: &[f32], weight: &[f32], bias: &[f32]| {
            let mut y = vec![0.0; x.len()];
            forward(x, weight, bias, 1e-6, &mut y);
            y.iter().zip(&dy).map(|(y, g)| f64::from(*y) * f64::from(*g)).sum::<f64>()
        };
        let mut dx = vec![0.0; x.len()];
        let got = backward(&x, &weight, 1e-6, &dy, &mut dx);
        assert_slope(&x, &dx, 1e-2, 2e-3, &|x| objective(x, &weight, &bias));
        assert_slope(&weight, &got.weight, 1e-2, 2e-3, &|weight| objective(&x, weight, &bias));
        assert_slope(&bias, &got.bias, 1e-2, 2e-3, &|bias| objective(&x, &weight, bias));
    }

    #[test]
    fn layer_norms_do_not_depend_on_threads() {
        let (x, dy, weight, bias) = (values(333 * 65, 1), values(333 * 65, 2), values(65, 3), values(65, 4));
        same_bits(|| {
            let (mut y, mut dx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
            forward(&x, &weight, &bias, 1e-6, &mut y);
            let gradient = backward(&x, &weight, 1e-6, &dy, &mut dx);
            [y, dx, gradient.weight, gradient.bias].concat()
        });
    }
}

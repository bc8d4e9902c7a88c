//! Elementwise kernels and the addition of biases, forward and backward.
//!
//! One pass over memory each; bits depend neither on the number of threads nor on the instruction set. Forms `_over_` an argument
//! write over it: what is written is in the cache already.

use crate::columns::{PIECE, add_rows, lanes, narrow, totals};
use crate::isa::Isa;
use crate::threads::for_chunks;
use crate::vectorised::vectorised;

/// Values that one thread computes in one go.
const CHUNK: usize = 1 << 14;

/// `max(v, 0)`, NaN for NaN.
pub(crate) fn rectified(v: f32) -> f32 {
    if v <= 0.0 { 0.0 } else { v }
}

/// What ReLU at v lets pass of the gradient g.
pub(crate) fn passed(v: f32, g: f32) -> f32 {
    if v <= 0.0 { 0.0 } else { g }
}

/// `y = max(x, 0)`; NaN stays NaN, so that a loss that is not finite shows.
pub fn relu(x: &[f32], y: &mut [f32]) {
    let isa = Isa::active();
    assert_eq!(x.len(), y.len());
    for_chunks(y, CHUNK, |k, y| relu_by(isa, &x[k * CHUNK..][..y.len()], y));
}

/// `y = max(a + b, 0)`: the end of a residual block.
pub fn add_relu(a: &[f32], b: &[f32], y: &mut [f32]) {
    let isa = Isa::active();
    assert!(a.len() == y.len() && b.len() == y.len());
    for_chunks(y, CHUNK, |k, y| add_relu_by(isa, &a[k * CHUNK..][..y.len()], &b[k * CHUNK..][..y.len()], y));
}

/// `y = a + b`.
pub fn add(a: &[f32], b: &[f32], y: &mut [f32]) {
    let isa = Isa::active();
    assert!(a.len() == y.len() && b.len() == y.len());
    for_chunks(y, CHUNK, |k, y| add_by(isa, &a[k * CHUNK..][..y.len()], &b[k * CHUNK..][..y.len()], y));
}

/// `sum += x`: a residual branch, or the second gradient of a value that is used twice.
pub fn add_to(x: &[f32], sum: &mut [f32]) {
    let isa = Isa::active();
    assert_eq!(x.len(), sum.len());
    for_chunks(sum, CHUNK, |k, sum| add_to_by(isa, &x[k * CHUNK..][..sum.len()], sum));
}

/// `g = g` where `y > 0` (or is NaN), else 0: the gradient through a ReLU whose result was y, over that of y. The derivative of
/// ReLU is 0 at 0, as PyTorch's is.
pub fn mask_over_g(y: &[f32], g: &mut [f32]) {
    let isa = Isa::active();
    assert_eq!(y.len(), g.len());
    for_chunks(g, CHUNK, |k, g| mask_over_g_by(isa, &y[k * CHUNK..][..g.len()], g));
}

/// [`mask_over_g`] with its result apart.
pub fn mask(y: &[f32], g: &[f32], out: &mut [f32]) {
    let isa = Isa::active();
    assert!(y.len() == out.len() && g.len() == out.len());
    for_chunks(out, CHUNK, |k, out| mask_by(isa, &y[k * CHUNK..][..out.len()], &g[k * CHUNK..][..out.len()], out));
}

/// `dbias [width]`: the sum of the rows of dy [rows, width], in f32 over 64 rows of several hundred values, folded into f64.
///
/// # Panics
/// Where dy is no multiple of the width.
pub fn bias_backward(width: usize, dy: &[f32]) -> Vec<f32> {
    bias_backward_by(Isa::active(), width, dy)
}

fn bias_backward_by(isa: Isa, width: usize, dy: &[f32]) -> Vec<f32> {
    assert!(width > 0 && dy.len().is_multiple_of(width), "dy is rows x width");
    let pieces = dy.chunks(lanes(width) * PIECE);
    narrow(totals(width, pieces, |dy, [sums]| sum_rows(isa, dy, sums)))
}

/// [`bias_backward`] where ReLU followed, with the result y [rows, width]: dy is masked by y, over dy, in the same pass.
///
/// # Panics
/// Where the lengths differ or are no multiple of the width.
pub fn bias_relu_backward(width: usize, y: &[f32], dy: &mut [f32]) -> Vec<f32> {
    bias_relu_backward_by(Isa::active(), width, y, dy)
}

fn bias_relu_backward_by(isa: Isa, width: usize, y: &[f32], dy: &mut [f32]) -> Vec<f32> {
    assert!(width > 0 && dy.len().is_multiple_of(width) && y.len() == dy.len(), "y and dy are rows x width");
    let size = lanes(width) * PIECE;
    let pieces = y.chunks(size).zip(dy.chunks_mut(size));
    narrow(totals(width, pieces, |(y, dy), [sums]| mask_and_sum_rows(isa, y, dy, sums)))
}

vectorised! {
    fn relu_by(x: &[f32], y: &mut [f32]) {
        y.iter_mut().zip(x).for_each(|(y, x)| *y = rectified(*x));
    }

    fn add_relu_by(a: &[f32], b: &[f32], y: &mut [f32]) {
        y.iter_mut().zip(a.iter().zip(b)).for_each(|(y, (a, b))| *y = rectified(a + b));
    }

    fn add_by(a: &[f32], b: &[f32], y: &mut [f32]) {
        y.iter_mut().zip(a.iter().zip(b)).for_each(|(y, (a, b))| *y = a + b);
    }

    pub(crate) fn add_to_by(x: &[f32], sum: &mut [f32]) {
        sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += x);
    }

    pub(crate) fn mask_over_g_by(y: &[f32], g: &mut [f32]) {
        g.iter_mut().zip(y).for_each(|(g, y)| *g = passed(*y, *g));
    }

    fn mask_by(y: &[f32], g: &[f32], out: &mut [f32]) {
        out.iter_mut().zip(y.iter().zip(g)).for_each(|(out, (y, g))| *out = passed(*y, *g));
    }

    /// `y = y + bias` for each row of y, and a bias repeated to fill vectors, over y.
    pub(crate) fn add_bias(bias: &[f32], y: &mut [f32]) {
        for y in y.chunks_mut(bias.len()) {
            y.iter_mut().zip(bias).for_each(|(y, bias)| *y += bias);
        }
    }

    /// `y = max(y + bias, 0)`, as [`add_bias`].
    pub(crate) fn add_bias_and_relu(bias: &[f32], y: &mut [f32]) {
        for y in y.chunks_mut(bias.len()) {
            y.iter_mut().zip(bias).for_each(|(y, bias)| *y = rectified(*y + bias));
        }
    }

    /// `y = y + bias + residual`, as [`add_bias`]; the residual has the shape of y: the end of a residual branch.
    pub(crate) fn add_bias_and_residual(bias: &[f32], residual: &[f32], y: &mut [f32]) {
        for (y, residual) in y.chunks_mut(bias.len()).zip(residual.chunks(bias.len())) {
            for ((y, residual), bias) in y.iter_mut().zip(residual).zip(bias) {
                *y = *y + bias + residual;
            }
        }
    }

    fn sum_rows(dy: &[f32], sums: &mut [f32]) {
        add_rows(dy, sums);
    }

    fn mask_and_sum_rows(y: &[f32], dy: &mut [f32], sums: &mut [f32]) {
        let four = 4 * sums.len();
        for (y, dy) in y.chunks(four).zip(dy.chunks_mut(four)) {
            dy.iter_mut().zip(y).for_each(|(dy, y)| *dy = passed(*y, *dy));
            add_rows(dy, sums);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns::repeated;
    use crate::product::tests::values;
    use crate::threads::tests::same_bits;
    use crate::vectorised::tests::same_bits_by_every_isa;

    #[test]
    fn elementwise_kernels_are_their_definitions_by_every_instruction_set() {
        let (mut a, b) = (values(1003, 1), values(1003, 2));
        a[..4].copy_from_slice(&[0.0, -0.0, f32::NAN, f32::INFINITY]);
        let by = |f: &dyn Fn(Isa, &mut [f32])| {
            same_bits_by_every_isa(|isa| {
                let mut y = b.clone();
                f(isa, &mut y);
                y
            })
        };
        let assert_is = |got: Vec<f32>, want: &dyn Fn(f32, f32) -> f32| {
            for (at, got) in got.into_iter().enumerate() {
                let want = want(a[at], b[at]);
                assert!(got == want || (got.is_nan() && want.is_nan()), "{at}: {got} {want}");
            }
        };
        assert_is(by(&|isa, y| relu_by(isa, &a, y)), &|a, _| if a.is_nan() { a } else { a.max(0.0) });
        assert_is(by(&|isa, y| add_relu_by(isa, &a, &b, y)), &|a, b| if a.is_nan() { a } else { (a + b).max(0.0) });
        assert_is(by(&|isa, y| add_by(isa, &a, &b, y)), &|a, b| a + b);
        assert_is(by(&|isa, y| add_to_by(isa, &a, y)), &|a, b| a + b);
        let masked = |a: f32, b: f32| if a > 0.0 || a.is_nan() { b } else { 0.0 };
        assert_is(by(&|isa, y| mask_over_g_by(isa, &a, y)), &masked);
        assert_is(by(&|isa, y| mask_by(isa, &a, &b, y)), &masked);
    }

    #[test]
    fn biases_and_their_gradients_are_those_in_float64_by_every_instruction_set() {
        for (width, rows) in [(10, 64), (192, 333), (768, 70), (1, 3000), (16, 40_000)] {
            let (x, bias, dy) = (values(rows * width, 1), values(width, 2), values(rows * width, 3));
            let all = repeated(&bias);
            let by = |f: &dyn Fn(Isa, &mut [f32])| {
                same_bits_by_every_isa(|isa| {
                    let mut y = x.clone();
                    f(isa, &mut y);
                    y
                })
            };
            let sum = by(&|isa, y| add_bias_and_residual(isa, &all, &dy, y));
            assert!((0..sum.len()).all(|at| sum[at] == x[at] + bias[at % width] + dy[at]));
            for relu in [false, true] {
                let y = by(&|isa, y| if relu { add_bias_and_relu(isa, &all, y) } else { add_bias(isa, &all, y) });
                let plain = |at: usize| x[at] + bias[at % width];
                let want = |at: usize| if relu { plain(at).max(0.0) } else { plain(at) };
                assert!(y.iter().enumerate().all(|(at, y)| *y == want(at)));
                let got = same_bits_by_every_isa(|isa| {
                    if relu {
                        bias_relu_backward_by(isa, width, &y, &mut dy.clone())
                    } else {
                        bias_backward_by(isa, width, &dy)
                    }
                });
                let mut sums = vec![0.0; width];
                for at in (0..y.len()).filter(|at| !relu || y[*at] > 0.0) {
                    sums[at % width] += f64::from(dy[at]);
                }
                // Values of mean zero cancel; what is rounded is their size.
                let size = 0.5 * rows as f64;
                assert!(got.iter().zip(&sums).all(|(got, want)| (f64::from(*got) - want).abs() < 2e-7 * size));
            }
        }
    }

    #[test]
    fn elementwise_kernels_do_not_depend_on_threads() {
        let (a, b) = (values(70_000, 1), values(70_000, 2));
        same_bits(|| {
            let (mut y, mut sum, mut g) = (vec![0.0; a.len()], vec![0.0; a.len()], b.clone());
            relu(&a, &mut y);
            add_relu(&a, &y, &mut sum);
            mask(&y, &b, &mut g);
            mask_over_g(&sum, &mut g);
            add(&g, &sum, &mut y);
            add_to(&g, &mut y);
            let (sums, masked) = (bias_backward(7, &y), bias_relu_backward(7, &y, &mut g));
            [y, g, sums, masked].concat()
        });
    }
}

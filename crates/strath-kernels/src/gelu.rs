//! The exact GELU of Hendrycks and Gimpel 2016, `x Phi(x)`, and the gradient through it.
//!
//! One pass over memory each, without a call of a library: `elementary`'s normal distribution, whose tails keep their
//! digits. The value is within 3e-7 of its own size for x from -2 on, 7e-7 where it is tinier; the slope within 2e-7, absolutely (it
//! is about 1 at most). Bits depend neither on the number of threads nor on the instruction set. A second derivative is in
//! [`exact`].

use crate::columns::{PIECE, add_rows, lanes, narrow, repeated, totals};
use crate::elementary::Normal;
use crate::isa::Isa;
use crate::threads::for_chunks;
use crate::vectorised::vectorised;

/// Values that one thread computes in one go.
const CHUNK: usize = 1 << 12;

/// `y = x Phi(x)`.
///
/// # Panics
/// Where the lengths differ.
pub fn forward(x: &[f32], y: &mut [f32]) {
    let isa = Isa::active();
    assert_eq!(x.len(), y.len(), "y has the shape of x");
    for_chunks(y, CHUNK, |k, y| forward_by(isa, &x[k * CHUNK..][..y.len()], y));
}

/// `slope = Phi(x) + x phi(x)`, the derivative of [`forward`].
///
/// # Panics
/// Where the lengths differ.
pub fn derivative(x: &[f32], slope: &mut [f32]) {
    let isa = Isa::active();
    assert_eq!(x.len(), slope.len(), "the derivative has the shape of x");
    for_chunks(slope, CHUNK, |k, slope| derivative_by(isa, &x[k * CHUNK..][..slope.len()], slope));
}

/// `dy = dy (Phi(x) + x phi(x))`: the gradient of x over that of y.
///
/// # Panics
/// Where the lengths differ.
pub fn backward_over_dy(x: &[f32], dy: &mut [f32]) {
    let isa = Isa::active();
    assert_eq!(x.len(), dy.len(), "dy has the shape of x");
    for_chunks(dy, CHUNK, |k, dy| backward_by(isa, &x[k * CHUNK..][..dy.len()], dy));
}

/// [`backward_over_dy`] with its result apart.
///
/// # Panics
/// Where the lengths differ.
pub fn backward(x: &[f32], dy: &[f32], dx: &mut [f32]) {
    let isa = Isa::active();
    assert!(x.len() == dx.len() && dy.len() == dx.len(), "dx and dy have the shape of x");
    for_chunks(dx, CHUNK, |k, dx| {
        dx.copy_from_slice(&dy[k * CHUNK..][..dx.len()]);
        backward_by(isa, &x[k * CHUNK..][..dx.len()], dx);
    });
}

/// `x = x + bias` for each row of x [rows, width], over x, and `y = x Phi(x)` of that, in one pass: a linear layer's end.
///
/// # Panics
/// Where the lengths differ or are no multiple of the bias.
pub fn forward_after_bias(bias: &[f32], x: &mut [f32], y: &mut [f32]) {
    let isa = Isa::active();
    assert!(!bias.is_empty() && x.len().is_multiple_of(bias.len()), "x is rows x width");
    assert_eq!(x.len(), y.len(), "y has the shape of x");
    let bias = repeated(bias);
    let size = bias.len() * PIECE;
    let mut pieces: Vec<_> = x.chunks_mut(size).zip(y.chunks_mut(size)).collect();
    for_chunks(&mut pieces, 1, |_, pieces| {
        for (x, y) in pieces {
            forward_after_bias_by(isa, &bias, x, y);
        }
    });
}

/// [`backward_over_dy`] and, of its result, the gradient of the bias, of `width` values, that was added in
/// [`forward_after_bias`], in one pass: the sum of the rows as [`crate::pointwise::bias_backward`] takes it.
///
/// # Panics
/// Where the lengths differ or are no multiple of the width.
pub fn backward_and_bias(width: usize, x: &[f32], dy: &mut [f32]) -> Vec<f32> {
    let isa = Isa::active();
    assert!(width > 0 && x.len().is_multiple_of(width) && x.len() == dy.len(), "x and dy are rows x width");
    let size = lanes(width) * PIECE;
    let pieces = x.chunks(size).zip(dy.chunks_mut(size));
    narrow(totals(width, pieces, |(x, dy), [sums]| backward_and_sum_rows(isa, x, dy, sums)))
}

vectorised! {
    fn forward_by(x: &[f32], y: &mut [f32]) {
        // Loops, not for_each: a closure of this size is not inlined, so it would be compiled for the plainest set alone.
        for (y, x) in y.iter_mut().zip(x) {
            *y = *x * Normal::at(*x).cumulative;
        }
    }

    fn forward_after_bias_by(bias: &[f32], x: &mut [f32], y: &mut [f32]) {
        for (y, x) in y.chunks_mut(bias.len()).zip(x.chunks_mut(bias.len())) {
            for ((y, x), bias) in y.iter_mut().zip(x).zip(bias) {
                *x += bias;
                *y = *x * Normal::at(*x).cumulative;
            }
        }
    }

    fn backward_and_sum_rows(x: &[f32], dy: &mut [f32], sums: &mut [f32]) {
        let four = 4 * sums.len();
        for (x, dy) in x.chunks(four).zip(dy.chunks_mut(four)) {
            for (dy, x) in dy.iter_mut().zip(x) {
                let normal = Normal::at(*x);
                *dy *= normal.cumulative + *x * normal.density;
            }
            add_rows(dy, sums);
        }
    }

    fn derivative_by(x: &[f32], slope: &mut [f32]) {
        for (slope, x) in slope.iter_mut().zip(x) {
            let normal = Normal::at(*x);
            *slope = normal.cumulative + *x * normal.density;
        }
    }

    fn backward_by(x: &[f32], dy: &mut [f32]) {
        for (dy, x) in dy.iter_mut().zip(x) {
            let normal = Normal::at(*x);
            *dy *= normal.cumulative + *x * normal.density;
        }
    }
}

/// The exact GELU, `x Phi(x)`, or one of its first two derivatives, slowly: where a second derivative is wanted, and as the oracle.
///
/// With the normal density `phi`: `Phi(x) + x phi(x)` and `(2 - x^2) phi(x)`. In `f64` with `libm`'s `erf` and `exp`.
pub fn exact(derivative: Derivative, x: &[f32], y: &mut [f32]) {
    let value = |x: f32| {
        let x = f64::from(x);
        let cumulative = || 0.5 * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2));
        let density = || libm::exp(-0.5 * x * x) * 0.398_942_280_401_432_7;
        (match derivative {
            Derivative::None => x * cumulative(),
            Derivative::First => cumulative() + x * density(),
            Derivative::Second => (2.0 - x * x) * density(),
        }) as f32
    };
    for_chunks(y, CHUNK, |k, y| y.iter_mut().zip(&x[k * CHUNK..]).for_each(|(y, x)| *y = value(*x)));
}

/// Which derivative of an activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Derivative {
    /// The function itself.
    None,
    /// Its first derivative.
    First,
    /// Its second derivative.
    Second,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pointwise;
    use crate::product::tests::values;
    use crate::threads::tests::same_bits;
    use crate::vectorised::tests::same_bits_by_every_isa;

    fn cumulative(x: f64) -> f64 {
        0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2)
    }

    #[test]
    fn values_and_slopes_are_those_in_float64_by_every_instruction_set() {
        let mut x: Vec<f32> = values(50_001, 1).iter().map(|x| x * 8.0).collect();
        x.extend(values(50_001, 2).iter().map(|x| x * 0.01));
        let y = same_bits_by_every_isa(|isa| {
            let mut y = vec![0.0; x.len()];
            forward_by(isa, &x, &mut y);
            y
        });
        let slopes = same_bits_by_every_isa(|isa| {
            let mut slopes = vec![0.0; x.len()];
            derivative_by(isa, &x, &mut slopes);
            slopes
        });
        let dy = values(x.len(), 3);
        let dx = same_bits_by_every_isa(|isa| {
            let mut dx = dy.clone();
            backward_by(isa, &x, &mut dx);
            dx
        });
        let (mut relative, mut tiny, mut absolute) = (0.0f64, 0.0f64, 0.0f64);
        for at in 0..x.len() {
            let wide = f64::from(x[at]);
            let want = wide * cumulative(wide);
            let error = if wide > -2.0 { &mut relative } else { &mut tiny };
            *error = error.max((f64::from(y[at]) - want).abs() / want.abs());
            let slope = cumulative(wide) + wide * libm::exp(-0.5 * wide * wide) * 0.398_942_280_401_432_7;
            absolute = absolute.max((f64::from(slopes[at]) - slope).abs());
            assert_eq!(dx[at], dy[at] * slopes[at]);
        }
        println!("largest errors: value {relative:e} and {tiny:e}, relatively; slope {absolute:e}");
        assert!(relative < 3e-7 && tiny < 7e-7 && absolute < 2e-7);
    }

    #[test]
    fn zero_has_value_zero_and_slope_one_half_and_nan_passes() {
        let (mut y, mut slope) = ([0.0; 4], [0.0; 4]);
        let x = [0.0, 1.0, f32::INFINITY, f32::NAN];
        forward(&x, &mut y);
        derivative(&x, &mut slope);
        assert_eq!((y[0], slope[0], y[2]), (0.0, 0.5, f32::INFINITY));
        assert!((y[1] - 0.841_344_7).abs() < 1e-7 && y[3].is_nan() && slope[3].is_nan());
    }

    #[test]
    fn biases_in_the_same_pass_have_the_bits_of_passes_of_their_own() {
        for (width, rows) in [(768, 70), (10, 999)] {
            let (x, bias, dy) = (values(width * rows, 1), values(width, 2), values(width * rows, 3));
            let (mut apart, mut want, mut dx) = (x.clone(), vec![0.0; x.len()], dy.clone());
            pointwise::add_bias(pointwise::Then::Nothing, &bias, &mut apart);
            forward(&apart, &mut want);
            backward_over_dy(&apart, &mut dx);
            let sums = pointwise::bias_backward(width, &dx);
            let want = [apart, want, dx, sums].concat();
            let got = same_bits(|| {
                let (mut x, mut y, mut dy) = (x.clone(), vec![f32::NAN; x.len()], dy.clone());
                forward_after_bias(&bias, &mut x, &mut y);
                let sums = backward_and_bias(width, &x, &mut dy);
                [x, y, dy, sums].concat()
            });
            assert_eq!(got, want);
        }
    }

    #[test]
    fn activations_do_not_depend_on_threads() {
        let x = values(50_000, 3);
        same_bits(|| {
            let (mut y, mut slope, mut dx) = (vec![0.0; x.len()], vec![0.0; x.len()], vec![0.0; x.len()]);
            forward(&x, &mut y);
            derivative(&x, &mut slope);
            backward(&x, &y, &mut dx);
            backward_over_dy(&slope, &mut y);
            [y, slope, dx].concat()
        });
    }

    #[test]
    fn the_exact_one_has_known_values_and_its_derivatives_are_those() {
        let at = |derivative, x: f32| {
            let mut y = [0.0];
            exact(derivative, &[x], &mut y);
            f64::from(y[0])
        };
        // x Phi(x) at 1 is the normal distribution's 0.841344746...
        assert!((at(Derivative::None, 1.0) - 0.841_344_746).abs() < 1e-7);
        assert_eq!(at(Derivative::None, 0.0), 0.0);
        for x in [-3.0f32, -0.7, 0.0, 0.4, 2.5] {
            let step = 1e-2;
            let slope = |derivative| (at(derivative, x + step) - at(derivative, x - step)) / (2.0 * f64::from(step));
            assert!((slope(Derivative::None) - at(Derivative::First, x)).abs() < 1e-4, "{x}");
            assert!((slope(Derivative::First) - at(Derivative::Second, x)).abs() < 1e-4, "{x}");
        }
    }
}

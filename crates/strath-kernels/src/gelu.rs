//! The exact GELU of Hendrycks and Gimpel 2016, `x Phi(x)`, and the gradient through it.
//!
//! Value and slope come from one evaluation of `elementary`'s normal distribution, whose tails keep their digits, without a call of a
//! library: the forward leaves the slope where x was, and the backward is a multiplication. The value is within 3e-7 of its own size for x from -2 on, 7e-7 where it is tinier; the slope within 2e-7, absolutely (it
//! is about 1 at most). Bits depend neither on the number of threads nor on the instruction set. A second derivative is in
//! [`exact`].

use crate::columns::{PIECE, add_rows, lanes, narrow, totals};
use crate::elementary::Normal;
use crate::isa::Isa;
use crate::tangent::{Pair, PairMut};
use crate::threads::for_chunks;
use crate::vectorised::vectorised;

/// Values that one thread computes in one go.
const CHUNK: usize = 1 << 12;

/// `dy = dy slope`, the gradient of x over that of y, from the slopes that `forward_after_bias` left; and the gradient of the bias,
/// of `width` values, that was added there: the sum of the rows as [`crate::pointwise::bias_backward`] takes it. One pass.
///
/// # Panics
/// Where the lengths differ or are no multiple of the width.
pub fn backward_and_bias(width: usize, slope: &[f32], dy: &mut [f32]) -> Vec<f32> {
    backward_and_bias_by(Isa::active(), width, slope, dy)
}

fn backward_and_bias_by(isa: Isa, width: usize, slope: &[f32], dy: &mut [f32]) -> Vec<f32> {
    assert!(width > 0 && slope.len().is_multiple_of(width) && slope.len() == dy.len(), "slope and dy are rows x width");
    let size = lanes(width) * PIECE;
    let pieces = slope.chunks(size).zip(dy.chunks_mut(size));
    narrow(totals(width, pieces, |(slope, dy), [sums]| scale_and_sum_rows(isa, slope, dy, sums)))
}

/// y and y' from z with its tangent z'; in the place of z is left the slope, in that of z' the slope's tangent, the second derivative times z'.
///
/// ```text
/// y = z Phi(z),   slope = Phi(z) + z phi(z),   y' = slope z',   slope' = (2 - z^2) phi(z) z'
/// ```
///
/// # Panics
/// Where the lengths differ.
pub fn tangent_forward(z: PairMut<'_>, y: PairMut<'_>) {
    tangent_forward_by(Isa::active(), z, y);
}

fn tangent_forward_by(isa: Isa, mut z: PairMut<'_>, mut y: PairMut<'_>) {
    let lengths = [z.values.len(), z.along.len(), y.values.len(), y.along.len()];
    assert!(lengths.iter().all(|length| *length == lengths[0]), "one shape");
    let mut pieces: Vec<_> = z.chunks(CHUNK).zip(y.chunks(CHUNK)).collect();
    for_chunks(&mut pieces, 1, |_, pieces| {
        for (z, y) in pieces {
            values_and_tangents(isa, z, y);
        }
    });
}

/// The gradients of z and z' from g and g', those of y and y', over them; `slope` as [`tangent_forward`] left it:
/// `g = g slope,  g' = g' slope + g slope'`.
///
/// # Panics
/// Where the lengths differ.
pub fn tangent_backward(slope: Pair<'_>, g: PairMut<'_>) {
    tangent_backward_by(Isa::active(), slope, g);
}

fn tangent_backward_by(isa: Isa, slope: Pair<'_>, mut g: PairMut<'_>) {
    let lengths = [slope.values.len(), slope.along.len(), g.values.len(), g.along.len()];
    assert!(lengths.iter().all(|length| *length == lengths[0]), "one shape");
    let mut pieces: Vec<_> = g.chunks(CHUNK).enumerate().collect();
    for_chunks(&mut pieces, 1, |_, pieces| {
        for (k, g) in pieces {
            by_slope(isa, slope.at(*k * CHUNK, g.values.len()), g);
        }
    });
}

vectorised! {
    fn values_and_tangents(z: &mut PairMut<'_>, y: &mut PairMut<'_>) {
        let z = z.values.iter_mut().zip(z.along.iter_mut());
        for ((z, za), (y, ya)) in z.zip(y.values.iter_mut().zip(y.along.iter_mut())) {
            let value = *z;
            let normal = Normal::at(value);
            let slope = normal.cumulative + value * normal.density;
            *y = value * normal.cumulative;
            *ya = slope * *za;
            *z = slope;
            *za *= (2.0 - value * value) * normal.density;
        }
    }

    fn by_slope(slope: Pair<'_>, g: &mut PairMut<'_>) {
        let slopes = slope.values.iter().zip(slope.along);
        for ((slope, slope_along), (g, ga)) in slopes.zip(g.values.iter_mut().zip(g.along.iter_mut())) {
            *ga = *ga * slope + *g * slope_along;
            *g *= slope;
        }
    }

    /// Of `x + bias`, for each row of x and a bias repeated to fill vectors: `y = (x + bias) Phi(x + bias)`, and its slope over x.
    pub(crate) fn forward_after_bias(bias: &[f32], x: &mut [f32], y: &mut [f32]) {
        // Loops, not for_each: a closure of this size is not inlined, so it would be compiled for the plainest set alone.
        for (y, x) in y.chunks_mut(bias.len()).zip(x.chunks_mut(bias.len())) {
            for ((y, x), bias) in y.iter_mut().zip(x).zip(bias) {
                let value = *x + bias;
                let normal = Normal::at(value);
                *y = value * normal.cumulative;
                *x = normal.cumulative + value * normal.density;
            }
        }
    }

    fn scale_and_sum_rows(slope: &[f32], dy: &mut [f32], sums: &mut [f32]) {
        let four = 4 * sums.len();
        for (slope, dy) in slope.chunks(four).zip(dy.chunks_mut(four)) {
            dy.iter_mut().zip(slope).for_each(|(dy, slope)| *dy *= slope);
            add_rows(dy, sums);
        }
    }
}

/// The exact GELU, `x Phi(x)`, or one of its first two derivatives, slowly: where candle's graph is differentiated twice, and as the oracle.
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

    /// Values and slopes at x.
    fn at(isa: Isa, x: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let (mut slopes, mut y) = (x.to_vec(), vec![0.0; x.len()]);
        forward_after_bias(isa, &[0.0; 256], &mut slopes, &mut y);
        (y, slopes)
    }

    #[test]
    fn values_and_slopes_are_those_in_float64_by_every_instruction_set() {
        let mut x: Vec<f32> = values(50_001, 1).iter().map(|x| x * 8.0).collect();
        x.extend(values(50_001, 2).iter().map(|x| x * 0.01));
        let y = same_bits_by_every_isa(|isa| at(isa, &x).0);
        let slopes = same_bits_by_every_isa(|isa| at(isa, &x).1);
        let (mut relative, mut tiny, mut absolute) = (0.0f64, 0.0f64, 0.0f64);
        for at in 0..x.len() {
            let wide = f64::from(x[at]);
            let want = wide * cumulative(wide);
            let error = if wide > -2.0 { &mut relative } else { &mut tiny };
            *error = error.max((f64::from(y[at]) - want).abs() / want.abs());
            let slope = cumulative(wide) + wide * libm::exp(-0.5 * wide * wide) * 0.398_942_280_401_432_7;
            absolute = absolute.max((f64::from(slopes[at]) - slope).abs());
        }
        println!("largest errors: value {relative:e} and {tiny:e}, relatively; slope {absolute:e}");
        assert!(relative < 3e-7 && tiny < 7e-7 && absolute < 2e-7);
    }

    #[test]
    fn zero_has_value_zero_and_slope_one_half_and_nan_passes() {
        let (y, slope) = at(Isa::active(), &[0.0, 1.0, f32::INFINITY, f32::NAN]);
        assert_eq!((y[0], slope[0], y[2]), (0.0, 0.5, f32::INFINITY));
        assert!((y[1] - 0.841_344_7).abs() < 1e-7 && y[3].is_nan() && slope[3].is_nan());
    }

    #[test]
    fn the_gradient_is_dy_times_the_slope_and_its_rows_summed() {
        for (width, rows) in [(768, 70), (10, 999)] {
            let (slope, dy) = (values(width * rows, 1), values(width * rows, 3));
            let got = same_bits_by_every_isa(|isa| {
                same_bits(|| {
                    let mut dy = dy.clone();
                    let sums = backward_and_bias_by(isa, width, &slope, &mut dy);
                    [dy, sums].concat()
                })
            });
            let dx: Vec<f32> = dy.iter().zip(&slope).map(|(dy, slope)| dy * slope).collect();
            assert_eq!(got[dx.len()..], pointwise::bias_backward(width, &dx));
            assert_eq!(got[..dx.len()], dx);
        }
    }

    #[test]
    fn tangents_are_the_exact_derivatives_by_every_instruction_set_and_number_of_threads() {
        let z: Vec<f32> = values(9001, 1).iter().map(|z| z * 4.0).collect();
        let (u, g, ga) = (values(z.len(), 2), values(z.len(), 3), values(z.len(), 4));
        let got = same_bits_by_every_isa(|isa| {
            same_bits(|| {
                let [mut slope, mut slope_along, mut g, mut ga] = [&z, &u, &g, &ga].map(Vec::clone);
                let (mut y, mut ya) = (vec![f32::NAN; z.len()], vec![f32::NAN; z.len()]);
                let to = PairMut { values: &mut y, along: &mut ya };
                tangent_forward_by(isa, PairMut { values: &mut slope, along: &mut slope_along }, to);
                let slope = Pair { values: &slope, along: &slope_along };
                tangent_backward_by(isa, slope, PairMut { values: &mut g, along: &mut ga });
                [y, ya, g, ga].concat()
            })
        });
        let by = |derivative| {
            let mut y = vec![0.0; z.len()];
            exact(derivative, &z, &mut y);
            y
        };
        let (value, slope, second) = (by(Derivative::None), by(Derivative::First), by(Derivative::Second));
        let parts: Vec<&[f32]> = got.chunks_exact(z.len()).collect();
        for at in 0..z.len() {
            let want =
                [value[at], slope[at] * u[at], slope[at] * g[at], slope[at] * ga[at] + second[at] * u[at] * g[at]];
            for (part, want) in parts.iter().zip(want) {
                assert!((part[at] - want).abs() < 2e-6, "{at}: {} {want}", part[at]);
            }
        }
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

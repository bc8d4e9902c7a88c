//! Elementwise activations.

use crate::threads::for_chunks;

/// Values that one thread computes in one go.
const CHUNK: usize = 1 << 14;

/// `y = max(x, 0)`; NaN stays NaN, so that a loss that is not finite shows.
pub fn relu(x: &[f32], y: &mut [f32]) {
    for_chunks(y, CHUNK, |k, y| y.iter_mut().zip(&x[k * CHUNK..]).for_each(|(y, x)| *y = rectified(*x)));
}

/// `y = max(a + b, 0)`: the end of a residual block.
pub fn add_relu(a: &[f32], b: &[f32], y: &mut [f32]) {
    for_chunks(y, CHUNK, |k, y| {
        let (a, b) = (&a[k * CHUNK..], &b[k * CHUNK..]);
        y.iter_mut().zip(a).zip(b).for_each(|((y, a), b)| *y = rectified(a + b));
    });
}

/// `out = g` where `y > 0` (or is NaN), else 0: the derivative of ReLU is 0 at 0, as PyTorch's is.
pub fn mask(y: &[f32], g: &[f32], out: &mut [f32]) {
    for_chunks(out, CHUNK, |k, out| {
        let (y, g) = (&y[k * CHUNK..], &g[k * CHUNK..]);
        out.iter_mut().zip(y).zip(g).for_each(|((out, y), g)| *out = passed(*y, *g));
    });
}

/// `max(v, 0)`, NaN for NaN.
pub(crate) fn rectified(v: f32) -> f32 {
    if v <= 0.0 { 0.0 } else { v }
}

/// What ReLU at v lets pass of the gradient g.
pub(crate) fn passed(v: f32, g: f32) -> f32 {
    if v <= 0.0 { 0.0 } else { g }
}

/// The exact GELU, `x Phi(x)`, or one of its first two derivatives.
///
/// With the normal density `phi`: `Phi(x) + x phi(x)` and `(2 - x^2) phi(x)`. In `f64` with `libm`'s `erf` and `exp`.
pub fn gelu(derivative: Derivative, x: &[f32], y: &mut [f32]) {
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
    use crate::product::tests::values;
    use crate::threads::tests::same_bits;

    #[test]
    fn relu_has_no_slope_at_zero() {
        let (mut y, mut g) = ([0.0; 4], [0.0; 4]);
        relu(&[-1.0, 0.0, -0.0, 2.0], &mut y);
        assert_eq!(y, [0.0, 0.0, 0.0, 2.0]);
        mask(&y, &[5.0; 4], &mut g);
        assert_eq!(g, [0.0, 0.0, 0.0, 5.0]);
        add_relu(&[-1.0, 1.0, 2.0, -3.0], &[0.5, 1.0, -2.0, 4.0], &mut y);
        assert_eq!(y, [0.0, 2.0, 0.0, 1.0]);
    }

    #[test]
    fn relu_does_not_hide_what_is_not_a_number() {
        let (mut y, mut sum, mut g) = ([0.0; 2], [0.0; 2], [0.0; 2]);
        relu(&[f32::NAN, f32::INFINITY], &mut y);
        add_relu(&[f32::NAN, 1.0], &[1.0, f32::NAN], &mut sum);
        mask(&y, &[1.0, f32::NAN], &mut g);
        assert!(y[0].is_nan() && y[1] == f32::INFINITY && sum.iter().all(|v| v.is_nan()) && g[1].is_nan());
    }

    #[test]
    fn gelu_has_known_values_and_its_derivatives_are_those() {
        let at = |derivative, x: f32| {
            let mut y = [0.0];
            gelu(derivative, &[x], &mut y);
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

    #[test]
    fn activations_do_not_depend_on_threads() {
        let x = values(50_000, 3);
        same_bits(|| {
            let (mut a, mut b) = (vec![0.0; x.len()], vec![0.0; x.len()]);
            gelu(Derivative::First, &x, &mut a);
            mask(&x, &a, &mut b);
            b
        });
    }
}

//! Reductions of a row in lanes, a fixed order that vectorises and has the same bits for every instruction set.

#![allow(
    clippy::inline_always,
    reason = "these are compiled anew for each instruction set, inside of vectorised bodies"
)]

use std::hint::black_box;

/// Partial results side by side: two vectors of AVX-512, four of AVX2.
const LANES: usize = 32;

/// `sum of term(x)`: every 32nd term in an f32 of its own, folded into f64.
#[inline(always)]
pub(crate) fn lane_sum(x: &[f32], term: impl Fn(f32) -> f32) -> f64 {
    let mut lanes = [0.0f32; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for x in chunks {
        for lane in 0..LANES {
            lanes[lane] += term(x[lane]);
        }
    }
    if !rest.is_empty() {
        let x = padded(rest, 0.0);
        for lane in 0..LANES {
            lanes[lane] += if lane < rest.len() { term(x[lane]) } else { 0.0 };
        }
    }
    folded(lanes)
}

/// `sum of x y`, as [`lane_sum`].
#[inline(always)]
pub(crate) fn dot(x: &[f32], y: &[f32]) -> f64 {
    let mut lanes = [0.0f32; LANES];
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    for (x, y) in x.iter().zip(y) {
        for lane in 0..LANES {
            lanes[lane] += x[lane] * y[lane];
        }
    }
    if !x_rest.is_empty() {
        let (x, y) = (padded(x_rest, 0.0), padded(y_rest, 0.0));
        for lane in 0..LANES {
            lanes[lane] += x[lane] * y[lane];
        }
    }
    folded(lanes)
}

/// The largest value, which is NaN where one is; minus infinity of none.
#[inline(always)]
pub(crate) fn largest(x: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if a > b || a.is_nan() { a } else { b };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for x in chunks {
        for lane in 0..LANES {
            lanes[lane] = larger(lanes[lane], x[lane]);
        }
    }
    if !rest.is_empty() {
        let x = padded(rest, f32::NEG_INFINITY);
        for lane in 0..LANES {
            lanes[lane] = larger(lanes[lane], x[lane]);
        }
    }
    let lanes = halved::<32, 16, _>(lanes, larger);
    let lanes = halved::<16, 8, _>(lanes, larger);
    let lanes = halved::<8, 4, _>(lanes, larger);
    let [a, b, c, d] = lanes;
    larger(larger(a, b), larger(c, d))
}

#[inline(always)]
fn padded(rest: &[f32], with: f32) -> [f32; LANES] {
    let mut all = [with; LANES];
    all[..rest.len()].copy_from_slice(rest);
    all
}

/// The sum of the lanes in f64: halves added to halves.
#[inline(always)]
fn folded(lanes: [f32; LANES]) -> f64 {
    let lanes = black_box(lanes);
    let mut wide = [0.0f64; LANES / 2];
    for lane in 0..LANES / 2 {
        wide[lane] = f64::from(lanes[lane]) + f64::from(lanes[lane + LANES / 2]);
    }
    let wide = halved::<16, 8, _>(wide, |a, b| a + b);
    let [a, b, c, d] = halved::<8, 4, _>(wide, |a, b| a + b);
    (a + b) + (c + d)
}

/// One half combined with the other, `FROM` to `TO = FROM / 2` values.
///
/// What [`black_box`] hides: the compiler would see through to the single sums and compute them one by one, out of vectors that it
/// has torn apart. A detour by way of L1 is cheaper.
#[inline(always)]
fn halved<const FROM: usize, const TO: usize, T: Copy + Default>(
    from: [T; FROM],
    combine: impl Fn(T, T) -> T,
) -> [T; TO] {
    let from = black_box(from);
    let mut to = [T::default(); TO];
    for lane in 0..TO {
        to[lane] = combine(from[lane], from[lane + TO]);
    }
    to
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::product::tests::values;

    #[test]
    fn reductions_are_those_in_float64() {
        for count in [0, 1, 31, 32, 33, 1000] {
            let (x, y) = (values(count, 1), values(count, 2));
            let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-5, "{a} {b}");
            near(lane_sum(&x, |x| x * x), x.iter().map(|x| f64::from(*x).powi(2)).sum());
            near(dot(&x, &y), x.iter().zip(&y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum());
            assert_eq!(largest(&x), x.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
        for at in [0, 40, 64] {
            let mut x = values(65, 1);
            x[at] = f32::NAN;
            assert!(largest(&x).is_nan());
        }
    }
}

//! The six one-dimensional transforms of F(4, 3) and the points they come from.
//!
//! A polynomial product modulo `M(t) = t (t^2 - P^2) (t^2 - Q^2)` at the points 0, P, -P, Q, -Q and infinity, transposed
//! (Lavin and Gray 2016, after Toom and Cook), gives four correlations of six values d with three weights g:
//!
//! ```text
//! y_i = sum over j of g_j d_(i+j)  =  (A' [(G g) . (B' d)])_i
//!
//! row k of B', point a:  coefficients of M(t) / (t - a);   of M(t) for infinity
//! row k of G,  point a:  (1, a, a^2) / N, N = product over the other points b of (a - b);   (0, 0, 1)
//! column k of A', point a:  (1, a, a^2, a^3);   (0, 0, 0, 1)
//! ```
//!
//! P = 3/4 and Q = 3/2 rather than 1 and 2: the powers in A' and B' then lie nearer to 1, which halves the error, and both
//! matrices stay exact in f32, so that all of their rounding is that of the sums. The divisors are in G, which is applied to
//! few numbers. Scaling rows by powers of two changes no bits, by anything else makes A' or B' inexact: rows are left alone.

#![allow(unsafe_code, reason = "SIMD intrinsics")]

use crate::conv::winograd::simd::Simd;

const P: f32 = 0.75;
const Q: f32 = 1.5;
const P2: f32 = P * P;
const Q2: f32 = Q * Q;
const P3: f32 = P * P * P;
const Q3: f32 = Q * Q * Q;
/// Coefficients of `(t^2 - P^2) (t^2 - Q^2) = t^4 - SUM t^2 + PRODUCT`.
const SUM: f32 = P2 + Q2;
const PRODUCT: f32 = P2 * Q2;
/// Rows of G: `1 / N`, and `1 / N` times the point and its square.
const G0: f32 = 64.0 / 81.0;
const GP: [f32; 3] = [-128.0 / 243.0, -32.0 / 81.0, -8.0 / 27.0];
const GQ: [f32; 3] = [32.0 / 243.0, 16.0 / 81.0, 8.0 / 27.0];

/// Rows 0, P, -P of B' d, which do not need d_5.
///
/// # Safety
/// [`Simd`]'s, for every function here.
#[inline(always)]
pub(super) unsafe fn data_low<V: Simd>([d0, d1, d2, d3, d4]: [V; 5]) -> [V; 3] {
    // SAFETY: the caller's promise.
    unsafe {
        let zero = d4.plus(V::splat(PRODUCT), d0).minus(V::splat(SUM), d2);
        let even = d4.minus(V::splat(Q2), d2);
        let odd = d3.minus(V::splat(Q2), d1);
        [zero, even.plus(V::splat(P), odd), even.minus(V::splat(P), odd)]
    }
}

/// Rows Q, -Q and infinity of B' d, which do not need d_0.
#[inline(always)]
pub(super) unsafe fn data_high<V: Simd>([d1, d2, d3, d4, d5]: [V; 5]) -> [V; 3] {
    // SAFETY: the caller's promise.
    unsafe {
        let even = d4.minus(V::splat(P2), d2);
        let odd = d3.minus(V::splat(P2), d1);
        let infinity = d5.plus(V::splat(PRODUCT), d1).minus(V::splat(SUM), d3);
        [even.plus(V::splat(Q), odd), even.minus(V::splat(Q), odd), infinity]
    }
}

/// B' d.
#[inline(always)]
pub(super) unsafe fn data<V: Simd>([d0, d1, d2, d3, d4, d5]: [V; 6]) -> [V; 6] {
    // SAFETY: the caller's promise.
    unsafe {
        let [t0, t1, t2] = data_low([d0, d1, d2, d3, d4]);
        let [t3, t4, t5] = data_high([d1, d2, d3, d4, d5]);
        [t0, t1, t2, t3, t4, t5]
    }
}

/// G g.
#[inline(always)]
pub(super) unsafe fn weight<V: Simd>([g0, g1, g2]: [V; 3]) -> [V; 6] {
    // SAFETY: the caller's promise.
    unsafe {
        let even = |[zero, _, two]: [f32; 3]| g0.mul(V::splat(zero)).plus(V::splat(two), g2);
        let (p, q) = (even(GP), even(GQ));
        let (p1, q1) = (V::splat(GP[1]), V::splat(GQ[1]));
        [g0.mul(V::splat(G0)), p.plus(p1, g1), p.minus(p1, g1), q.plus(q1, g1), q.minus(q1, g1), g2]
    }
}

/// A' m.
#[inline(always)]
pub(super) unsafe fn result<V: Simd>([m0, m1, m2, m3, m4, m5]: [V; 6]) -> [V; 4] {
    // SAFETY: the caller's promise.
    unsafe {
        let (p_even, p_odd, q_even, q_odd) = (m1.add(m2), m1.sub(m2), m3.add(m4), m3.sub(m4));
        [
            m0.add(p_even).add(q_even),
            p_odd.mul(V::splat(P)).plus(V::splat(Q), q_odd),
            p_even.mul(V::splat(P2)).plus(V::splat(Q2), q_even),
            m5.plus(V::splat(P3), p_odd).plus(V::splat(Q3), q_odd),
        ]
    }
}

/// A y, the adjoint of [`result`].
#[inline(always)]
pub(super) unsafe fn gradient<V: Simd>([y0, y1, y2, y3]: [V; 4]) -> [V; 6] {
    // SAFETY: the caller's promise.
    unsafe {
        let (p_even, p_odd) = (y0.plus(V::splat(P2), y2), y1.plus(V::splat(P2), y3));
        let (q_even, q_odd) = (y0.plus(V::splat(Q2), y2), y1.plus(V::splat(Q2), y3));
        let (p, q) = (V::splat(P), V::splat(Q));
        [y0, p_even.plus(p, p_odd), p_even.minus(p, p_odd), q_even.plus(q, q_odd), q_even.minus(q, q_odd), y3]
    }
}

/// G' m, the adjoint of [`weight`].
#[inline(always)]
pub(super) unsafe fn weight_gradient<V: Simd>([m0, m1, m2, m3, m4, m5]: [V; 6]) -> [V; 3] {
    // SAFETY: the caller's promise.
    unsafe {
        let (p_even, p_odd, q_even, q_odd) = (m1.add(m2), m1.sub(m2), m3.add(m4), m3.sub(m4));
        [
            m0.mul(V::splat(G0)).plus(V::splat(GP[0]), p_even).plus(V::splat(GQ[0]), q_even),
            p_odd.mul(V::splat(GP[1])).plus(V::splat(GQ[1]), q_odd),
            m5.plus(V::splat(GP[2]), p_even).plus(V::splat(GQ[2]), q_even),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four times the points, as integers.
    const POINTS: [i64; 5] = [0, 3, -3, 6, -6];

    /// 1024 B': coefficients of the product of (t - b) over points b other than `without`.
    fn data_row(without: Option<usize>) -> [i64; 6] {
        let mut row = [1024, 0, 0, 0, 0, 0];
        for (_, b) in POINTS.iter().enumerate().filter(|(k, _)| Some(*k) != without) {
            for k in (0..6).rev() {
                let below = if k > 0 { row[k - 1] } else { 0 };
                row[k] = below - row[k] * b / 4;
            }
        }
        row
    }

    /// (64 A, 1944 G, 1024 B') by rows of the points.
    fn exact() -> [([i64; 4], [i64; 3], [i64; 6]); 6] {
        std::array::from_fn(|k| {
            if k == 5 {
                return ([0, 0, 0, 64], [0, 0, 1944], data_row(None));
            }
            let a = POINTS[k];
            // 256 N
            let n: i64 = POINTS.iter().filter(|b| **b != a).map(|b| a - b).product();
            let power = |j: u32| 1944 * 256 / 4i64.pow(j) * a.pow(j);
            (
                [64, 16 * a, 4 * a * a, a * a * a],
                std::array::from_fn(|j| {
                    assert_eq!(power(j as u32) % n, 0);
                    power(j as u32) / n
                }),
                data_row(Some(k)),
            )
        })
    }

    #[test]
    fn in_exact_arithmetic_the_sum_over_points_is_the_correlation() {
        for (i, j, l) in (0..4).flat_map(|i| (0..3).flat_map(move |j| (0..6).map(move |l| (i, j, l)))) {
            let sum: i64 = exact().iter().map(|(a, g, b)| a[i] * g[j] * b[l]).sum();
            assert_eq!(sum, if l == i + j { 64 * 1944 * 1024 } else { 0 }, "y_{i}, g_{j}, d_{l}");
        }
    }

    #[test]
    fn the_transforms_are_the_matrices() {
        fn unit<const N: usize>(at: usize) -> [f32; N] {
            std::array::from_fn(|k| f32::from(u8::from(k == at)))
        }
        let near = |got: f32, exact: i64, scale: f64| {
            assert!((f64::from(got) - exact as f64 / scale).abs() <= 6e-8, "{got} for {exact}/{scale}");
        };
        for (k, (a, g, b)) in exact().iter().enumerate() {
            // SAFETY: plain floats.
            unsafe {
                (0..6).for_each(|l| assert_eq!(data(unit(l))[k], b[l] as f32 / 1024.0));
                (0..4).for_each(|i| assert_eq!(gradient(unit(i))[k], a[i] as f32 / 64.0));
                (0..4).for_each(|i| assert_eq!(result(unit(k))[i], a[i] as f32 / 64.0));
                (0..3).for_each(|j| near(weight(unit(j))[k], g[j], 1944.0));
                (0..3).for_each(|j| near(weight_gradient(unit(k))[j], g[j], 1944.0));
            }
        }
    }
}

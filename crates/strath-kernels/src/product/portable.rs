//! Products in plain Rust: the definition of their bits, for processors without kernels of their own, and the oracle of the others.

use super::{Finish, Side, Sizes, Strided, blocks_of_terms};
use crate::isa::Isa;
use crate::threads::for_chunks;
use crate::vectorised::vectorised;

/// Rows of C that a thread computes at a time.
const STRIP: usize = 96;

/// As [`super::product`]; `isa` only says how the loops are compiled.
pub(super) fn product(
    isa: Isa,
    sizes: Sizes,
    (a, b): (Strided<'_>, Strided<'_>),
    (c, beside): (&mut [f32], &mut [f32]),
    finish: Finish<'_>,
) {
    let Sizes { inner, columns, .. } = sizes;
    let b = rows_of(b, inner, columns);
    let mut strips = super::strips(STRIP * columns, c, beside);
    for_chunks(&mut strips, 1, |k, strips| {
        for (c, beside) in strips {
            let rows = c.len() / columns;
            multiply(isa, (rows, inner, columns), a.from(k * STRIP, 0), &b, (c, columns));
            finish(k * STRIP, c, beside);
        }
    });
}

/// As [`super::small`].
pub(super) fn small(
    isa: Isa,
    (rows, inner, columns): (usize, usize, usize),
    (a, b): (Strided<'_>, Strided<'_>),
    (c, c_stride): (&mut [f32], usize),
) {
    multiply(isa, (rows, inner, columns), a, &rows_of(b, inner, columns), (c, c_stride));
}

/// B as rows that touch.
fn rows_of(b: Strided<'_>, inner: usize, columns: usize) -> Vec<f32> {
    let mut rows = Vec::with_capacity(inner * columns);
    for k in 0..inner {
        match b.side {
            Side::Plain => rows.extend_from_slice(&b.values[k * b.stride..][..columns]),
            Side::Transposed => rows.extend((0..columns).map(|j| b.values[j * b.stride + k])),
        }
    }
    rows
}

fn multiply(
    isa: Isa,
    (rows, inner, columns): (usize, usize, usize),
    a: Strided<'_>,
    b: &[f32],
    (c, c_stride): (&mut [f32], usize),
) {
    let mut sums = vec![0.0; columns];
    for row in 0..rows {
        let c = &mut c[row * c_stride..][..columns];
        for (from, terms) in blocks_of_terms(inner) {
            sums.fill(0.0);
            for k in from..from + terms {
                let at = if a.side == Side::Plain { row * a.stride + k } else { k * a.stride + row };
                add_multiple(isa, a.values[at], &b[k * columns..][..columns], &mut sums);
            }
            if from == 0 {
                c.copy_from_slice(&sums);
            } else {
                c.iter_mut().zip(&sums).for_each(|(c, sum)| *c += sum);
            }
        }
    }
}

vectorised! {
    fn add_multiple(a: f32, b: &[f32], sums: &mut [f32]) {
        for (sum, b) in sums.iter_mut().zip(b) {
            *sum = fused(a, *b, *sum);
        }
    }
}

/// `a b + c`, rounded once, as IEEE 754's fused multiply-add is.
///
/// The product of two f32 is exact in f64. The sum of that and c is rounded to odd: where it is not exact, to the neighbour whose
/// last bit is 1, which keeps on its side of every f32 and of every midpoint of two; so the second rounding is that of the exact
/// sum (Boldo and Melquiond 2008). Only the compiler's builds for a processor with the instruction could use that itself, and the
/// platform's `fma` is a call for each element.
#[allow(clippy::inline_always, reason = "it is compiled anew for each instruction set")]
#[inline(always)]
fn fused(a: f32, b: f32, c: f32) -> f32 {
    let (product, c) = (f64::from(a) * f64::from(b), f64::from(c));
    let sum = product + c;
    // What the sum lost (Knuth's two-sum); NaN where the sum is infinite or NaN, and then no comparison holds.
    let back = sum - product;
    let lost = (product - (sum - back)) + (c - back);
    let inexact = lost.abs() > 0.0;
    let away = (lost > 0.0) == (sum > 0.0);
    let bits = sum.to_bits();
    let odd = if away { bits + 1 } else { bits.wrapping_sub(1) };
    f64::from_bits(if inexact && bits & 1 == 0 { odd } else { bits }) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::product::tests::values;

    #[test]
    fn a_fused_multiply_add_is_rounded_once() {
        // 1 + 2^-12 squared is 1 + 2^-11 + 2^-24: a tie that the addition of 2^-60 breaks, which f64 cannot hold.
        let (a, tiny) = (1.0 + 2f32.powi(-12), 2f32.powi(-60));
        assert_eq!(fused(a, a, tiny), 1.0 + 2f32.powi(-11) + 2f32.powi(-23));
        assert_eq!(fused(a, a, -tiny), 1.0 + 2f32.powi(-11));
        let special = [0.0, -0.0, 1.0, -1.5, f32::MAX, f32::MIN_POSITIVE, 1e-45, -3e-39, f32::INFINITY, f32::NAN];
        let mut all = special.to_vec();
        for (seed, scale) in [(1, 1.0), (2, 1e-20), (3, 1e19), (4, 1e-38)] {
            all.extend(values(30, seed).iter().map(|v| v * scale));
        }
        for a in &all {
            for b in &all {
                for c in all.iter().chain(&[-a * b, -a * b * (1.0 + f32::EPSILON)]) {
                    let (got, want) = (fused(*a, *b, *c), a.mul_add(*b, *c));
                    assert!(got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()), "{a:e} {b:e} {c:e}");
                }
            }
        }
    }
}

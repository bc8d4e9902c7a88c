//! The products of two vectors with each other and themselves, in one pass over both.

use super::blocks::{LANES, folded, several_sums};
use crate::isa::Isa;
use crate::vectorised::vectorised;

/// Interleaved accumulators of each sum: twice those of a single sum, so that additions that follow each other do not wait for each other.
const WIDE: usize = 2 * LANES;

/// What lengths and angle of two vectors a and b follow from.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Products {
    /// `sum_i a_i^2`
    pub aa: f64,
    /// `sum_i a_i b_i`
    pub ab: f64,
    /// `sum_i b_i^2`
    pub bb: f64,
}

/// `a . a`, `a . b` and `b . b` in `f64`: blocks of 4,096 with sixteen interleaved accumulators each, added in order.
///
/// One pass, 8 bytes a value.
///
/// # Panics
/// Where the vectors differ in length.
pub fn products(a: &[f32], b: &[f32]) -> Products {
    assert_eq!(a.len(), b.len(), "vectors that have an angle are of one length");
    let isa = Isa::active();
    let [aa, ab, bb] = several_sums((a, b), |(a, b)| block(isa, a, b));
    Products { aa, ab, bb }
}

vectorised! {
    fn block(a: &[f32], b: &[f32]) -> [f64; 3] {
        let (mut aa, mut ab, mut bb) = ([0.0; WIDE], [0.0; WIDE], [0.0; WIDE]);
        let ((whole_a, rest_a), (whole_b, rest_b)) = (a.as_chunks::<WIDE>(), b.as_chunks::<WIDE>());
        for (a, b) in whole_a.iter().zip(whole_b) {
            for at in 0..WIDE {
                let (x, y) = (f64::from(a[at]), f64::from(b[at]));
                aa[at] += x * x;
                ab[at] += x * y;
                bb[at] += y * y;
            }
        }
        for (at, (a, b)) in rest_a.iter().zip(rest_b).enumerate() {
            let (x, y) = (f64::from(*a), f64::from(*b));
            aa[at] += x * x;
            ab[at] += x * y;
            bb[at] += y * y;
        }
        [halved(aa), halved(ab), halved(bb)]
    }
}

/// Accumulator i and i + 8 added up, then as a single sum's.
#[inline(always)]
fn halved(sums: [f64; WIDE]) -> f64 {
    let mut half = [0.0; LANES];
    for at in 0..LANES {
        half[at] = sums[at] + sums[at + LANES];
    }
    folded(half)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::threads::tests::same_bits;
    use crate::vector::tests::{each_isa, values};

    #[test]
    fn every_term_is_counted_once_at_every_length() {
        for len in [0, 1, 7, 15, 16, 17, 4095, 4096, 4097, 10_000] {
            let (a, b) = (vec![3.0; len], vec![-2.0; len]);
            let n = len as f64;
            assert_eq!(products(&a, &b), Products { aa: 9.0 * n, ab: -6.0 * n, bb: 4.0 * n }, "length {len}");
        }
    }

    #[test]
    fn threads_do_not_show_in_the_bits() {
        let (a, b) = (values(300_001, 1), values(300_001, 2));
        same_bits(|| {
            let Products { aa, ab, bb } = products(&a, &b);
            let halves = |v: f64| [f32::from_bits((v.to_bits() >> 32) as u32), f32::from_bits(v.to_bits() as u32)];
            [halves(aa), halves(ab), halves(bb)].concat()
        });
    }

    proptest! {
        #[test]
        fn every_instruction_set_gives_the_bits_of_the_sums_as_they_are_defined(len in 0usize..4097, seed: u32) {
            let (a, b) = (values(len, seed), values(len, seed ^ 1));
            let defined = |x: &[f32], y: &[f32]| {
                let mut sums = [0.0; WIDE];
                (0..len).for_each(|at| sums[at % WIDE] += f64::from(x[at]) * f64::from(y[at]));
                let half = |at: usize| sums[at] + sums[at + 8];
                ((half(0) + half(4)) + (half(2) + half(6))) + ((half(1) + half(5)) + (half(3) + half(7)))
            };
            let want = [defined(&a, &a), defined(&a, &b), defined(&b, &b)].map(f64::to_bits);
            for isa in each_isa() {
                prop_assert_eq!(block(isa, &a, &b).map(f64::to_bits), want, "{}", isa);
            }
        }
    }
}

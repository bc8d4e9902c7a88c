//! Sums of squares and of products: the norms of gradients, and the angles between them.

use super::blocks::{LANES, folded, sum_blocks};
use crate::isa::Isa;
use crate::vectorised::vectorised;

/// `sum_i g_i^2` in `f64`: blocks of 4,096 with eight interleaved accumulators each, added in order.
///
/// One pass, 4 bytes a value.
pub fn sum_of_squares(g: &[f32]) -> f64 {
    let isa = Isa::active();
    sum_blocks(g, |block| squares(isa, block))
}

/// `sum_i ((|w_i| + eta) g_i)^2` in `f64`, summed alike: the square of ASAM's norm (Kwon et al. 2021).
///
/// One pass, 8 bytes a value.
///
/// # Panics
/// Where the vectors differ in length.
pub fn sum_of_scaled_squares(g: &[f32], w: &[f32], eta: f64) -> f64 {
    assert_eq!(g.len(), w.len(), "a gradient is as long as its weights");
    let isa = Isa::active();
    sum_blocks((g, w), |(g, w)| scaled_squares(isa, g, w, eta))
}

/// `sum_i a_i b_i` in `f64`, summed as [`sum_of_squares`]. One pass, 8 bytes a value.
///
/// # Panics
/// Where the vectors differ in length.
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len(), "vectors of one space");
    let isa = Isa::active();
    sum_blocks((a, b), |(a, b)| products(isa, a, b))
}

vectorised! {
    fn products(a: &[f32], b: &[f32]) -> f64 {
        let mut sums = [0.0; LANES];
        let ((whole_a, rest_a), (whole_b, rest_b)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
        for (a, b) in whole_a.iter().zip(whole_b) {
            for at in 0..LANES {
                sums[at] += f64::from(a[at]) * f64::from(b[at]);
            }
        }
        for ((sum, a), b) in sums.iter_mut().zip(rest_a).zip(rest_b) {
            *sum += f64::from(*a) * f64::from(*b);
        }
        folded(sums)
    }

    fn squares(g: &[f32]) -> f64 {
        let mut sums = [0.0; LANES];
        let (whole, rest) = g.as_chunks::<LANES>();
        for g in whole {
            for (sum, g) in sums.iter_mut().zip(g) {
                *sum += f64::from(*g) * f64::from(*g);
            }
        }
        for (sum, g) in sums.iter_mut().zip(rest) {
            *sum += f64::from(*g) * f64::from(*g);
        }
        folded(sums)
    }

    fn scaled_squares(g: &[f32], w: &[f32], eta: f64) -> f64 {
        let square = |g: f32, w: f32| {
            let scaled = (f64::from(w).abs() + eta) * f64::from(g);
            scaled * scaled
        };
        let mut sums = [0.0; LANES];
        let ((whole_g, rest_g), (whole_w, rest_w)) = (g.as_chunks::<LANES>(), w.as_chunks::<LANES>());
        for (g, w) in whole_g.iter().zip(whole_w) {
            for at in 0..LANES {
                sums[at] += square(g[at], w[at]);
            }
        }
        for ((sum, g), w) in sums.iter_mut().zip(rest_g).zip(rest_w) {
            *sum += square(*g, *w);
        }
        folded(sums)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::threads::tests::same_bits;
    use crate::vector::tests::{each_isa, values};

    #[test]
    fn every_term_is_counted_once_at_every_length() {
        for len in [0, 1, 7, 8, 9, 4095, 4096, 4097, 10_000] {
            let roots: Vec<f32> = vec![3.0; len];
            assert_eq!(sum_of_squares(&roots), 9.0 * len as f64, "length {len}");
            assert_eq!(sum_of_scaled_squares(&roots, &roots, 1.0), 144.0 * len as f64, "length {len}");
            assert_eq!(dot(&roots, &vec![-2.0; len]), -6.0 * len as f64, "length {len}");
        }
        assert_eq!(sum_of_squares(&[f32::MIN_POSITIVE]).sqrt(), f64::from(f32::MIN_POSITIVE));
    }

    #[test]
    fn threads_do_not_show_in_the_bits() {
        let (g, w) = (values(300_001, 1), values(300_001, 2));
        same_bits(|| {
            let halves = |v: f64| [f32::from_bits((v.to_bits() >> 32) as u32), f32::from_bits(v.to_bits() as u32)];
            [halves(sum_of_squares(&g)), halves(sum_of_scaled_squares(&g, &w, 0.01)), halves(dot(&g, &w))].concat()
        });
    }

    proptest! {
        #[test]
        fn every_instruction_set_gives_the_bits_of_the_sum_as_it_is_defined(len in 0usize..4097, seed: u32, eta in 0f64..1.0) {
            let (g, w) = (values(len, seed), values(len, seed ^ 1));
            let defined = |term: &dyn Fn(usize) -> f64| {
                let mut sums = [0.0; LANES];
                (0..len).for_each(|at| sums[at % LANES] += term(at));
                let [a, b, c, d, e, f, g, h] = sums;
                ((a + e) + (c + g)) + ((b + f) + (d + h))
            };
            let plain = defined(&|at| f64::from(g[at]) * f64::from(g[at]));
            let both = defined(&|at| f64::from(g[at]) * f64::from(w[at]));
            let scaled = defined(&|at| ((f64::from(w[at]).abs() + eta) * f64::from(g[at])).powi(2));
            for isa in each_isa() {
                prop_assert_eq!(squares(isa, &g).to_bits(), plain.to_bits(), "{}", isa);
                prop_assert_eq!(products(isa, &g, &w).to_bits(), both.to_bits(), "{}", isa);
                prop_assert_eq!(scaled_squares(isa, &g, &w, eta).to_bits(), scaled.to_bits(), "{}", isa);
            }
        }
    }
}

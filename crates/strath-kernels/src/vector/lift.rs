//! Epsilon for p = 2, and w + epsilon.

use super::blocks::{LANES, folded, sum_blocks};
use crate::isa::Isa;
use crate::vectorised::vectorised;

/// `lifted = w + e` with `e_i = f32(factor t_i (t_i g_i))`, `t = 1` or ASAM's `t_i = |w_i| + eta`; gives `sum_i e_i^2`, which is 0
/// only where every `e_i` is.
///
/// One pass, 12 bytes a value: the sum (`f64`, blocks of 4,096 with eight accumulators) is taken of what is written.
///
/// # Panics
/// Where the vectors differ in length.
pub fn lift(g: &[f32], w: &[f32], factor: f64, eta: Option<f64>, lifted: &mut [f32]) -> f64 {
    assert!(g.len() == w.len() && w.len() == lifted.len(), "a gradient is as long as its weights");
    let isa = Isa::active();
    match eta {
        None => sum_blocks((g, w, lifted), |(g, w, lifted)| plain_lift(isa, g, w, factor, lifted)),
        Some(eta) => sum_blocks((g, w, lifted), |(g, w, lifted)| scaled_lift(isa, g, w, factor, eta, lifted)),
    }
}

/// The e of [`lift`] alone, and the sum of its squares.
///
/// One pass, 8 bytes a value, with ASAM's scale 12.
///
/// # Panics
/// Where the vectors differ in length.
pub fn epsilon(g: &[f32], w: &[f32], factor: f64, eta: Option<f64>, epsilon: &mut [f32]) -> f64 {
    assert!(g.len() == w.len() && w.len() == epsilon.len(), "a gradient is as long as its weights");
    let isa = Isa::active();
    match eta {
        None => sum_blocks((g, epsilon), |(g, e)| plain_epsilon(isa, g, factor, e)),
        Some(eta) => sum_blocks((g, w, epsilon), |(g, w, e)| scaled_epsilon(isa, g, w, factor, eta, e)),
    }
}

vectorised! {
    fn plain_lift(g: &[f32], w: &[f32], factor: f64, lifted: &mut [f32]) -> f64 {
        block(g, w, lifted, |g, _| plain(g, factor), |e, w| e + w)
    }

    fn scaled_lift(g: &[f32], w: &[f32], factor: f64, eta: f64, lifted: &mut [f32]) -> f64 {
        block(g, w, lifted, |g, w| scaled(g, w, factor, eta), |e, w| e + w)
    }

    fn plain_epsilon(g: &[f32], factor: f64, epsilon: &mut [f32]) -> f64 {
        block(g, g, epsilon, |g, _| plain(g, factor), |e, _| e)
    }

    fn scaled_epsilon(g: &[f32], w: &[f32], factor: f64, eta: f64, epsilon: &mut [f32]) -> f64 {
        block(g, w, epsilon, |g, w| scaled(g, w, factor, eta), |e, _| e)
    }
}

#[inline(always)]
fn plain(g: f32, factor: f64) -> f32 {
    (factor * f64::from(g)) as f32
}

#[inline(always)]
fn scaled(g: f32, w: f32, factor: f64, eta: f64) -> f32 {
    let scale = f64::from(w).abs() + eta;
    (factor * (scale * f64::from(g) * scale)) as f32
}

/// `out = put(e, w)` with `e = step(g, w)`; the sum of the squares of e.
#[inline(always)]
fn block(g: &[f32], w: &[f32], out: &mut [f32], step: impl Fn(f32, f32) -> f32, put: impl Fn(f32, f32) -> f32) -> f64 {
    let mut sums = [0.0; LANES];
    let (whole_g, rest_g) = g.as_chunks::<LANES>();
    let (whole_w, rest_w) = w.as_chunks::<LANES>();
    let (whole_out, rest_out) = out.as_chunks_mut::<LANES>();
    for ((g, w), out) in whole_g.iter().zip(whole_w).zip(whole_out) {
        for at in 0..LANES {
            let e = step(g[at], w[at]);
            out[at] = put(e, w[at]);
            sums[at] += f64::from(e) * f64::from(e);
        }
    }
    for (((sum, g), w), out) in sums.iter_mut().zip(rest_g).zip(rest_w).zip(rest_out) {
        let e = step(*g, *w);
        *out = put(e, *w);
        *sum += f64::from(e) * f64::from(e);
    }
    folded(sums)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::threads::tests::same_bits;
    use crate::vector::sum_of_squares;
    use crate::vector::tests::{each_isa, values};

    #[test]
    fn the_sum_is_zero_only_where_epsilon_is() {
        let mut lifted = [f32::NAN; 3];
        assert_eq!(lift(&[0.0, -0.0, 0.0], &[1.0, 2.0, 3.0], 5.0, None, &mut lifted), 0.0);
        assert_eq!(lifted, [1.0, 2.0, 3.0]);
        let least = f32::from_bits(1);
        assert!(lift(&[0.0, least, 0.0], &[1.0; 3], 1.0, None, &mut lifted) > 0.0);
        assert_eq!(lifted, [1.0; 3]);
    }

    #[test]
    fn threads_do_not_show_in_the_bits() {
        let (g, w) = (values(200_003, 1), values(200_003, 2));
        for eta in [None, Some(0.01)] {
            same_bits(|| {
                let mut out = vec![0.0; g.len()];
                let sum = lift(&g, &w, 0.1, eta, &mut out);
                out.extend([f32::from_bits((sum.to_bits() >> 32) as u32), f32::from_bits(sum.to_bits() as u32)]);
                out
            });
        }
    }

    proptest! {
        #[test]
        fn every_instruction_set_gives_the_bits_of_the_formula(len in 0usize..4097, seed: u32, factor in 0f64..4.0, eta in 0f64..1.0) {
            let (g, w) = (values(len, seed), values(len, seed ^ 1));
            let same = |got: &[f32], want: &dyn Fn(usize) -> f32| (0..len).all(|at| got[at].to_bits() == want(at).to_bits());
            let e = |at: usize| (factor * f64::from(g[at])) as f32;
            let scale = |at: usize| f64::from(w[at]).abs() + eta;
            let scaled_e = |at: usize| (factor * ((scale(at) * f64::from(g[at])) * scale(at))) as f32;
            for isa in each_isa() {
                let (mut lifted, mut epsilon) = (vec![f32::NAN; len], vec![f32::NAN; len]);
                let sums = [plain_lift(isa, &g, &w, factor, &mut lifted), plain_epsilon(isa, &g, factor, &mut epsilon)];
                prop_assert!(same(&epsilon, &e), "{}", isa);
                prop_assert!(same(&lifted, &|at| e(at) + w[at]), "{}", isa);
                prop_assert_eq!(sums, [sum_of_squares(&epsilon); 2], "{}", isa);
                let sums = [
                    scaled_lift(isa, &g, &w, factor, eta, &mut lifted),
                    scaled_epsilon(isa, &g, &w, factor, eta, &mut epsilon),
                ];
                prop_assert!(same(&epsilon, &scaled_e), "{}", isa);
                prop_assert!(same(&lifted, &|at| scaled_e(at) + w[at]), "{}", isa);
                prop_assert_eq!(sums, [sum_of_squares(&epsilon); 2], "{}", isa);
            }
        }
    }
}

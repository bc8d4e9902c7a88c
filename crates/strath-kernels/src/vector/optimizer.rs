//! The optimizers' updates, the clipping of the gradient included.
//!
//! `clip` is the factor that clipping gives the gradient, `g <- f32(clip g)`; without one it is taken as it is. Written into the
//! update, it costs no pass of its own.

use super::blocks::for_shares;
use crate::isa::Isa;
use crate::vectorised::vectorised;

/// The scalars of an update with momentum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Momentum {
    /// Learning rate.
    pub lr: f32,
    /// Weight decay, lambda.
    pub decay: f32,
    /// Momentum, mu.
    pub momentum: f32,
    /// Nesterov's form: `w <- w - lr (g + mu b)`.
    pub nesterov: bool,
}

/// The scalars of AdamW at one update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Decay of the first moment, and 1 less it.
    pub first: (f32, f32),
    /// Decay of the second moment, and 1 less it.
    pub second: (f32, f32),
    /// Learning rate over the first moment's correction.
    pub rate: f32,
    /// 1 over the second moment's correction.
    pub root: f32,
    /// What the weight decay leaves of a weight.
    pub keep: f32,
    /// Added to the root.
    pub eps: f32,
}

/// `w <- w - lr (g + lambda w)`.
///
/// One pass, 12 bytes a value.
///
/// # Panics
/// Where the vectors differ in length.
pub fn sgd(w: &mut [f32], g: &[f32], clip: Option<f64>, lr: f32, decay: f32) {
    assert_eq!(w.len(), g.len(), "a gradient is as long as its weights");
    let isa = Isa::active();
    for_shares((w, g), |(w, g)| match clip {
        None => plain(isa, w, g, lr, decay),
        Some(clip) => clipped_plain(isa, w, g, clip, lr, decay),
    });
}

/// `g <- g + lambda w`; `b <- mu b + g`; `w <- w - lr b`, or with Nesterov `w <- w - lr (g + mu b)`.
///
/// One pass, 20 bytes a value.
///
/// # Panics
/// Where the vectors differ in length.
pub fn sgd_momentum(w: &mut [f32], g: &[f32], b: &mut [f32], clip: Option<f64>, scalars: Momentum) {
    assert!(w.len() == g.len() && w.len() == b.len(), "gradient and buffer are as long as the weights");
    let isa = Isa::active();
    for_shares((w, g, b), |(w, g, b)| match clip {
        None => momentum(isa, w, g, b, scalars),
        Some(clip) => clipped_momentum(isa, w, g, b, clip, scalars),
    });
}

/// `m <- b1 m + (1 - b1) g`; `v <- b2 v + (1 - b2) g^2`; `w <- keep w - rate m / (sqrt(root v) + eps)`.
///
/// One pass, 28 bytes a value.
///
/// # Panics
/// Where the vectors differ in length.
pub fn adamw(w: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], clip: Option<f64>, scalars: AdamW) {
    assert!(w.len() == g.len() && w.len() == m.len() && w.len() == v.len(), "all are as long as the weights");
    let isa = Isa::active();
    for_shares((w, g, m, v), |(w, g, m, v)| match clip {
        None => moments(isa, w, g, m, v, scalars),
        Some(clip) => clipped_moments(isa, w, g, m, v, clip, scalars),
    });
}

/// `g <- g + lambda w`: weight decay as part of the loss.
///
/// One pass, 12 bytes a value.
///
/// # Panics
/// Where the vectors differ in length.
pub fn add_scaled(g: &mut [f32], w: &[f32], lambda: f32) {
    assert_eq!(g.len(), w.len(), "a gradient is as long as its weights");
    let isa = Isa::active();
    for_shares((g, w), |(g, w)| add_scaled_share(isa, g, w, lambda));
}

vectorised! {
    fn plain(w: &mut [f32], g: &[f32], lr: f32, decay: f32) {
        for (w, g) in w.iter_mut().zip(g) {
            *w -= lr * (*g + decay * *w);
        }
    }

    fn clipped_plain(w: &mut [f32], g: &[f32], clip: f64, lr: f32, decay: f32) {
        for (w, g) in w.iter_mut().zip(g) {
            *w -= lr * (clipped(*g, clip) + decay * *w);
        }
    }

    fn momentum(w: &mut [f32], g: &[f32], b: &mut [f32], scalars: Momentum) {
        if scalars.nesterov {
            w.iter_mut().zip(g).zip(b).for_each(|((w, g), b)| look_ahead(w, *g, b, scalars));
        } else {
            w.iter_mut().zip(g).zip(b).for_each(|((w, g), b)| roll(w, *g, b, scalars));
        }
    }

    fn clipped_momentum(w: &mut [f32], g: &[f32], b: &mut [f32], clip: f64, scalars: Momentum) {
        if scalars.nesterov {
            w.iter_mut().zip(g).zip(b).for_each(|((w, g), b)| look_ahead(w, clipped(*g, clip), b, scalars));
        } else {
            w.iter_mut().zip(g).zip(b).for_each(|((w, g), b)| roll(w, clipped(*g, clip), b, scalars));
        }
    }

    fn moments(w: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], scalars: AdamW) {
        w.iter_mut().zip(g).zip(m).zip(v).for_each(|(((w, g), m), v)| adapt(w, *g, m, v, scalars));
    }

    fn clipped_moments(w: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], clip: f64, scalars: AdamW) {
        w.iter_mut().zip(g).zip(m).zip(v).for_each(|(((w, g), m), v)| adapt(w, clipped(*g, clip), m, v, scalars));
    }

    fn add_scaled_share(g: &mut [f32], w: &[f32], lambda: f32) {
        g.iter_mut().zip(w).for_each(|(g, w)| *g += lambda * *w);
    }
}

#[inline(always)]
fn clipped(g: f32, clip: f64) -> f32 {
    (f64::from(g) * clip) as f32
}

#[inline(always)]
fn roll(w: &mut f32, g: f32, b: &mut f32, scalars: Momentum) {
    let g = g + scalars.decay * *w;
    *b = scalars.momentum * *b + g;
    *w -= scalars.lr * *b;
}

#[inline(always)]
fn look_ahead(w: &mut f32, g: f32, b: &mut f32, scalars: Momentum) {
    let g = g + scalars.decay * *w;
    *b = scalars.momentum * *b + g;
    *w -= scalars.lr * (g + scalars.momentum * *b);
}

#[inline(always)]
fn adapt(w: &mut f32, g: f32, m: &mut f32, v: &mut f32, scalars: AdamW) {
    let AdamW { first, second, rate, root, keep, eps } = scalars;
    *m = first.0 * *m + first.1 * g;
    *v = second.0 * *v + second.1 * (g * g);
    *w = keep * *w - rate * *m / ((*v * root).sqrt() + eps);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::threads::tests::same_bits;
    use crate::vector::tests::{each_isa, values};

    const MOMENTUM: Momentum = Momentum { lr: 0.1, decay: 5e-4, momentum: 0.9, nesterov: true };
    const ADAMW: AdamW =
        AdamW { first: (0.9, 0.1), second: (0.999, 0.001), rate: 0.01, root: 1.5, keep: 0.99, eps: 1e-8 };

    #[test]
    fn threads_do_not_show_in_the_bits() {
        let (w, g) = (values(200_003, 1), values(200_003, 2));
        let b: Vec<f32> = w.iter().map(|v| v.abs()).collect();
        for clip in [None, Some(0.3)] {
            same_bits(|| {
                let mut out = [w.clone(), w.clone(), b.clone(), w.clone(), b.clone(), b.clone(), g.clone()];
                let [plain, w, b, adam, m, v, decayed] = &mut out;
                sgd(plain, &g, clip, 0.1, 1e-4);
                sgd_momentum(w, &g, b, clip, MOMENTUM);
                adamw(adam, &g, m, v, clip, ADAMW);
                add_scaled(decayed, plain, 0.1);
                out.concat()
            });
        }
    }

    fn bits(vectors: &[&[f32]]) -> Vec<u32> {
        vectors.concat().iter().map(|v| v.to_bits()).collect()
    }

    proptest! {
        #[test]
        fn every_instruction_set_gives_the_bits_of_the_formula(len in 0usize..200, seed: u32, nesterov: bool, clip in 0f64..1.0) {
            let (w, g, b) = (values(len, seed), values(len, seed ^ 1), values(len, seed ^ 2));
            let v: Vec<f32> = b.iter().map(|v| v.abs()).collect();
            let scalars = Momentum { nesterov, ..MOMENTUM };
            let shortened: Vec<f32> = g.iter().map(|g| (f64::from(*g) * clip) as f32).collect();
            // The formulas, one value at a time.
            let by_hand = |g: &[f32]| {
                let (mut plain, mut w1, mut b1, mut w2, mut m2, mut v2) = (vec![], vec![], vec![], vec![], vec![], vec![]);
                for at in 0..len {
                    plain.push(w[at] - 0.1f32 * (g[at] + 1e-4f32 * w[at]));
                    let decayed = g[at] + 5e-4f32 * w[at];
                    b1.push(0.9f32 * b[at] + decayed);
                    w1.push(w[at] - 0.1f32 * if nesterov { decayed + 0.9f32 * b1[at] } else { b1[at] });
                    m2.push(0.9f32 * b[at] + 0.1f32 * g[at]);
                    v2.push(0.999f32 * v[at] + 0.001f32 * (g[at] * g[at]));
                    w2.push(0.99f32 * w[at] - 0.01f32 * m2[at] / ((v2[at] * 1.5f32).sqrt() + 1e-8f32));
                }
                bits(&[&plain, &w1, &b1, &w2, &m2, &v2])
            };
            for isa in each_isa() {
                let [mut w0, mut w1, mut w2] = [w.clone(), w.clone(), w.clone()];
                let (mut b1, mut m2, mut v2) = (b.clone(), b.clone(), v.clone());
                plain(isa, &mut w0, &g, 0.1, 1e-4);
                momentum(isa, &mut w1, &g, &mut b1, scalars);
                moments(isa, &mut w2, &g, &mut m2, &mut v2, ADAMW);
                prop_assert_eq!(bits(&[&w0, &w1, &b1, &w2, &m2, &v2]), by_hand(&g), "{}", isa);

                let [mut w0, mut w1, mut w2] = [w.clone(), w.clone(), w.clone()];
                let (mut b1, mut m2, mut v2) = (b.clone(), b.clone(), v.clone());
                clipped_plain(isa, &mut w0, &g, clip, 0.1, 1e-4);
                clipped_momentum(isa, &mut w1, &g, &mut b1, clip, scalars);
                clipped_moments(isa, &mut w2, &g, &mut m2, &mut v2, clip, ADAMW);
                prop_assert_eq!(bits(&[&w0, &w1, &b1, &w2, &m2, &v2]), by_hand(&shortened), "clipped, {}", isa);

                let mut decayed = g.clone();
                add_scaled_share(isa, &mut decayed, &w, 0.25);
                let want: Vec<f32> = g.iter().zip(&w).map(|(g, w)| g + 0.25 * w).collect();
                prop_assert_eq!(bits(&[&decayed]), bits(&[&want]), "{}", isa);
            }
        }
    }
}

//! Directional derivatives of layer norm: what a product with the Hessian takes of it.
//!
//! With `'` for the derivative along a direction in which x moves by u, and weight and bias by weight' and bias':
//!
//! ```text
//! x^' = p (u - mean(u) - x^ A)                                   A = mean(x^ u)
//! y'  = x^' weight + x^ weight' + bias'
//! dx  = p (h - mean(h) - x^ B)                                   h = g weight,  B = mean(h x^)
//! dx' = p (h' - mean(h') - x^' B - x^ B') - p A dx               h' = g' weight + g weight',  B' = mean(h' x^ + h x^')
//! dweight' = sum g' x^ + g x^',   dbias' = sum g'                over the rows
//! ```
//!
//! One pass over memory each way, and sums as in [`super`].

use super::{FOLD, Gradient, ROWS, RowNorm};
use crate::isa::Isa;
use crate::lanes::{dot, lane_sum};
use crate::tangent::{Pair, PairMut};
use crate::threads::for_chunks;
use crate::vectorised::vectorised;

/// A layer norm with a direction.
#[derive(Debug, Clone, Copy)]
pub struct Tangent<'a> {
    /// A value a column.
    pub weight: &'a [f32],
    /// The direction's part of the weight.
    pub weight_along: &'a [f32],
    /// The direction's part of the bias.
    pub bias_along: &'a [f32],
    /// Added to the variance.
    pub floor: f64,
}

impl Tangent<'_> {
    /// y' from x with its tangent u.
    ///
    /// # Panics
    /// Where the lengths differ or x is no multiple of the width.
    pub fn forward(&self, x: Pair<'_>, y_along: &mut [f32]) {
        self.forward_by(Isa::active(), x, y_along);
    }

    fn forward_by(&self, isa: Isa, x: Pair<'_>, y_along: &mut [f32]) {
        let size = ROWS * self.width(&[x.values, x.along, y_along]);
        for_chunks(y_along, size, |k, y| forward_rows(isa, self, x.at(k * size, y.len()), y));
    }

    /// dx and dx' over g and g', the gradients of y and y'; and dweight' and dbias'.
    ///
    /// # Panics
    /// Where the lengths differ or x is no multiple of the width.
    pub fn backward_over_g(&self, x: Pair<'_>, g: PairMut<'_>) -> Gradient {
        self.backward_over_g_by(Isa::active(), x, g)
    }

    fn backward_over_g_by(&self, isa: Isa, x: Pair<'_>, mut g: PairMut<'_>) -> Gradient {
        let width = self.width(&[x.values, x.along, g.values, g.along]);
        let size = ROWS * width;
        Gradient::summed(width, g.chunks(size).enumerate(), |(k, g)| {
            backward_rows(isa, self, x.at(*k * size, g.values.len()), g)
        })
    }

    fn width(&self, slices: &[&[f32]]) -> usize {
        let (width, values) = (self.weight.len(), slices[0].len());
        assert!(self.weight_along.len() == width && self.bias_along.len() == width, "one value a column");
        assert!(width > 0 && values.is_multiple_of(width), "x is rows x width");
        assert!(slices.iter().all(|slice| slice.len() == values), "all slices have the shape of x");
        width
    }
}

/// Leaves a row's x^ and x^' in `hats`, and returns its statistics and A.
#[allow(clippy::inline_always, reason = "it is compiled anew for each instruction set")]
#[inline(always)]
fn hats(x: &[f32], u: &[f32], floor: f64, (hat, moved): (&mut [f32], &mut [f32])) -> (RowNorm, f32) {
    let norm = RowNorm::of(x, floor);
    for (hat, x) in hat.iter_mut().zip(x) {
        *hat = norm.hat(*x);
    }
    let mean = (lane_sum(u, |u| u) / u.len() as f64) as f32;
    let along = (dot(u, hat) / u.len() as f64) as f32;
    for ((moved, u), hat) in moved.iter_mut().zip(u).zip(&*hat) {
        *moved = norm.precision * (u - mean - hat * along);
    }
    (norm, along)
}

vectorised! {
    fn forward_rows(norm: &Tangent<'_>, x: Pair<'_>, y: &mut [f32]) {
        let width = norm.weight.len();
        let (mut hat, mut moved) = (vec![0.0f32; width], vec![0.0f32; width]);
        let rows = x.values.chunks_exact(width).zip(x.along.chunks_exact(width));
        for (y, (x, u)) in y.chunks_exact_mut(width).zip(rows) {
            hats(x, u, norm.floor, (&mut hat, &mut moved));
            let affine = norm.weight.iter().zip(norm.weight_along).zip(norm.bias_along);
            for (((y, hat), moved), ((w, wa), ba)) in y.iter_mut().zip(&hat).zip(&moved).zip(affine) {
                *y = moved * w + (hat * wa + ba);
            }
        }
    }

    /// dx and dx' over g and g', and the rows' part of dweight' and dbias', [2, width].
    fn backward_rows(norm: &Tangent<'_>, x: Pair<'_>, g: &mut PairMut<'_>) -> Vec<f64> {
        let width = norm.weight.len();
        let mut sums = vec![0.0; 2 * width];
        let mut rows = [(); 4].map(|()| vec![0.0f32; width]);
        let [hat, moved, dweight, dbias] = &mut rows;
        let (dweights, dbiases) = sums.split_at_mut(width);
        let x = x.values.chunks(FOLD * width).zip(x.along.chunks(FOLD * width));
        let gradients = g.values.chunks_mut(FOLD * width).zip(g.along.chunks_mut(FOLD * width));
        for ((x, u), (g, ga)) in x.zip(gradients) {
            dweight.fill(0.0);
            dbias.fill(0.0);
            let x = x.chunks_exact(width).zip(u.chunks_exact(width));
            for ((x, u), (g, ga)) in x.zip(g.chunks_exact_mut(width).zip(ga.chunks_exact_mut(width))) {
                let (row, along) = hats(x, u, norm.floor, (hat, moved));
                for (((sum, g), ga), (hat, moved)) in
                    dweight.iter_mut().zip(&*g).zip(&*ga).zip(hat.iter().zip(&*moved))
                {
                    *sum += ga * hat + g * moved;
                }
                for (sum, ga) in dbias.iter_mut().zip(&*ga) {
                    *sum += ga;
                }
                for ((g, ga), (w, wa)) in g.iter_mut().zip(&mut *ga).zip(norm.weight.iter().zip(norm.weight_along)) {
                    (*g, *ga) = (*g * w, *ga * w + *g * wa);
                }
                let mean = |sum: f64| (sum / width as f64) as f32;
                let (of_h, of_ha) = (mean(lane_sum(g, |g| g)), mean(lane_sum(ga, |g| g)));
                let (with_hat, with_hat_along) = (mean(dot(g, hat)), mean(dot(ga, hat) + dot(g, moved)));
                for ((g, ga), (hat, moved)) in g.iter_mut().zip(&mut *ga).zip(hat.iter().zip(&*moved)) {
                    let dx = row.precision * (*g - of_h - hat * with_hat);
                    let inner = *ga - of_ha - (moved * with_hat + hat * with_hat_along);
                    (*g, *ga) = (dx, row.precision * (inner - along * dx));
                }
            }
            for (totals, sums) in [(&mut *dweights, &*dweight), (&mut *dbiases, &*dbias)] {
                totals.iter_mut().zip(sums).for_each(|(total, sum)| *total += f64::from(*sum));
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer_norm::tests::in_float64;
    use crate::product::tests::{error, values};
    use crate::threads::tests::same_bits;
    use crate::vectorised::tests::same_bits_by_every_isa;

    #[test]
    fn tangents_are_slopes_in_float64_by_every_instruction_set_and_number_of_threads() {
        const STEP: f64 = 1e-6;
        for (width, rows) in [(64, 70), (9, 40), (100, 17)] {
            let sizes = [rows * width, width, width, rows * width];
            let [x, weight, bias, g] = std::array::from_fn(|k| values(sizes[k], 1 + k as u32));
            let [u, weight_along, bias_along, g_along] = std::array::from_fn(|k| values(sizes[k], 11 + k as u32));
            let moved = |by: f64| {
                let add = |a: &[f32], b: &[f32]| {
                    a.iter().zip(b).map(|(a, b)| f64::from(*a) + by * f64::from(*b)).collect::<Vec<f64>>()
                };
                let (weight, bias) = (add(&weight, &weight_along), add(&bias, &bias_along));
                let (y, [dx, dweight, dbias]) = in_float64(&add(&x, &u), &weight, &bias, &add(&g, &g_along));
                [y, dx, dweight, dbias].concat()
            };
            let slopes: Vec<f64> =
                moved(STEP).iter().zip(moved(-STEP)).map(|(ahead, behind)| (ahead - behind) / (2.0 * STEP)).collect();
            let norm = Tangent { weight: &weight, weight_along: &weight_along, bias_along: &bias_along, floor: 1e-6 };
            let got = same_bits_by_every_isa(|isa| {
                same_bits(|| {
                    let pair = Pair { values: &x, along: &u };
                    let (mut y, mut g, mut g_along) = (vec![f32::NAN; x.len()], g.clone(), g_along.clone());
                    norm.forward_by(isa, pair, &mut y);
                    let gradient = norm.backward_over_g_by(isa, pair, PairMut { values: &mut g, along: &mut g_along });
                    [y, g_along, gradient.weight, gradient.bias, g].concat()
                })
            });
            let mut from = 0;
            for len in [x.len(), x.len(), width, width] {
                let off = error(&got[from..][..len], &slopes[from..][..len]);
                assert!(off < 5e-6, "{width} x {rows}, from {from}: {off:.1e}");
                from += len;
            }
            let plain = moved(0.0);
            assert!(error(&got[from..], &plain[x.len()..2 * x.len()]) < 1e-6, "dx itself");
        }
    }
}

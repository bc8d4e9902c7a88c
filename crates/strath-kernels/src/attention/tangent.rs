//! Directional derivatives of attention: what a product with the Hessian takes of it.
//!
//! With `'` for the derivative along the direction (transposition is a `T` here):
//!
//! ```text
//! S' = (q' kT + q k'T) / sqrt(width),   P' = P (S' - rowsum(P S')),   y' = P' v + P v'
//! dv' = P'T g + PT g'                   dP' = g' vT + g v'T
//! dS' = (P' (dP - r) + P (dP' - r')) / sqrt(width)       r = rowsum(P dP),  r' = rowsum(P' dP + P dP')
//! dq' = dS' k + dS k',                  dk' = dS'T q + dST q'
//! ```
//!
//! P, P', dS and dS' lie transposed, [keys, queries], as in [`super`]; an image is one thread's.

use super::{Attention, FOLD, Part, VECTOR, centre_columns, square};
use crate::isa::Isa;
use crate::pointwise::add_to_by;
use crate::product::{Side, Strided, small};
use crate::tangent::{Pair, PairMut};
use crate::threads::for_chunks;
use crate::vectorised::vectorised;

/// An attention with a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionTangent(pub Attention);

impl AttentionTangent {
    /// y' and the weights' tangents P', from qkv with its tangent and the weights P that the forward stored.
    ///
    /// # Panics
    /// Where the slices do not hold the same number of images.
    pub fn forward(&self, qkv: Pair<'_>, weights: &[f32], weights_along: &mut [f32], y_along: &mut [f32]) {
        self.forward_by(Isa::active(), qkv, weights, weights_along, y_along);
    }

    fn forward_by(&self, isa: Isa, qkv: Pair<'_>, weights: &[f32], weights_along: &mut [f32], y_along: &mut [f32]) {
        let (large, small, square) = (self.0.qkv_values(), self.0.output_values(), self.0.weight_values());
        let lengths = [(qkv.values.len(), large), (qkv.along.len(), large), (y_along.len(), small)];
        self.0.images(&[&lengths[..], &[(weights.len(), square), (weights_along.len(), square)]].concat());
        let images = weights.chunks_exact(square).zip(weights_along.chunks_exact_mut(square));
        let mut images: Vec<_> = images.zip(y_along.chunks_exact_mut(small)).enumerate().collect();
        for_chunks(&mut images, 1, |_, images| {
            for (k, ((weights, along), y)) in images {
                self.forward_image(isa, qkv.at(*k * large, large), weights, along, y);
            }
        });
    }

    /// dqkv and dqkv' from g and g', the gradients of y and y'.
    ///
    /// # Panics
    /// Where the slices do not hold the same number of images.
    pub fn backward(&self, qkv: Pair<'_>, weights: Pair<'_>, g: Pair<'_>, dqkv: PairMut<'_>) {
        self.backward_by(Isa::active(), qkv, weights, g, dqkv);
    }

    fn backward_by(&self, isa: Isa, qkv: Pair<'_>, weights: Pair<'_>, g: Pair<'_>, mut dqkv: PairMut<'_>) {
        let (large, small, square) = (self.0.qkv_values(), self.0.output_values(), self.0.weight_values());
        let pairs = [(qkv, large), (weights, square), (g, small), (dqkv.shared(), large)];
        let lengths = pairs.iter().flat_map(|(of, values)| [(of.values.len(), *values), (of.along.len(), *values)]);
        self.0.images(&lengths.collect::<Vec<_>>());
        let mut images: Vec<_> = dqkv.chunks(large).enumerate().collect();
        for_chunks(&mut images, 1, |_, images| {
            for (k, to) in images {
                let weights = weights.at(*k * square, square);
                self.backward_image(isa, qkv.at(*k * large, large), weights, g.at(*k * small, small), to);
            }
        });
    }

    fn forward_image(&self, isa: Isa, qkv: Pair<'_>, weights: &[f32], along: &mut [f32], y: &mut [f32]) {
        let Attention { tokens, width, .. } = self.0;
        let (columns, size, row) = (self.0.columns(), self.0.head_weights(), self.0.row());
        let mut spare = vec![0.0; tokens * columns.max(width)];
        for (head, (p, along)) in weights.chunks_exact(size).zip(along.chunks_exact_mut(size)).enumerate() {
            let [q, k, v] = self.parts(qkv.values, head);
            let [q_along, k_along, v_along] = self.parts(qkv.along, head);
            let products = [(k, flipped(q_along)), (k_along, flipped(q))];
            sum(isa, (tokens, width, tokens), products, &mut spare, (along, columns)); // S'T
            centre_columns(isa, self.0.scale(), columns, p, along);
            let transposed = |p| square(p, columns, Side::Transposed);
            let products = [(transposed(&*along), v), (transposed(p), v_along)];
            sum(isa, (tokens, tokens, width), products, &mut spare, (&mut y[head * width..], row));
        }
    }

    fn backward_image(&self, isa: Isa, qkv: Pair<'_>, weights: Pair<'_>, g: Pair<'_>, to: &mut PairMut<'_>) {
        let Attention { tokens, width, .. } = self.0;
        let (columns, size, row) = (self.0.columns(), self.0.head_weights(), self.0.row());
        let mut spare = vec![0.0; tokens * columns.max(width)];
        let (mut ds, mut ds_along) = (vec![0.0; size], vec![0.0; size]);
        let (by_tokens, by_width) = ((tokens, tokens, width), (tokens, width, tokens));
        let heads = weights.values.chunks_exact(size).zip(weights.along.chunks_exact(size));
        for (head, (p, p_along)) in heads.enumerate() {
            let [q, k, v] = self.parts(qkv.values, head);
            let [q_along, k_along, v_along] = self.parts(qkv.along, head);
            let [plain, transposed] = self.rows(g.values, head);
            let [plain_along, transposed_along] = self.rows(g.along, head);
            let at = |part| self.0.start(head, part);
            let stride = 3 * row;

            let (p_square, p_along_square) = (square(p, columns, Side::Plain), square(p_along, columns, Side::Plain));
            small(isa, by_tokens, (p_square, plain), (&mut to.values[at(Part::Value)..], stride));
            let products = [(p_along_square, plain), (p_square, plain_along)];
            sum(isa, by_tokens, products, &mut spare, (&mut to.along[at(Part::Value)..], stride));

            small(isa, by_width, (v, transposed), (&mut ds, columns)); // dPT
            let products = [(v, transposed_along), (v_along, transposed)];
            sum(isa, by_width, products, &mut spare, (&mut ds_along, columns)); // dP'T
            centre_columns_along(isa, self.0.scale(), columns, (p, p_along), (&mut ds, &mut ds_along));

            for (part, side, (other, other_along)) in
                [(Part::Query, Side::Transposed, (k, k_along)), (Part::Key, Side::Plain, (q, q_along))]
            {
                let (ds, ds_along) = (square(&ds, columns, side), square(&ds_along, columns, side));
                small(isa, by_tokens, (ds, other), (&mut to.values[at(part)..], stride));
                let products = [(ds_along, other), (ds, other_along)];
                sum(isa, by_tokens, products, &mut spare, (&mut to.along[at(part)..], stride));
            }
        }
    }

    /// q, k and v of a head.
    fn parts<'a>(&self, qkv: &'a [f32], head: usize) -> [Strided<'a>; 3] {
        [Part::Query, Part::Key, Part::Value].map(|part| self.0.part(qkv, head, part, Side::Plain))
    }

    /// A head of what has the layout of y, as it lies and transposed.
    fn rows<'a>(&self, y: &'a [f32], head: usize) -> [Strided<'a>; 2] {
        let of = |side| Strided { values: &y[head * self.0.width..], stride: self.0.row(), side };
        [of(Side::Plain), of(Side::Transposed)]
    }
}

fn flipped(matrix: Strided<'_>) -> Strided<'_> {
    Strided { side: matrix.side.flipped(), ..matrix }
}

/// The sum of two products, each of `sizes`; `spare` has room for one of them.
fn sum(
    isa: Isa,
    sizes: (usize, usize, usize),
    [first, second]: [(Strided<'_>, Strided<'_>); 2],
    spare: &mut [f32],
    (c, stride): (&mut [f32], usize),
) {
    let columns = sizes.2;
    small(isa, sizes, first, (c, stride));
    small(isa, sizes, second, (spare, columns));
    for (c, spare) in c.chunks_mut(stride).zip(spare.chunks_exact(columns)).take(sizes.0) {
        add_to_by(isa, spare, &mut c[..columns]);
    }
}

vectorised! {
    /// `g = scale p (g - r)` and `g' = scale (p' (g - r) + p (g' - r'))` in each column of [keys, columns], with `r = sum p g` and
    /// `r' = sum p' g + p g'`.
    fn centre_columns_along(scale: f32, columns: usize, p: (&[f32], &[f32]), g: (&mut [f32], &mut [f32])) {
        let ((p, pa), (g, ga)) = (p, g);
        for strip in 0..columns / VECTOR {
            let (mut total, mut total_along) = ([0.0f64; VECTOR], [0.0f64; VECTOR]);
            let rows = p.chunks(FOLD * columns).zip(pa.chunks(FOLD * columns));
            for ((p, pa), (g, ga)) in rows.zip(g.chunks(FOLD * columns).zip(ga.chunks(FOLD * columns))) {
                let (mut sums, mut sums_along) = ([0.0f32; VECTOR], [0.0f32; VECTOR]);
                let rows = p.chunks_exact(columns).zip(pa.chunks_exact(columns));
                for ((p, pa), (g, ga)) in rows.zip(g.chunks_exact(columns).zip(ga.chunks_exact(columns))) {
                    let (p, pa) = (&p.as_chunks::<VECTOR>().0[strip], &pa.as_chunks::<VECTOR>().0[strip]);
                    let (g, ga) = (&g.as_chunks::<VECTOR>().0[strip], &ga.as_chunks::<VECTOR>().0[strip]);
                    for lane in 0..VECTOR {
                        sums[lane] += p[lane] * g[lane];
                        sums_along[lane] += pa[lane] * g[lane] + p[lane] * ga[lane];
                    }
                }
                for lane in 0..VECTOR {
                    total[lane] += f64::from(sums[lane]);
                    total_along[lane] += f64::from(sums_along[lane]);
                }
            }
            let (r, ra) = (total.map(|total| total as f32), total_along.map(|total| total as f32));
            let rows = p.chunks_exact(columns).zip(pa.chunks_exact(columns));
            for ((p, pa), (g, ga)) in rows.zip(g.chunks_exact_mut(columns).zip(ga.chunks_exact_mut(columns))) {
                let (p, pa) = (&p.as_chunks::<VECTOR>().0[strip], &pa.as_chunks::<VECTOR>().0[strip]);
                let (g, ga) = (&mut g.as_chunks_mut::<VECTOR>().0[strip], &mut ga.as_chunks_mut::<VECTOR>().0[strip]);
                for lane in 0..VECTOR {
                    let centred = g[lane] - r[lane];
                    ga[lane] = scale * (pa[lane] * centred + p[lane] * (ga[lane] - ra[lane]));
                    g[lane] = scale * (p[lane] * centred);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::tests::{SHAPES, in_float64};
    use crate::product::tests::{error, values};
    use crate::threads::tests::same_bits;
    use crate::vectorised::tests::same_bits_by_every_isa;

    #[test]
    fn tangents_are_slopes_in_float64_by_every_instruction_set_and_number_of_threads() {
        const STEP: f64 = 1e-6;
        for (images, shape) in SHAPES {
            let sizes = [images * shape.qkv_values(), images * shape.output_values()];
            let [qkv, g] = std::array::from_fn(|k| values(sizes[k], 1 + k as u32));
            let [u, g_along] = std::array::from_fn(|k| values(sizes[k], 11 + k as u32));
            let moved = |by: f64| {
                let add = |a: &[f32], b: &[f32]| {
                    a.iter().zip(b).map(|(a, b)| f64::from(*a) + by * f64::from(*b)).collect::<Vec<f64>>()
                };
                let (y, dqkv) = in_float64(shape, &add(&qkv, &u), &add(&g, &g_along));
                [y, dqkv].concat()
            };
            let slopes: Vec<f64> =
                moved(STEP).iter().zip(moved(-STEP)).map(|(ahead, behind)| (ahead - behind) / (2.0 * STEP)).collect();
            let got = same_bits_by_every_isa(|isa| {
                same_bits(|| {
                    let pair = Pair { values: &qkv, along: &u };
                    let mut p = [(); 2].map(|()| vec![f32::NAN; images * shape.weight_values()]);
                    let mut y = [(); 2].map(|()| vec![f32::NAN; g.len()]);
                    let mut dqkv = [(); 2].map(|()| vec![f32::NAN; qkv.len()]);
                    shape.forward_by(isa, &qkv, &mut y[0], &mut p[0]);
                    let [weights, along] = &mut p;
                    AttentionTangent(shape).forward_by(isa, pair, weights, along, &mut y[1]);
                    let weights = Pair { values: weights, along };
                    let [values, along] = &mut dqkv;
                    let from = Pair { values: &g, along: &g_along };
                    AttentionTangent(shape).backward_by(isa, pair, weights, from, PairMut { values, along });
                    let mut plain = vec![f32::NAN; qkv.len()];
                    shape.backward_by(isa, &qkv, weights.values, &g, &mut plain);
                    assert_eq!(dqkv[0], plain, "dqkv itself");
                    [&y[1][..], &dqkv[1]].concat()
                })
            });
            let (of_y, of_dqkv) =
                (error(&got[..g.len()], &slopes[..g.len()]), error(&got[g.len()..], &slopes[g.len()..]));
            // A single token's weight is 1 whatever moves: what is left of dq and dk is rounding.
            assert!(of_y < 5e-6 && of_dqkv < 5e-6, "{shape:?}: {of_y:.1e} {of_dqkv:.1e}");
        }
    }
}

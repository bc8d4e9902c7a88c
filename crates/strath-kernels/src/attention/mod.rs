//! Multi-head attention of Vaswani et al. 2017, forward and backward, a head in cache at a time.
//!
//! ```text
//! S = q k' / sqrt(width),   P = softmax of the rows of S,   y = P v
//! dv = P' dy,   dP = dy v',   dS = P (dP - rowsum(P dP)) / sqrt(width),   dq = dS k,   dk = dS' q
//! ```
//!
//! q, k and v of a head are read where the qkv projection wrote them, [N, T, 3, heads, width], and y is written where the next
//! projection reads it, [N, T, heads, width]: nothing is transposed or copied. P is kept transposed, [keys, queries]: maxima and
//! sums then run down its columns, a query a lane, and no vector is ever reduced to one number.
//!
//! The forward stores P for the backward, 4 T^2 bytes a head. Of 64 images with 50 tokens and 3 heads that is 2.4 MB with its
//! padding, 0.1 to 0.3 ms of reading by the bandwidths measured; the product and the softmax that would compute it anew take 1 ms.
//! Each image is computed by one thread in a fixed order: bits depend neither on the number of threads nor on the instruction set.

#![allow(clippy::needless_range_loop, reason = "lanes of several arrays at once vectorise by index")]

mod tangent;

pub use tangent::AttentionTangent;

use crate::elementary::exp;
use crate::isa::Isa;
use crate::product::{Side, Strided, small};
use crate::threads::for_chunks;
use crate::vectorised::vectorised;

/// Queries are padded to whole vectors.
const VECTOR: usize = 16;
/// Keys whose sum is taken in f32 before it is folded into f64.
const FOLD: usize = 16;

/// The shape of an attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Attention {
    /// Tokens of an image, T.
    pub tokens: usize,
    /// Heads.
    pub heads: usize,
    /// Width of a head; its root scales the logits.
    pub width: usize,
}

/// Which of a head's three matrices.
#[derive(Debug, Clone, Copy)]
enum Part {
    Query = 0,
    Key = 1,
    Value = 2,
}

impl Attention {
    /// Values of an image of qkv.
    pub fn qkv_values(&self) -> usize {
        3 * self.output_values()
    }

    /// Values of an image of y.
    pub fn output_values(&self) -> usize {
        self.tokens * self.heads * self.width
    }

    /// Values of an image of the stored weights: [heads, keys, queries], queries padded to whole vectors.
    pub fn weight_values(&self) -> usize {
        self.heads * self.head_weights()
    }

    /// y and the weights, for [`Attention::backward`], from qkv; what y and weights held does not matter.
    ///
    /// # Panics
    /// Where the slices do not hold the same number of images.
    pub fn forward(&self, qkv: &[f32], y: &mut [f32], weights: &mut [f32]) {
        self.forward_by(Isa::active(), qkv, y, weights);
    }

    /// y from qkv, without a backward to follow.
    ///
    /// # Panics
    /// Where the slices do not hold the same number of images.
    pub fn evaluate(&self, qkv: &[f32], y: &mut [f32]) {
        let isa = Isa::active();
        self.images(&[(qkv.len(), self.qkv_values()), (y.len(), self.output_values())]);
        for_chunks(y, self.output_values(), |image, y| {
            let mut weights = vec![0.0; self.weight_values()];
            self.forward_image(isa, &qkv[image * self.qkv_values()..][..self.qkv_values()], y, &mut weights);
        });
    }

    /// dqkv from dy, by the weights that the forward stored.
    ///
    /// # Panics
    /// Where the slices do not hold the same number of images.
    pub fn backward(&self, qkv: &[f32], weights: &[f32], dy: &[f32], dqkv: &mut [f32]) {
        self.backward_by(Isa::active(), qkv, weights, dy, dqkv);
    }

    fn forward_by(&self, isa: Isa, qkv: &[f32], y: &mut [f32], weights: &mut [f32]) {
        let (large, small, square) = (self.qkv_values(), self.output_values(), self.weight_values());
        self.images(&[(qkv.len(), large), (y.len(), small), (weights.len(), square)]);
        let images = qkv.chunks_exact(large).zip(y.chunks_exact_mut(small)).zip(weights.chunks_exact_mut(square));
        let mut images: Vec<_> = images.collect();
        for_chunks(&mut images, 1, |_, images| {
            for ((qkv, y), weights) in images {
                self.forward_image(isa, qkv, y, weights);
            }
        });
    }

    fn forward_image(&self, isa: Isa, qkv: &[f32], y: &mut [f32], weights: &mut [f32]) {
        let Self { tokens, width, .. } = *self;
        let columns = self.columns();
        for (head, weights) in weights.chunks_exact_mut(self.head_weights()).enumerate() {
            let part = |part, side| self.part(qkv, head, part, side);
            let (q, k) = (part(Part::Query, Side::Transposed), part(Part::Key, Side::Plain));
            small(isa, (tokens, width, tokens), (k, q), (weights, columns)); // S' = k q'
            softmax_columns(isa, self.scale(), columns, weights);
            let (p, v) = (square(weights, columns, Side::Transposed), part(Part::Value, Side::Plain));
            small(isa, (tokens, tokens, width), (p, v), (&mut y[head * width..], self.row()));
        }
    }

    fn backward_by(&self, isa: Isa, qkv: &[f32], weights: &[f32], dy: &[f32], dqkv: &mut [f32]) {
        let (large, small, square) = (self.qkv_values(), self.output_values(), self.weight_values());
        let lengths = [(qkv.len(), large), (weights.len(), square), (dy.len(), small), (dqkv.len(), large)];
        self.images(&lengths);
        for_chunks(dqkv, large, |image, dqkv| {
            let (qkv, weights) = (&qkv[image * large..][..large], &weights[image * square..][..square]);
            self.backward_image(isa, qkv, weights, &dy[image * small..][..small], dqkv);
        });
    }

    fn backward_image(&self, isa: Isa, qkv: &[f32], weights: &[f32], dy: &[f32], dqkv: &mut [f32]) {
        let Self { tokens, width, .. } = *self;
        let columns = self.columns();
        let mut ds = vec![0.0; self.head_weights()];
        for (head, weights) in weights.chunks_exact(self.head_weights()).enumerate() {
            let part = |part| self.part(qkv, head, part, Side::Plain);
            let dy = |side| Strided { values: &dy[head * width..], stride: self.row(), side };
            let mut to = |part, sizes, a, b| {
                let start = self.start(head, part);
                small(isa, sizes, (a, b), (&mut dqkv[start..], 3 * self.row()));
            };
            let (by_tokens, by_width) = ((tokens, tokens, width), (tokens, width, tokens));
            to(Part::Value, by_tokens, square(weights, columns, Side::Plain), dy(Side::Plain)); // dv = P' dy
            small(isa, by_width, (part(Part::Value), dy(Side::Transposed)), (&mut ds, columns)); // dP' = v dy'
            centre_columns(isa, self.scale(), columns, weights, &mut ds);
            to(Part::Query, by_tokens, square(&ds, columns, Side::Transposed), part(Part::Key)); // dq = dS k
            to(Part::Key, by_tokens, square(&ds, columns, Side::Plain), part(Part::Query)); // dk = dS' q
        }
    }

    /// A head's q, k or v, [T, width], in an image of qkv.
    fn part<'a>(&self, qkv: &'a [f32], head: usize, part: Part, side: Side) -> Strided<'a> {
        Strided { values: &qkv[self.start(head, part)..], stride: 3 * self.row(), side }
    }

    fn start(&self, head: usize, part: Part) -> usize {
        part as usize * self.row() + head * self.width
    }

    /// Values of a token.
    fn row(&self) -> usize {
        self.heads * self.width
    }

    fn columns(&self) -> usize {
        self.tokens.next_multiple_of(VECTOR)
    }

    fn head_weights(&self) -> usize {
        self.tokens * self.columns()
    }

    fn scale(&self) -> f32 {
        (1.0 / (self.width as f64).sqrt()) as f32
    }

    /// Asserts that slices of (length, values an image) hold the same number of images.
    fn images(&self, lengths: &[(usize, usize)]) {
        assert!(self.output_values() > 0, "there are tokens, heads and a width");
        let (length, values) = lengths[0];
        let images = length / values;
        assert!(
            lengths.iter().all(|(length, values)| *length == images * values),
            "all hold the same number of images"
        );
    }
}

fn square(values: &[f32], stride: usize, side: Side) -> Strided<'_> {
    Strided { values, stride, side }
}

vectorised! {
    /// The softmax of `scale` times each column of weights [keys, columns], over it.
    fn softmax_columns(scale: f32, columns: usize, weights: &mut [f32]) {
        for strip in 0..columns / VECTOR {
            let mut most = [f32::NEG_INFINITY; VECTOR];
            for row in weights.chunks_exact(columns) {
                let row = &row.as_chunks::<VECTOR>().0[strip];
                for lane in 0..VECTOR {
                    most[lane] = if most[lane] > row[lane] || most[lane].is_nan() { most[lane] } else { row[lane] };
                }
            }
            let mut total = [0.0f64; VECTOR];
            for rows in weights.chunks_mut(FOLD * columns) {
                let mut sums = [0.0f32; VECTOR];
                for row in rows.chunks_exact_mut(columns) {
                    let row = &mut row.as_chunks_mut::<VECTOR>().0[strip];
                    for lane in 0..VECTOR {
                        row[lane] = exp((row[lane] - most[lane]) * scale);
                    }
                    for lane in 0..VECTOR {
                        sums[lane] += row[lane];
                    }
                }
                for lane in 0..VECTOR {
                    total[lane] += f64::from(sums[lane]);
                }
            }
            let over = total.map(|total| (1.0 / total) as f32);
            for row in weights.chunks_exact_mut(columns) {
                let row = &mut row.as_chunks_mut::<VECTOR>().0[strip];
                for lane in 0..VECTOR {
                    row[lane] *= over[lane];
                }
            }
        }
    }

    /// `g = scale p (g - sum p g)` in each column of p and g [keys, columns].
    fn centre_columns(scale: f32, columns: usize, p: &[f32], g: &mut [f32]) {
        for strip in 0..columns / VECTOR {
            let mut total = [0.0f64; VECTOR];
            for (p, g) in p.chunks(FOLD * columns).zip(g.chunks(FOLD * columns)) {
                let mut sums = [0.0f32; VECTOR];
                for (p, g) in p.chunks_exact(columns).zip(g.chunks_exact(columns)) {
                    let (p, g) = (&p.as_chunks::<VECTOR>().0[strip], &g.as_chunks::<VECTOR>().0[strip]);
                    for lane in 0..VECTOR {
                        sums[lane] += p[lane] * g[lane];
                    }
                }
                for lane in 0..VECTOR {
                    total[lane] += f64::from(sums[lane]);
                }
            }
            let inner = total.map(|total| total as f32);
            for (p, g) in p.chunks_exact(columns).zip(g.chunks_exact_mut(columns)) {
                let (p, g) = (&p.as_chunks::<VECTOR>().0[strip], &mut g.as_chunks_mut::<VECTOR>().0[strip]);
                for lane in 0..VECTOR {
                    g[lane] = scale * (p[lane] * (g[lane] - inner[lane]));
                }
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::product::tests::{error, values};
    use crate::threads::tests::same_bits;
    use crate::vectorised::tests::same_bits_by_every_isa;

    pub(crate) const SHAPES: [(usize, Attention); 4] = [
        (2, Attention { tokens: 50, heads: 3, width: 64 }),
        (3, Attention { tokens: 17, heads: 2, width: 5 }),
        (1, Attention { tokens: 65, heads: 1, width: 32 }),
        (2, Attention { tokens: 1, heads: 2, width: 3 }),
    ];

    /// y and the gradient of `sum y dy`, in float64.
    pub(crate) fn in_float64(shape: Attention, qkv: &[f64], dy: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let Attention { tokens, heads, width } = shape;
        let (mut y, mut dqkv) = (vec![0.0; qkv.len() / 3], vec![0.0; qkv.len()]);
        for (image, head) in (0..qkv.len() / shape.qkv_values()).flat_map(|n| (0..heads).map(move |head| (n, head))) {
            let at = |t: usize, part: usize, c: usize| (((image * tokens + t) * 3 + part) * heads + head) * width + c;
            let out = |t: usize, c: usize| ((image * tokens + t) * heads + head) * width + c;
            let x = |t: usize, part: usize, c: usize| qkv[at(t, part, c)];
            let g = |t: usize, c: usize| dy[out(t, c)];
            let scale = 1.0 / (width as f64).sqrt();
            for i in 0..tokens {
                let dot = |j: usize| (0..width).map(|c| x(i, 0, c) * x(j, 1, c)).sum::<f64>() * scale;
                let raised: Vec<f64> = (0..tokens).map(|j| dot(j).exp()).collect();
                let sum: f64 = raised.iter().sum();
                let p: Vec<f64> = raised.iter().map(|v| v / sum).collect();
                let dp: Vec<f64> = (0..tokens).map(|j| (0..width).map(|c| g(i, c) * x(j, 2, c)).sum()).collect();
                let inner: f64 = p.iter().zip(&dp).map(|(p, dp)| p * dp).sum();
                for (j, c) in (0..tokens).flat_map(|j| (0..width).map(move |c| (j, c))) {
                    let ds = p[j] * (dp[j] - inner) * scale;
                    y[out(i, c)] += p[j] * x(j, 2, c);
                    dqkv[at(i, 0, c)] += ds * x(j, 1, c);
                    dqkv[at(j, 1, c)] += ds * x(i, 0, c);
                    dqkv[at(j, 2, c)] += p[j] * g(i, c);
                }
            }
        }
        (y, dqkv)
    }

    #[test]
    fn values_and_gradients_are_those_in_float64_by_every_instruction_set() {
        for (images, shape) in SHAPES {
            let qkv: Vec<f32> = values(images * shape.qkv_values(), 1).iter().map(|v| v * 3.0).collect();
            let dy = values(images * shape.output_values(), 2);
            let got = same_bits_by_every_isa(|isa| {
                let (mut y, mut dqkv) = (vec![f32::NAN; dy.len()], vec![f32::NAN; qkv.len()]);
                let mut weights = vec![f32::NAN; images * shape.weight_values()];
                shape.forward_by(isa, &qkv, &mut y, &mut weights);
                shape.backward_by(isa, &qkv, &weights, &dy, &mut dqkv);
                [y, dqkv].concat()
            });
            let wide = |values: &[f32]| values.iter().map(|v| f64::from(*v)).collect::<Vec<f64>>();
            let (y, dqkv) = in_float64(shape, &wide(&qkv), &wide(&dy));
            assert!(error(&got[..dy.len()], &y) < 2e-6, "{shape:?}: {}", error(&got[..dy.len()], &y));
            assert!(error(&got[dy.len()..], &dqkv) < 3e-6, "{shape:?}: {}", error(&got[dy.len()..], &dqkv));
        }
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        let shape = Attention { tokens: 5, heads: 2, width: 4 };
        let (qkv, dy) = (values(shape.qkv_values(), 1), values(shape.output_values(), 2));
        let objective = |qkv: &[f32]| {
            let mut y = vec![0.0; dy.len()];
            shape.evaluate(qkv, &mut y);
            y.iter().zip(&dy).map(|(y, g)| f64::from(*y) * f64::from(*g)).sum::<f64>()
        };
        let (mut y, mut dqkv) = (vec![0.0; dy.len()], vec![0.0; qkv.len()]);
        let mut weights = vec![0.0; shape.weight_values()];
        shape.forward(&qkv, &mut y, &mut weights);
        shape.backward(&qkv, &weights, &dy, &mut dqkv);
        for at in 0..qkv.len() {
            let moved = |by: f32| {
                let mut qkv = qkv.clone();
                qkv[at] += by;
                objective(&qkv)
            };
            let slope = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            assert!((slope - f64::from(dqkv[at])).abs() < 1e-4, "{at}: {slope} {}", dqkv[at]);
        }
    }

    #[test]
    fn what_is_not_a_number_stays_in_its_image_and_threads_change_nothing() {
        let shape = Attention { tokens: 17, heads: 3, width: 8 };
        let (mut qkv, dy) = (values(7 * shape.qkv_values(), 1), values(7 * shape.output_values(), 2));
        let both = |qkv: &[f32]| {
            let (mut y, mut dqkv) = (vec![0.0; dy.len()], vec![0.0; qkv.len()]);
            let mut weights = vec![0.0; 7 * shape.weight_values()];
            shape.forward(qkv, &mut y, &mut weights);
            shape.backward(qkv, &weights, &dy, &mut dqkv);
            let mut again = vec![0.0; dy.len()];
            shape.evaluate(qkv, &mut again);
            assert!(y.iter().zip(&again).all(|(a, b)| a.to_bits() == b.to_bits() || a.is_nan()));
            [y, dqkv].concat()
        };
        same_bits(|| both(&qkv));
        qkv[0] = f32::NAN;
        let got = both(&qkv);
        assert!(got[0].is_nan() && got[shape.output_values()..dy.len()].iter().all(|v| v.is_finite()));
    }
}

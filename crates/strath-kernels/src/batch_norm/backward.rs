//! The gradient through a batch norm, by the batch's own statistics or by constants.
//!
//! With `x^ = (x - mean) / s`, and g the gradient dy masked by what follows:
//!
//! ```text
//! dbias = sum g,   dweight = sum g x^,   dx = weight / s (g - mean(g) - x^ mean(g x^)) = a g + b d + c,   d = x - m
//! ```
//!
//! By constants it is `dx = weight / s g`, and the others are the same. The sums are taken as those of [`moments`](super::moments); a, b and c are constants of a channel.

use super::{Affine, BatchNorm, By, Gradient, rest_of};
use crate::columns::{PIECE, from_the_last, repeated, totals};
use crate::isa::Isa;
use crate::pointwise::passed;
use crate::vectorised::vectorised;

/// What dy is masked by before it goes through the norm; taken anew from x, so y need not be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mask {
    /// Nothing: nothing followed the norm.
    Nothing,
    /// The sign of y: dy counts as 0 wherever y is not above 0.
    Relu,
}

/// `dx = slope g + tilt d + level`, each of `lanes` values.
pub(crate) struct Constants {
    slope: Vec<f32>,
    tilt: Vec<f32>,
    level: Vec<f32>,
}

impl Constants {
    /// Of the channels' slope, tilt and level.
    pub(crate) fn of([slope, tilt, level]: [&[f32]; 3]) -> Self {
        Self { slope: repeated(slope), tilt: repeated(tilt), level: repeated(level) }
    }
}

impl Affine {
    /// Of each channel the sums of g and of g d, [2, channels], where g is dy masked.
    pub(crate) fn sums(&self, isa: Isa, channels: usize, mask: Mask, x: &[f32], dy: &[f32]) -> Vec<f64> {
        let size = self.mean.len() * PIECE;
        let pieces = x.chunks(size).zip(dy.chunks(size));
        totals(channels, pieces, |(x, dy), [sums, products]| match mask {
            Mask::Nothing => add(isa, self, x, dy, (sums, products)),
            Mask::Relu => add_masked(isa, self, x, dy, (sums, products)),
        })
    }

    /// As [`Self::sums`], masked by y; dy becomes the masked one.
    pub(crate) fn masked_sums(&self, isa: Isa, channels: usize, x: &[f32], y: &[f32], dy: &mut [f32]) -> Vec<f64> {
        let size = self.mean.len() * PIECE;
        let pieces = x.chunks(size).zip(y.chunks(size)).zip(dy.chunks_mut(size));
        totals(channels, pieces, |((x, y), dy), [sums, products]| {
            mask_and_add(isa, self, x, y, dy, (sums, products));
        })
    }

    /// dx of dy as it is, apart.
    pub(crate) fn gradient(&self, isa: Isa, by: &Constants, x: &[f32], dy: &[f32], dx: &mut [f32]) {
        from_the_last(dx, self.mean.len() * PIECE, |at, dx| {
            combine(isa, self, by, &x[at..][..dx.len()], &dy[at..][..dx.len()], dx);
        });
    }

    /// dx of dy masked, over dy.
    pub(crate) fn gradient_over_dy(&self, isa: Isa, by: &Constants, mask: Mask, x: &[f32], dy: &mut [f32]) {
        from_the_last(dy, self.mean.len() * PIECE, |at, dy| {
            let x = &x[at..][..dy.len()];
            match mask {
                Mask::Nothing => combine_over_g(isa, self, by, x, dy),
                Mask::Relu => combine_masked_over_g(isa, self, by, x, dy),
            }
        });
    }
}

impl BatchNorm<'_> {
    /// The gradient through [`BatchNorm::forward`] with nothing or ReLU after it: dx, and the
    /// weight's and the bias's. Two passes: reads x and dy, then x and dy again and writes dx.
    ///
    /// # Panics
    /// Where the slices' lengths differ.
    pub fn backward(&self, mask: Mask, x: &[f32], dy: &[f32], dx: &mut [f32]) -> Gradient {
        self.backward_by(Isa::active(), mask, x, dy, dx)
    }

    fn backward_by(&self, isa: Isa, mask: Mask, x: &[f32], dy: &[f32], dx: &mut [f32]) -> Gradient {
        self.check(x.len(), dx.len());
        let affine = self.affine();
        let (gradient, constants) = self.sums(isa, mask, &affine, x, dy);
        from_the_last(dx, affine.mean.len() * PIECE, |at, dx| {
            let (x, dy) = (&x[at..][..dx.len()], &dy[at..][..dx.len()]);
            match mask {
                Mask::Nothing => combine(isa, &affine, &constants, x, dy, dx),
                Mask::Relu => combine_masked(isa, &affine, &constants, x, dy, dx),
            }
        });
        gradient
    }

    /// [`BatchNorm::backward`] with dx written over dy: a stream less, since what is written is in the cache already.
    pub fn backward_over_dy(&self, mask: Mask, x: &[f32], dy: &mut [f32]) -> Gradient {
        self.backward_over_dy_by(Isa::active(), mask, x, dy)
    }

    fn backward_over_dy_by(&self, isa: Isa, mask: Mask, x: &[f32], dy: &mut [f32]) -> Gradient {
        let affine = self.affine();
        let (gradient, constants) = self.sums(isa, mask, &affine, x, dy);
        affine.gradient_over_dy(isa, &constants, mask, x, dy);
        gradient
    }

    /// The gradient through `y = max(norm(x) + shortcut, 0)`: dx, the shortcut's, which is dy where y > 0 and is written over
    /// dy, and the weight's and the bias's. Two passes: reads x, y and dy and writes dy, then reads x and dy and writes dx.
    ///
    /// # Panics
    /// Where the slices' lengths differ.
    pub fn backward_add_relu(&self, x: &[f32], y: &[f32], dy: &mut [f32], dx: &mut [f32]) -> Gradient {
        self.backward_add_relu_by(Isa::active(), x, y, dy, dx)
    }

    fn backward_add_relu_by(&self, isa: Isa, x: &[f32], y: &[f32], dy: &mut [f32], dx: &mut [f32]) -> Gradient {
        self.check(x.len(), dx.len());
        let affine = self.affine();
        let (gradient, constants) = self.masked_sums(isa, &affine, x, y, dy);
        affine.gradient(isa, &constants, x, dy, dx);
        gradient
    }

    /// [`BatchNorm::backward_add_relu`] with dx written over x, for a caller who is done with it: a stream less.
    ///
    /// # Panics
    /// Where the slices' lengths differ.
    pub fn backward_add_relu_over_x(&self, x: &mut [f32], y: &[f32], dy: &mut [f32]) -> Gradient {
        self.backward_add_relu_over_x_by(Isa::active(), x, y, dy)
    }

    fn backward_add_relu_over_x_by(&self, isa: Isa, x: &mut [f32], y: &[f32], dy: &mut [f32]) -> Gradient {
        let affine = self.affine();
        let (gradient, constants) = self.masked_sums(isa, &affine, x, y, dy);
        from_the_last(x, affine.mean.len() * PIECE, |at, x| {
            combine_over_x(isa, &affine, &constants, &dy[at..][..x.len()], x);
        });
        gradient
    }

    fn sums(&self, isa: Isa, mask: Mask, affine: &Affine, x: &[f32], dy: &[f32]) -> (Gradient, Constants) {
        self.check(x.len(), dy.len());
        self.constants(&affine.sums(isa, self.weight.len(), mask, x, dy), x.len())
    }

    /// As [`Self::sums`], masked by y; dy becomes the masked one.
    fn masked_sums(&self, isa: Isa, affine: &Affine, x: &[f32], y: &[f32], dy: &mut [f32]) -> (Gradient, Constants) {
        self.check(x.len(), dy.len());
        self.check(x.len(), y.len());
        self.constants(&affine.masked_sums(isa, self.weight.len(), x, y, dy), x.len())
    }

    /// Gradients and constants from the sums of g and of g d, [2, channels].
    fn constants(&self, totals: &[f64], values: usize) -> (Gradient, Constants) {
        let channels = self.weight.len();
        let rows = (values / channels) as f64;
        let (mut weight, mut lines) = (Vec::new(), [Vec::new(), Vec::new(), Vec::new()]);
        for c in 0..channels {
            let precision = self.precision(c);
            let rest = rest_of(self.moments.mean[c]); // x - mean = d - rest
            let with_hat = (totals[channels + c] - rest * totals[c]) * precision;
            let slope = f64::from(self.weight[c]) * precision;
            let (tilt, level) = match self.by {
                By::Batch => {
                    let tilt = -slope * precision * with_hat / rows;
                    (tilt, -slope * totals[c] / rows - tilt * rest)
                }
                By::Constants => (0.0, 0.0),
            };
            weight.push(with_hat as f32);
            lines[0].push(slope as f32);
            lines[1].push(tilt as f32);
            lines[2].push(level as f32);
        }
        let bias = totals[..channels].iter().map(|v| *v as f32).collect();
        (Gradient { weight, bias }, Constants::of([&lines[0], &lines[1], &lines[2]]))
    }
}

/// `sum += g` and `product += g d`, four rows at a time, with `g = gradient(d scale + shift, dy)`.
#[allow(clippy::inline_always, reason = "it is compiled anew for each instruction set")]
#[inline(always)]
fn add_rows(
    norm: &Affine,
    x: &[f32],
    dy: &[f32],
    (sums, products): (&mut [f32], &mut [f32]),
    gradient: impl Fn(f32, f32) -> f32,
) {
    let lanes = norm.mean.len();
    let (mean, scale, shift) = (&norm.mean[..lanes], &norm.scale[..lanes], &norm.shift[..lanes]);
    let (sums, products) = (&mut sums[..lanes], &mut products[..lanes]);
    let (mut x, mut dy) = (x.chunks_exact(4 * lanes), dy.chunks_exact(4 * lanes));
    for (x, dy) in (&mut x).zip(&mut dy) {
        let [x0, x1, x2, x3] = [0, 1, 2, 3].map(|k| &x[k * lanes..][..lanes]);
        let [dy0, dy1, dy2, dy3] = [0, 1, 2, 3].map(|k| &dy[k * lanes..][..lanes]);
        for lane in 0..lanes {
            let (mean, scale, shift) = (mean[lane], scale[lane], shift[lane]);
            let (a, b, c, d) = (x0[lane] - mean, x1[lane] - mean, x2[lane] - mean, x3[lane] - mean);
            let (e, f) = (gradient(a * scale + shift, dy0[lane]), gradient(b * scale + shift, dy1[lane]));
            let (g, h) = (gradient(c * scale + shift, dy2[lane]), gradient(d * scale + shift, dy3[lane]));
            sums[lane] += (e + f) + (g + h);
            products[lane] += (e * a + f * b) + (g * c + h * d);
        }
    }
    for (x, dy) in x.remainder().chunks(lanes).zip(dy.remainder().chunks(lanes)) {
        for (lane, (x, dy)) in x.iter().zip(dy).enumerate() {
            let d = x - mean[lane];
            let g = gradient(d * scale[lane] + shift[lane], *dy);
            sums[lane] += g;
            products[lane] += g * d;
        }
    }
}

vectorised! {
    fn add(norm: &Affine, x: &[f32], dy: &[f32], sums: (&mut [f32], &mut [f32])) {
        add_rows(norm, x, dy, sums, |_, dy| dy);
    }

    fn add_masked(norm: &Affine, x: &[f32], dy: &[f32], sums: (&mut [f32], &mut [f32])) {
        add_rows(norm, x, dy, sums, passed);
    }

    fn mask_and_add(norm: &Affine, x: &[f32], y: &[f32], dy: &mut [f32], sums: (&mut [f32], &mut [f32])) {
        let four = 4 * norm.mean.len();
        let (sums, products) = sums;
        for ((x, y), dy) in x.chunks(four).zip(y.chunks(four)).zip(dy.chunks_mut(four)) {
            dy.iter_mut().zip(y).for_each(|(dy, y)| *dy = passed(*y, *dy));
            add_rows(norm, x, dy, (&mut *sums, &mut *products), |_, dy| dy);
        }
    }

    fn combine(norm: &Affine, by: &Constants, x: &[f32], dy: &[f32], dx: &mut [f32]) {
        let lanes = norm.mean.len();
        for ((dx, x), dy) in dx.chunks_mut(lanes).zip(x.chunks(lanes)).zip(dy.chunks(lanes)) {
            let constants = norm.mean.iter().zip(by.slope.iter().zip(&by.tilt).zip(&by.level));
            dx.iter_mut()
                .zip(x.iter().zip(dy))
                .zip(constants)
                .for_each(|((dx, (x, g)), (m, ((a, b), c)))| *dx = a * g + (b * (x - m) + c));
        }
    }

    fn combine_over_g(norm: &Affine, by: &Constants, x: &[f32], dy: &mut [f32]) {
        let lanes = norm.mean.len();
        for (dy, x) in dy.chunks_mut(lanes).zip(x.chunks(lanes)) {
            let constants = norm.mean.iter().zip(by.slope.iter().zip(&by.tilt).zip(&by.level));
            dy.iter_mut().zip(x).zip(constants).for_each(|((g, x), (m, ((a, b), c)))| *g = a * *g + (b * (x - m) + c));
        }
    }

    fn combine_over_x(norm: &Affine, by: &Constants, dy: &[f32], x: &mut [f32]) {
        let lanes = norm.mean.len();
        for (x, dy) in x.chunks_mut(lanes).zip(dy.chunks(lanes)) {
            let constants = norm.mean.iter().zip(by.slope.iter().zip(&by.tilt).zip(&by.level));
            x.iter_mut().zip(dy).zip(constants).for_each(|((x, g), (m, ((a, b), c)))| *x = a * g + (b * (*x - m) + c));
        }
    }

    fn combine_masked(norm: &Affine, by: &Constants, x: &[f32], dy: &[f32], dx: &mut [f32]) {
        let lanes = norm.mean.len();
        for ((dx, x), dy) in dx.chunks_mut(lanes).zip(x.chunks(lanes)).zip(dy.chunks(lanes)) {
            let affine = norm.mean.iter().zip(norm.scale.iter().zip(&norm.shift));
            let constants = by.slope.iter().zip(&by.tilt).zip(&by.level);
            dx.iter_mut().zip(x.iter().zip(dy)).zip(affine.zip(constants)).for_each(
                |((dx, (x, dy)), ((m, (scale, shift)), ((a, b), c)))| {
                    let d = x - m;
                    *dx = a * passed(d * scale + shift, *dy) + (b * d + c);
                },
            );
        }
    }

    fn combine_masked_over_g(norm: &Affine, by: &Constants, x: &[f32], dy: &mut [f32]) {
        let lanes = norm.mean.len();
        for (dy, x) in dy.chunks_mut(lanes).zip(x.chunks(lanes)) {
            let affine = norm.mean.iter().zip(norm.scale.iter().zip(&norm.shift));
            let constants = by.slope.iter().zip(&by.tilt).zip(&by.level);
            dy.iter_mut().zip(x).zip(affine.zip(constants)).for_each(
                |((dy, x), ((m, (scale, shift)), ((a, b), c)))| {
                    let d = x - m;
                    *dy = a * passed(d * scale + shift, *dy) + (b * d + c);
                },
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::SIZES;
    use super::super::{Moments, Then, moments};
    use super::*;
    use crate::product::tests::{assert_slope, error, values};
    use crate::threads::tests::same_bits;
    use crate::vectorised::tests::same_bits_by_every_isa;

    fn norm<'a>(moments: &'a Moments, weight: &'a [f32], bias: &'a [f32]) -> BatchNorm<'a> {
        BatchNorm { moments, weight, bias, floor: 1e-5, by: By::Batch }
    }

    /// dx, dweight and dbias of masked gradients g, in float64.
    fn in_float64(norm: &BatchNorm<'_>, x: &[f32], g: &[f32]) -> [Vec<f64>; 3] {
        let channels = norm.weight.len();
        let rows = (x.len() / channels) as f64;
        let hat = |at: usize| (f64::from(x[at]) - norm.moments.mean[at % channels]) * norm.precision(at % channels);
        let (mut sums, mut products) = (vec![0.0; channels], vec![0.0; channels]);
        for at in 0..x.len() {
            sums[at % channels] += f64::from(g[at]);
            products[at % channels] += f64::from(g[at]) * hat(at);
        }
        let dx = |at: usize| {
            let c = at % channels;
            let through_statistics = match norm.by {
                By::Batch => sums[c] / rows + hat(at) * products[c] / rows,
                By::Constants => 0.0,
            };
            let inner = f64::from(g[at]) - through_statistics;
            f64::from(norm.weight[c]) * norm.precision(c) * inner
        };
        [(0..x.len()).map(dx).collect(), products, sums]
    }

    fn assert_near(got: &[f32], [dx, dweight, dbias]: &[Vec<f64>; 3]) {
        let (values, channels) = (dx.len(), dbias.len());
        assert!(error(&got[..values], dx) < 1e-6, "{}", error(&got[..values], dx));
        assert!(error(&got[values..][..channels], dweight) < 2e-6);
        assert!(error(&got[values + channels..], dbias) < 2e-6);
    }

    #[test]
    fn gradients_are_those_in_float64_by_every_instruction_set_and_destination() {
        let sizes = SIZES.into_iter().filter(|(_, rows)| *rows > 1);
        for ((channels, rows), by) in sizes.flat_map(|size| [(size, By::Batch), (size, By::Constants)]) {
            let x: Vec<f32> = values(rows * channels, 1).iter().map(|v| v * 3.0 + 50.0).collect();
            let (weight, bias, dy) = (values(channels, 2), values(channels, 3), values(rows * channels, 5));
            let (moments, shortcut) = (moments(channels, &x), values(rows * channels, 4));
            let norm = BatchNorm { by, ..norm(&moments, &weight, &bias) };
            for (mask, then) in [(Mask::Nothing, Then::Nothing), (Mask::Relu, Then::Relu)] {
                let mut y = vec![0.0; x.len()];
                norm.forward(then, &x, &mut y);
                let g: Vec<f32> =
                    y.iter().zip(&dy).map(|(y, g)| if mask == Mask::Relu { passed(*y, *g) } else { *g }).collect();
                let got = same_bits_by_every_isa(|isa| {
                    let mut dx = vec![f32::NAN; x.len()];
                    let gradient = norm.backward_by(isa, mask, &x, &dy, &mut dx);
                    let mut over = dy.clone();
                    assert_eq!(norm.backward_over_dy_by(isa, mask, &x, &mut over), gradient);
                    assert_eq!(over, dx);
                    [dx, gradient.weight, gradient.bias].concat()
                });
                assert_near(&got, &in_float64(&norm, &x, &g));
            }
            let mut y = vec![0.0; x.len()];
            norm.forward(Then::AddRelu(&shortcut), &x, &mut y);
            let g: Vec<f32> = y.iter().zip(&dy).map(|(y, g)| passed(*y, *g)).collect();
            let got = same_bits_by_every_isa(|isa| {
                let (mut masked, mut dx) = (dy.clone(), vec![f32::NAN; x.len()]);
                let gradient = norm.backward_add_relu_by(isa, &x, &y, &mut masked, &mut dx);
                assert_eq!(masked, g);
                let (mut masked, mut over) = (dy.clone(), x.clone());
                assert_eq!(norm.backward_add_relu_over_x_by(isa, &mut over, &y, &mut masked), gradient);
                assert_eq!((&over, &masked), (&dx, &g));
                [dx, gradient.weight, gradient.bias].concat()
            });
            assert_near(&got, &in_float64(&norm, &x, &g));
        }
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        let (channels, x, dy) = (3, values(3 * 40, 2), values(3 * 40, 3));
        let (weight, bias, shortcut) = ([0.5, -1.5, 2.0], [0.1, 0.2, 0.3], values(3 * 40, 4));
        for then in [Then::Nothing, Then::Relu, Then::AddRelu(&shortcut)] {
            let objective = |x: &[f32], weight: &[f32], bias: &[f32]| {
                let mut y = vec![0.0; x.len()];
                norm(&moments(channels, x), weight, bias).forward(then, x, &mut y);
                y.iter().zip(&dy).map(|(y, g)| f64::from(*y) * f64::from(*g)).sum::<f64>()
            };
            let moments = moments(channels, &x);
            let norm = norm(&moments, &weight, &bias);
            let (mut y, mut dx, mut masked) = (vec![0.0; x.len()], vec![0.0; x.len()], dy.clone());
            norm.forward(then, &x, &mut y);
            let got = match then {
                Then::Nothing => norm.backward(Mask::Nothing, &x, &dy, &mut dx),
                Then::Relu => norm.backward(Mask::Relu, &x, &dy, &mut dx),
                Then::AddRelu(_) => norm.backward_add_relu(&x, &y, &mut masked, &mut dx),
            };
            assert_slope(&x, &dx, 1e-3, 1e-2, &|x| objective(x, &weight, &bias));
            assert_slope(&weight, &got.weight, 1e-3, 1e-2, &|weight| objective(&x, weight, &bias));
            assert_slope(&bias, &got.bias, 1e-3, 1e-2, &|bias| objective(&x, &weight, bias));
        }
    }

    #[test]
    fn gradients_do_not_depend_on_threads() {
        let (x, dy, y) = (values(5000 * 24, 1), values(5000 * 24, 2), values(5000 * 24, 3));
        let (moments, weight, bias) = (moments(24, &x), values(24, 4), values(24, 5));
        let norm = norm(&moments, &weight, &bias);
        same_bits(|| {
            let (mut dx, mut over, mut masked) = (vec![0.0; x.len()], x.clone(), dy.clone());
            let first = norm.backward(Mask::Relu, &x, &dy, &mut dx);
            let second = norm.backward_add_relu_over_x(&mut over, &y, &mut masked);
            [dx, over, masked, first.weight, first.bias, second.weight, second.bias].concat()
        });
    }
}

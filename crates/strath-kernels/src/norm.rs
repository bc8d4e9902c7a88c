//! Batch norm and layer norm, forward and backward. Sums are taken in `f64`.

use crate::activation::{passed, rectified};
use crate::threads::for_chunks;

/// The shape of a batch-normalised tensor [N, C, area].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchShape {
    /// Images, N.
    pub images: usize,
    /// Channels, C.
    pub channels: usize,
    /// Pixels of a plane.
    pub area: usize,
}

impl BatchShape {
    fn count(&self) -> f64 {
        (self.images * self.area) as f64
    }

    fn planes<'a>(&self, x: &'a [f32], channel: usize) -> impl Iterator<Item = &'a [f32]> + use<'a> {
        let (stride, area) = (self.channels * self.area, self.area);
        (0..self.images).map(move |image| &x[image * stride + channel * area..][..area])
    }

    fn image(&self) -> usize {
        self.channels * self.area
    }
}

/// What follows a batch norm in the same pass over memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Nothing: the normalised values themselves.
    Nothing,
    /// `max(., 0)`, whose derivative at 0 is 0.
    Relu,
}

/// Mean and variance of each channel over one batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    /// Means.
    pub mean: Vec<f64>,
    /// Biased variances: over the number of values.
    pub variance: Vec<f64>,
}

impl Moments {
    /// Unbiased variances, over the number of values less one, as running variances are made of.
    pub fn unbiased(&self, shape: BatchShape) -> Vec<f64> {
        let count = shape.count();
        self.variance.iter().map(|v| v * count / (count - 1.0)).collect()
    }
}

/// Values that are summed side by side, in accumulators of their own.
const LANES: usize = 8;

/// The sums of `N` terms over pairs of a plane's values, in interleaved accumulators: a fixed order that vectorises. `term`
/// gets eight pairs at once, so that each of its steps can be one loop over them.
fn sums<const N: usize>(
    a: &[f32],
    b: &[f32],
    term: impl Fn(&[f32; LANES], &[f32; LANES]) -> [[f64; LANES]; N],
) -> [f64; N] {
    let mut lanes = [[0.0f64; LANES]; N];
    let mut add = |values: [[f64; LANES]; N], count: usize| {
        for (sums, values) in lanes.iter_mut().zip(&values) {
            sums[..count].iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        }
    };
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        add(term(a, b), LANES);
    }
    let padded = |rest: &[f32]| std::array::from_fn(|lane| rest.get(lane).copied().unwrap_or(0.0));
    add(term(&padded(a_rest), &padded(b_rest)), a_rest.len());
    lanes.map(|[a, b, c, d, e, f, g, h]| ((a + e) + (c + g)) + ((b + f) + (d + h)))
}

/// The sum of `term` over the values of a plane.
fn plane_sum(plane: &[f32], term: impl Fn(f64) -> f64) -> f64 {
    let [sum] = sums(plane, plane, |values, _| [values.map(|value| term(f64::from(value)))]);
    sum
}

/// Means and variances over a batch x [N, C, area]; two passes, so that a large mean costs no digits.
pub fn batch_moments(shape: BatchShape, x: &[f32]) -> Moments {
    let mut moments = vec![(0.0, 0.0); shape.channels];
    for_chunks(&mut moments, 1, |channel, out| {
        let mean = shape.planes(x, channel).map(|p| plane_sum(p, |v| v)).sum::<f64>() / shape.count();
        let squares = shape.planes(x, channel).map(|p| plane_sum(p, |v| (v - mean) * (v - mean))).sum::<f64>();
        out[0] = (mean, squares / shape.count());
    });
    let (mean, variance) = moments.into_iter().unzip();
    Moments { mean, variance }
}

/// A batch norm as it is applied: statistics, weight and bias of each channel, PyTorch's eps and what follows.
#[derive(Debug, Clone, Copy)]
pub struct BatchNorm<'a> {
    /// The shape of x and y.
    pub shape: BatchShape,
    /// Mean and variance of each channel.
    pub moments: &'a Moments,
    /// Weight of each channel.
    pub weight: &'a [f32],
    /// Bias of each channel.
    pub bias: &'a [f32],
    /// Added to the variance.
    pub floor: f64,
    /// What follows.
    pub then: Then,
}

impl BatchNorm<'_> {
    /// Scale and shift of a channel: `y = x scale + shift`. The backward takes the sign of y from the same two numbers.
    fn affine(&self, channel: usize) -> (f32, f32) {
        let scale = f64::from(self.weight[channel]) / (self.moments.variance[channel] + self.floor).sqrt();
        (scale as f32, (f64::from(self.bias[channel]) - self.moments.mean[channel] * scale) as f32)
    }
}

/// `y = (x - mean) / sqrt(variance + floor) * weight + bias`, a channel at a time, and what follows.
pub fn batch_norm(norm: &BatchNorm<'_>, x: &[f32], y: &mut [f32]) {
    let shape = norm.shape;
    let affine: Vec<(f32, f32)> = (0..shape.channels).map(|c| norm.affine(c)).collect();
    for_chunks(y, shape.image(), |image, y| {
        let x = &x[image * shape.image()..][..shape.image()];
        for ((y, x), (scale, shift)) in y.chunks_exact_mut(shape.area).zip(x.chunks_exact(shape.area)).zip(&affine) {
            match norm.then {
                Then::Nothing => y.iter_mut().zip(x).for_each(|(y, x)| *y = x * scale + shift),
                Then::Relu => y.iter_mut().zip(x).for_each(|(y, x)| *y = rectified(x * scale + shift)),
            }
        }
    });
}

/// What a batch norm hands back.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchGradient {
    /// Of x.
    pub x: Vec<f32>,
    /// Of the weight.
    pub weight: Vec<f32>,
    /// Of the bias.
    pub bias: Vec<f32>,
}

/// The gradient through a batch norm by the batch's own statistics. With `x^ = (x - mean) / s`,
/// `s = sqrt(variance + floor)`: `dbias = sum dy`, `dweight = sum dy x^`,
/// `dx = weight / s (dy - mean(dy) - x^ mean(dy x^))`. Where ReLU follows, dy counts as 0 wherever y is not above 0.
pub fn batch_norm_backward(norm: &BatchNorm<'_>, x: &[f32], dy: &[f32]) -> BatchGradient {
    let BatchNorm { shape, moments, floor, .. } = *norm;
    let mut totals = vec![(0.0, 0.0); shape.channels];
    for_chunks(&mut totals, 1, |channel, out| {
        let (mean, (scale, shift)) = (moments.mean[channel], norm.affine(channel));
        let (mut plain, mut with_x) = (0.0, 0.0);
        for (dy, x) in shape.planes(dy, channel).zip(shape.planes(x, channel)) {
            let terms = |dy: &[f32; LANES], x: &[f32; LANES]| {
                let dy = dy.map(f64::from);
                let centred = x.map(|x| f64::from(x) - mean);
                [dy, std::array::from_fn(|lane| dy[lane] * centred[lane])]
            };
            let [a, b] = match norm.then {
                Then::Nothing => sums(dy, x, terms),
                Then::Relu => sums(dy, x, |dy, x| {
                    terms(&std::array::from_fn(|lane| passed(x[lane] * scale + shift, dy[lane])), x)
                }),
            };
            plain += a;
            with_x += b;
        }
        out[0] = (plain, with_x / (moments.variance[channel] + floor).sqrt());
    });
    // dx = a dy + b x + c with a, b, c constant in a channel; kept with its scale and shift.
    let constants: Vec<_> = (0..shape.channels)
        .map(|c| {
            let s = 1.0 / (moments.variance[c] + floor).sqrt();
            let a = f64::from(norm.weight[c]) * s;
            let (mean_dy, mean_dyx) = (totals[c].0 / shape.count(), totals[c].1 / shape.count());
            let b = -a * s * mean_dyx;
            ((a as f32, b as f32, (-a * mean_dy - b * moments.mean[c]) as f32), norm.affine(c))
        })
        .collect();
    let mut dx = vec![0.0; x.len()];
    for_chunks(&mut dx, shape.image(), |image, dx| {
        let start = image * shape.image();
        let planes = x[start..].chunks_exact(shape.area).zip(dy[start..].chunks_exact(shape.area));
        for ((dx, (x, dy)), ((a, b, c), (scale, shift))) in dx.chunks_exact_mut(shape.area).zip(planes).zip(&constants)
        {
            let values = dx.iter_mut().zip(x.iter().zip(dy));
            match norm.then {
                Then::Nothing => values.for_each(|(dx, (x, dy))| *dx = a * dy + (b * x + c)),
                Then::Relu => {
                    values.for_each(|(dx, (x, dy))| *dx = a * passed(x * scale + shift, *dy) + (b * x + c));
                }
            }
        }
    });
    BatchGradient {
        x: dx,
        weight: totals.iter().map(|(_, with_x)| *with_x as f32).collect(),
        bias: totals.iter().map(|(plain, _)| *plain as f32).collect(),
    }
}

/// Rows of a layer norm that one thread computes in one go.
const ROWS: usize = 32;

/// `y = (x - mean) / sqrt(variance + floor) * weight + bias` over each row of x [rows, width].
pub fn layer_norm(width: usize, x: &[f32], affine: (&[f32], &[f32]), floor: f64, y: &mut [f32]) {
    let (weight, bias) = affine;
    for_chunks(y, ROWS * width, |k, y| {
        for (y, x) in y.chunks_exact_mut(width).zip(x[k * ROWS * width..].chunks_exact(width)) {
            let (mean, scale) = row_moments(x, floor);
            for (at, (y, x)) in y.iter_mut().zip(x).enumerate() {
                *y = ((f64::from(*x) - mean) * scale) as f32 * weight[at] + bias[at];
            }
        }
    });
}

fn row_moments(x: &[f32], floor: f64) -> (f64, f64) {
    let mean = plane_sum(x, |v| v) / x.len() as f64;
    let variance = plane_sum(x, |v| (v - mean) * (v - mean)) / x.len() as f64;
    (mean, 1.0 / (variance + floor).sqrt())
}

/// The gradient through a layer norm of x [rows, width]: of x, the weight and the bias.
pub fn layer_norm_backward(width: usize, x: &[f32], weight: &[f32], floor: f64, dy: &[f32]) -> BatchGradient {
    let mut dx = vec![0.0; x.len()];
    for_chunks(&mut dx, ROWS * width, |k, dx| {
        let start = k * ROWS * width;
        let rows = x[start..].chunks_exact(width).zip(dy[start..].chunks_exact(width));
        for (dx, (x, dy)) in dx.chunks_exact_mut(width).zip(rows) {
            let (mean, scale) = row_moments(x, floor);
            let g = |at: usize| f64::from(dy[at]) * f64::from(weight[at]);
            let hat = |at: usize| (f64::from(x[at]) - mean) * scale;
            let mean_g = (0..width).map(g).sum::<f64>() / width as f64;
            let mean_gx = (0..width).map(|at| g(at) * hat(at)).sum::<f64>() / width as f64;
            for (at, dx) in dx.iter_mut().enumerate() {
                *dx = (scale * (g(at) - mean_g - hat(at) * mean_gx)) as f32;
            }
        }
    });
    let (mut dweight, mut dbias) = (vec![0.0f64; width], vec![0.0f64; width]);
    for (x, dy) in x.chunks_exact(width).zip(dy.chunks_exact(width)) {
        let (mean, scale) = row_moments(x, floor);
        for at in 0..width {
            dweight[at] += f64::from(dy[at]) * (f64::from(x[at]) - mean) * scale;
            dbias[at] += f64::from(dy[at]);
        }
    }
    let narrow = |wide: Vec<f64>| wide.into_iter().map(|v| v as f32).collect();
    BatchGradient { x: dx, weight: narrow(dweight), bias: narrow(dbias) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::product::tests::values;
    use crate::threads::tests::same_bits;

    const SHAPE: BatchShape = BatchShape { images: 5, channels: 3, area: 11 };

    fn norm<'a>(shape: BatchShape, moments: &'a Moments, affine: (&'a [f32], &'a [f32]), then: Then) -> BatchNorm<'a> {
        BatchNorm { shape, moments, weight: affine.0, bias: affine.1, floor: 1e-5, then }
    }

    fn forward(shape: BatchShape, x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
        let mut y = vec![0.0; x.len()];
        batch_norm(&norm(shape, &batch_moments(shape, x), (weight, bias), Then::Nothing), x, &mut y);
        y
    }

    fn assert_gradient(f: impl Fn(&[f32]) -> Vec<f32>, x: &[f32], g: &[f32], got: &[f32]) {
        let objective = |x: &[f32]| f(x).iter().zip(g).map(|(y, g)| f64::from(*y) * f64::from(*g)).sum::<f64>();
        for at in 0..x.len() {
            let moved = |by: f32| {
                let mut x = x.to_vec();
                x[at] += by;
                objective(&x)
            };
            let slope = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            assert!(
                (slope - f64::from(got[at])).abs() < 2e-3 * slope.abs().max(1.0),
                "{at}: {slope} against {}",
                got[at]
            );
        }
    }

    #[test]
    fn a_normalised_batch_has_mean_zero_and_variance_one_even_far_from_zero() {
        let x: Vec<f32> = values(5 * 3 * 11, 1).iter().map(|v| v + 1000.0).collect();
        let y = forward(SHAPE, &x, &[1.0; 3], &[0.0; 3]);
        let again = batch_moments(SHAPE, &y);
        assert!(again.mean.iter().all(|m| m.abs() < 1e-3), "{again:?}");
        assert!(again.variance.iter().all(|v| (v - 1.0).abs() < 1e-3), "{again:?}");
        let unbiased = batch_moments(SHAPE, &x).unbiased(SHAPE);
        assert!((unbiased[0] / batch_moments(SHAPE, &x).variance[0] - 55.0 / 54.0).abs() < 1e-12);
    }

    #[test]
    fn batch_norm_gradients_are_those_of_finite_differences() {
        let (x, g) = (values(5 * 3 * 11, 2), values(5 * 3 * 11, 3));
        let (weight, bias) = ([0.5, -1.5, 2.0], [0.1, 0.2, 0.3]);
        let moments = batch_moments(SHAPE, &x);
        let got = batch_norm_backward(&norm(SHAPE, &moments, (&weight, &bias), Then::Nothing), &x, &g);
        assert_gradient(|x| forward(SHAPE, x, &weight, &bias), &x, &g, &got.x);
        assert_gradient(|w| forward(SHAPE, &x, w, &bias), &weight, &g, &got.weight);
        assert_gradient(|b| forward(SHAPE, &x, &weight, b), &bias, &g, &got.bias);
    }

    #[test]
    fn relu_fused_into_a_batch_norm_has_the_bits_of_relu_after_it() {
        let (x, g) = (values(5 * 3 * 11, 10), values(5 * 3 * 11, 11));
        let (weight, bias) = ([0.5, -1.5, 2.0], [0.1, 0.2, 0.3]);
        let moments = batch_moments(SHAPE, &x);
        let (plain, fused) =
            [Then::Nothing, Then::Relu].map(|then| norm(SHAPE, &moments, (&weight, &bias), then)).into();
        let (mut y, mut apart, mut together, mut masked) =
            (vec![0.0; x.len()], vec![0.0; x.len()], vec![0.0; x.len()], vec![0.0; x.len()]);
        batch_norm(&plain, &x, &mut y);
        crate::activation::relu(&y, &mut apart);
        batch_norm(&fused, &x, &mut together);
        assert_eq!(together, apart);
        crate::activation::mask(&apart, &g, &mut masked);
        assert_eq!(batch_norm_backward(&fused, &x, &g), batch_norm_backward(&plain, &x, &masked));
        assert!(masked.iter().filter(|g| **g == 0.0).count() > 40, "ReLU stops some of it");
    }

    #[test]
    fn layer_norm_gradients_are_those_of_finite_differences() {
        let (x, g) = (values(6 * 9, 4), values(6 * 9, 5));
        let (weight, bias) = (values(9, 6), values(9, 7));
        let forward = |x: &[f32], weight: &[f32], bias: &[f32]| {
            let mut y = vec![0.0; x.len()];
            layer_norm(9, x, (weight, bias), 1e-6, &mut y);
            y
        };
        let got = layer_norm_backward(9, &x, &weight, 1e-6, &g);
        assert_gradient(|x| forward(x, &weight, &bias), &x, &g, &got.x);
        assert_gradient(|w| forward(&x, w, &bias), &weight, &g, &got.weight);
        assert_gradient(|b| forward(&x, &weight, b), &bias, &g, &got.bias);
    }

    #[test]
    fn norms_do_not_depend_on_threads() {
        let shape = BatchShape { images: 9, channels: 7, area: 33 };
        let (x, g) = (values(9 * 7 * 33, 8), values(9 * 7 * 33, 9));
        same_bits(|| {
            let moments = batch_moments(shape, &x);
            let batch = batch_norm_backward(&norm(shape, &moments, (&[0.7; 7], &[0.1; 7]), Then::Relu), &x, &g);
            let layer = layer_norm_backward(21, &x, &[0.7; 21], 1e-6, &g);
            [batch.x, batch.weight, batch.bias, layer.x, layer.weight, layer.bias].concat()
        });
    }
}

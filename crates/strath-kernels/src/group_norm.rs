//! Group norm (Wu and He 2018) of images x [N, H W, C], channels innermost, with what follows it fused.
//!
//! ```text
//! x^ = (x - mean) p,   p = 1 / sqrt(variance + floor)       over an image's group: H W pixels of C / G consecutive channels
//! y  = then(x^ weight + bias)                               weight and bias of each channel
//! dx = p (g - mean(g) - x^ mean(g x^)),   g = dy' weight    dy' is dy masked by what follows, the means are over the group
//! dweight = sum dy' x^,   dbias = sum dy'                   over all images and pixels
//! ```
//!
//! What is done to an image is what batch norm does to a batch of one, with the statistics of its channels folded over their groups:
//! its loops over rows serve ([`crate::batch_norm`]), and so does what is said there of passes over memory, which here find their image in
//! the cache. An image is one thread's; what images contribute to the weight's and the bias's gradient is added in their order, in f64.
//! Bits depend neither on the number of threads nor on the instruction set, and an image's not on the others.

use crate::batch_norm::{Affine, Constants, Gradient, Mask, Then, rest_of, sample_mean, sums};
use crate::isa::Isa;
use crate::threads::for_chunks;

/// A group norm as it is applied.
#[derive(Debug, Clone, Copy)]
pub struct GroupNorm<'a> {
    /// Groups of consecutive channels, a divisor of their number.
    pub groups: usize,
    /// Pixels of an image.
    pub area: usize,
    /// Weight of each channel.
    pub weight: &'a [f32],
    /// Bias of each channel.
    pub bias: &'a [f32],
    /// Added to the variance.
    pub floor: f64,
}

/// Mean of a group of an image, and one over its standard deviation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normal {
    pub(crate) mean: f64,
    pub(crate) precision: f64,
}

impl GroupNorm<'_> {
    /// `y = then(norm(x))`, and each image's groups, [N, G], for the way back.
    ///
    /// # Panics
    /// Where the slices' lengths differ, or are no whole images, or the groups do not divide the channels.
    pub fn forward(&self, then: Then<'_>, x: &[f32], y: &mut [f32]) -> Vec<Normal> {
        self.forward_by(Isa::active(), then, x, y)
    }

    fn forward_by(&self, isa: Isa, then: Then<'_>, x: &[f32], y: &mut [f32]) -> Vec<Normal> {
        self.check(x.len(), y.len());
        let size = self.image();
        let mut normals = vec![Normal { mean: 0.0, precision: 0.0 }; x.len() / size * self.groups];
        let mut images: Vec<_> = y.chunks_mut(size).zip(normals.chunks_mut(self.groups)).enumerate().collect();
        for_chunks(&mut images, 1, |_, images| {
            for (image, (y, normals)) in images {
                let at = *image * size;
                let x = &x[at..][..size];
                let then = match then {
                    Then::AddRelu(shortcut) => Then::AddRelu(&shortcut[at..][..size]),
                    other => other,
                };
                self.statistics(isa, x, normals);
                self.affine(normals).forward(isa, then, x, y);
            }
        });
        normals
    }

    /// The gradient through [`forward`](Self::forward) with nothing or ReLU after it, dx written over dy: the weight's and the bias's.
    ///
    /// # Panics
    /// Where the slices' lengths differ.
    pub fn backward_over_dy(&self, normals: &[Normal], mask: Mask, x: &[f32], dy: &mut [f32]) -> Gradient {
        self.backward_over_dy_by(Isa::active(), normals, mask, x, dy)
    }

    fn backward_over_dy_by(&self, isa: Isa, normals: &[Normal], mask: Mask, x: &[f32], dy: &mut [f32]) -> Gradient {
        self.check(x.len(), dy.len());
        let size = self.image();
        let images = x.chunks(size).zip(dy.chunks_mut(size)).zip(normals.chunks(self.groups));
        Gradient::summed(self.weight.len(), images, |((x, dy), normals)| {
            let affine = self.affine(normals);
            let (sums, constants) = self.constants(normals, &affine.sums(isa, self.weight.len(), mask, x, dy));
            affine.gradient_over_dy(isa, &constants, mask, x, dy);
            sums
        })
    }

    /// The gradient through `y = max(norm(x) + shortcut, 0)`: dx, the shortcut's, which is dy where y > 0 and is written over dy, and the
    /// weight's and the bias's.
    ///
    /// # Panics
    /// Where the slices' lengths differ.
    pub fn backward_add_relu(
        &self,
        normals: &[Normal],
        x: &[f32],
        y: &[f32],
        dy: &mut [f32],
        dx: &mut [f32],
    ) -> Gradient {
        self.backward_add_relu_by(Isa::active(), normals, (x, y), dy, dx)
    }

    fn backward_add_relu_by(
        &self,
        isa: Isa,
        normals: &[Normal],
        (x, y): (&[f32], &[f32]),
        dy: &mut [f32],
        dx: &mut [f32],
    ) -> Gradient {
        self.check(x.len(), y.len());
        self.check(dy.len(), dx.len());
        let size = self.image();
        let read = x.chunks(size).zip(y.chunks(size)).zip(normals.chunks(self.groups));
        let images = read.zip(dy.chunks_mut(size).zip(dx.chunks_mut(size)));
        Gradient::summed(self.weight.len(), images, |(((x, y), normals), (dy, dx))| {
            let affine = self.affine(normals);
            let (sums, constants) = self.constants(normals, &affine.masked_sums(isa, self.weight.len(), x, y, dy));
            affine.gradient(isa, &constants, x, dy, dx);
            sums
        })
    }

    /// Of one image.
    fn statistics(&self, isa: Isa, x: &[f32], normals: &mut [Normal]) {
        let channels = self.weight.len();
        let width = channels / self.groups;
        let count = (self.area * width) as f64;
        // Values are taken relative to what is near their group's mean, so that a large mean costs no digits.
        let mut near = sample_mean(channels, x);
        for near in near.chunks_mut(width) {
            let mean = near.iter().map(|near| f64::from(*near)).sum::<f64>() / width as f64;
            near.fill(mean as f32);
        }
        let totals = sums(isa, &near, x);
        for (group, normal) in normals.iter_mut().enumerate() {
            let of = |start: usize| totals[start + group * width..][..width].iter().sum::<f64>() / count;
            let (mean, square) = (of(0), of(channels));
            // Rounding must not make the variance of constants negative; NaN stays NaN.
            let variance = square - mean * mean;
            let variance = if variance < 0.0 { 0.0 } else { variance };
            let precision = 1.0 / (variance + self.floor).sqrt();
            *normal = Normal { mean: f64::from(near[group * width]) + mean, precision };
        }
    }

    /// Of one image.
    fn affine(&self, normals: &[Normal]) -> Affine {
        let width = self.weight.len() / self.groups;
        Affine::of(self.weight, self.bias, |c| (normals[c / width].mean, normals[c / width].precision))
    }

    /// An image's part of the gradient of weight and bias, [2, C], and the constants of its dx, from the sums of g and of g d of each channel,
    /// [2, C], where d is x less the mean rounded to f32.
    fn constants(&self, normals: &[Normal], totals: &[f64]) -> (Vec<f64>, Constants) {
        let channels = self.weight.len();
        let width = channels / self.groups;
        let count = (self.area * width) as f64;
        let mut sums = vec![0.0; 2 * channels];
        let mut lines = [vec![0.0; channels], vec![0.0; channels], vec![0.0; channels]];
        for (group, Normal { mean, precision }) in normals.iter().enumerate() {
            let (rest, range) = (rest_of(*mean), group * width..(group + 1) * width);
            let (mut of_g, mut of_hat) = (0.0, 0.0);
            for c in range.clone() {
                let hat = (totals[channels + c] - rest * totals[c]) * precision; // x^ = (d - rest) p
                (sums[c], sums[channels + c]) = (hat, totals[c]);
                of_g += f64::from(self.weight[c]) * totals[c];
                of_hat += f64::from(self.weight[c]) * hat;
            }
            let tilt = -precision * precision * of_hat / count;
            for c in range {
                lines[0][c] = (f64::from(self.weight[c]) * precision) as f32;
                lines[1][c] = tilt as f32;
                lines[2][c] = (-precision * of_g / count - tilt * rest) as f32;
            }
        }
        (sums, Constants::of([&lines[0], &lines[1], &lines[2]]))
    }

    /// Values of an image.
    fn image(&self) -> usize {
        self.area * self.weight.len()
    }

    fn check(&self, x: usize, other: usize) {
        let channels = self.weight.len();
        assert!(channels > 0 && channels.is_multiple_of(self.groups), "the groups divide the channels");
        assert!(self.area > 0 && x.is_multiple_of(self.image()), "x is whole images");
        assert!(
            x == other && self.bias.len() == channels,
            "all slices have the shape of x, weight and bias one value a channel"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pointwise::passed;
    use crate::product::tests::{assert_slope, error, values};
    use crate::threads::tests::same_bits;
    use crate::vectorised::tests::same_bits_by_every_isa;

    /// Images, pixels, channels, groups: whole vectors and not, a group of one channel and of all.
    const SIZES: [(usize, usize, usize, usize); 6] =
        [(3, 1024, 16, 8), (5, 49, 12, 4), (2, 64, 64, 8), (4, 6, 5, 1), (2, 1, 300, 4), (7, 9, 8, 8)];

    fn norm<'a>(area: usize, groups: usize, weight: &'a [f32], bias: &'a [f32]) -> GroupNorm<'a> {
        GroupNorm { groups, area, weight, bias, floor: 1e-5 }
    }

    /// The normalised values, and one over the deviation of each value's group, by the definition in float64.
    fn in_float64(norm: &GroupNorm<'_>, x: &[f32]) -> Vec<(f64, f64)> {
        let (channels, size) = (norm.weight.len(), norm.image());
        let width = channels / norm.groups;
        let group = |at: usize| (at / size, at % channels / width);
        let mut moments = std::collections::BTreeMap::new();
        for (at, x) in x.iter().enumerate() {
            moments.entry(group(at)).or_insert_with(Vec::new).push(f64::from(*x));
        }
        let of = |at: usize| {
            let values = &moments[&group(at)];
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64;
            let precision = 1.0 / (variance + norm.floor).sqrt();
            ((f64::from(x[at]) - mean) * precision, precision)
        };
        (0..x.len()).map(of).collect()
    }

    /// dx, dweight and dbias of masked gradients g, in float64.
    fn gradient_in_float64(norm: &GroupNorm<'_>, x: &[f32], g: &[f32]) -> [Vec<f64>; 3] {
        let (channels, size) = (norm.weight.len(), norm.image());
        let width = channels / norm.groups;
        let hats = in_float64(norm, x);
        let weighted = |at: usize| f64::from(g[at]) * f64::from(norm.weight[at % channels]);
        let same_group = |at: usize| {
            (0..x.len()).filter(move |k| k / size == at / size && k % channels / width == at % channels / width)
        };
        let count = (norm.area * width) as f64;
        let dx = |at: usize| {
            let of_g = same_group(at).map(weighted).sum::<f64>() / count;
            let of_hat = same_group(at).map(|k| weighted(k) * hats[k].0).sum::<f64>() / count;
            hats[at].1 * (weighted(at) - of_g - hats[at].0 * of_hat)
        };
        let over = |value: &dyn Fn(usize) -> f64| {
            (0..channels).map(|c| (c..x.len()).step_by(channels).map(value).sum()).collect::<Vec<f64>>()
        };
        [(0..x.len()).map(dx).collect(), over(&|at| f64::from(g[at]) * hats[at].0), over(&|at| f64::from(g[at]))]
    }

    #[test]
    fn values_are_those_in_float64_by_every_instruction_set() {
        for (images, area, channels, groups) in SIZES {
            let len = images * area * channels;
            let x: Vec<f32> = values(len, 1).iter().map(|v| v * 3.0 + 50.0).collect();
            let (weight, bias, shortcut) = (values(channels, 2), values(channels, 3), values(len, 4));
            let norm = norm(area, groups, &weight, &bias);
            let hats = in_float64(&norm, &x);
            let plain = |at: usize| hats[at].0 * f64::from(weight[at % channels]) + f64::from(bias[at % channels]);
            for then in [Then::Nothing, Then::Relu, Then::AddRelu(&shortcut)] {
                let got = same_bits_by_every_isa(|isa| {
                    let mut y = vec![f32::NAN; len];
                    norm.forward_by(isa, then, &x, &mut y);
                    y
                });
                let want = |at: usize| match then {
                    Then::Nothing => plain(at),
                    Then::Relu => plain(at).max(0.0),
                    Then::AddRelu(shortcut) => (plain(at) + f64::from(shortcut[at])).max(0.0),
                };
                let off = error(&got, &(0..len).map(want).collect::<Vec<f64>>());
                assert!(off < 5e-7, "{images} x {area} x {channels} in {groups}: {off}");
            }
        }
    }

    #[test]
    fn gradients_are_those_in_float64_by_every_instruction_set_and_destination() {
        // By the definition each value costs a sum over its group: the large sizes would take minutes.
        for (images, area, channels, groups) in SIZES.into_iter().filter(|(_, area, ..)| *area < 100) {
            let len = images * area * channels;
            let x: Vec<f32> = values(len, 1).iter().map(|v| v * 3.0 + 50.0).collect();
            let (weight, bias, shortcut, dy) =
                (values(channels, 2), values(channels, 3), values(len, 4), values(len, 5));
            let norm = norm(area, groups, &weight, &bias);
            let near = |got: &[f32], [dx, dweight, dbias]: &[Vec<f64>; 3]| {
                let parts = [(&got[..len], dx), (&got[len..][..channels], dweight), (&got[len + channels..], dbias)];
                for (got, want) in parts {
                    // A group of one value has no gradient but rounding.
                    let size = want.iter().fold(0.0f64, |most, v| most.max(v.abs())).max(1e-3);
                    let off =
                        got.iter().zip(want).map(|(got, want)| (f64::from(*got) - want).abs()).fold(0.0, f64::max);
                    assert!(off < 5e-6 * size, "{images} x {area} x {channels} in {groups}: {off} of {size}");
                }
            };
            for then in [Then::Nothing, Then::Relu, Then::AddRelu(&shortcut)] {
                let mut y = vec![0.0; len];
                let normals = norm.forward(then, &x, &mut y);
                let is_masked = then != Then::Nothing;
                let g: Vec<f32> = y.iter().zip(&dy).map(|(y, g)| if is_masked { passed(*y, *g) } else { *g }).collect();
                let got = same_bits_by_every_isa(|isa| {
                    let (mut over, mut dx) = (dy.clone(), vec![f32::NAN; len]);
                    let gradient = match then {
                        Then::Nothing => norm.backward_over_dy_by(isa, &normals, Mask::Nothing, &x, &mut over),
                        Then::Relu => norm.backward_over_dy_by(isa, &normals, Mask::Relu, &x, &mut over),
                        Then::AddRelu(_) => {
                            let gradient = norm.backward_add_relu_by(isa, &normals, (&x, &y), &mut over, &mut dx);
                            assert_eq!(over, g, "the shortcut's gradient");
                            std::mem::swap(&mut over, &mut dx);
                            gradient
                        }
                    };
                    [over, gradient.weight, gradient.bias].concat()
                });
                near(&got, &gradient_in_float64(&norm, &x, &g));
            }
        }
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        let (images, area, channels, groups) = (2, 5, 6, 3);
        let len = images * area * channels;
        let (x, dy, shortcut) = (values(len, 1), values(len, 5), values(len, 4));
        let (weight, bias) = (values(channels, 2), values(channels, 3));
        for then in [Then::Nothing, Then::Relu, Then::AddRelu(&shortcut)] {
            let objective = |x: &[f32], weight: &[f32], bias: &[f32]| {
                let mut y = vec![0.0; x.len()];
                norm(area, groups, weight, bias).forward(then, x, &mut y);
                y.iter().zip(&dy).map(|(y, g)| f64::from(*y) * f64::from(*g)).sum::<f64>()
            };
            let norm = norm(area, groups, &weight, &bias);
            let (mut y, mut dx, mut over) = (vec![0.0; len], vec![0.0; len], dy.clone());
            let normals = norm.forward(then, &x, &mut y);
            let got = match then {
                Then::Nothing => norm.backward_over_dy(&normals, Mask::Nothing, &x, &mut over),
                Then::Relu => norm.backward_over_dy(&normals, Mask::Relu, &x, &mut over),
                Then::AddRelu(_) => norm.backward_add_relu(&normals, &x, &y, &mut over, &mut dx),
            };
            let dx = if matches!(then, Then::AddRelu(_)) { dx } else { over };
            assert_slope(&x, &dx, 1e-3, 1e-2, &|x| objective(x, &weight, &bias));
            assert_slope(&weight, &got.weight, 1e-3, 1e-2, &|weight| objective(&x, weight, &bias));
            assert_slope(&bias, &got.bias, 1e-3, 1e-2, &|bias| objective(&x, &weight, bias));
        }
    }

    #[test]
    fn threads_change_nothing_and_no_image_feels_another() {
        let (area, channels, groups) = (2000, 24, 8);
        let size = area * channels;
        let (x, dy, weight, bias) =
            (values(5 * size, 1), values(5 * size, 2), values(channels, 3), values(channels, 4));
        let norm = norm(area, groups, &weight, &bias);
        let both = |x: &[f32], dy: &[f32]| {
            let (mut y, mut dx) = (vec![0.0; x.len()], dy.to_vec());
            let normals = norm.forward(Then::Relu, x, &mut y);
            let gradient = norm.backward_over_dy(&normals, Mask::Relu, x, &mut dx);
            (y, dx, gradient)
        };
        let all = same_bits(|| {
            let (y, dx, gradient) = both(&x, &dy);
            [y, dx, gradient.weight, gradient.bias].concat()
        });
        let alone = both(&x[3 * size..4 * size], &dy[3 * size..4 * size]);
        assert_eq!((&all[3 * size..4 * size], &all[8 * size..9 * size]), (&alone.0[..], &alone.1[..]));
    }
}

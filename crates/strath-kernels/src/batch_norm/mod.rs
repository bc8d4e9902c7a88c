//! Batch norm of x [rows, channels], channels innermost (images [N, H, W, C] are N H W rows), with what follows it fused.
//!
//! ```text
//! forward    d = x - m,  y = d weight / s + (bias - (mean - m) weight / s)      s = sqrt(variance + floor)
//! ```
//!
//! with m the mean rounded to f32: the subtraction is exact near the mean, so a large mean costs no digits of y.
//!
//! A handful of channels fills no vector, so rows are taken several at a time, as one row that holds every channel
//! several times: whole vectors for any number of channels.
//!
//! Passes over memory: [`moments`] reads x; the forward reads x (and the shortcut) and writes y; the backward's first pass reads x
//! and dy (and y, and writes the masked dy), its second reads both again and writes dx. A second pass walks from the last row to
//! the first: the first pass left those in the cache.

mod backward;
mod moments;

pub(crate) use backward::Constants;
pub use backward::Mask;
pub use moments::{Moments, moments};
pub(crate) use moments::{sample_mean, sums};

use crate::columns::{PIECE, from_the_last, narrow, repeated};
use crate::group_norm::Normal;
use crate::isa::Isa;
use crate::pointwise::rectified;
use crate::threads::for_chunks;
use crate::vectorised::vectorised;

/// What follows a batch norm in the same pass over memory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Then<'a> {
    /// Nothing: the normalised values themselves.
    Nothing,
    /// `max(., 0)`; NaN stays NaN.
    Relu,
    /// `max(. + shortcut, 0)`, the end of a residual block; NaN stays NaN. The shortcut has the shape of x.
    AddRelu(&'a [f32]),
}

/// A batch norm as it is applied: statistics, weight and bias of each channel, and PyTorch's eps.
///
/// In training the statistics are the batch's own ([`moments`]), in evaluation the running ones.
#[derive(Debug, Clone, Copy)]
pub struct BatchNorm<'a> {
    /// Mean and variance of each channel.
    pub moments: &'a Moments,
    /// Weight of each channel.
    pub weight: &'a [f32],
    /// Bias of each channel.
    pub bias: &'a [f32],
    /// Added to the variance.
    pub floor: f64,
    /// Whether the moments follow x; matters to the gradient only.
    pub by: By,
}

/// Where the statistics of a batch norm come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// From x itself, so that its gradient goes through them too.
    Batch,
    /// From elsewhere, the running ones: they are constants.
    Constants,
}

/// The weight's and the bias's gradient.
#[derive(Debug, Clone, PartialEq)]
pub struct Gradient {
    /// Of the weight.
    pub weight: Vec<f32>,
    /// Of the bias.
    pub bias: Vec<f32>,
}

impl Gradient {
    /// Calls `work` for each piece of a norm's rows, on the compute threads, and adds up in the pieces' order what it gives: its part of the
    /// weight's gradient and then of the bias's, `width` values each.
    pub(crate) fn summed<P: Send>(
        width: usize,
        pieces: impl Iterator<Item = P>,
        work: impl Fn(&mut P) -> Vec<f64> + Send + Sync,
    ) -> Self {
        let mut pieces: Vec<(P, Vec<f64>)> = pieces.map(|piece| (piece, Vec::new())).collect();
        for_chunks(&mut pieces, 1, |_, pieces| pieces.iter_mut().for_each(|(piece, sums)| *sums = work(piece)));
        let mut totals = vec![0.0; 2 * width];
        for (_, sums) in &pieces {
            totals.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
        }
        let bias = narrow(totals.split_off(width));
        Self { weight: narrow(totals), bias }
    }
}

impl BatchNorm<'_> {
    /// `y = then(norm(x))` in one pass; bits depend neither on the number of threads nor on the instruction set.
    ///
    /// # Panics
    /// Where the slices' lengths differ, or are no multiple of the channels.
    pub fn forward(&self, then: Then<'_>, x: &[f32], y: &mut [f32]) {
        self.forward_by(Isa::active(), then, x, y);
    }

    fn forward_by(&self, isa: Isa, then: Then<'_>, x: &[f32], y: &mut [f32]) {
        self.check(x.len(), y.len());
        self.affine().forward(isa, then, x, y);
    }

    /// Mean of each channel and one over its standard deviation: each channel is a group of its own.
    pub fn normals(&self) -> Vec<Normal> {
        let of = |c: usize| Normal { mean: self.moments.mean[c], precision: self.precision(c) };
        (0..self.weight.len()).map(of).collect()
    }

    /// One over the standard deviation of a channel.
    fn precision(&self, channel: usize) -> f64 {
        1.0 / (self.moments.variance[channel] + self.floor).sqrt()
    }

    fn affine(&self) -> Affine {
        Affine::of(self.weight, self.bias, |c| (self.moments.mean[c], self.precision(c)))
    }

    fn check(&self, x: usize, other: usize) {
        let channels = self.weight.len();
        assert!(channels > 0 && x.is_multiple_of(channels), "x is rows x channels");
        assert_eq!(x, other, "all slices have the shape of x");
        assert!(
            self.bias.len() == channels
                && self.moments.mean.len() == channels
                && self.moments.variance.len() == channels,
            "statistics, weight and bias have one value a channel"
        );
    }
}

/// `y = (x - mean) scale + shift`, each of `lanes` values: the channels' own, repeated.
pub(crate) struct Affine {
    mean: Vec<f32>,
    scale: Vec<f32>,
    shift: Vec<f32>,
}

impl Affine {
    /// Of weight and bias, where `normal(c)` is the mean of a channel and one over its standard deviation.
    pub(crate) fn of(weight: &[f32], bias: &[f32], normal: impl Fn(usize) -> (f64, f64)) -> Self {
        let lane = |f: &dyn Fn(usize) -> f32| repeated(&(0..weight.len()).map(f).collect::<Vec<f32>>());
        let scale = |c: usize| f64::from(weight[c]) * normal(c).1;
        let rest = |c: usize| rest_of(normal(c).0);
        Self {
            mean: lane(&|c| normal(c).0 as f32),
            scale: lane(&|c| scale(c) as f32),
            shift: lane(&|c| (f64::from(bias[c]) - rest(c) * scale(c)) as f32),
        }
    }

    /// `y = then((x - mean) scale + shift)` in one pass; a shortcut has the shape of x.
    pub(crate) fn forward(&self, isa: Isa, then: Then<'_>, x: &[f32], y: &mut [f32]) {
        let piece = self.mean.len() * PIECE;
        match then {
            Then::Nothing => from_the_last(y, piece, |at, y| scale(isa, self, &x[at..][..y.len()], y)),
            Then::Relu => from_the_last(y, piece, |at, y| scale_relu(isa, self, &x[at..][..y.len()], y)),
            Then::AddRelu(shortcut) => {
                assert_eq!(x.len(), shortcut.len(), "the shortcut has the shape of x");
                from_the_last(y, piece, |at, y| {
                    scale_add_relu(isa, self, &x[at..][..y.len()], &shortcut[at..][..y.len()], y);
                });
            }
        }
    }
}

/// What a mean loses where it is rounded to f32.
pub(crate) fn rest_of(mean: f64) -> f64 {
    mean - f64::from(mean as f32)
}

vectorised! {
    fn scale(norm: &Affine, x: &[f32], y: &mut [f32]) {
        let lanes = norm.mean.len();
        for (y, x) in y.chunks_mut(lanes).zip(x.chunks(lanes)) {
            let constants = norm.mean.iter().zip(&norm.scale).zip(&norm.shift);
            y.iter_mut().zip(x).zip(constants).for_each(|((y, x), ((m, a), b))| *y = (x - m) * a + b);
        }
    }

    fn scale_relu(norm: &Affine, x: &[f32], y: &mut [f32]) {
        let lanes = norm.mean.len();
        for (y, x) in y.chunks_mut(lanes).zip(x.chunks(lanes)) {
            let constants = norm.mean.iter().zip(&norm.scale).zip(&norm.shift);
            y.iter_mut().zip(x).zip(constants).for_each(|((y, x), ((m, a), b))| *y = rectified((x - m) * a + b));
        }
    }

    fn scale_add_relu(norm: &Affine, x: &[f32], shortcut: &[f32], y: &mut [f32]) {
        let lanes = norm.mean.len();
        for ((y, x), shortcut) in y.chunks_mut(lanes).zip(x.chunks(lanes)).zip(shortcut.chunks(lanes)) {
            let constants = norm.mean.iter().zip(&norm.scale).zip(&norm.shift);
            y.iter_mut()
                .zip(x.iter().zip(shortcut))
                .zip(constants)
                .for_each(|((y, (x, shortcut)), ((m, a), b))| *y = rectified((x - m) * a + b + shortcut));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::product::tests::{error, values};
    use crate::threads::tests::same_bits;
    use crate::vectorised::tests::same_bits_by_every_isa;

    /// Channels, rows: whole vectors and not, fewer than a piece's rows and more.
    pub(super) const SIZES: [(usize, usize); 9] =
        [(16, 2100), (32, 77), (64, 300), (1, 20_000), (3, 6000), (10, 41), (24, 999), (300, 70), (16, 1)];

    #[test]
    fn values_are_those_in_float64_by_every_instruction_set() {
        for (channels, rows) in SIZES {
            let x: Vec<f32> = values(rows * channels, 1).iter().map(|v| v * 3.0 + 50.0).collect();
            let (weight, bias, shortcut) = (values(channels, 2), values(channels, 3), values(rows * channels, 4));
            let moments = moments(channels, &x);
            let norm = BatchNorm { moments: &moments, weight: &weight, bias: &bias, floor: 1e-5, by: By::Batch };
            let plain = |at: usize| {
                let c = at % channels;
                (f64::from(x[at]) - moments.mean[c]) / (moments.variance[c] + 1e-5).sqrt() * f64::from(weight[c])
                    + f64::from(bias[c])
            };
            let of = |then: Then<'_>| {
                same_bits_by_every_isa(|isa| {
                    let mut y = vec![f32::NAN; x.len()];
                    norm.forward_by(isa, then, &x, &mut y);
                    y
                })
            };
            let want = |f: &dyn Fn(usize) -> f64| (0..x.len()).map(f).collect::<Vec<f64>>();
            assert!(error(&of(Then::Nothing), &want(&plain)) < 3e-7);
            assert!(error(&of(Then::Relu), &want(&|at| plain(at).max(0.0))) < 3e-7);
            let sum = |at: usize| (plain(at) + f64::from(shortcut[at])).max(0.0);
            assert!(error(&of(Then::AddRelu(&shortcut)), &want(&sum)) < 3e-7);
        }
    }

    #[test]
    fn what_is_not_a_number_passes_and_threads_change_nothing() {
        let mut x = values(5000 * 24, 1);
        x[77] = f32::NAN;
        let moments = Moments { mean: vec![0.1; 24], variance: vec![0.4; 24] };
        let (weight, bias) = (values(24, 2), values(24, 3));
        let norm = BatchNorm { moments: &moments, weight: &weight, bias: &bias, floor: 1e-5, by: By::Batch };
        for then in [Then::Nothing, Then::Relu, Then::AddRelu(&values(x.len(), 4))] {
            let y = same_bits(|| {
                let mut y = vec![0.0; x.len()];
                norm.forward(then, &x, &mut y);
                y
            });
            assert!(y[77].is_nan() && y[78].is_finite());
        }
    }
}

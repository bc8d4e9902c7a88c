//! What a norm's tangents are made of: constants of each channel, from the statistics and how they move.

use super::NormTangent;
use crate::batch_norm::{By, rest_of};
use crate::columns::repeated;
use crate::group_norm::Normal;

/// A group's statistics and how they move along the direction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moved {
    pub(super) normal: Normal,
    /// `mean(u)`.
    pub(super) mean: f64,
    /// `A = mean(x^ u)`.
    pub(super) along: f64,
}

/// `x^' = slope u + tilt d + level` of a group, where `d = x - m` and m is the mean rounded to f32.
struct HatMoved {
    slope: f64,
    tilt: f64,
    level: f64,
}

impl HatMoved {
    fn of(Moved { normal: Normal { mean, precision }, mean: of_u, along }: Moved) -> Self {
        let tilt = -precision * precision * along;
        Self { slope: precision, tilt, level: -precision * of_u - tilt * rest_of(mean) }
    }
}

/// `slope u + tilt d + level`, the channels' values repeated.
pub(super) struct Line {
    pub(super) mean: Vec<f32>,
    pub(super) slope: Vec<f32>,
    pub(super) tilt: Vec<f32>,
    pub(super) level: Vec<f32>,
}

/// `dx = slope g + tilt d + level` and `dx' = by_g_along g' + by_g g + by_u u + by_d d + constant`, the channels' values repeated.
pub(super) struct Lines {
    pub(super) mean: Vec<f32>,
    pub(super) slope: Vec<f32>,
    pub(super) tilt: Vec<f32>,
    pub(super) level: Vec<f32>,
    pub(super) by_g_along: Vec<f32>,
    pub(super) by_g: Vec<f32>,
    pub(super) by_u: Vec<f32>,
    pub(super) by_d: Vec<f32>,
    pub(super) constant: Vec<f32>,
}

impl NormTangent<'_> {
    /// y' before it is masked, of an image.
    pub(super) fn line(&self, moved: &[Moved]) -> Line {
        let mut channels = [(); 3].map(|()| Vec::with_capacity(self.weight.len()));
        for c in 0..self.weight.len() {
            let moved = moved[c / self.width()];
            let Normal { mean, precision } = moved.normal;
            let (hat, weight) = (HatMoved::of(moved), f64::from(self.weight[c]));
            let by_weight = precision * f64::from(self.weight_along[c]);
            let values = [
                weight * hat.slope,
                weight * hat.tilt + by_weight,
                weight * hat.level - by_weight * rest_of(mean) + f64::from(self.bias_along[c]),
            ];
            channels.iter_mut().zip(values).for_each(|(all, value)| all.push(value as f32));
        }
        let [slope, tilt, level] = channels.map(|all| repeated(&all));
        Line { mean: self.mean(moved), slope, tilt, level }
    }

    /// An image's part of dweight' and dbias', [2, C], and what dx and dx' are made of, from the sums that [`add`] takes.
    pub(super) fn lines(&self, moved: &[Moved], totals: &[f64], mean: Vec<f32>) -> (Vec<f64>, Lines) {
        let (channels, width, count) = (self.weight.len(), self.width(), self.count());
        let mut sums = vec![0.0; 2 * channels];
        let mut of_channels = [(); 8].map(|()| vec![0.0; channels]);
        for (group, moved) in moved.iter().enumerate() {
            let (Normal { mean, precision: p }, hat) = (moved.normal, HatMoved::of(*moved));
            let rest = rest_of(mean);
            let (mut h, mut hx, mut h_along, mut hx_along) = (0.0, 0.0, 0.0, 0.0);
            for c in group * width..(group + 1) * width {
                let [g, gd, ga, gad, gu] = [0, 1, 2, 3, 4].map(|k| totals[k * channels + c]);
                let (weight, along) = (f64::from(self.weight[c]), f64::from(self.weight_along[c]));
                let with_hat = p * (gd - rest * g);
                let moved = p * (gad - rest * ga) + (hat.slope * gu + hat.tilt * gd + hat.level * g);
                (sums[c], sums[channels + c]) = (moved, ga);
                h += weight * g / count;
                hx += weight * with_hat / count;
                h_along += (weight * ga + along * g) / count;
                hx_along += (weight * moved + along * with_hat) / count;
            }
            let through_statistics = if self.by == By::Batch { 1.0 } else { 0.0 };
            [h, hx, h_along, hx_along] = [h, hx, h_along, hx_along].map(|sum| through_statistics * sum);
            let shrinks = -p * moved.along;
            for c in group * width..(group + 1) * width {
                let (weight, along) = (f64::from(self.weight[c]), f64::from(self.weight_along[c]));
                let (slope, tilt) = (p * weight, -p * p * hx);
                let level = -p * h - tilt * rest;
                let tilt_along = shrinks * tilt - p * (hx * hat.tilt + hx_along * p);
                let values = [
                    slope,
                    tilt,
                    level,
                    slope,
                    shrinks * slope + p * along,
                    -p * hx * hat.slope,
                    tilt_along,
                    shrinks * level - p * (h_along + hx * hat.level - hx_along * p * rest),
                ];
                of_channels.iter_mut().zip(values).for_each(|(all, value)| all[c] = value as f32);
            }
        }
        let [slope, tilt, level, by_g_along, by_g, by_u, by_d, constant] = of_channels.map(|all| repeated(&all));
        (sums, Lines { mean, slope, tilt, level, by_g_along, by_g, by_u, by_d, constant })
    }
}

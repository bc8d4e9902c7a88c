//! Directional derivatives of batch norm and group norm with ReLU after them: what a product with the Hessian takes of them
//! (Pearlmutter 1994, Fast exact multiplication by the Hessian).
//!
//! With `'` for the derivative along a direction in which x moves by u, and weight and bias by weight' and bias':
//!
//! ```text
//! x^  = (x - mean) p                                  p = 1 / sqrt(variance + floor), statistics of a group, over its values
//! x^' = p (u - mean(u) - x^ A)                        A = mean(x^ u),   p' = -p p A
//! y   = relu(x^ weight + bias + shortcut)             masks everything below where it is 0
//! y'  = x^' weight + x^ weight' + bias' + shortcut'
//! dx  = p (h - mean(h) - x^ B)                        h = g weight,  B = mean(h x^),   g the gradient of y, masked
//! dx' = -p A dx + p (h' - mean(h') - x^' B - x^ B')   h' = g' weight + g weight',   B' = mean(h' x^ + h x^')
//! dweight' = sum g' x^ + g x^',   dbias' = sum g'
//! ```
//!
//! By constants (running statistics) the means, A, B and their derivatives are 0. All of it is linear in the values, with constants of each
//! channel: three passes over memory, of which the first two only sum. Sums are taken as everywhere, in f32 over 64 rows and then in f64: bits depend
//! neither on the number of threads nor on the instruction set.

use crate::batch_norm::{By, Gradient, rest_of};
use crate::columns::{PIECE, from_the_last, narrow, repeated, totals};
use crate::group_norm::Normal;
use crate::isa::Isa;
use crate::pointwise::passed;
use crate::threads::for_chunks;
use crate::vectorised::vectorised;

/// A norm with a direction. A batch norm is a group norm of one image, the batch, whose channels are groups of their own.
#[derive(Debug, Clone, Copy)]
pub struct NormTangent<'a> {
    /// Groups of consecutive channels, a divisor of their number.
    pub groups: usize,
    /// Rows of an image.
    pub area: usize,
    /// Where the statistics come from.
    pub by: By,
    /// Weight of each channel.
    pub weight: &'a [f32],
    /// The direction's part of the weight.
    pub weight_along: &'a [f32],
    /// The direction's part of the bias.
    pub bias_along: &'a [f32],
}

/// A group's statistics and how they move along the direction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moved {
    normal: Normal,
    /// `mean(u)`.
    mean: f64,
    /// `A = mean(x^ u)`.
    along: f64,
}

/// Values and their tangents, of all images or of one.
#[derive(Debug, Clone, Copy)]
pub struct Pair<'a> {
    /// The values.
    pub values: &'a [f32],
    /// Their derivatives along the direction.
    pub along: &'a [f32],
}

/// A [`Pair`] to write to.
#[derive(Debug)]
pub struct PairMut<'a> {
    /// The values.
    pub values: &'a mut [f32],
    /// Their derivatives along the direction.
    pub along: &'a mut [f32],
}

impl Pair<'_> {
    pub(crate) fn at(self, from: usize, len: usize) -> Self {
        Pair { values: &self.values[from..][..len], along: &self.along[from..][..len] }
    }
}

impl PairMut<'_> {
    pub(crate) fn chunks(&mut self, size: usize) -> impl DoubleEndedIterator<Item = PairMut<'_>> + ExactSizeIterator {
        let pairs = self.values.chunks_mut(size).zip(self.along.chunks_mut(size));
        pairs.map(|(values, along)| PairMut { values, along })
    }

    pub(crate) fn shared(&self) -> Pair<'_> {
        Pair { values: self.values, along: self.along }
    }
}

impl NormTangent<'_> {
    /// y' where y is above 0, from x with u and the shortcut's tangent; and each image's groups, for the way back.
    ///
    /// # Panics
    /// Where the slices' lengths differ, or are no whole images.
    pub fn forward(
        &self,
        normals: &[Normal],
        x: Pair<'_>,
        y: &[f32],
        shortcut: Option<&[f32]>,
        y_along: &mut [f32],
    ) -> Vec<Moved> {
        self.forward_by(Isa::active(), normals, x, y, shortcut, y_along)
    }

    fn forward_by(
        &self,
        isa: Isa,
        normals: &[Normal],
        x: Pair<'_>,
        y: &[f32],
        shortcut: Option<&[f32]>,
        y_along: &mut [f32],
    ) -> Vec<Moved> {
        let size = self.image(&[x.values, x.along, y, y_along, shortcut.unwrap_or(y)]);
        let mut moved: Vec<_> = normals.iter().map(|normal| Moved { normal: *normal, mean: 0.0, along: 0.0 }).collect();
        let images = y_along.chunks_mut(size).zip(moved.chunks_mut(self.groups));
        let mut images: Vec<_> = images.enumerate().collect();
        for_chunks(&mut images, 1, |_, images| {
            for (k, (to, moved)) in images {
                let (x, start) = (x.at(*k * size, size), *k * size);
                if self.by == By::Batch {
                    self.move_statistics(isa, x, moved);
                }
                let line = self.line(moved);
                from_the_last(to, line.mean.len() * PIECE, |at, to| {
                    let (x, y) = (x.at(at, to.len()), &y[start + at..][..to.len()]);
                    match shortcut {
                        Some(shortcut) => add_moved(isa, &line, x, y, &shortcut[start + at..][..to.len()], to),
                        None => moved_values(isa, &line, x, y, to),
                    }
                });
            }
        });
        moved
    }

    /// dx and dx' from g and g', the gradients of y and y', which are masked where they lie; returned are dweight' and dbias'.
    ///
    /// # Panics
    /// Where the slices' lengths differ, or are no whole images.
    pub fn backward(&self, moved: &[Moved], x: Pair<'_>, y: &[f32], g: PairMut<'_>, dx: PairMut<'_>) -> Gradient {
        self.backward_by(Isa::active(), moved, x, y, g, dx)
    }

    fn backward_by(
        &self,
        isa: Isa,
        moved: &[Moved],
        x: Pair<'_>,
        y: &[f32],
        mut g: PairMut<'_>,
        mut dx: PairMut<'_>,
    ) -> Gradient {
        let size = self.image(&[x.values, x.along, y, g.values, g.along, dx.values, dx.along]);
        let images = g.chunks(size).zip(dx.chunks(size)).zip(moved.chunks(self.groups)).enumerate();
        let mut images: Vec<_> = images.map(|image| (image, Vec::new())).collect();
        for_chunks(&mut images, 1, |_, images| {
            for ((k, ((g, dx), moved)), sums) in images {
                let start = *k * size;
                *sums = self.image_backward(isa, moved, x.at(start, size), &y[start..][..size], g, dx);
            }
        });
        let channels = self.weight.len();
        let mut totals = vec![0.0; 2 * channels];
        for (_, sums) in &images {
            totals.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
        }
        let bias = narrow(totals.split_off(channels));
        Gradient { weight: narrow(totals), bias }
    }

    /// The image's part of dweight' and dbias', [2, C].
    fn image_backward(
        &self,
        isa: Isa,
        moved: &[Moved],
        x: Pair<'_>,
        y: &[f32],
        g: &mut PairMut<'_>,
        dx: &mut PairMut<'_>,
    ) -> Vec<f64> {
        let mean = self.mean(moved);
        let piece = mean.len() * PIECE;
        let pieces = g.chunks(piece).enumerate();
        let totals = totals(self.weight.len(), pieces, |(k, g), sums| {
            let (from, len) = (*k * piece, g.values.len());
            mask(isa, &y[from..][..len], g.along);
            mask(isa, &y[from..][..len], g.values);
            add(isa, &mean, x.at(from, len), g.shared(), sums);
        });
        let (sums, lines) = self.lines(moved, &totals, mean);
        let g = g.shared();
        let mut pieces: Vec<_> = dx.chunks(piece).enumerate().rev().collect();
        for_chunks(&mut pieces, 1, |_, pieces| {
            for (k, dx) in pieces {
                let (from, len) = (*k * piece, dx.values.len());
                combine(isa, &lines, x.at(from, len), g.at(from, len), dx.along, dx.values);
            }
        });
        sums
    }

    /// Fills in how an image's statistics move.
    fn move_statistics(&self, isa: Isa, x: Pair<'_>, moved: &mut [Moved]) {
        let (channels, mean) = (self.weight.len(), self.mean(moved));
        let piece = mean.len() * PIECE;
        let pieces = x.values.chunks(piece).zip(x.along.chunks(piece));
        let totals =
            totals(channels, pieces, |(x, u), [sums, products]| add_tangents(isa, &mean, x, u, sums, products));
        let (width, count) = (self.width(), self.count());
        for (group, moved) in moved.iter_mut().enumerate() {
            let of = |start: usize| totals[start + group * width..][..width].iter().sum::<f64>() / count;
            let (mean, product) = (of(0), of(channels));
            moved.mean = mean;
            moved.along = (product - rest_of(moved.normal.mean) * mean) * moved.normal.precision; // x^ = (d - rest) p
        }
    }

    /// y' before it is masked, of an image.
    fn line(&self, moved: &[Moved]) -> Line {
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
    fn lines(&self, moved: &[Moved], totals: &[f64], mean: Vec<f32>) -> (Vec<f64>, Lines) {
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

    /// The means of an image's channels, rounded and repeated.
    fn mean(&self, moved: &[Moved]) -> Vec<f32> {
        let of = |c: usize| moved[c / self.width()].normal.mean as f32;
        repeated(&(0..self.weight.len()).map(of).collect::<Vec<_>>())
    }

    /// Channels of a group.
    fn width(&self) -> usize {
        self.weight.len() / self.groups
    }

    /// Values of a group of an image.
    fn count(&self) -> f64 {
        (self.area * self.width()) as f64
    }

    /// Values of an image, of which all slices hold as many.
    fn image(&self, slices: &[&[f32]]) -> usize {
        let (channels, size) = (self.weight.len(), self.area * self.weight.len());
        assert!(size > 0 && channels.is_multiple_of(self.groups), "the groups divide the channels");
        assert!(self.weight_along.len() == channels && self.bias_along.len() == channels, "one value a channel");
        let values = slices[0].len();
        assert!(
            values.is_multiple_of(size) && slices.iter().all(|s| s.len() == values),
            "slices are whole images of x"
        );
        size
    }
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
struct Line {
    mean: Vec<f32>,
    slope: Vec<f32>,
    tilt: Vec<f32>,
    level: Vec<f32>,
}

/// `dx = slope g + tilt d + level` and `dx' = by_g_along g' + by_g g + by_u u + by_d d + constant`, the channels' values repeated.
struct Lines {
    mean: Vec<f32>,
    slope: Vec<f32>,
    tilt: Vec<f32>,
    level: Vec<f32>,
    by_g_along: Vec<f32>,
    by_g: Vec<f32>,
    by_u: Vec<f32>,
    by_d: Vec<f32>,
    constant: Vec<f32>,
}

vectorised! {
    fn mask(y: &[f32], g: &mut [f32]) {
        g.iter_mut().zip(y).for_each(|(g, y)| *g = passed(*y, *g));
    }

    /// The sums of u and of u d.
    fn add_tangents(mean: &[f32], x: &[f32], u: &[f32], sums: &mut [f32], products: &mut [f32]) {
        let lanes = mean.len();
        let (sums, products) = (&mut sums[..lanes], &mut products[..lanes]);
        let (mut x, mut u) = (x.chunks_exact(4 * lanes), u.chunks_exact(4 * lanes));
        for (x, u) in (&mut x).zip(&mut u) {
            let [x0, x1, x2, x3] = [0, 1, 2, 3].map(|k| &x[k * lanes..][..lanes]);
            let [u0, u1, u2, u3] = [0, 1, 2, 3].map(|k| &u[k * lanes..][..lanes]);
            for lane in 0..lanes {
                let (m, a, b, c, d) = (mean[lane], u0[lane], u1[lane], u2[lane], u3[lane]);
                sums[lane] += (a + b) + (c + d);
                products[lane] +=
                    (a * (x0[lane] - m) + b * (x1[lane] - m)) + (c * (x2[lane] - m) + d * (x3[lane] - m));
            }
        }
        for (x, u) in x.remainder().chunks(lanes).zip(u.remainder().chunks(lanes)) {
            for (lane, (x, u)) in x.iter().zip(u).enumerate() {
                sums[lane] += u;
                products[lane] += u * (x - mean[lane]);
            }
        }
    }

    /// The sums of g, g d, g', g' d and g u.
    fn add(mean: &[f32], x: Pair<'_>, g: Pair<'_>, sums: &mut [Vec<f32>; 5]) {
        let lanes = mean.len();
        let [of_g, of_gd, of_ga, of_gad, of_gu] = sums;
        let (of_g, of_gd, of_gu) = (&mut of_g[..lanes], &mut of_gd[..lanes], &mut of_gu[..lanes]);
        let (of_ga, of_gad) = (&mut of_ga[..lanes], &mut of_gad[..lanes]);
        let rows = x.values.chunks(2 * lanes).zip(x.along.chunks(2 * lanes));
        for ((x, u), (g, ga)) in rows.zip(g.values.chunks(2 * lanes).zip(g.along.chunks(2 * lanes))) {
            if x.len() == 2 * lanes {
                let ((x, x1), (u, u1)) = (x.split_at(lanes), u.split_at(lanes));
                let ((g, g1), (ga, ga1)) = (g.split_at(lanes), ga.split_at(lanes));
                for lane in 0..lanes {
                    let (d, d1) = (x[lane] - mean[lane], x1[lane] - mean[lane]);
                    of_g[lane] += g[lane] + g1[lane];
                    of_gd[lane] += g[lane] * d + g1[lane] * d1;
                    of_ga[lane] += ga[lane] + ga1[lane];
                    of_gad[lane] += ga[lane] * d + ga1[lane] * d1;
                    of_gu[lane] += g[lane] * u[lane] + g1[lane] * u1[lane];
                }
            } else {
                for at in 0..x.len() {
                    let lane = at % lanes;
                    let d = x[at] - mean[lane];
                    of_g[lane] += g[at];
                    of_gd[lane] += g[at] * d;
                    of_ga[lane] += ga[at];
                    of_gad[lane] += ga[at] * d;
                    of_gu[lane] += g[at] * u[at];
                }
            }
        }
    }

    fn moved_values(line: &Line, x: Pair<'_>, y: &[f32], to: &mut [f32]) {
        let lanes = line.mean.len();
        let rows = x.values.chunks(lanes).zip(x.along.chunks(lanes)).zip(y.chunks(lanes));
        for (((x, u), y), to) in rows.zip(to.chunks_mut(lanes)) {
            let constants = line.mean.iter().zip(&line.slope).zip(line.tilt.iter().zip(&line.level));
            for ((((to, x), u), y), ((m, a), (b, c))) in to.iter_mut().zip(x).zip(u).zip(y).zip(constants) {
                *to = passed(*y, a * u + (b * (x - m) + c));
            }
        }
    }

    fn add_moved(line: &Line, x: Pair<'_>, y: &[f32], shortcut: &[f32], to: &mut [f32]) {
        let lanes = line.mean.len();
        let rows = x.values.chunks(lanes).zip(x.along.chunks(lanes)).zip(y.chunks(lanes).zip(shortcut.chunks(lanes)));
        for (((x, u), (y, shortcut)), to) in rows.zip(to.chunks_mut(lanes)) {
            let constants = line.mean.iter().zip(&line.slope).zip(line.tilt.iter().zip(&line.level));
            let values = to.iter_mut().zip(x).zip(u).zip(y.iter().zip(shortcut));
            for ((((to, x), u), (y, shortcut)), ((m, a), (b, c))) in values.zip(constants) {
                *to = passed(*y, a * u + (b * (x - m) + c) + shortcut);
            }
        }
    }

    fn combine(lines: &Lines, x: Pair<'_>, g: Pair<'_>, dx_along: &mut [f32], dx: &mut [f32]) {
        let lanes = lines.mean.len();
        let (mean, slope, tilt, level) =
            (&lines.mean[..lanes], &lines.slope[..lanes], &lines.tilt[..lanes], &lines.level[..lanes]);
        let (by_ga, by_g, by_u, by_d, constant) = (
            &lines.by_g_along[..lanes],
            &lines.by_g[..lanes],
            &lines.by_u[..lanes],
            &lines.by_d[..lanes],
            &lines.constant[..lanes],
        );
        let from = x.values.chunks(lanes).zip(x.along.chunks(lanes));
        let from = from.zip(g.values.chunks(lanes).zip(g.along.chunks(lanes)));
        let to = dx.chunks_mut(lanes).zip(dx_along.chunks_mut(lanes));
        for (((x, u), (g, ga)), (dx, dx_along)) in from.zip(to) {
            let len = dx.len();
            let (x, u, g, ga, dx_along) = (&x[..len], &u[..len], &g[..len], &ga[..len], &mut dx_along[..len]);
            for at in 0..len.min(lanes) {
                let d = x[at] - mean[at];
                dx[at] = slope[at] * g[at] + (tilt[at] * d + level[at]);
                dx_along[at] = (by_ga[at] * ga[at] + by_g[at] * g[at]) + (by_u[at] * u[at] + (by_d[at] * d + constant[at]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch_norm::{BatchNorm, Moments, Then, moments};
    use crate::group_norm::GroupNorm;
    use crate::product::tests::{error, values};
    use crate::threads::tests::same_bits;
    use crate::vectorised::tests::same_bits_by_every_isa;

    const FLOOR: f64 = 1e-5;

    /// A norm in float64: what goes in, then y, and dx, dweight and dbias of `sum y g`.
    #[derive(Clone)]
    struct Wide {
        groups: usize,
        area: usize,
        constants: Option<Moments>,
        x: Vec<f64>,
        shortcut: Vec<f64>,
        g: Vec<f64>,
        weight: Vec<f64>,
        bias: Vec<f64>,
    }

    impl Wide {
        fn compute(&self) -> [Vec<f64>; 4] {
            let channels = self.weight.len();
            let (size, width) = (self.area * channels, channels / self.groups);
            let (mut y, mut dx) = (vec![0.0; self.x.len()], vec![0.0; self.x.len()]);
            let (mut dweight, mut dbias) = (vec![0.0; channels], vec![0.0; channels]);
            for (image, group) in
                (0..self.x.len() / size).flat_map(|image| (0..self.groups).map(move |group| (image, group)))
            {
                let places = (0..size).filter(|at| at % channels / width == group);
                let places: Vec<usize> = places.map(|at| image * size + at).collect();
                let count = places.len() as f64;
                let mean = |f: &dyn Fn(usize) -> f64| places.iter().map(|at| f(*at)).sum::<f64>() / count;
                let (centre, variance) = if let Some(moments) = &self.constants {
                    (moments.mean[group], moments.variance[group])
                } else {
                    let centre = mean(&|at| self.x[at]);
                    (centre, mean(&|at| (self.x[at] - centre).powi(2)))
                };
                let p = 1.0 / (variance + FLOOR).sqrt();
                let hat = |at: usize| (self.x[at] - centre) * p;
                let value =
                    |at: usize| hat(at) * self.weight[at % channels] + self.bias[at % channels] + self.shortcut[at];
                let masked = |at: usize| if value(at) > 0.0 { self.g[at] } else { 0.0 };
                let h = |at: usize| masked(at) * self.weight[at % channels];
                let through = if self.constants.is_some() { 0.0 } else { 1.0 };
                let (of_h, of_hat) = (through * mean(&h), through * mean(&|at| h(at) * hat(at)));
                for at in places.iter().copied() {
                    y[at] = value(at).max(0.0);
                    dx[at] = p * (h(at) - of_h - hat(at) * of_hat);
                    dweight[at % channels] += masked(at) * hat(at);
                    dbias[at % channels] += masked(at);
                }
            }
            [y, dx, dweight, dbias]
        }

        /// How all of it moves along a direction.
        fn along(&self, direction: &Self) -> [Vec<f64>; 4] {
            const STEP: f64 = 1e-6;
            let moved = |by: f64| {
                let add = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a + by * b).collect::<Vec<f64>>();
                let moved = Self {
                    x: add(&self.x, &direction.x),
                    shortcut: add(&self.shortcut, &direction.shortcut),
                    g: add(&self.g, &direction.g),
                    weight: add(&self.weight, &direction.weight),
                    bias: add(&self.bias, &direction.bias),
                    ..self.clone()
                };
                moved.compute()
            };
            let (ahead, behind) = (moved(STEP), moved(-STEP));
            std::array::from_fn(|k| ahead[k].iter().zip(&behind[k]).map(|(a, b)| (a - b) / (2.0 * STEP)).collect())
        }
    }

    /// Images, rows, channels, groups: whole vectors and not.
    const SIZES: [(usize, usize, usize, usize); 4] = [(1, 300, 16, 16), (1, 41, 3, 3), (3, 49, 12, 4), (2, 9, 300, 4)];

    #[test]
    fn tangents_are_slopes_in_float64_by_every_instruction_set_and_number_of_threads() {
        for (images, area, channels, groups) in SIZES {
            for (is_constant, is_added) in [(false, false), (false, true), (true, true)] {
                let is_batch = images == 1 && groups == channels;
                if is_constant && !is_batch {
                    continue;
                }
                let len = images * area * channels;
                let at = |seed: u32| -> [Vec<f32>; 5] {
                    let sizes = [len, len, len, channels, channels];
                    std::array::from_fn(|k| values(sizes[k], seed + k as u32))
                };
                let [mut x, mut shortcut, g, weight, bias] = at(1);
                let [u, mut shortcut_along, g_along, weight_along, bias_along] = at(11);
                for x in &mut x {
                    *x = *x * 3.0 + 20.0;
                }
                if !is_added {
                    shortcut.fill(0.0);
                    shortcut_along.fill(0.0);
                }
                let wide = |v: &[f32]| v.iter().map(|v| f64::from(*v)).collect::<Vec<f64>>();
                let running = Moments { mean: vec![19.5; channels], variance: vec![2.0; channels] };
                let pack = |[x, shortcut, g, weight, bias]: [&[f32]; 5]| Wide {
                    groups,
                    area,
                    constants: is_constant.then(|| running.clone()),
                    x: wide(x),
                    shortcut: wide(shortcut),
                    g: wide(g),
                    weight: wide(weight),
                    bias: wide(bias),
                };
                let here = pack([&x, &shortcut, &g, &weight, &bias]);
                let [_, dx, ..] = here.compute();
                let [y_moved, dx_moved, dweight_moved, dbias_moved] =
                    here.along(&pack([&u, &shortcut_along, &g_along, &weight_along, &bias_along]));

                let then = if is_added { Then::AddRelu(&shortcut) } else { Then::Relu };
                let mut y = vec![0.0; len];
                let by = if is_constant { By::Constants } else { By::Batch };
                let normals = if is_batch {
                    let moments = if is_constant { running } else { moments(channels, &x) };
                    let norm = BatchNorm { moments: &moments, weight: &weight, bias: &bias, floor: FLOOR, by };
                    norm.forward(then, &x, &mut y);
                    norm.normals()
                } else {
                    GroupNorm { groups, area, weight: &weight, bias: &bias, floor: FLOOR }.forward(then, &x, &mut y)
                };
                let norm = NormTangent {
                    groups,
                    area,
                    by,
                    weight: &weight,
                    weight_along: &weight_along,
                    bias_along: &bias_along,
                };
                let got = same_bits_by_every_isa(|isa| {
                    same_bits(|| {
                        let pair = Pair { values: &x, along: &u };
                        let mut y_along = vec![f32::NAN; len];
                        let shortcut = is_added.then_some(&shortcut_along[..]);
                        let moved = norm.forward_by(isa, &normals, pair, &y, shortcut, &mut y_along);
                        let (mut g, mut g_along) = (g.clone(), g_along.clone());
                        let (mut dx, mut dx_along) = (vec![f32::NAN; len], vec![f32::NAN; len]);
                        let from = PairMut { values: &mut g, along: &mut g_along };
                        let to = PairMut { values: &mut dx, along: &mut dx_along };
                        let gradient = norm.backward_by(isa, &moved, pair, &y, from, to);
                        [y_along, dx, dx_along, gradient.weight, gradient.bias].concat()
                    })
                });
                let mut from = 0;
                for (name, want) in [
                    ("y'", y_moved),
                    ("dx", dx),
                    ("dx'", dx_moved),
                    ("dweight'", dweight_moved),
                    ("dbias'", dbias_moved),
                ] {
                    let off = error(&got[from..][..want.len()], &want);
                    assert!(off < 5e-6, "{name} of {images} x {area} x {channels} in {groups}: {off:.1e}");
                    from += want.len();
                }
            }
        }
    }
}

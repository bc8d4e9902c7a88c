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

mod lines;
mod loops;

pub use lines::Moved;

use crate::batch_norm::{By, Gradient, rest_of};
use crate::columns::{PIECE, from_the_last, repeated, totals};
use crate::group_norm::Normal;
use crate::isa::Isa;
use crate::pointwise::mask_over_g_by;
use crate::tangent::{Pair, PairMut};
use crate::threads::for_chunks;
use loops::{add, add_moved, add_tangents, combine, moved_values};

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
        Gradient::summed(self.weight.len(), images, |(k, ((g, dx), moved))| {
            let start = *k * size;
            self.image_backward(isa, moved, x.at(start, size), &y[start..][..size], g, dx)
        })
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
            mask_over_g_by(isa, &y[from..][..len], g.along);
            mask_over_g_by(isa, &y[from..][..len], g.values);
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

//! The loops over rows of several values of each channel: sums, and what is linear in the values.

use super::lines::{Line, Lines};
use crate::pointwise::passed;
use crate::tangent::Pair;
use crate::vectorised::vectorised;

vectorised! {
    /// The sums of u and of u d.
    pub(super) fn add_tangents(mean: &[f32], x: &[f32], u: &[f32], sums: &mut [f32], products: &mut [f32]) {
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
    pub(super) fn add(mean: &[f32], x: Pair<'_>, g: Pair<'_>, sums: &mut [Vec<f32>; 5]) {
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

    pub(super) fn moved_values(line: &Line, x: Pair<'_>, y: &[f32], to: &mut [f32]) {
        let lanes = line.mean.len();
        let rows = x.values.chunks(lanes).zip(x.along.chunks(lanes)).zip(y.chunks(lanes));
        for (((x, u), y), to) in rows.zip(to.chunks_mut(lanes)) {
            let constants = line.mean.iter().zip(&line.slope).zip(line.tilt.iter().zip(&line.level));
            for ((((to, x), u), y), ((m, a), (b, c))) in to.iter_mut().zip(x).zip(u).zip(y).zip(constants) {
                *to = passed(*y, a * u + (b * (x - m) + c));
            }
        }
    }

    pub(super) fn add_moved(line: &Line, x: Pair<'_>, y: &[f32], shortcut: &[f32], to: &mut [f32]) {
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

    pub(super) fn combine(lines: &Lines, x: Pair<'_>, g: Pair<'_>, dx_along: &mut [f32], dx: &mut [f32]) {
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

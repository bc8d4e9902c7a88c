//! Tiles of F(2x2, 3x3): 16 multiplications do the work of 36, with no more error than the plain sum.
//!
//! The points are 0, 1, -1 and infinity (Lavin and Gray 2016, section 4.1), so that data and results are only added:
//!
//! ```text
//! y_i = sum over j of g_j d_(i+j)  =  (A' [(G g) . (B' d)])_i
//!
//!      | 1  0 -1  0 |        | 1   0   0  |        | 1  1  1  0 |
//! B' = | 0  1  1  0 |    G = | 1/2 1/2 1/2|   A' = | 0  1 -1 -1 |
//!      | 0 -1  1  0 |        | 1/2-1/2 1/2|
//!      | 0  1  0 -1 |        | 0   0   1  |
//! ```

#![allow(unsafe_code, reason = "SIMD intrinsics")]

use std::ops::Range;

use super::simd::Simd;
use super::tile::{Pixels, Source, Tile, group, point};
use super::tiling::{Grid, Plane};

/// Tiles of 2 x 2 outputs.
#[derive(Debug, Clone, Copy)]
pub(super) struct F2;

/// B' d.
///
/// # Safety
/// [`Simd`]'s, for every function here.
#[inline(always)]
unsafe fn data<V: Simd>([d0, d1, d2, d3]: [V; 4]) -> [V; 4] {
    // SAFETY: the caller's promise.
    unsafe { [d0.sub(d2), d1.add(d2), d2.sub(d1), d1.sub(d3)] }
}

/// G g.
#[inline(always)]
unsafe fn weight<V: Simd>([g0, g1, g2]: [V; 3]) -> [V; 4] {
    // SAFETY: the caller's promise.
    unsafe {
        let half = V::splat(0.5);
        let even = g0.add(g2);
        [g0, even.add(g1).mul(half), even.sub(g1).mul(half), g2]
    }
}

/// A' m.
#[inline(always)]
unsafe fn result<V: Simd>([m0, m1, m2, m3]: [V; 4]) -> [V; 2] {
    // SAFETY: the caller's promise.
    unsafe { [m0.add(m1).add(m2), m1.sub(m2).sub(m3)] }
}

impl Tile for F2 {
    const SIDE: usize = 2;
    const BLOCK: (usize, usize) = (48, 56);

    #[inline(always)]
    unsafe fn data<V: Simd>(source: Source, tiles: (usize, usize), u: *mut f32) {
        let (point, group) = const { (point::<F2>(V::LANES), group::<F2>(V::LANES)) };
        // SAFETY: the caller's promise.
        unsafe {
            for (k, window) in source.windows::<V, 4>(tiles) {
                for index in 0..source.plane.channels / V::LANES {
                    let at = index * V::LANES;
                    let to = u.add(index * group + k * V::LANES);
                    let mut rows = [[V::splat(0.0); 4]; 4];
                    for row in 0..4 {
                        let pixels = window.row(row, at);
                        rows[row] = data([
                            window.load(pixels, 0),
                            window.load(pixels, 1),
                            window.load(pixels, 2),
                            window.load(pixels, 3),
                        ]);
                    }
                    for column in 0..4 {
                        let done = data([rows[0][column], rows[1][column], rows[2][column], rows[3][column]]);
                        for row in 0..4 {
                            done[row].store(to.add((row * 4 + column) * point));
                        }
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn weight<V: Simd>(weights: [[V; 3]; 3], v: *mut f32, point: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            let rows = [weight(weights[0]), weight(weights[1]), weight(weights[2])];
            for column in 0..4 {
                let done = weight([rows[0][column], rows[1][column], rows[2][column]]);
                for row in 0..4 {
                    done[row].store(v.add((row * 4 + column) * point));
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn result<V: Simd>(
        m: *const f32,
        tiles: (usize, usize),
        y: *mut f32,
        image: (Plane, Grid),
        channels: Range<usize>,
    ) {
        let (point, group) = const { (point::<F2>(V::LANES), group::<F2>(V::LANES)) };
        // SAFETY: the caller's promise.
        unsafe {
            for (k, pixels) in Pixels::each(y, image, tiles, channels.start) {
                for index in 0..channels.len() / V::LANES {
                    let from = m.add(index * group + k * V::LANES);
                    let mut done = [[V::splat(0.0); 2]; 4];
                    for column in 0..4 {
                        done[column] = result([
                            V::load(from.add(column * point)),
                            V::load(from.add((4 + column) * point)),
                            V::load(from.add((8 + column) * point)),
                            V::load(from.add((12 + column) * point)),
                        ]);
                    }
                    for row in 0..2 {
                        if row >= pixels.inside.0 {
                            break;
                        }
                        let to = pixels.at.add(row * pixels.row + index * V::LANES);
                        let line = result([done[0][row], done[1][row], done[2][row], done[3][row]]);
                        line[0].store(to);
                        if pixels.inside.1 > 1 {
                            line[1].store(to.add(pixels.pixel));
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_over_points_is_the_correlation() {
        fn unit<const N: usize>(at: usize) -> [f32; N] {
            std::array::from_fn(|k| f32::from(u8::from(k == at)))
        }
        for (i, j, l) in (0..2).flat_map(|i| (0..3).flat_map(move |j| (0..4).map(move |l| (i, j, l)))) {
            // SAFETY: plain floats.
            let got = unsafe {
                let (g, d) = (weight(unit(j)), data(unit(l)));
                result(std::array::from_fn(|k| g[k] * d[k]))[i]
            };
            assert_eq!(got, if l == i + j { 1.0 } else { 0.0 }, "y_{i}, g_{j}, d_{l}");
        }
    }
}

//! Tiles of F(4x4, 3x3): 36 multiplications do the work of 144.

#![allow(unsafe_code, reason = "SIMD intrinsics")]

mod transforms;

use std::ops::Range;

use super::simd::Simd;
use super::tile::{Pixels, Source, Tile, group, point};
use super::tiling::{Grid, Plane};
use transforms::{data, data_high, data_low, gradient, result, weight, weight_gradient};

/// Tiles of 4 x 4 outputs.
#[derive(Debug, Clone, Copy)]
pub(super) struct F4;

impl Tile for F4 {
    const SIDE: usize = 4;
    const BLOCK: (usize, usize) = (24, 28);

    #[inline(always)]
    unsafe fn data<V: Simd>(source: Source, tiles: (usize, usize), u: *mut f32) {
        let (point, group) = const { (point::<F4>(V::LANES), group::<F4>(V::LANES)) };
        // SAFETY: the caller's promise.
        unsafe {
            for (k, window) in source.windows::<V, 6>(tiles) {
                for index in 0..source.plane.channels / V::LANES {
                    let at = index * V::LANES;
                    let to = u.add(index * group + k * V::LANES);
                    // Half of the columns at a time: 18 vectors fit the registers, 36 would not.
                    macro_rules! half {
                        ($transform:ident, $from:literal, $to:literal) => {
                            let mut half = [[V::splat(0.0); 3]; 6];
                            for row in 0..6 {
                                let pixels = window.row(row, at);
                                half[row] = $transform([
                                    window.load(pixels, $from),
                                    window.load(pixels, $from + 1),
                                    window.load(pixels, $from + 2),
                                    window.load(pixels, $from + 3),
                                    window.load(pixels, $from + 4),
                                ]);
                            }
                            for column in 0..3 {
                                let done = data([
                                    half[0][column],
                                    half[1][column],
                                    half[2][column],
                                    half[3][column],
                                    half[4][column],
                                    half[5][column],
                                ]);
                                for row in 0..6 {
                                    done[row].store(to.add((row * 6 + $to + column) * point));
                                }
                            }
                        };
                    }
                    half!(data_low, 0, 0);
                    half!(data_high, 1, 3);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn weight<V: Simd>(weights: [[V; 3]; 3], v: *mut f32, point: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            let rows = [weight(weights[0]), weight(weights[1]), weight(weights[2])];
            for column in 0..6 {
                let done = weight([rows[0][column], rows[1][column], rows[2][column]]);
                for row in 0..6 {
                    done[row].store(v.add((row * 6 + column) * point));
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
        let (point, group) = const { (point::<F4>(V::LANES), group::<F4>(V::LANES)) };
        // SAFETY: the caller's promise.
        unsafe {
            for (k, pixels) in Pixels::each(y, image, tiles, channels.start) {
                for index in 0..channels.len() / V::LANES {
                    let from = m.add(index * group + k * V::LANES);
                    let mut done = [[V::splat(0.0); 4]; 6];
                    for column in 0..6 {
                        done[column] = result([
                            V::load(from.add(column * point)),
                            V::load(from.add((6 + column) * point)),
                            V::load(from.add((12 + column) * point)),
                            V::load(from.add((18 + column) * point)),
                            V::load(from.add((24 + column) * point)),
                            V::load(from.add((30 + column) * point)),
                        ]);
                    }
                    for row in 0..4 {
                        if row >= pixels.inside.0 {
                            break;
                        }
                        let to = pixels.at.add(row * pixels.row + index * V::LANES);
                        let line = result([
                            done[0][row],
                            done[1][row],
                            done[2][row],
                            done[3][row],
                            done[4][row],
                            done[5][row],
                        ]);
                        for column in 0..4 {
                            if column < pixels.inside.1 {
                                line[column].store(to.add(column * pixels.pixel));
                            }
                        }
                    }
                }
            }
        }
    }
}

impl F4 {
    /// `u = A y A'` of `count` tiles y of 4 x 4 pixels.
    ///
    /// # Safety
    /// As [`Tile`].
    #[inline(always)]
    pub(super) unsafe fn gradient<V: Simd>(source: Source, tiles: (usize, usize), u: *mut f32) {
        let (point, group) = const { (point::<F4>(V::LANES), group::<F4>(V::LANES)) };
        // SAFETY: the caller's promise.
        unsafe {
            for (k, window) in source.windows::<V, 4>(tiles) {
                for index in 0..source.plane.channels / V::LANES {
                    let at = index * V::LANES;
                    let to = u.add(index * group + k * V::LANES);
                    let mut rows = [[V::splat(0.0); 6]; 4];
                    for row in 0..4 {
                        let pixels = window.row(row, at);
                        rows[row] = gradient([
                            window.load(pixels, 0),
                            window.load(pixels, 1),
                            window.load(pixels, 2),
                            window.load(pixels, 3),
                        ]);
                    }
                    for column in 0..6 {
                        let done = gradient([rows[0][column], rows[1][column], rows[2][column], rows[3][column]]);
                        for row in 0..6 {
                            done[row].store(to.add((row * 6 + column) * point));
                        }
                    }
                }
            }
        }
    }

    /// `G' m G`, m being a vector of each point every `point` floats: the gradients of the nine taps.
    ///
    /// # Safety
    /// As [`Tile`].
    #[inline(always)]
    pub(super) unsafe fn weight_gradient<V: Simd>(m: *const f32, point: usize) -> [[V; 3]; 3] {
        // SAFETY: the caller's promise.
        unsafe {
            let mut columns = [[V::splat(0.0); 3]; 6];
            for column in 0..6 {
                columns[column] = weight_gradient([
                    V::load(m.add(column * point)),
                    V::load(m.add((6 + column) * point)),
                    V::load(m.add((12 + column) * point)),
                    V::load(m.add((18 + column) * point)),
                    V::load(m.add((24 + column) * point)),
                    V::load(m.add((30 + column) * point)),
                ]);
            }
            let row = |row: usize| {
                weight_gradient([
                    columns[0][row],
                    columns[1][row],
                    columns[2][row],
                    columns[3][row],
                    columns[4][row],
                    columns[5][row],
                ])
            };
            [row(0), row(1), row(2)]
        }
    }
}

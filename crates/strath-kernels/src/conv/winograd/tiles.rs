//! The two-dimensional transforms of blocks of tiles: data and gradients into the points, products out of them.

#![allow(unsafe_code, reason = "SIMD intrinsics")]

use std::ops::Range;

use super::simd::Simd;
use super::tiling::{Columns, Grid, PAD, POINTS, Plane, Window};
use super::transforms::{data, data_high, data_low, gradient, result};

/// Tiles that go through the points at a time: their transformed data stay in the second-level cache, and distances between
/// points are constants of the code. A multiple of the largest row blocks of products.
pub(super) const fn block(lanes: usize) -> usize {
    if lanes == 16 { 28 } else { 24 }
}

/// Floats from a point to the next of transformed tiles, which lie as [group of LANES channels][point][tile][LANES].
pub(super) const fn point(lanes: usize) -> usize {
    block(lanes) * lanes + PAD
}

/// Floats from a group of channels to the next.
pub(super) const fn group(lanes: usize) -> usize {
    POINTS * point(lanes)
}

/// Images, cut into tiles.
#[derive(Clone, Copy)]
pub(super) struct Source {
    /// The first image.
    pub(super) at: *const f32,
    /// Its shape.
    pub(super) plane: Plane,
    /// Tiles of outputs.
    pub(super) grid: Grid,
    /// Pixels by which a tile's window begins above and to the left of its outputs.
    pub(super) before: usize,
    /// Six pixels of zeros.
    pub(super) zeros: *const f32,
}

impl Source {
    #[inline(always)]
    unsafe fn windows<V: Simd, const SIDE: usize>(
        self,
        first: usize,
        count: usize,
    ) -> impl Iterator<Item = (usize, Window<V, SIDE>)> {
        let columns = Columns::new(self.plane.channels);
        self.grid.each(first, count).map(move |(k, tile)| {
            let before = self.before as isize;
            let corner = (tile.top as isize - before, tile.left as isize - before);
            // SAFETY: the caller's promise: the images hold all tiles.
            let window = unsafe {
                Window::new(self.at.add(tile.image * self.plane.image()), (self.plane, columns), corner, self.zeros)
            };
            (k, window)
        })
    }
}

/// `u = B' d B` of `count` tiles' windows d of 6 x 6 pixels.
///
/// # Safety
/// [`Simd`]'s; the source's images hold the tiles and u the block's points, as in the other functions here.
#[inline(always)]
pub(super) unsafe fn data_tiles<V: Simd>(source: Source, (first, count): (usize, usize), u: *mut f32) {
    let point = const { point(V::LANES) };
    // SAFETY: the caller's promise.
    unsafe {
        for (k, window) in source.windows::<V, 6>(first, count) {
            for index in 0..source.plane.channels / V::LANES {
                let at = index * V::LANES;
                let to = u.add(index * group(V::LANES) + k * V::LANES);
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

/// `u = A y A'` of `count` tiles y of 4 x 4 pixels.
///
/// # Safety
/// As [`data_tiles`].
#[inline(always)]
pub(super) unsafe fn gradient_tiles<V: Simd>(source: Source, (first, count): (usize, usize), u: *mut f32) {
    let point = const { point(V::LANES) };
    // SAFETY: the caller's promise.
    unsafe {
        for (k, window) in source.windows::<V, 4>(first, count) {
            for index in 0..source.plane.channels / V::LANES {
                let at = index * V::LANES;
                let to = u.add(index * group(V::LANES) + k * V::LANES);
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

/// `y = A' m A` of `count` tiles, into these channels of the pixels that lie in the image.
///
/// # Safety
/// As [`data_tiles`]; y holds the tiles' images.
#[inline(always)]
pub(super) unsafe fn result_tiles<V: Simd>(
    m: *const f32,
    (first, count): (usize, usize),
    y: *mut f32,
    (plane, grid): (Plane, Grid),
    channels: Range<usize>,
) {
    let point = const { point(V::LANES) };
    let row_floats = plane.width * plane.channels;
    // SAFETY: the caller's promise.
    unsafe {
        for (k, tile) in grid.each(first, count) {
            let (rows, columns) = (plane.height - tile.top, plane.width - tile.left);
            let corner =
                tile.image * plane.image() + tile.top * row_floats + tile.left * plane.channels + channels.start;
            for index in 0..channels.len() / V::LANES {
                let from = m.add(index * group(V::LANES) + k * V::LANES);
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
                    if row >= rows {
                        break;
                    }
                    let to = y.add(corner + row * row_floats + index * V::LANES);
                    let pixels =
                        result([done[0][row], done[1][row], done[2][row], done[3][row], done[4][row], done[5][row]]);
                    for column in 0..4 {
                        if column < columns {
                            pixels[column].store(to.add(column * plane.channels));
                        }
                    }
                }
            }
        }
    }
}

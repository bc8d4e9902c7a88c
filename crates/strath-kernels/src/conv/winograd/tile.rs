//! What differs between tile sizes, and where transformed tiles lie.
//!
//! A tile of `SIDE` x `SIDE` outputs is a window of `SIDE + 2` inputs each way, and as many points each way. Products, loops and
//! memory are the same for every size; the transforms, which are written out for a size, are its own.

#![allow(unsafe_code, reason = "SIMD intrinsics")]

use std::ops::Range;

use super::simd::Simd;
use super::tiling::{Columns, Grid, Plane, Window};

/// Floats between two points' buffers beyond their contents: equal distances modulo a page would share cache sets.
pub(super) const PAD: usize = 16;

/// A tile size with its transforms.
///
/// # Safety
/// Every function needs [`Simd`]'s promises, images that hold the tiles, and transformed tiles that lie as [`point`] and
/// [`group`] say.
pub(super) trait Tile {
    /// Outputs a tile, each way.
    const SIDE: usize;
    /// Points of the two-dimensional transform: products a tile.
    const POINTS: usize = (Self::SIDE + 2) * (Self::SIDE + 2);
    /// Tiles that go through the points at a time, at 8 and at 16 lanes: their transformed data stay in the second-level cache,
    /// and distances between points are constants of the code. A multiple of the largest row blocks of products.
    const BLOCK: (usize, usize);

    /// `u = B' d B` of `count` tiles' windows d.
    unsafe fn data<V: Simd>(source: Source, tiles: (usize, usize), u: *mut f32);
    /// `v = G g G'` of the 3x3 weights g, a float of each point every `point` floats.
    unsafe fn weight<V: Simd>(weights: [[V; 3]; 3], v: *mut f32, point: usize);
    /// `y = A' m A` of `count` tiles, into these channels of the pixels that lie in the image.
    unsafe fn result<V: Simd>(
        m: *const f32,
        tiles: (usize, usize),
        y: *mut f32,
        image: (Plane, Grid),
        channels: Range<usize>,
    );
}

/// Tiles that go through the points at a time.
pub(super) const fn block<T: Tile>(lanes: usize) -> usize {
    if lanes == 16 { T::BLOCK.1 } else { T::BLOCK.0 }
}

/// Floats from a point to the next of transformed tiles, which lie as [group of LANES channels][point][tile][LANES].
pub(super) const fn point<T: Tile>(lanes: usize) -> usize {
    block::<T>(lanes) * lanes + PAD
}

/// Floats from a group of channels to the next.
pub(super) const fn group<T: Tile>(lanes: usize) -> usize {
    T::POINTS * point::<T>(lanes)
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
    /// A window's row of zeros.
    pub(super) zeros: *const f32,
}

impl Source {
    /// `(k, window)` for the k-th of `count` tiles from `first` on.
    #[inline(always)]
    pub(super) unsafe fn windows<V: Simd, const SIDE: usize>(
        self,
        (first, count): (usize, usize),
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

/// Where tiles of products become pixels.
#[derive(Clone, Copy)]
pub(super) struct Pixels {
    /// The tile's first pixel.
    pub(super) at: *mut f32,
    /// From a row of the image to the next.
    pub(super) row: usize,
    /// From a pixel to the next.
    pub(super) pixel: usize,
    /// Rows and columns from the first pixel to the image's ends; a tile may reach beyond.
    pub(super) inside: (usize, usize),
}

impl Pixels {
    /// `(k, pixels)` for the k-th of `count` tiles from `first` on, from this channel on.
    #[inline(always)]
    pub(super) unsafe fn each(
        y: *mut f32,
        (plane, grid): (Plane, Grid),
        (first, count): (usize, usize),
        channel: usize,
    ) -> impl Iterator<Item = (usize, Self)> {
        let row = plane.width * plane.channels;
        grid.each(first, count).map(move |(k, tile)| {
            let corner = tile.image * plane.image() + tile.top * row + tile.left * plane.channels + channel;
            // SAFETY: the caller's promise: y holds all tiles.
            let at = unsafe { y.add(corner) };
            let inside = (plane.height - tile.top, plane.width - tile.left);
            (k, Self { at, row, pixel: plane.channels, inside })
        })
    }
}

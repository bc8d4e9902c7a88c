//! The weight gradient: `dW = G' (sum over tiles of (B' x B) . (A dy A')) G`, by chunks of images.

#![allow(unsafe_code, reason = "SIMD intrinsics")]

use super::f4::F4;
use super::products::{Layout, rows_4, rows_8, rows_16};
use super::simd::Simd;
use super::tile::{self, Source, Tile};
use super::tiling::{Ahead, Grid, Plane};
use super::weights;

/// Floats from a group of channels to the next.
const fn group(lanes: usize) -> usize {
    tile::group::<F4>(lanes)
}

/// A weight gradient: its shapes, as one chunk of images sees them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gradient {
    /// Inputs.
    pub(super) x: Plane,
    /// Outputs' gradients.
    pub(super) dy: Plane,
    /// Tiles of the outputs.
    pub(super) grid: Grid,
    /// Zeros around an input, pixels.
    pub(super) padding: usize,
    /// Images that exist from the chunk's first on; the chunk reads ahead into the next.
    pub(super) images: usize,
}

impl Gradient {
    /// Floats of transformed data and of transformed gradients.
    fn buffers(self, lanes: usize) -> (usize, usize) {
        (self.x.channels / lanes * group(lanes), self.dy.channels / lanes * group(lanes))
    }

    /// Floats of scratch that a chunk needs.
    pub(super) fn scratch(self, lanes: usize) -> usize {
        let (u, w) = self.buffers(lanes);
        let (inputs, outputs) = (self.x.channels, self.dy.channels);
        u + w + weights::floats::<F4>(inputs, outputs) + 6 * inputs.max(outputs)
    }

    /// The gradient of the first `images` images at x and dy into `sum`, as [`weights::unpack`] leaves it.
    ///
    /// # Safety
    /// [`Simd`]'s; x, dy and sum have these shapes, scratch what [`Gradient::scratch`] says.
    #[inline(always)]
    pub(super) unsafe fn chunk<V: Simd>(
        self,
        x: *const f32,
        dy: *const f32,
        sum: *mut f32,
        images: usize,
        scratch: *mut f32,
    ) {
        let Self { x: x_plane, dy: dy_plane, grid, padding, .. } = self;
        let (block, point_floats) = const { (tile::block::<F4>(V::LANES), tile::point::<F4>(V::LANES)) };
        let (u_floats, w_floats) = self.buffers(V::LANES);
        let (inputs, outputs) = (x_plane.channels, dy_plane.channels);
        let (tiles, exist) = (images * grid.tiles(), self.images * grid.tiles());
        let zero_floats = 6 * inputs.max(outputs);
        // SAFETY: the caller's promise; buffers lie one after the other in scratch.
        unsafe {
            let (u, w) = (scratch, scratch.add(u_floats));
            let zeros = w.add(w_floats);
            zeros.write_bytes(0, zero_floats);
            let m = zeros.add(zero_floats);
            let x_source = Source { at: x, plane: x_plane, grid, before: padding, zeros };
            let dy_source = Source { at: dy, plane: dy_plane, grid, before: 0, zeros };
            for first in (0..tiles).step_by(block) {
                let count = block.min(tiles - first);
                F4::data::<V>(x_source, (first, count), u);
                F4::gradient::<V>(dy_source, (first, count), w);
                let next = (first + count, (first + 2 * count).min(exist));
                let mut x_ahead = Ahead::new(x, x_plane, grid, next, F4::POINTS);
                let mut dy_ahead = Ahead::new(dy, dy_plane, grid, next, F4::POINTS);
                for point in 0..F4::POINTS {
                    let u = u.add(point * point_floats);
                    let w = w.add(point * point_floats);
                    let m = m.add(point * weights::point(inputs, outputs));
                    correlate::<V>(u, w, (inputs, outputs), count, m, first > 0);
                    x_ahead.fetch();
                    dy_ahead.fetch();
                }
            }
            weights::unpack::<V>(m, (inputs, outputs), sum);
        }
    }
}

/// `m[o][c] = sum over tiles t of u[t, c] w[t, o]` at one point, added to m where `accumulate`.
///
/// # Safety
/// [`Simd`]'s; u and w hold `count` tiles of the point, m [output group][input][LANES].
#[inline(always)]
unsafe fn correlate<V: Simd>(
    u: *const f32,
    w: *const f32,
    (inputs, outputs): (usize, usize),
    count: usize,
    m: *mut f32,
    accumulate: bool,
) {
    let groups = outputs / V::LANES;
    let layout = Layout {
        runs: 1,
        run: count,
        row: 1,
        step: V::LANES,
        jump: 0,
        v_step: V::LANES,
        v_second: group(V::LANES),
        m_second: inputs * V::LANES,
        accumulate,
    };
    for first in (0..groups).step_by(2) {
        let pair = first + 1 < groups;
        // Eight chains at least hide the latency of the multiply-adds.
        let rows = match (V::LANES, pair) {
            (16, false) => 16,
            (16, true) | (_, false) => 8,
            _ => 4,
        };
        for input in (0..inputs).step_by(rows) {
            // SAFETY: the caller's promise.
            unsafe {
                let u = u.add(input / V::LANES * group(V::LANES) + input % V::LANES);
                let w = w.add(first * group(V::LANES));
                let m = m.add((first * inputs + input) * V::LANES);
                match rows {
                    16 => rows_16::<V, 1>(layout, u, w, m),
                    8 if pair => rows_8::<V, 2>(layout, u, w, m),
                    8 => rows_8::<V, 1>(layout, u, w, m),
                    _ => rows_4::<V, 2>(layout, u, w, m),
                }
            }
        }
    }
}

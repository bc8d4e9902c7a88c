//! Forward products, and backward-data as one: blocks of tiles through the points and back.

#![allow(unsafe_code, reason = "SIMD intrinsics")]

use super::products::{Layout, multiply};
use super::simd::Simd;
use super::tile::{Source, Tile, block, group, point};
use super::tiling::{Ahead, Grid, Plane};
use super::weights;

/// A forward product of images: its shapes, as one chunk of images sees them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Forward {
    /// Inputs.
    pub(super) x: Plane,
    /// Outputs.
    pub(super) y: Plane,
    /// Tiles of the outputs.
    pub(super) grid: Grid,
    /// Zeros around an input, pixels.
    pub(super) padding: usize,
    /// Images that exist from the chunk's first on; the chunk reads ahead into the next.
    pub(super) images: usize,
}

impl Forward {
    /// Floats of transformed data, and of products: those of a pair of output groups at a time.
    fn buffers<T: Tile>(self, lanes: usize) -> (usize, usize) {
        let groups = self.x.channels / lanes;
        let pair = (self.y.channels / lanes).min(2);
        (groups * group::<T>(lanes), pair * group::<T>(lanes))
    }

    /// Floats of scratch that a chunk needs.
    pub(super) fn scratch<T: Tile>(self, lanes: usize) -> usize {
        let (u, m) = self.buffers::<T>(lanes);
        u + m + (T::SIDE + 2) * self.x.channels
    }

    /// y of the first `images` images at x, `v` being the transformed weights.
    ///
    /// # Safety
    /// [`Simd`]'s; x, y and v have these shapes, scratch what [`Forward::scratch`] says.
    #[inline(always)]
    pub(super) unsafe fn chunk<T: Tile, V: Simd>(
        self,
        x: *const f32,
        v: *const f32,
        y: *mut f32,
        images: usize,
        scratch: *mut f32,
    ) {
        let Self { x: x_plane, y: y_plane, grid, padding, .. } = self;
        let (block, point_floats) = const { (block::<T>(V::LANES), point::<T>(V::LANES)) };
        let (u_floats, _) = self.buffers::<T>(V::LANES);
        let (inputs, outputs) = (x_plane.channels, y_plane.channels);
        let groups = outputs / V::LANES;
        let pairs = groups.div_ceil(2);
        let v_point = weights::point(inputs, outputs);
        let (tiles, exist) = (images * grid.tiles(), self.images * grid.tiles());
        // SAFETY: the caller's promise; buffers lie one after the other in scratch.
        unsafe {
            let (u, zeros) = (scratch, scratch.add(u_floats));
            zeros.write_bytes(0, (T::SIDE + 2) * inputs);
            // With one pair, a product has read its rows of u before it writes m: in place, the lines are in the first cache.
            let m = if groups <= 2 && outputs <= inputs { u } else { zeros.add((T::SIDE + 2) * inputs) };
            let source = Source { at: x, plane: x_plane, grid, before: padding, zeros };
            for first in (0..tiles).step_by(block) {
                let count = block.min(tiles - first);
                T::data::<V>(source, (first, count), u);
                let next = (first + count, (first + 2 * count).min(exist));
                let mut ahead = Ahead::new(x, x_plane, grid, next, T::POINTS * pairs);
                for first_group in (0..groups).step_by(2) {
                    let width = (groups - first_group).min(2);
                    let layout = Layout {
                        runs: inputs / V::LANES,
                        run: V::LANES,
                        row: V::LANES,
                        step: 1,
                        jump: group::<T>(V::LANES),
                        v_step: width * V::LANES,
                        v_second: V::LANES,
                        m_second: group::<T>(V::LANES),
                        accumulate: false,
                    };
                    for point in 0..T::POINTS {
                        let u = u.add(point * point_floats);
                        let v = v.add(point * v_point + first_group * V::LANES * inputs);
                        let m = m.add(point * point_floats);
                        if width == 2 {
                            multiply::<V, 2>(layout, count, u, v, m);
                        } else {
                            multiply::<V, 1>(layout, count, u, v, m);
                        }
                        ahead.fetch();
                    }
                    let channels = first_group * V::LANES..(first_group + width) * V::LANES;
                    T::result::<V>(m, (first, count), y, (y_plane, grid), channels);
                }
            }
        }
    }
}

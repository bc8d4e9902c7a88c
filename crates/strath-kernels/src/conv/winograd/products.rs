//! Register blocks of the products at one point: rows of broadcast floats times one or two vectors.
//!
//! ```text
//! m[r][w] = sum over terms k of u[r, k] v[k, w]      w < WIDTH vectors
//! ```
//!
//! Forward, rows are tiles and terms input channels; in the weight gradient, rows are input channels and terms tiles. Every
//! element is one chain of fused multiply-adds in the order of k, whatever the block it falls in: where a batch is split
//! changes no bits. Blocks are written out row by row: indexed arrays of vectors end up on the stack.

#![allow(unsafe_code, reason = "SIMD intrinsics")]

use super::simd::Simd;

/// Where a product's operands lie, in floats.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    /// Terms: runs of `run` terms each.
    pub(super) runs: usize,
    /// Terms a run.
    pub(super) run: usize,
    /// From a row of u to the next.
    pub(super) row: usize,
    /// From a term of u to the next.
    pub(super) step: usize,
    /// From a run of u to the next.
    pub(super) jump: usize,
    /// From a term of v to the next.
    pub(super) v_step: usize,
    /// From v's first vector to its second.
    pub(super) v_second: usize,
    /// From m's first vector to its second.
    pub(super) m_second: usize,
    /// Whether the product is added to what m holds.
    pub(super) accumulate: bool,
}

macro_rules! block {
    ($name:ident, $($row:literal $a:ident $b:ident),*) => {
        #[inline(always)]
        pub(super) unsafe fn $name<V: Simd, const WIDTH: usize>(at: Layout, u: *const f32, v: *const f32, m: *mut f32) {
            // SAFETY: the caller's promise.
            unsafe {
                $(let mut $a = V::splat(0.0);)*
                $(let mut $b = V::splat(0.0);)*
                let mut v = v;
                for run in 0..at.runs {
                    let mut u = u.add(run * at.jump);
                    for _ in 0..at.run {
                        let first = V::load(v);
                        if WIDTH == 2 {
                            let second = V::load(v.add(at.v_second));
                            $(
                                let value = V::splat(*u.add($row * at.row));
                                $a = $a.plus(value, first);
                                $b = $b.plus(value, second);
                            )*
                        } else {
                            $($a = $a.plus(V::splat(*u.add($row * at.row)), first);)*
                        }
                        u = u.add(at.step);
                        v = v.add(at.v_step);
                    }
                }
                let put = |value: V, m: *mut f32| {
                    let value = if at.accumulate { V::load(m).add(value) } else { value };
                    value.store(m);
                };
                $(put($a, m.add($row * V::LANES));)*
                if WIDTH == 2 {
                    $(put($b, m.add(at.m_second + $row * V::LANES));)*
                }
            }
        }
    };
}

block!(rows_3, 0 a0 b0, 1 a1 b1, 2 a2 b2);
block!(rows_4, 0 a0 b0, 1 a1 b1, 2 a2 b2, 3 a3 b3);
block!(rows_6, 0 a0 b0, 1 a1 b1, 2 a2 b2, 3 a3 b3, 4 a4 b4, 5 a5 b5);
block!(rows_8, 0 a0 b0, 1 a1 b1, 2 a2 b2, 3 a3 b3, 4 a4 b4, 5 a5 b5, 6 a6 b6, 7 a7 b7);
block!(rows_14, 0 a0 b0, 1 a1 b1, 2 a2 b2, 3 a3 b3, 4 a4 b4, 5 a5 b5, 6 a6 b6, 7 a7 b7, 8 a8 b8, 9 a9 b9, 10 a10 b10,
    11 a11 b11, 12 a12 b12, 13 a13 b13);
block!(rows_16, 0 a0 b0, 1 a1 b1, 2 a2 b2, 3 a3 b3, 4 a4 b4, 5 a5 b5, 6 a6 b6, 7 a7 b7, 8 a8 b8, 9 a9 b9, 10 a10 b10,
    11 a11 b11, 12 a12 b12, 13 a13 b13, 14 a14 b14, 15 a15 b15);
block!(rows_28, 0 a0 b0, 1 a1 b1, 2 a2 b2, 3 a3 b3, 4 a4 b4, 5 a5 b5, 6 a6 b6, 7 a7 b7, 8 a8 b8, 9 a9 b9, 10 a10 b10,
    11 a11 b11, 12 a12 b12, 13 a13 b13, 14 a14 b14, 15 a15 b15, 16 a16 b16, 17 a17 b17, 18 a18 b18, 19 a19 b19,
    20 a20 b20, 21 a21 b21, 22 a22 b22, 23 a23 b23, 24 a24 b24, 25 a25 b25, 26 a26 b26, 27 a27 b27);

/// `count` rows, and whatever the last block has beyond: u and m hold up to 3 more, 13 at 16 lanes, or fill a block of tiles.
///
/// # Safety
/// [`Simd`]'s; u, v and m hold what `at` and the rows say.
#[inline(always)]
pub(super) unsafe fn multiply<V: Simd, const WIDTH: usize>(
    at: Layout,
    count: usize,
    u: *const f32,
    v: *const f32,
    m: *mut f32,
) {
    let mut row = 0;
    // SAFETY: the caller's promise; only the last block goes beyond `count`, as the callers know.
    unsafe {
        while row < count {
            let (u, m) = (u.add(row * at.row), m.add(row * V::LANES));
            row += match (V::LANES, WIDTH, count - row) {
                (16, 1, 15..) => {
                    rows_28::<V, WIDTH>(at, u, v, m);
                    28
                }
                (16, _, 9..) => {
                    rows_14::<V, WIDTH>(at, u, v, m);
                    14
                }
                (16, _, 5..) => {
                    rows_8::<V, WIDTH>(at, u, v, m);
                    8
                }
                (16, ..) => {
                    rows_4::<V, WIDTH>(at, u, v, m);
                    4
                }
                (_, _, 4..) => {
                    rows_6::<V, WIDTH>(at, u, v, m);
                    6
                }
                _ => {
                    rows_3::<V, WIDTH>(at, u, v, m);
                    3
                }
            };
        }
    }
}

//! The register tile: a few rows of A times one or two vectors of columns of B, all sums in registers.
//!
//! Every element of C is one chain of fused multiply-adds, in the order of the terms: whatever tile it falls into, and whatever
//! the length of a vector, its bits are the same.

#![allow(
    clippy::inline_always,
    reason = "kernel bodies must be compiled with the features of the function around them"
)]

use crate::conv::direct::lanes::{Avx2, Avx512, Lanes, fetch, unroll, unroll2};
use crate::isa::Isa;

/// What a tile reads and writes; distances in floats.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tile {
    /// The first term of A's first row.
    pub a: *const f32,
    /// From a row of A to the next.
    pub a_row: usize,
    /// From a term of A to the next.
    pub a_term: usize,
    /// The first term of B's first column; whole vectors can be read.
    pub b: *const f32,
    /// From a term of B to the next.
    pub b_term: usize,
    /// Terms of each sum.
    pub terms: usize,
    /// The first element of C.
    pub c: *mut f32,
    /// From a row of C to the next.
    pub c_row: usize,
    /// Whether the sums are added to what C holds.
    pub add: bool,
    /// Lanes of the last vector that are columns of C.
    pub tail: usize,
}

/// A tile's kernel.
///
/// # Safety
/// It needs a processor with its instruction set, and a tile whose reads and writes lie inside of slices that nobody else writes
/// or, for C, reads.
pub(super) type Kernel = unsafe fn(&Tile);

/// The kernels of an instruction set.
pub(super) struct Kernels {
    /// Floats in a vector.
    pub lanes: usize,
    /// By rows - 1, then vectors - 1.
    pub tiles: &'static [[Kernel; 2]],
}

impl Kernels {
    /// Those of an instruction set, where there are any and the processor has it.
    pub fn of(isa: Isa) -> Option<&'static Self> {
        match isa {
            _ if isa > Isa::best() => None,
            Isa::Portable => None,
            Isa::Avx2 => Some(&AVX2),
            Isa::Avx512 => Some(&AVX512),
        }
    }

    /// Columns of a whole tile.
    pub fn width(&self) -> usize {
        2 * self.lanes
    }
}

/// Rows for which there is room: those that [`unroll`] writes out.
const ROWS: usize = 32;

/// Adds one term to every sum.
#[inline(always)]
unsafe fn term<L: Lanes, const R: usize, const V: usize>(
    a: *const f32,
    a_row: usize,
    b: *const f32,
    sums: &mut [[L::V; 2]; ROWS],
) {
    // SAFETY: as the tile says.
    unsafe {
        let first = L::load(b);
        let second = if V == 2 { L::load(b.add(L::N)) } else { L::zero() };
        unroll!(r < R => {
            let value = L::splat(a.add(r * a_row));
            sums[r][0] = L::fma(value, first, sums[r][0]);
            if V == 2 {
                sums[r][1] = L::fma(value, second, sums[r][1]);
            }
        });
    }
}

#[inline(always)]
unsafe fn tile<L: Lanes, const R: usize, const V: usize>(t: &Tile) {
    // SAFETY: as the tile says.
    unsafe {
        let mut sums = [[L::zero(); 2]; ROWS];
        let (mut a, mut b) = (t.a, t.b);
        if t.add {
            unroll!(r < R => { fetch(t.c.add(r * t.c_row)); });
        }
        for _ in 0..t.terms / 4 {
            term::<L, R, V>(a, t.a_row, b, &mut sums);
            term::<L, R, V>(a.add(t.a_term), t.a_row, b.add(t.b_term), &mut sums);
            term::<L, R, V>(a.add(2 * t.a_term), t.a_row, b.add(2 * t.b_term), &mut sums);
            term::<L, R, V>(a.add(3 * t.a_term), t.a_row, b.add(3 * t.b_term), &mut sums);
            (a, b) = (a.add(4 * t.a_term), b.add(4 * t.b_term));
        }
        for _ in 0..t.terms % 4 {
            term::<L, R, V>(a, t.a_row, b, &mut sums);
            (a, b) = (a.add(t.a_term), b.add(t.b_term));
        }
        unroll!(r < R => {
            unroll2!(v < V => {
                let c = t.c.add(r * t.c_row + v * L::N);
                if v + 1 < V || t.tail == L::N {
                    L::store(c, if t.add { L::add(L::load(c), sums[r][v]) } else { sums[r][v] });
                } else {
                    let sum = if t.add { L::add(L::load_first(c, t.tail), sums[r][v]) } else { sums[r][v] };
                    L::store_first(c, sum, t.tail);
                }
            });
        });
    }
}

/// The kernels of an instruction set: the body above compiled for it.
macro_rules! kernels {
    ($name:ident, $lanes:ty, $features:literal, $($rows:literal)*) => {
        pub(super) static $name: Kernels = {
            #[target_feature(enable = $features)]
            unsafe fn compiled<const R: usize, const V: usize>(t: &Tile) {
                // SAFETY: the caller's tile and instruction set.
                unsafe { tile::<$lanes, R, V>(t) }
            }

            Kernels { lanes: <$lanes>::N, tiles: &[$([compiled::<$rows, 1>, compiled::<$rows, 2>]),*] }
        };
    };
}

kernels!(AVX512, Avx512, "avx512f,avx512bw,avx512dq,avx512vl", 1 2 3 4 5 6 7 8 9 10 11 12);
kernels!(AVX2, Avx2, "avx2,fma", 1 2 3 4 5 6);

//! Products out of tiles, blocked for the caches.
//!
//! ```text
//! for each block of terms                B packed into panels, and A too where it lies transposed
//!   for each strip of rows of C          A's part of it stays in the second-level cache         (threads)
//!     for each panel of B                which stays in the first-level cache
//!       for each block of rows           a tile
//! ```
//!
//! Where A lies plain, its rows are read where they are, and strips are outermost: all of B is packed first. Where B lies transposed
//! and C has few rows, as in a linear layer of a small batch, packing B would take as long as the product: then `C' = B' A'` is
//! computed, whose plain operand is B.

use super::pack::Panels;
use super::tile::{Kernels, Tile};
use super::{Finish, Side, Sizes, Strided, blocks_of_terms, strips};
use crate::scratch::{self, SHARED};
use crate::threads::for_chunks;

/// Rows of C that a thread computes at a time: multiples of every tile's.
const STRIP: usize = 96;
/// Rows of C up to which a transposed B is not packed but taken as the plain operand.
const FEW: usize = 128;
/// Rows of such a C that a thread finishes at a time.
const FEW_ROWS: usize = 8;
/// Columns of B that are packed at a time.
const GROUP: usize = 256;
/// Floats of a line of cache.
const LINE: usize = 16;

/// A as the tiles read it: element (i, k) of block b lies at `b block + i row + k term`.
#[derive(Debug, Clone, Copy)]
struct Left<'a> {
    values: &'a [f32],
    /// Rows of a block.
    height: usize,
    block: usize,
    row: usize,
    term: usize,
}

/// B as the tiles read it: element (k, j) of panel p lies at `p panel + k term + j`.
#[derive(Debug, Clone, Copy)]
struct Right<'a> {
    values: &'a [f32],
    panel: usize,
    term: usize,
}

/// Rows of C times all columns, of some of the terms.
///
/// # Safety
/// The processor has the kernels' instruction set; `left` and `right` hold what the sizes say.
unsafe fn strip(
    kernels: &Kernels,
    left: Left<'_>,
    right: Right<'_>,
    (rows, terms, columns): (usize, usize, usize),
    (c, c_row): (&mut [f32], usize),
    add: bool,
) {
    let (width, lanes) = (kernels.width(), kernels.lanes);
    debug_assert!((rows - 1) * c_row + columns <= c.len());
    for (panel, column) in (0..columns).step_by(width).enumerate() {
        let own = width.min(columns - column);
        let vectors = own.div_ceil(lanes);
        for (block, row) in (0..rows).step_by(left.height).enumerate() {
            let height = left.height.min(rows - row);
            // SAFETY: the caller's promise; the tile's rows and columns lie inside of C's.
            unsafe {
                let tile = Tile {
                    a: left.values.as_ptr().add(block * left.block),
                    a_row: left.row,
                    a_term: left.term,
                    b: right.values.as_ptr().add(panel * right.panel),
                    b_term: right.term,
                    terms,
                    c: c.as_mut_ptr().add(row * c_row + column),
                    c_row,
                    add,
                    tail: own - (vectors - 1) * lanes,
                };
                kernels.tiles[height - 1][vectors - 1](&tile);
            }
        }
    }
}

/// Rows of a block where blocks are as high as can be and the last is not much lower.
fn even(kernels: &Kernels, rows: usize) -> usize {
    rows.div_ceil(rows.div_ceil(kernels.tiles.len()))
}

/// As [`super::product`]; C has rows and columns.
pub(super) fn product(
    kernels: &Kernels,
    sizes: Sizes,
    (a, b): (Strided<'_>, Strided<'_>),
    (c, beside): (&mut [f32], &mut [f32]),
    finish: Finish<'_>,
) {
    let Sizes { rows, columns, .. } = sizes;
    match (a.side, b.side) {
        (Side::Plain, Side::Transposed) if rows <= FEW && columns >= kernels.lanes => {
            turned(kernels, sizes, (a, b), (c, beside), finish);
        }
        (Side::Plain, _) => by_rows(kernels, sizes, (a, b), (c, beside), finish),
        (Side::Transposed, _) => by_terms(kernels, sizes, (a, b), (c, beside), finish),
    }
}

/// As [`super::small`]; C has rows and columns.
pub(super) fn small(
    kernels: &Kernels,
    (rows, inner, columns): (usize, usize, usize),
    (a, b): (Strided<'_>, Strided<'_>),
    (c, c_stride): (&mut [f32], usize),
) {
    let width = kernels.width();
    let (row, term) = if a.side == Side::Plain { (a.stride, 1) } else { (1, a.stride) };
    let height = even(kernels, rows);
    let multiply = |values: &[f32], panel: usize, b_term: usize, c: &mut [f32]| {
        for (from, terms) in blocks_of_terms(inner) {
            let left = Left { values: a.from(0, from).values, height, block: height * row, row, term };
            let right = Right { values: &values[(from * b_term).min(values.len())..], panel, term: b_term };
            // SAFETY: the set of the kernels was found; A's and B's values were checked.
            unsafe { strip(kernels, left, right, (rows, terms, columns), (c, c_stride), from > 0) };
        }
    };
    if b.side == Side::Plain && columns.is_multiple_of(kernels.lanes) {
        return multiply(b.values, width, b.stride, c); // whole vectors, read where they are
    }
    scratch::with(&SHARED, columns.div_ceil(width) * inner * width, |packed| {
        pack_right(kernels, b, columns, (0, inner), packed);
        multiply(packed, inner * width, width, c);
    });
}

/// Packs terms `from .. from + terms` of B.
fn pack_right(kernels: &Kernels, b: Strided<'_>, columns: usize, (from, terms): (usize, usize), to: &mut [f32]) {
    let width = kernels.width();
    let panels = Panels { width, distance: terms * width };
    for_chunks(to, terms * GROUP, |group, to| {
        let first = group * GROUP;
        let (values, size) = (b.from(from, first).values, (GROUP.min(columns - first), terms));
        match b.side {
            Side::Plain => panels.pack_runs(values, b.stride, size, to),
            Side::Transposed => panels.pack_turned(values, b.stride, size, to),
        }
    });
}

/// Strips of C's rows by all terms; A is read where it lies.
fn by_rows(
    kernels: &Kernels,
    Sizes { inner, columns, .. }: Sizes,
    (a, b): (Strided<'_>, Strided<'_>),
    (c, beside): (&mut [f32], &mut [f32]),
    finish: Finish<'_>,
) {
    let width = kernels.width();
    let panel = inner * width;
    scratch::with(&SHARED, columns.div_ceil(width) * panel, |packed| {
        pack_right(kernels, b, columns, (0, inner), packed);
        let mut strips = strips(STRIP * columns, c, beside);
        for_chunks(&mut strips, 1, |k, strips| {
            for (c, beside) in strips {
                let a = a.from(k * STRIP, 0);
                // SAFETY: the set of the kernels was found; A's values were checked, and packed holds every panel.
                unsafe { rows_by_panels(kernels, a, (packed, panel), (inner, columns), c) };
                finish(k * STRIP, c, beside);
            }
        });
    });
}

/// The rows of C, which touch, from as many of A, which lies plain, and all panels of B.
///
/// # Safety
/// As [`strip`].
unsafe fn rows_by_panels(
    kernels: &Kernels,
    a: Strided<'_>,
    (packed, panel): (&[f32], usize),
    (inner, columns): (usize, usize),
    c: &mut [f32],
) {
    let (width, rows) = (kernels.width(), c.len() / columns);
    let height = even(kernels, rows);
    for (from, terms) in blocks_of_terms(inner) {
        let left = Left { values: a.from(0, from).values, height, block: height * a.stride, row: a.stride, term: 1 };
        let right = Right { values: &packed[(from * width).min(packed.len())..], panel, term: width };
        // SAFETY: the caller's promise.
        unsafe { strip(kernels, left, right, (rows, terms, columns), (c, columns), from > 0) };
    }
}

/// Blocks of terms, each packed before its strips: of a transposed A, a linear layer's weight gradient.
fn by_terms(
    kernels: &Kernels,
    Sizes { rows, inner, columns, .. }: Sizes,
    (a, b): (Strided<'_>, Strided<'_>),
    (c, beside): (&mut [f32], &mut [f32]),
    finish: Finish<'_>,
) {
    let (width, height) = (kernels.width(), kernels.tiles.len());
    let most = blocks_of_terms(inner).next().map_or(0, |(_, terms)| terms);
    // A line between blocks: else they could all begin in the same sets of the cache.
    let block = most * height + LINE;
    let panels = columns.div_ceil(width);
    let mut strips = strips(STRIP * columns, c, beside);
    scratch::with(&SHARED, panels * most * width + rows.div_ceil(height) * block, |packed| {
        let (packed_b, packed_a) = packed.split_at_mut(panels * most * width);
        for (from, terms) in blocks_of_terms(inner) {
            let packed_b = &mut packed_b[..panels * terms * width];
            pack_right(kernels, b, columns, (from, terms), packed_b);
            for_chunks(packed_a, STRIP / height * block, |k, to| {
                let size = (STRIP.min(rows - k * STRIP), terms);
                let panels = Panels { width: height, distance: block };
                panels.pack_runs(a.from(k * STRIP, from).values, a.stride, size, to);
            });
            let (packed_a, packed_b) = (&*packed_a, &*packed_b);
            for_chunks(&mut strips, 1, |k, strips| {
                for (c, beside) in strips {
                    let values = &packed_a[k * (STRIP / height) * block..];
                    let left = Left { values, height, block, row: 1, term: height };
                    let right = Right { values: packed_b, panel: terms * width, term: width };
                    let size = (c.len() / columns, terms, columns);
                    // SAFETY: the set of the kernels was found; packed holds every block and panel.
                    unsafe { strip(kernels, left, right, size, (c, columns), from > 0) };
                    if from + terms == inner {
                        finish(k * STRIP, c, beside);
                    }
                }
            });
        }
    });
}

/// By way of `C' = B' A'`.
fn turned(
    kernels: &Kernels,
    Sizes { rows, inner, columns, .. }: Sizes,
    (a, b): (Strided<'_>, Strided<'_>),
    (c, beside): (&mut [f32], &mut [f32]),
    finish: Finish<'_>,
) {
    let width = kernels.width();
    let (panel, across) = (inner * width, rows.next_multiple_of(kernels.lanes));
    let panels = rows.div_ceil(width) * panel;
    scratch::with(&SHARED, panels + columns * across, |kept| {
        let (packed, turned) = kept.split_at_mut(panels);
        pack_right(kernels, Strided { side: Side::Transposed, ..a }, rows, (0, inner), packed);
        let packed = &*packed;
        for_chunks(turned, STRIP * across, |k, to| {
            let b = Strided { side: Side::Plain, ..b.from(0, k * STRIP) };
            // SAFETY: the set of the kernels was found; B's values were checked, and packed holds every panel.
            unsafe { rows_by_panels(kernels, b, (packed, panel), (inner, across), to) };
        });
        let mut strips = strips(FEW_ROWS * columns, c, beside);
        for_chunks(&mut strips, 1, |k, strips| {
            for (c, beside) in strips {
                let panels = Panels { width: columns, distance: c.len() };
                panels.pack_turned(&turned[k * FEW_ROWS..], across, (columns, c.len() / columns), c);
                finish(k * FEW_ROWS, c, beside);
            }
        });
    });
}

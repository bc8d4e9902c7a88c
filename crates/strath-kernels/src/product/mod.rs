//! Matrix products, of either operand or its transpose.
//!
//! ```text
//! linear layer, x [n, in] and W [out, in]:   y = x W'   dx = dy W   dW = dy' x
//! ```
//!
//! Each element of a product is a chain of fused multiply-adds in the order of its terms, in blocks of at most 256 terms, whose
//! sums are added in order: `((0 + a0 b0) + a1 b1) + ...`. That order is a function of the number of terms alone, and a fused
//! multiply-add is rounded once everywhere, so the bits depend neither on the instruction set, nor on the number of threads, nor on
//! how rows and columns are cut, nor on what the other rows hold.
//!
//! ```text
//! tile       the register tile: a few rows by one or two vectors
//! pack       operands copied into the order in which the tiles read them
//! blocked    products out of tiles, blocked for the caches
//! portable   the same in plain Rust: the oracle
//! ```

#![allow(unsafe_code, reason = "SIMD kernels")]

#[cfg(target_arch = "x86_64")]
mod blocked;
#[cfg(target_arch = "x86_64")]
mod pack;
mod portable;
#[cfg(target_arch = "x86_64")]
mod tile;

use crate::isa::Isa;
use crate::threads::for_chunks;

/// Most terms of a sum that are added in one chain.
const TERMS: usize = 256;

/// Whether an operand is taken as it lies or transposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// As it lies, row-major.
    Plain,
    /// Its transpose.
    Transposed,
}

impl Side {
    /// The other one.
    #[must_use]
    pub fn flipped(self) -> Self {
        match self {
            Self::Plain => Self::Transposed,
            Self::Transposed => Self::Plain,
        }
    }
}

/// Sizes of a product `C [rows, columns] = A [rows, inner] B [inner, columns]`, of each of `batch` pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Number of products side by side.
    pub batch: usize,
    /// Rows of A and C.
    pub rows: usize,
    /// Columns of A, rows of B.
    pub inner: usize,
    /// Columns of B and C.
    pub columns: usize,
}

impl Sizes {
    /// Those of one product.
    pub(crate) fn one(rows: usize, inner: usize, columns: usize) -> Self {
        Self { batch: 1, rows, inner, columns }
    }
}

/// A matrix whose rows lie `stride` values apart, taken as it lies or transposed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Strided<'a> {
    /// From the first value of the first row on.
    pub values: &'a [f32],
    /// Distance of the rows' first values; at least the width.
    pub stride: usize,
    /// How it is taken.
    pub side: Side,
}

impl<'a> Strided<'a> {
    /// A matrix of `height` x `width` (after a transposition) whose rows touch.
    pub(crate) fn whole(values: &'a [f32], side: Side, (height, width): (usize, usize)) -> Self {
        assert_eq!(values.len(), height * width, "the operand is {height} x {width}");
        Self { values, stride: if side == Side::Plain { width } else { height }, side }
    }

    /// Asserts that a matrix of `height` x `width` (after a transposition) lies inside.
    fn assert_holds(&self, height: usize, width: usize) {
        let size = if self.side == Side::Plain { (height, width) } else { (width, height) };
        assert_inside(self.values.len(), size, self.stride);
    }

    /// The same matrix without its first `rows` rows and `columns` columns (after a transposition).
    fn from(&self, rows: usize, columns: usize) -> Self {
        let at = match self.side {
            Side::Plain => rows * self.stride + columns,
            Side::Transposed => columns * self.stride + rows,
        };
        Self { values: &self.values[at.min(self.values.len())..], ..*self }
    }
}

fn assert_inside(values: usize, (rows, columns): (usize, usize), stride: usize) {
    let inside = rows == 0 || columns == 0 || (stride >= columns && (rows - 1) * stride + columns <= values);
    assert!(inside, "{rows} rows of {columns} values, {stride} apart, lie inside of {values}");
}

/// First term and number of terms of each block of a sum of `inner` terms: as few blocks of at most [`TERMS`] as can be, of equal
/// length but the last; one block of none where there are no terms.
fn blocks_of_terms(inner: usize) -> impl Iterator<Item = (usize, usize)> {
    let length = inner.div_ceil(inner.div_ceil(TERMS).max(1)).max(1);
    (0..inner.max(1)).step_by(length).map(move |from| (from, length.min(inner - from)))
}

/// What comes after the sums of some rows of C are complete and still in cache: called with the first row's number, the rows, and
/// as many rows of the matrix beside C.
pub(crate) type Finish<'a> = &'a (dyn Fn(usize, &mut [f32], &mut [f32]) + Sync);

/// Strips of C of `size` values, each with as much of what lies beside it.
fn strips<'a>(size: usize, c: &'a mut [f32], beside: &'a mut [f32]) -> Vec<(&'a mut [f32], &'a mut [f32])> {
    let besides = beside.chunks_mut(size).chain(std::iter::repeat_with(<&mut [f32]>::default));
    c.chunks_mut(size).zip(besides).collect()
}

/// `C = A B` on the compute threads, each row then finished; `beside` is as large as C, or empty.
///
/// # Panics
/// Where a value would lie outside of its slice.
pub(crate) fn product(
    isa: Isa,
    sizes: Sizes,
    (a, b): (Strided<'_>, Strided<'_>),
    (c, beside): (&mut [f32], &mut [f32]),
    finish: Finish<'_>,
) {
    let Sizes { rows, inner, columns, .. } = sizes;
    a.assert_holds(rows, inner);
    b.assert_holds(inner, columns);
    assert_eq!(c.len(), rows * columns, "the product is rows x columns");
    assert!(beside.is_empty() || beside.len() == c.len(), "what lies beside the product is as large");
    if c.is_empty() {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(kernels) = tile::Kernels::of(isa) {
        return blocked::product(kernels, sizes, (a, b), (c, beside), finish);
    }
    portable::product(isa, sizes, (a, b), (c, beside), finish);
}

/// `C = A B` on the calling thread, of operands that fit the caches; the rows of C lie `c_stride` apart, and what lies between them
/// is not touched.
///
/// # Panics
/// Where a value would lie outside of its slice.
pub(crate) fn small(
    isa: Isa,
    (rows, inner, columns): (usize, usize, usize),
    (a, b): (Strided<'_>, Strided<'_>),
    (c, c_stride): (&mut [f32], usize),
) {
    a.assert_holds(rows, inner);
    b.assert_holds(inner, columns);
    assert_inside(c.len(), (rows, columns), c_stride);
    if rows == 0 || columns == 0 {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(kernels) = tile::Kernels::of(isa) {
        return blocked::small(kernels, (rows, inner, columns), (a, b), (c, c_stride));
    }
    portable::small(isa, (rows, inner, columns), (a, b), (c, c_stride));
}

/// `C = A B` of each of `batch` pairs, on the compute threads.
///
/// # Panics
/// Where a slice has another length than the sizes say.
pub fn batched(sizes: Sizes, (a, a_side): (&[f32], Side), (b, b_side): (&[f32], Side), c: &mut [f32]) {
    batched_by(Isa::active(), sizes, (a, a_side), (b, b_side), c);
}

fn batched_by(isa: Isa, sizes: Sizes, (a, a_side): (&[f32], Side), (b, b_side): (&[f32], Side), c: &mut [f32]) {
    let Sizes { batch, rows, inner, columns } = sizes;
    assert_eq!(a.len(), batch * rows * inner, "the left operands are batch x rows x inner");
    assert_eq!(b.len(), batch * inner * columns, "the right operands are batch x inner x columns");
    assert_eq!(c.len(), batch * rows * columns, "the products are batch x rows x columns");
    let pair = |k: usize| {
        let (a, b) = (&a[k * rows * inner..][..rows * inner], &b[k * inner * columns..][..inner * columns]);
        (Strided::whole(a, a_side, (rows, inner)), Strided::whole(b, b_side, (inner, columns)))
    };
    if batch == 1 {
        product(isa, sizes, pair(0), (c, &mut []), &|_, _, _| {});
    } else {
        for_chunks(c, rows * columns, |k, c| small(isa, (rows, inner, columns), pair(k), (c, columns)));
    }
}

#[cfg(test)]
pub(crate) mod tests;
